"""Looks into open windows, through stage 2 itself: quiet days of daily windows with any alert, and how soon a severe break is told.

Stage 2 reads the partials that stage 1 would send of each half hour, and the watermarks behind them; what it publishes counts. Quiet days
are those of the whole decision: looks and closes together must keep to the budget.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from benchmarks.decisions.models import NAMES, batch, layout
from benchmarks.decisions.quiet import interval
from benchmarks.decisions.streams import SPECS, Array, Drift, Mode, Stream
from monitor.columns import Int
from monitor.pipeline import Pipeline
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference, References
from monitor.reference_build.windows import WindowCounts
from monitor.stages import partials
from monitor.stages.settings import ModelSettings, Settings
from monitor.windows import EARLY_ABOVE_MS, WindowSpec

DAY_MS = 86_400_000
MODEL = ModelSettings((WindowSpec(DAY_MS, DAY_MS),), early_above_ms=EARLY_ABOVE_MS)
PANES = DAY_MS // MODEL.pane_ms
REFERENCE_DAYS = 40
DAYS_PER_REFERENCE = 20
BREAK = Drift("shift", 10.0)
ONSETS = (0.0, 0.95)
"""Share of the day after which the break begins, evenly."""


class Looked(NamedTuple):
    """A run: days of n rows of each of 50 features in daily windows."""

    mode: Mode
    n: int
    days: int


def panes_of(stream: Stream, n: int, drift: tuple[float, int] | None = None, first: int = 0) -> list[list[Array]]:
    """Return the columns of a day's panes from `first` on. drift: (share of the day at which it begins, position of the feature)."""
    made = []
    for pane in range(first, PANES):
        stream.hour = pane * 24 // PANES
        rows = n // PANES
        quiet = rows if drift is None else min(max(round((drift[0] * PANES - pane) * rows), 0), rows)
        columns = stream.window(quiet)
        if quiet < rows and drift is not None:
            broken = stream.window(rows - quiet, BREAK, frozenset([drift[1]]))
            columns = [np.concatenate(pair) for pair in zip(columns, broken, strict=True)]
        made.append(columns)
    return made


def reference_of(stream: Stream, n: int) -> Reference:
    """Build a reference of quiet days, calibrated by them."""
    parts = [pane for _ in range(REFERENCE_DAYS) for pane in panes_of(stream, n)]
    columns = [np.concatenate(each) for each in zip(*parts, strict=True)]
    rows, profile = batch(columns), Profile(layout(columns))
    profile.update(rows)
    scatter = WindowCounts(profile, DAY_MS)
    times: Int = np.repeat(np.arange(len(parts), dtype=np.int64) * MODEL.pane_ms, n // PANES)
    scatter.add(rows, times)
    calibration, _ = scatter.calibration()
    return Reference.build("m", "1", profile, calibration=calibration)


@dataclass
class Live:
    """Stage 2 of one model. rows: of its store, to go on from. looks: how many published what they saw."""

    reference: Reference
    rows: dict[bytes, bytes] = field(default_factory=dict)
    at: int = 0
    looks: int = 0

    def __post_init__(self) -> None:
        references = References()
        references.add(self.reference)
        settings = Settings("m", {"m": MODEL}, MODEL, {}, partials_partitions=1, retire_after_ms=0)
        self._stage = Pipeline(settings, {}, references=references).merge(0, topology={"s": 1}, rows=self.rows.items())
        if self._stage.next_offset < 0:
            self._stage.skip_to(0)

    def pane(self, columns: list[Array]) -> list[dict[str, Any]]:
        """Take the next half hour; return the alerts that it leads to."""
        profile, pane_ms, grace_ms = Profile(self.reference.layout), MODEL.pane_ms, MODEL.grace_ms
        profile.update(batch(columns))
        start_ms, n = self.at * pane_ms, len(columns[0])
        partial = partials.Partial(
            "s", 0, 1, self.at, "m", "1", start_ms, pane_ms, self.at, self.at, start_ms, n, 0, self.reference.sha256, "", 0, 1,
            profile.to_bytes(),
        )  # fmt: skip
        mark = partials.Watermark("s", 0, 1, self.at, {grace_ms: start_ms + pane_ms}, idle=False, partitions=1)
        records = [StoredRecord(2 * self.at + i, 0, partials.encode(one), b"") for i, one in enumerate((partial, mark))]
        self.at += 1
        self._stage.feed(records, self.at)
        checkpoint = self._stage.checkpoint()
        assert checkpoint is not None
        for key, value in (*checkpoint.rows, checkpoint.meta):
            self.rows.update({key: value}) if value is not None else self.rows.pop(key, None)
        self._stage.committed(checkpoint)
        box = self._stage.outbox(self.at)
        if box:
            self._stage.emitted(box, self.at)
        self.looks += sum(b"|look|" in (one.key or b"") for one in box.first)
        return [orjson.loads(one.value)["data"] for one in box.first if one.topic == "m.alerts" and one.value]


def sections(
    quick: bool, seconds: float = math.inf
) -> dict[str, Callable[[np.random.Generator, dict[str, Path]], dict[str, Any]]]:
    """Return what is measured, by name; see `benchmarks.decisions.__main__.sections`."""

    def days(of: Looked) -> Callable[[np.random.Generator, dict[str, Path]], dict[str, Any]]:
        wanted = of._replace(days=1) if quick else of
        return lambda dice, _: quiet(wanted, dice, time.process_time() + seconds)

    runs = (Looked("iid", 4_800, 400), Looked("clustered", 4_800, 100), Looked("daily", 4_800, 100))
    return {f"early {of.mode}, n={of.n}": days(of) for of in runs} | {
        f"early 10 σ, n={n}": lambda dice, _, n=n: power(n, 2 if quick else 100, dice) for n in (2_400, 4_800)
    }


def added(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of two runs of quiet days as those of one."""
    names = ("days", "days_with_alarm", "days_with_early_alarm", "looks_published")
    counts = Counter({name: old[name] + new[name] for name in names})
    return _figures(new["mode"], new["n"], counts, Counter(old["alerts"]) + Counter(new["alerts"]))


def quiet(looked: Looked, dice: np.random.Generator, stop_at: float = math.inf) -> dict[str, Any]:
    """Return the share of quiet days with an alert that fires; of fewer days where `process_time` reaches `stop_at`."""
    counts, by_check = Counter[str](), Counter[str]()
    while counts["days"] < looked.days and (not counts["days"] or time.process_time() < stop_at):
        stream = Stream(dice, looked.mode)
        live = Live(reference_of(stream, looked.n))
        for _ in range(min(DAYS_PER_REFERENCE, looked.days - counts["days"])):
            fired = [a for columns in panes_of(stream, looked.n) for a in live.pane(columns) if a["status"] == "firing"]
            by_check.update(f"{'early ' if a.get('early') else ''}{a['check']} {a['severity']}" for a in fired)
            is_early = any(a.get("early") for a in fired)
            counts.update(days=1, days_with_alarm=int(bool(fired)), days_with_early_alarm=int(is_early))
        counts.update(looks_published=live.looks)
    return _figures(looked.mode, looked.n, counts, by_check)


def _figures(mode: Mode, n: int, counts: Counter[str], alerts: Counter[str]) -> dict[str, Any]:
    days, alarms = counts["days"], counts["days_with_alarm"]
    return {
        "kind": "early-quiet", "mode": mode, "n": n, "days": days, "days_with_alarm": alarms,
        "days_with_early_alarm": counts["days_with_early_alarm"], "share": alarms / days, "interval": list(interval(alarms, days)),
        "looks_published": counts["looks_published"],
        "alerts": dict(alerts),
    }  # fmt: skip


def power(n: int, trials: int, dice: np.random.Generator) -> dict[str, Any]:
    """Return after which share of the window a shift of one number by 10 σ is told, from its beginning to the watermark that tells it.

    It begins at any time of a day, after a quiet one; what is told by the close, or never, counts as the rest of the window.
    """
    stream = Stream(dice)
    live = Live(reference_of(stream, n))
    for columns in panes_of(stream, n):
        live.pane(columns)
    numbers = [i for i, spec in enumerate(SPECS) if not spec.n_values]
    shares, early, pages = [], 0, 0
    for _ in range(trials):
        onset, feature = float(dice.uniform(*ONSETS)), int(dice.choice(numbers))
        trial = Live(live.reference, dict(live.rows), live.at)
        told: float | None = None
        for pane, columns in enumerate(panes_of(stream, n, (onset, feature))):
            fired = [a for a in trial.pane(columns) if a["status"] == "firing"]
            mine = [a for a in fired if a["feature"] == NAMES[feature]]
            pages += len(fired)
            if mine and told is None:
                told = (pane + 1) / PANES + MODEL.grace_ms / DAY_MS - onset
                early += bool(mine[0].get("early"))
        shares.append(1 - onset if told is None else told)
    return {
        "kind": "early-power", "n": n, "trials": trials, "told_early": early / trials, "median": float(np.median(shares)),
        "p95": float(np.quantile(shares, 0.95, method="inverted_cdf")), "worst": max(shares),
        "within_5_percent": float(np.mean(np.array(shares) < 0.05)), "alerts_per_break": pages / trials,
    }  # fmt: skip
