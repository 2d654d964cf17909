"""Alarms inside an open window: told once, in the incident of the close, or taken back by it; the same live and in a replay."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import orjson
import pytest

from monitor.backtest import Backtest, backtest, read_looks, read_results
from monitor.bootstrap import build_pipeline, build_policies, build_settings
from monitor.cli.kafka import line
from monitor.columns import ColumnBatch, Float
from monitor.config.settings import Config
from monitor.decision.early import SHOWN
from monitor.false_alarms import expected_alarms, measure
from monitor.layout import layout_of
from monitor.policy import Policies
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.replay import Replay, ReplayOutcome
from monitor.rules import FalseAlarms
from monitor.windows import WindowSpec, duration_text
from tests.shapes import number_feature_of

HOUR = 3_600_000
DAY = 24 * HOUR
PANE = DAY // 48
START = 1_735_689_600_000
assert START % DAY == 0
ROWS = 4_800
"""A day."""


def config(rules: Mapping[str, object] | None = None, **model: object) -> Config:
    content = {"windows": [{"size": "24h"}], "grace": "10m", "learning": {"enabled": False}} | model
    return Config.model_validate({"models": {"m": content}, "rules": rules or {}})


@cache
def reference() -> Reference:
    x = np.random.default_rng(1).normal(size=(2, 20_000))
    profile = Profile(layout_of([number_feature_of("x", x[0]), number_feature_of("y", x[1])]))
    profile.update(ColumnBatch(x.shape[1], x, None, []))
    return Reference.build("m", "1", profile)


def day_of(day: int, seed: int = 0) -> tuple[Float, Float]:
    """Return times (n,) and quiet values (2, n) of a day."""
    dice = np.random.default_rng([seed, day])
    return START + day * DAY + (np.arange(ROWS) + 0.5) * (DAY / ROWS), dice.normal(size=(2, ROWS))


def broken(from_ms: float, to_ms: float, days: int = 3, by: float = 10.0) -> list[tuple[int, StoredRecord]]:
    """Return records of some days; x is moved within a time since the start."""
    made: list[tuple[int, StoredRecord]] = []
    for day in range(days):
        times, values = day_of(day)
        values[0, (times >= START + from_ms) & (times < START + to_ms)] += by
        made += records_of(times, values, len(made))
    return made


def records_of(times: Float, values: Float, first: int) -> Iterator[tuple[int, StoredRecord]]:
    """Yield events, one for either of two partitions after the other; first: how many came before."""
    for i, (t, x, y) in enumerate(zip(times.tolist(), *values.tolist(), strict=True), first):
        body = orjson.dumps({"model": "m", "time": int(t), "features": {"x": x, "y": y}})
        yield i % 2, StoredRecord(i // 2, int(t) + 1_000, body)


def replay(records: list[tuple[int, StoredRecord]], settings: Config | None = None) -> ReplayOutcome:
    pipeline = build_pipeline(settings or config(), [reference()])
    engine = Replay(
        pipeline.settings,
        "predictions",
        wire=pipeline.formats["predictions"],
        judge=pipeline.judge,
        look=pipeline.look,
        references=[reference()],
    )
    return engine.run(records)


def looks(outcome: ReplayOutcome) -> list[dict[str, Any]]:
    """Return what was published of looks."""
    return [record for _, value in outcome.results if (record := orjson.loads(value)).get("type") == "look"]


def closes(outcome: ReplayOutcome) -> list[dict[str, Any]]:
    """Return the results of closed windows."""
    return [record for _, value in outcome.results if "type" not in (record := orjson.loads(value))]


def data(outcome: ReplayOutcome) -> list[dict[str, Any]]:
    return [json.loads(value)["data"] for _, value in outcome.alerts]


def told(outcome: ReplayOutcome) -> list[tuple[str, bool, int]]:
    """Return status, whether early, and day of each alert."""
    return [(a["status"], a.get("early", False), (a["window"]["start_ms"] - START) // DAY) for a in data(outcome)]


@pytest.mark.parametrize("hour", [0.0, 5.2, 12.4, 20.1])
def test_a_severe_break_is_told_in_less_than_a_twentieth_of_the_window(hour: float) -> None:
    first = data(replay(broken(DAY + hour * HOUR, 3 * DAY)))[0]
    assert first["early"] is True
    assert (first["severity"], first["feature"], first["segment"]) == ("critical", "x", "all")
    assert first["window"]["start_ms"] == START + DAY
    assert first["look"]["upto_ms"] - (START + DAY + hour * HOUR) < DAY / 20
    assert first["look"]["elapsed"] == pytest.approx((first["look"]["upto_ms"] - START - DAY) / DAY)
    assert 0 < first["look"]["recent_rows"] <= first["look"]["rows"]


def test_the_close_confirms_it_without_another_page_and_the_next_quiet_days_resolve_it() -> None:
    outcome = replay(broken(DAY + 5 * HOUR, 2 * DAY, days=5))
    early, resolved = data(outcome)
    assert told(outcome) == [("firing", True, 1), ("resolved", False, 2)]
    assert resolved["incident_id"] == early["incident_id"] == json.loads(outcome.alerts[0][1])["id"]
    day = next(one for one in closes(outcome) if one["window"]["start_ms"] == START + DAY)
    assert {f["incident_id"] for f in day["findings"]} == {early["incident_id"]}


def test_what_the_close_does_not_find_is_taken_back() -> None:
    rules = {check: {"above": 0.5} for check in ("drift.tails", "health.out_of_range", "drift.distribution")}
    outcome = replay(broken(DAY + 5 * HOUR, DAY + 7 * HOUR), config(rules))
    assert told(outcome) == [("firing", True, 1), ("resolved", False, 1)]
    early, close = data(outcome)
    assert close["incident_id"] == early["incident_id"]
    assert close["supersedes"] == json.loads(outcome.alerts[0][1])["id"]
    assert close["evidence"]["reason"] == "taken back by the close of the window"


def test_quiet_days_and_small_breaks_tell_nothing_early() -> None:
    assert data(replay(broken(0, 0, days=6))) == []
    outcome = replay(broken(DAY, 2 * DAY, by=0.5))
    assert [early for _, early, _ in told(outcome)] == [False] * len(told(outcome))
    assert told(outcome)


def test_without_early_alarms_the_close_tells() -> None:
    outcome = replay(broken(DAY + 5 * HOUR, 2 * DAY), config(early=False))
    assert told(outcome)[0] == ("firing", False, 1)
    with_looks = replay(broken(DAY + 5 * HOUR, 2 * DAY))
    assert looks(outcome) == []
    assert [_without_ids(one) for one in closes(outcome)] == [_without_ids(one) for one in closes(with_looks)]


def _without_ids(record: dict[str, Any]) -> Mapping[str, Any]:
    for finding in record["findings"]:
        del finding["incident_id"]
    record.pop("early", None)
    return record


def test_an_incident_that_is_open_already_is_not_told_again() -> None:
    outcome = replay(broken(6 * HOUR, 5 * DAY, days=5))
    assert told(outcome) == [("firing", True, 0)]


def test_batches_and_the_order_of_partitions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    records = broken(DAY + 5 * HOUR, 2 * DAY)
    whole = replay(records)
    monkeypatch.setattr("monitor.replay.BATCH_ROWS", 37)
    assert replay(records).alerts == whole.alerts


def test_late_rows_restate_a_window_that_was_told_of_early() -> None:
    records = list(_with_late(broken(DAY + 5 * HOUR, 2 * DAY, days=5)))
    outcome = replay(records, config(late="revise", revise_for="48h"))
    assert outcome.revised
    assert told(outcome) == [("firing", True, 1), ("firing", False, 1), ("resolved", False, 2)]
    early, restated, resolved = data(outcome)
    assert restated["supersedes"] == early["incident_id"] == restated["incident_id"] == resolved["incident_id"]


def _with_late(records: list[tuple[int, StoredRecord]]) -> Iterator[tuple[int, StoredRecord]]:
    """Put rows of the second day behind those of the third."""
    offsets = [0, 0]
    waiting = records[ROWS + 10 : ROWS + 30]
    for i, (partition, record) in enumerate(records):
        for one in [] if ROWS + 10 <= i < ROWS + 30 else [(partition, record), *(waiting if i == 2 * ROWS + 3_000 else ())]:
            yield one[0], StoredRecord(offsets[one[0]], one[1].timestamp, one[1].value)
            offsets[one[0]] += 1


def backtested(outcome: ReplayOutcome, policies: Policies) -> Backtest:
    values = [value for _, value in outcome.results]
    return backtest(read_results(values), policies, read_looks(values))


def told_by(found: Backtest | ReplayOutcome) -> list[dict[str, Any]]:
    """Return alerts without what results do not keep, by the window that they are of."""
    values = [msgspec.json.encode(one) for one in found.alerts] if isinstance(found, Backtest) else [v for _, v in found.alerts]
    alerts = [orjson.loads(value) for value in values]
    for alert in alerts:
        del alert["data"]["why"], alert["data"]["evidence"]
    return sorted(alerts, key=lambda alert: (alert["time"], "look" not in alert["data"], alert["id"]))


LOUD = {"drift.tails": {"above": 0.002, "levels": {"warning": 0.05, "critical": 0.9}}, "drift.distribution": {"above": 3.0}}
DEAF = {check: {"above": 0.5} for check in ("drift.tails", "health.out_of_range", "drift.distribution")}
WORSE = [(0, 6, 12, 0.1), (0, 12, 24, 1.0), (1, 26, 28, 0.5)]
"""Feature, hours from and to, share of the rows."""


@cache
def getting_worse() -> list[tuple[int, StoredRecord]]:
    """Return days of which x moves on the second, first a tenth of it, and y for two hours of the third."""
    dice = np.random.default_rng(8)
    made: list[tuple[int, StoredRecord]] = []
    for day in range(5):
        times, values = day_of(day, seed=3)
        for feature, from_h, to_h, share in WORSE:
            within = (times >= START + DAY + from_h * HOUR) & (times < START + DAY + to_h * HOUR)
            values[feature, within & (dice.random(ROWS) < share)] += 10
        made += records_of(times, values, len(made))
    return made


@pytest.mark.parametrize(("rules", "n_early"), [({}, 3), (LOUD, 3), (DEAF, 2)], ids=["default", "louder", "taken back"])
def test_a_backtest_with_the_rules_in_force_tells_exactly_what_was_told(rules: Mapping[str, object], n_early: int) -> None:
    """Whatever looks told included: again when it got worse, in one incident with the close, or taken back by it."""
    live = replay(getting_worse(), config(rules))
    found = backtested(live, build_policies(config(rules)))
    assert sum(one["data"].get("early", False) for one in told_by(live)) == n_early
    assert told_by(found) == told_by(live)
    assert (found.changed, found.hidden) == (0, 0)


@pytest.mark.parametrize("of", [{}, LOUD, DEAF], ids=["default", "louder", "deaf"])
def test_a_backtest_with_other_rules_tells_early_what_they_would_have_told(of: Mapping[str, object]) -> None:
    """Looks publish what any of these rules could believe, whether or not the rules in force told it."""
    live = replay(getting_worse(), config(of))
    for other in ({}, LOUD, DEAF):
        wanted = [alert["id"] for alert in told_by(replay(getting_worse(), config(other))) if alert["data"].get("early")]
        found = backtested(live, build_policies(config(other)))
        assert [alert["id"] for alert in told_by(found) if alert["data"].get("early")] == wanted
        assert found.hidden == 0


def test_a_backtest_of_an_open_window_tells_what_looks_into_it_told() -> None:
    live = replay(broken(DAY + 5 * HOUR, 3 * DAY, days=2))
    assert told(live) == [("firing", True, 1)]
    assert told_by(backtested(live, build_policies(config()))) == told_by(live)


def test_a_backtest_says_where_looks_need_not_have_published_what_a_budget_believes() -> None:
    live = replay(broken(DAY + 5 * HOUR, 2 * DAY, days=4))
    rules = build_policies(config()).default
    wide = backtested(live, Policies(replace(rules, false_alarms=FalseAlarms(1.0, DAY))))
    assert wide.hidden == wide.windows == 3
    assert backtested(live, Policies(replace(rules, false_alarms=FalseAlarms(1.0, 10 * DAY)))).hidden == 0


def test_results_of_a_version_that_published_no_looks_tell_what_the_closes_told() -> None:
    live = replay(broken(DAY + 5 * HOUR, 2 * DAY, days=4))
    found = backtest(read_results(value for _, value in live.results), build_policies(config()))
    assert [one.data.status for one in found.alerts] == ["resolved"]
    assert found.alerts[0].data.incident_id == json.loads(live.alerts[0][1])["id"]


def test_quiet_days_publish_next_to_nothing_of_their_looks() -> None:
    assert len(looks(replay(broken(0, 0, days=6)))) <= 3


def test_a_look_publishes_what_chance_hardly_explains_and_a_schema_describes_it() -> None:
    first = looks(replay(broken(DAY + 5 * HOUR, 2 * DAY)))[0]
    assert first["unlikely"]["all"]["drift.tails"]["features"] == first["measurements"]["all"]["drift.tails"]["features"] == ["x"]
    assert max(p for of in first["unlikely"]["all"].values() for p in of["p_value"]) <= first["shown_p"] == SHOWN
    assert 0 < first["recent_n"] <= first["n"]
    schema = json.loads((Path(__file__).parents[2] / "schemas" / "look.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(first)
    assert line("results", first).startswith(f"m 1 [{START + DAY}, {START + 2 * DAY}) look after 23%: n={first['n']}, ")


@pytest.mark.parametrize(
    ("windows", "pane_ms", "looked_at"),
    [
        (["1h"], HOUR, []),
        (["24h"], HOUR // 2, ["24h"]),
        (["1h", "24h"], HOUR, ["24h"]),
        (["24h/1h", "7d"], HOUR, ["7d"]),
        (["7d"], 7 * HOUR // 2, ["7d"]),
        (["2h"], HOUR // 24, ["2h"]),
        (["1h", "2h", "12h"], HOUR, []),
        (["1h", "4h/1h"], HOUR, []),
        (["1h", "24h/1h", "7d", "2h", "4h", "12h"], HOUR, ["7d"]),
        (["12h", "24h"], HOUR // 4, ["12h", "24h"]),
        (["86400001ms"], DAY + 1, []),
    ],
)
def test_panes_of_long_windows_are_short_where_no_other_window_closes_often(
    windows: list[str], pane_ms: int, looked_at: list[str]
) -> None:
    given = [dict(zip(("size", "step"), window.split("/"), strict=False)) for window in windows]
    settings = build_settings(config(windows=given)).model("m")
    assert settings.pane_ms == pane_ms
    assert [duration_text(spec.size_ms) for spec in settings.early_specs] == [{"24h": "1d"}.get(name, name) for name in looked_at]
    off = build_settings(config(windows=given, early=False)).model("m")
    assert off.early_specs == ()
    assert (off.sha256 == settings.sha256) == (off.pane_ms == settings.pane_ms)


def test_the_lint_expects_what_looks_may_spend() -> None:
    rules, day = build_policies(config()).default, WindowSpec(DAY, DAY)
    found = {
        is_early: sum(
            one.per_month or 0 for one in expected_alarms(measure(reference(), rules), rules, day, ROWS, is_early=is_early)
        )
        for is_early in (True, False)
    }
    assert 0.02 <= found[True] - found[False] <= 0.1 * 30 * 0.01
