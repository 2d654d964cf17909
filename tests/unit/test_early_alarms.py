"""Alarms inside an open window: told once, in the incident of the close, or taken back by it; the same live and in a replay."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import orjson
import pytest

from monitor.backtest import backtest, read_results
from monitor.bootstrap import build_pipeline, build_policies, build_settings
from monitor.columns import ColumnBatch, Float
from monitor.config.settings import Config
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
    made = []
    for day in range(days):
        times, values = day_of(day)
        values[0, (times >= START + from_ms) & (times < START + to_ms)] += by
        for t, x, y in zip(times.tolist(), *values.tolist(), strict=True):
            body = orjson.dumps({"model": "m", "time": int(t), "features": {"x": x, "y": y}})
            made.append((len(made) % 2, StoredRecord(len(made) // 2, int(t) + 1_000, body)))
    return made


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
    day = next(r for r in map(orjson.loads, (v for _, v in outcome.results)) if r["window"]["start_ms"] == START + DAY)
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
    assert [_without_ids(v) for _, v in outcome.results] == [_without_ids(v) for _, v in with_looks.results]


def _without_ids(value: bytes) -> Mapping[str, Any]:
    record = orjson.loads(value)
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


def test_a_backtest_with_the_rules_in_force_tells_what_the_closes_told() -> None:
    outcome = replay(broken(DAY + 5 * HOUR, 2 * DAY, days=4))
    windows = read_results(value for _, value in outcome.results)
    rules = build_policies(config())
    found = backtest(windows, rules)
    live = [json.loads(value) for _, value in outcome.alerts]
    assert [alert.id for alert in found.alerts] == [alert["id"] for alert in live if not alert["data"].get("early")]
    assert [one["data"]["status"] for one in live] == ["firing", "resolved"]
    strict = Policies(replace(rules.default, false_alarms=FalseAlarms(1.0, 101 * DAY)))
    assert [alert.data.status for alert in backtest(windows, strict).alerts] == ["firing", "resolved"]


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
