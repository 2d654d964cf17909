"""How a model did in a window: what its record says, when an alert is raised, and what a later report takes back."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

from monitor.bootstrap import build_pipeline
from monitor.cli.kafka import line
from monitor.columns import ColumnBatch
from monitor.config.settings import Config
from monitor.findings import ClosedWindow
from monitor.formats.native import NativeFormat
from monitor.judgement.performance import ClosedOutcomes, PerformanceJudgement, WindowCells, judge_performance
from monitor.layout import layout_of
from monitor.performance import Needed, OutcomeCells, PerformanceSpec, Rows
from monitor.pipeline import judge_window
from monitor.policy import Policies, RuleSet
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference, ReferencePerformance
from monitor.reference_build.windows import WindowCounts
from monitor.results.operation import Conflict, conflict_of, load_operation, operation_of
from monitor.results.performance import PerformanceResult
from monitor.rules import Rule
from monitor.segments import Key, Segmentation
from monitor.windows import Window
from tests.closed_windows import HOUR_MS, closed, layout_from, profile_of
from tests.shapes import number_feature_of

COLUMNS: dict[str, Any] = {
    "country": ["u", "v"] * 500,
    "@prediction": ["0", "1"] * 500,
    "@score": [i / 1000 for i in range(1000)],
    "@latency_ms": [float(10 + i % 100) for i in range(1000)],
}
LAYOUT = layout_from(COLUMNS, segmentations=[Segmentation((Key(name="country"),), (("u",), ("v",)))])
REFERENCE = Reference.build(
    "m",
    "1",
    profile_of(LAYOUT, COLUMNS),
    performance=ReferencePerformance(
        task="binary", n=1000, values={"accuracy": 0.9, "f1": 0.9}, classes=["0", "1"], positive_class="1"
    ),
)
SPEC = PerformanceSpec.of(REFERENCE)
BELOW = RuleSet({"performance.accuracy": Rule(below=0.8, segments=("*",))})


def cells(n: int, hits: int, *, unlabelled: int = 0, segment: int = 1) -> OutcomeCells:
    found = OutcomeCells(SPEC)
    rows = _rows(n, segment)
    labels = np.where(np.arange(n) < hits, rows.predicted, 1 - np.asarray(rows.predicted))
    found.add_made(rows)
    found.add_labelled(rows, labels, np.full(n, 60_000))
    found.add_made(_rows(unlabelled, segment))
    return found


def _rows(n: int, segment: int) -> Rows:
    predicted = np.arange(n) % 2
    members = np.repeat(np.arange(n), 2), np.tile([0, segment], n)
    return Rows(predicted, np.where(predicted, 0.8, 0.2).reshape(n, 1), members)


def outcomes(found: OutcomeCells, at: int = 0, **more: Any) -> ClosedOutcomes:
    window = Window((at + 1) * HOUR_MS, HOUR_MS, HOUR_MS)
    return ClosedOutcomes("m", "1", window, window.end_ms, False, WindowCells(REFERENCE, found, 0), **more)


def records(judgement: PerformanceJudgement) -> dict[str, PerformanceResult]:
    found = [msgspec.json.decode(value, type=PerformanceResult) for _, value in judgement.results]
    return {one.segment: one for one in found}


def alerts(judgement: PerformanceJudgement) -> list[dict[str, Any]]:
    return [msgspec.json.decode(value)["data"] for _, value in judgement.alerts]


def test_a_record_says_values_with_intervals_coverage_and_lag_by_segment() -> None:
    found = records(judge_performance(outcomes(cells(90, 81, unlabelled=10)), b"", BELOW))
    assert set(found) == {"all", "country=u"}
    for one in found.values():
        assert (one.n, one.labelled, one.coverage, one.task) == (100, 90, 0.9, "binary")
        accuracy = one.values["accuracy"]
        assert accuracy.low is not None and accuracy.high is not None
        assert accuracy.low < accuracy.value == 0.9 < accuracy.high
        assert one.lag is not None and abs(one.lag.p50_ms - 60_000) < 60_000 / 16
        assert one.lag.curve == dict.fromkeys(("1m", "10m", "1h", "6h", "1d", "3d", "7d", "30d"), 1.0)
        assert one.confusion is not None and np.array(one.confusion.counts)[:2, :2].sum() == 90
        assert one.reference_values["accuracy"] == 0.9
        assert one.reference == REFERENCE.sha256


def test_the_key_tells_it_from_the_result_of_the_windows_events() -> None:
    (key, value), *_ = judge_performance(outcomes(cells(90, 81)), b"", BELOW).results
    assert key == f"m|1|all|0|{HOUR_MS}|{HOUR_MS}|performance".encode()
    assert msgspec.json.decode(value)["type"] == "performance"


@pytest.mark.parametrize(("hits", "fires"), [(70, False), (66, False), (60, True)])
def test_an_alert_is_raised_only_where_the_interval_leaves_the_threshold_out(hits: int, fires: bool) -> None:
    judgement = judge_performance(outcomes(cells(90, hits)), b"", BELOW)
    high = records(judgement)["all"].values["accuracy"].high
    assert high is not None
    assert (high < 0.8) is fires
    assert bool(judgement.alerts) is fires


@pytest.mark.parametrize(("hits", "fires"), [(80, False), (74, False), (66, True)])
def test_a_drop_is_from_the_references_own_value(hits: int, fires: bool) -> None:
    rules = RuleSet({"performance.accuracy": Rule(drop=0.05)})
    judgement = judge_performance(outcomes(cells(90, hits)), b"", rules)
    high = records(judgement)["all"].values["accuracy"].high
    assert high is not None
    assert (high < 0.9 * 0.95) is fires
    assert bool(judgement.alerts) is fires


def test_too_few_labels_say_nothing_and_change_no_state() -> None:
    judgement = judge_performance(outcomes(cells(20, 0, unlabelled=500)), b"", BELOW)
    assert records(judgement)["all"].insufficient == ["performance.accuracy"]
    assert (judgement.alerts, judgement.after) == ((), b"")


def test_how_many_labels_a_rule_takes_is_configured() -> None:
    found = outcomes(cells(60, 20, unlabelled=100))
    assert judge_performance(found, b"", BELOW).alerts
    for needed in (Needed(61, 0.0), Needed(30, 0.4)):
        assert records(judge_performance(found, b"", BELOW, needed))["all"].insufficient == ["performance.accuracy"]
    assert judge_performance(found, b"", BELOW, Needed(60, 0.37)).alerts
    for min_labels, fires in ((60, True), (61, False)):
        sources = [{"topic": "p"}, {"topic": "l", "format": "native-label"}]
        config = Config.model_validate({"sources": sources, "models": {"m": {"labels": {"min_labels": min_labels}}}})
        pipeline = replace(build_pipeline(config), policies=Policies(BELOW))
        assert bool(pipeline.judge_performance(found, b"").alerts) is fires


def test_a_bad_segment_is_found_that_the_average_hides() -> None:
    found = cells(950, 900, segment=1)
    found.add(cells(50, 20, segment=2))
    judgement = judge_performance(outcomes(found), b"", BELOW)
    assert [alert["segment"] for alert in alerts(judgement)] == ["country=v"]
    assert not records(judgement)["all"].findings


def test_a_later_report_that_is_better_takes_the_alert_back() -> None:
    first = judge_performance(outcomes(cells(60, 35)), b"", BELOW)
    (fired,) = alerts(first)
    later = outcomes(cells(600, 590), revision=1, said=first.said, latest=first.after)
    (back,) = alerts(judge_performance(later, b"", BELOW))
    assert (back["status"], back["incident_id"]) == ("resolved", fired["incident_id"])
    assert back["supersedes"] == fired["incident_id"]


def test_a_later_report_that_is_as_bad_restates_the_same_incident() -> None:
    first = judge_performance(outcomes(cells(60, 35)), b"", BELOW)
    later = judge_performance(outcomes(cells(90, 50), revision=1, said=first.said, latest=first.after), b"", BELOW)
    (fired,), (again,) = alerts(first), alerts(later)
    assert (again["status"], again["incident_id"], again["n"]) == ("firing", fired["incident_id"], 90)
    assert not later.is_news
    assert records(later)["all"].supersedes == records(first)["all"].id


def test_judging_anew_with_the_kept_figures_gives_the_same_record() -> None:
    fresh = outcomes(cells(90, 60), operation=b"")
    judgement = judge_performance(fresh, b"", BELOW)
    anew = judge_performance(fresh._replace(sums=None, figures=judgement.figures), b"", BELOW)
    assert anew == judgement


def test_a_judgement_depends_on_nothing_but_its_arguments() -> None:
    dice = random.Random(1)
    parts = [cells(dice.randrange(5, 60), dice.randrange(5), segment=dice.choice((1, 2))) for _ in range(8)]
    made = []
    for _ in range(3):
        dice.shuffle(parts)
        found = OutcomeCells(SPEC)
        for part in parts:
            found.add(OutcomeCells.from_bytes(SPEC, part.to_bytes()))
        made.append(judge_performance(outcomes(found), b"", BELOW))
    assert made[0] == made[1] == made[2]


def test_a_mean_over_windows_is_judged_with_its_interval() -> None:
    rules = RuleSet({"performance.accuracy": Rule(below=0.8, over=3)})
    state, fired = b"", []
    for at in range(4):
        judgement = judge_performance(outcomes(cells(60, 42), at), state, rules)
        state = judgement.after
        fired.append(bool(judgement.alerts))
    assert fired == [False, False, True, False]  # 42 of 60 alone may be 0.8; 126 of 180 are not


def latency(factor: float) -> bytes:
    columns = {**COLUMNS, "@latency_ms": [value * factor for value in COLUMNS["@latency_ms"]]}
    made = closed(REFERENCE, columns)
    made.profile.stream.add_rows(None, np.zeros(1000, np.int64), np.zeros(1000, np.int64), np.zeros(1000, np.int64))
    return operation_of(made, {})


@pytest.mark.parametrize(("factor", "change"), [(0.5, "better"), (1.0, "same"), (2.0, "worse")])
def test_latency_is_better_or_worse_than_the_references(factor: float, change: str) -> None:
    found = load_operation(latency(factor))
    assert found is not None
    assert found.rows == 1000
    assert found.latency_ms["p50"].change == change
    assert found.latency_ms["p50"].value == pytest.approx(59 * factor, rel=0.06)


@pytest.mark.parametrize("is_calibrated", [True, False])
def test_latencies_that_come_in_bursts_are_no_other_ones_where_the_reference_knows_bursts(*, is_calibrated: bool) -> None:
    """40 quiet windows of 30 bursts of 20 rows each: counted as 600 rows they would often be called better or worse."""
    dice, n, burst = np.random.default_rng(8), 600, 20

    def batch(windows: int) -> ColumnBatch:
        bursts = dice.lognormal(3, 0.5, windows * n // burst)
        return ColumnBatch(windows * n, np.repeat(bursts, burst)[np.newaxis], None, [])

    rows = batch(60)
    profile = Profile(layout_of([number_feature_of("@latency_ms", rows.numbers[0])]))
    profile.update(rows)
    counts = WindowCounts(profile, HOUR_MS)
    counts.add(rows, np.repeat(np.arange(60, dtype=np.int64) * HOUR_MS, n))
    known = {"calibration": counts.calibration()[0]} if is_calibrated else {}
    reference = Reference.build("m", "1", profile, **known)
    changed = 0
    for at in range(40):
        window = Profile(reference.layout)
        window.update(batch(1))
        quiet = ClosedWindow("m", "1", Window((at + 1) * HOUR_MS, HOUR_MS, HOUR_MS), window, reference, 0, 0, 0, {})
        judgement = judge_window(quiet, b"", RuleSet({}))
        found = load_operation(judgement.operation)
        assert found is not None
        changed += found.latency_ms["p50"].change != "same"
    assert changed <= 1 if is_calibrated else changed > 10


def test_what_failed_and_what_got_no_answer_is_counted() -> None:
    records = [
        {"prediction": "1", "status": "ok"},
        {"prediction": "0", "status": "ok"},
        {"status": "timeout"},
        {"prediction": None, "status": "overload"},
        {"prediction": "maybe"},
    ]
    wire = NativeFormat()
    body = {"model": "m", "version": "1", "time": 0, "features": {"country": "u"}}
    decoded = wire.decode([StoredRecord(i, 0, msgspec.json.encode(body | more)) for i, more in enumerate(records)])
    for layout, unanswered in ((LAYOUT, 2), (layout_from({"country": ["u", "v"]}), None)):
        profile = Profile(layout)
        batch = wire.columns(layout, decoded.payloads, decoded.offsets)
        profile.update(batch)
        profile.stream.add_rows(batch.envelope, *np.zeros((3, len(records)), np.int64))
        found = load_operation(operation_of(closed(None, {})._replace(profile=profile), {}))
        assert found is not None
        assert (found.statuses, found.errors, found.error_ratio, found.unanswered) == (4, 2, 0.5, unanswered)


def test_faster_and_less_accurate_is_said_by_one_record() -> None:
    judgement = judge_performance(outcomes(cells(300, 200), operation=latency(0.5)), b"", BELOW)
    found = records(judgement)
    conflict = found["all"].conflict
    assert conflict is not None
    assert "latency p50" in conflict.better
    assert "accuracy" in conflict.worse
    assert conflict.text.startswith("latency p50") and "accuracy" in conflict.text.partition(" better, ")[2]
    assert found["country=u"].conflict is None


def test_what_agrees_is_no_conflict() -> None:
    slow = load_operation(latency(2.0))
    assert conflict_of(slow, {"accuracy": "worse", "f1": "same"}) is None
    assert conflict_of(None, {"accuracy": "better", "f1": "better"}) is None
    assert conflict_of(None, {"precision": "better", "recall": "worse"}) == Conflict(
        better=["precision"], worse=["recall"], text="precision better, recall worse"
    )


def test_a_record_is_what_its_schema_says_and_its_line_for_people_says_the_same() -> None:
    judgement = judge_performance(outcomes(cells(300, 200, unlabelled=100), operation=latency(0.5), revision=2), b"", BELOW)
    wanted = json.loads((Path(__file__).parents[2] / "schemas" / "performance.schema.json").read_text(encoding="utf-8"))
    found = [json.loads(value) for _, value in judgement.results]
    for one in found:
        jsonschema.Draft202012Validator(wanted).validate(one)
    text = line("results", found[0])
    assert text.startswith(
        "m 1 [0, 3600000) revision 2 performance after 0s: 300 of 400 labelled (75%); accuracy 0.667 [0.612, 0.718]"
    )
    assert ": performance.accuracy; latency p50" in text
    assert line("results", found[1]).startswith("m 1 country=u [0, 3600000)")
