"""Flights of 2013, day by day: which alarms are raised of an untouched year, why, and how many other rules raise.

`python -m benchmarks.flights` builds the reference from January to March, replays April to December through the pipeline, and puts each
alarm above notice beside what happened on its day. Stable features are those that weather should not move.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from benchmarks.decisions import peers
from monitor.bootstrap import build_pipeline
from monitor.columns import Float, Int
from monitor.config.file import load_config
from monitor.decision.effects import PSI_RULE
from monitor.demo import flights as data
from monitor.demo.flights import DAY_MS, REFERENCE_END_MS, Flights
from monitor.ports import StoredRecord
from monitor.replay import Replay

TOPIC = "predictions"
CONFIG = f"""\
app: flights
kafka: {{bootstrap_servers: "none:9092"}}
sources: [{{topic: {TOPIC}, clock: event}}]
models:
  {data.MODEL}: {{windows: [{{size: 1d}}], grace: 2h}}
"""
STABLE = ("origin", "carrier", "distance", "hour")
COLUMNS = (*STABLE, "dep_delay", "@score", "@prediction")
DISRUPTED = 0.25
"""A day on which so many of the flights were cancelled, or left more than an hour late, had bad weather."""
EVENING = 1_600
"""New York's time of day."""
SPECIAL = {
    "2013-07-04": "Independence Day",
    "2013-11-03": "clock change",
    "2013-11-28": "Thanksgiving",
    "2013-12-25": "Christmas",
    "2014-01-01": "partial last day",
}
MM_PER_INCH, KM_PER_MILE = 25.4, 1.609344
OURS = "monitor, above notice"

Said = dict[str, Any]


class Day(NamedTuple):
    """What happened in a window. rain_mm, visibility_km: mean of the three airports, and the least of them; nan where not measured."""

    scheduled: int
    cancelled: int
    over_an_hour_late: int
    evening_away: float
    """Share of the flights due from `EVENING` on that left after the window's end or never: then its hours are others."""
    rain_mm: float
    visibility_km: float

    @property
    def disrupted(self) -> float:
        """Return the share of flights that were cancelled or left more than an hour late."""
        return (self.cancelled + self.over_an_hour_late) / max(self.scheduled, 1)


def day_of(start_ms: int) -> str:
    """Return the UTC day of a window."""
    return datetime.fromtimestamp(start_ms / 1000, UTC).date().isoformat()


def days(archive: Path) -> dict[str, Day]:
    """Return what happened by UTC day: New York's evening belongs to the next one."""
    table, weather = data.read(archive, "flights"), data.read(archive, "weather")
    due = np.asarray(table["sched_dep_time"].to_numpy(), np.int64)
    due_ms = data.utc_ms(table, due.tolist())
    at, delay = due_ms // DAY_MS * DAY_MS, np.asarray(table["dep_delay"].to_numpy(), np.float64)
    is_away = np.isnan(delay) | (due_ms + np.nan_to_num(delay) * 60_000 >= at + DAY_MS)
    hours = data.utc_ms(weather, [100 * hour for hour in weather["hour"].to_pylist()]) // DAY_MS * DAY_MS
    rain, visibility = (np.asarray(weather[name].to_numpy(), np.float64) for name in ("precip", "visib"))
    found = {}
    for start in np.unique(at).tolist():
        own, measured = delay[at == start], hours == start
        found[day_of(start)] = Day(
            scheduled=len(own),
            cancelled=int(np.isnan(own).sum()),
            over_an_hour_late=int((own > 60).sum()),
            evening_away=float(is_away[(at == start) & (due >= EVENING)].mean()),
            rain_mm=float(np.nansum(rain[measured])) / 3 * MM_PER_INCH if measured.any() else float("nan"),
            visibility_km=float(np.nanmin(visibility[measured])) * KM_PER_MILE if measured.any() else float("nan"),
        )
    return found


def replayed(flights: Flights) -> tuple[list[Said], list[Said]]:
    """Return results and alerts of the untouched year, by window, as a worker with the default rules publishes them."""
    first = int((flights.time_ms < REFERENCE_END_MS).sum())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reference = data.reference(flights, first, folder)
        (folder / "monitor.yaml").write_text(CONFIG)
        pipeline = build_pipeline(load_config(folder / "monitor.yaml", {}), [reference], None)
    year = data.events(flights, first, len(flights.time_ms), is_faulty=False)
    records = [(0, StoredRecord(i, 0, orjson.dumps(event), None)) for i, (_, event) in enumerate(year)]
    formats = pipeline.formats
    engine = Replay(
        pipeline.settings,
        TOPIC,
        wire=formats[TOPIC],
        judge=pipeline.judge,
        look=pipeline.look,
        references=[reference],
        future_guard=False,
    )
    outcome = engine.run(records, end_of_input=True)
    assert outcome.counted == len(records)
    results = [result for _, value in outcome.results if "type" not in (result := orjson.loads(value))]
    return sorted(results, key=lambda one: one["window"]["start_ms"]), [
        orjson.loads(value)["data"] for _, value in outcome.alerts
    ]


def measure(pythons: dict[str, Path], archive: Path) -> dict[str, Any]:
    """Return the figures: alarms of ours with what happened on their days, and how often each rule speaks."""
    flights = data.load(archive)
    data.train(flights)
    results, alerts = replayed(flights)
    happened = days(archive)
    starts = [one["window"]["start_ms"] for one in results]
    flags = {
        OURS: {(f["feature"], day_of(start)) for start, one in zip(starts, results, strict=True) for f in _severe(one)},
        "PSI > 0.2": {(name, day_of(start)) for start, one in zip(starts, results, strict=True) for name in _over(one)},
    }
    for rule, found in peers.daily_flags(pythons, *_columns(flights, starts)).items():
        flags[rule] = {
            (name, day_of(start))
            for name, hits in zip(COLUMNS, found, strict=True)
            for start, hit in zip(starts, hits, strict=True)
            if hit
        }
    psi = [one["features"]["dep_delay"]["distances"]["psi"] for one in results]
    fired = [one for one in alerts if one["status"] == "firing"]
    return {
        "reference": {"flights": int((flights.time_ms < REFERENCE_END_MS).sum()), "days": 90},
        "year": {"flights": sum(one["n"] for one in results), "days": len(results)},
        "psi_of_dep_delay": {"median": round(statistics.median(psi), 4), "largest": [round(one, 4) for one in sorted(psi)[-5:]]},
        "bad_weather_days": sum(happened[day_of(start)].disrupted >= DISRUPTED for start in starts if day_of(start) in happened),
        "alarms": [_alarm(one, happened) for one in fired if one["severity"] != "notice"],
        "notices": [_notice(one, alerts) for one in fired if one["severity"] == "notice"],
        "special_days": [_special(day, results[starts.index(_ms(day))], flags) for day in SPECIAL],
        "rules": {
            rule: {
                "days": len({day for _, day in hits}),
                "feature_days": len(hits),
                "stable": {name: n for name in STABLE if (n := sum(of == name for of, _ in hits))},
            }
            for rule, hits in flags.items()
        },
    }


def _ms(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1000


def _severe(result: Said) -> list[Said]:
    return [f for f in result["findings"] if f["verdict"] == "breach" and f["severity"] != "notice"]


def _over(result: Said) -> list[str]:
    return [name for name in COLUMNS if result["features"][name]["distances"].get("psi", 0.0) > PSI_RULE]


def _alarm(alert: Said, happened: dict[str, Day]) -> Said:
    day = day_of(alert["window"]["start_ms"])
    known = happened[day]
    reasons = [SPECIAL[day]] if day in SPECIAL else []
    if known.disrupted >= DISRUPTED:
        reasons.append("bad weather")
    members = [
        {"feature": one["feature"], "check": one["check"], "severity": one["severity"], "effect": round(one["value"], 3)}
        for one in alert["members"]
        if one["is_open"]
    ]
    facts = {name: round(value, 2) for name, value in known._asdict().items()}
    facts["evening_rank"] = sum(one.evening_away >= known.evening_away for one in happened.values())
    return {"day": day, "severity": alert["severity"], "n": alert["n"], "members": members, "happened": facts, "causes": reasons}


def _notice(alert: Said, alerts: Sequence[Said]) -> Said:
    ended = [one["window"]["start_ms"] for one in alerts if one["incident_id"] == alert["incident_id"] and one is not alert]
    until = day_of(max(ended)) if ended else None
    of = {"feature": alert["feature"], "check": alert["check"], "effect": round(alert["value"], 3)}
    return {"day": day_of(alert["window"]["start_ms"]), **of, "until": until}


def _special(day: str, result: Said, flags: dict[str, set[tuple[str, str]]]) -> Said:
    return {
        "day": day,
        "what": SPECIAL[day],
        "n": result["n"],
        "is_judged": "drift.distribution" not in result["insufficient"],
        "rules": {rule: sorted(name for name, at in hits if at == day) for rule, hits in flags.items()},
    }


def _columns(flights: Flights, starts: Sequence[int]) -> tuple[list[Float | Int], list[Float | Int], Int, Int]:
    """Return the columns of reference and year in the order of `COLUMNS`, categories as codes, and the rows of each day of both."""
    columns: list[Float | Int] = [
        *(np.unique(values, return_inverse=True)[1].astype(np.int64) for values in (flights.origin, flights.carrier)),
        flights.distance,
        flights.hour.astype(np.float64),
        flights.dep_delay,
        flights.score,
        (flights.score > 0.5).astype(np.int64),
    ]
    day = flights.time_ms // DAY_MS
    first = int((flights.time_ms < REFERENCE_END_MS).sum())
    before, after = np.unique(day[:first], return_counts=True), np.unique(day[first:], return_counts=True)
    assert (after[0] * DAY_MS).tolist() == list(starts)
    return [one[:first] for one in columns], [one[first:] for one in columns], before[1], after[1]


def table(figures: dict[str, Any]) -> str:
    """Return the figures in Markdown: how often rules speak, each alarm with its cause, special days, notices."""
    year, reference = figures["year"], figures["reference"]
    lines = [
        f"{year['days']} days, {year['flights']:,} flights, seven columns: {year['days'] * len(COLUMNS):,} column-days; the reference: "
        f"{reference['days']} days, {reference['flights']:,} flights.",
        "",
        "| rule | days with an alarm | column-days | of stable features |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {rule} | {f['days']} | {f['feature_days']} | {_stable(f['stable'])} |" for rule, f in figures["rules"].items()]
    lines += ["", "| alarm above notice | severity | what moved: effect | what happened |", "| --- | --- | --- | --- |"]
    lines += [_alarm_row(one) for one in figures["alarms"]]
    psi, largest = figures["psi_of_dep_delay"], ", ".join(f"{one:.2f}" for one in figures["psi_of_dep_delay"]["largest"])
    lines += [
        "",
        f"psi of the departure delay is {psi['median']:.2f} on the median day; its largest values are {largest}. On "
        f"{figures['bad_weather_days']} days a quarter of the flights were cancelled or left more than an hour late.",
        "",
        f"| special day | flights | {' | '.join(figures['rules'])} |",
        f"| --- | --- |{' --- |' * len(figures['rules'])}",
    ]
    lines += [_special_row(one) for one in figures["special_days"]]
    notices = [
        f"{one['feature']} {one['effect']:.3f} ({one['day']} to {one['until'] or 'the end'})" for one in figures["notices"]
    ]
    lines += ["", f"Notices ({len(notices)}), psi and from when to when: {', '.join(notices)}."]
    return "\n".join(lines) + "\n"


def _stable(found: dict[str, int]) -> str:
    return f"{sum(found.values())}: {', '.join(f'{name} {n}' for name, n in found.items())}" if found else "0"


def _alarm_row(one: Said) -> str:
    happened = one["happened"]
    moved = ", ".join(f"{member['feature']} {member['effect']:.2f}" for member in one["members"])
    what = (
        f"{', '.join(one['causes'])}: of {happened['scheduled']} flights {happened['cancelled']} cancelled, "
        f"{happened['over_an_hour_late']} over an hour late, {happened['evening_away']:.0%} of the evening's gone after the day's end or "
        f"never (rank {happened['evening_rank']} in the year); {happened['rain_mm']:.0f} mm of rain, "
        f"visibility down to {happened['visibility_km']:.1f} km"
    )
    return f"| {one['day']} | {one['severity']} | {moved} | {what} |"


def _special_row(one: Said) -> str:
    said = [", ".join(names) or "–" for names in one["rules"].values()]
    if not one["is_judged"]:
        said[0] = "not enough data"
    return f"| {one['day']}, {one['what']} | {one['n']} | {' | '.join(said)} |"


def main() -> None:
    """Measure, write the figures, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flights", description=__doc__)
    parser.add_argument("--alone", action="store_true", help="no other tools")
    parser.add_argument("--out", type=Path, default=Path(".cache/flights.json"), help="where the figures are kept")
    options = parser.parse_args()
    archive = data.download(Path(".cache") / "demo")
    figures = measure({} if options.alone else peers.install(), archive)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1) + "\n")
    sys.stdout.write(table(figures))


if __name__ == "__main__":
    main()
