"""Two months of flights with their outcomes, replayed as the demo is configured: accuracy by month, and the carrier that breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
from sklearn.metrics import accuracy_score

from monitor.bootstrap import build_pipeline
from monitor.cli.kafka import line
from monitor.demo import configure
from monitor.demo import flights as data
from monitor.demo.flights import BROKEN_CARRIER, DAY_MS, FAULTS, Flights
from monitor.demo.returned import Returned
from monitor.ports import StoredRecord
from monitor.replay import Labels, Replay, ReplayOutcome

SEPTEMBER_MS, OCTOBER_MS, NOVEMBER_MS = (data.ms_of(data.date(2013, month, 1)) for month in (9, 10, 11))
FAULT = FAULTS[-1]


class Replayed(NamedTuple):
    flights: Flights
    outcome: ReplayOutcome
    reports: list[dict[str, Any]]
    returned: Returned
    n_labels: int


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    folder = tmp_path_factory.mktemp("flights")
    flights = data.load(data.download(Path(".cache") / "demo"))
    data.train(flights)
    reference = data.reference(flights, int((flights.time_ms < data.REFERENCE_END_MS).sum()), folder, by=data.SEGMENTED_BY)
    pipeline = build_pipeline(configure(folder, "none:9092", 9464), [reference])
    start, stop = (int((flights.time_ms < ms).sum()) for ms in (SEPTEMBER_MS, NOVEMBER_MS))
    events = [(i % 2, StoredRecord(i // 2, 0, orjson.dumps(e))) for i, (_, e) in enumerate(data.events(flights, start, stop))]
    known = [
        orjson.dumps(event)
        for landed_ms, event in data.labels(flights)
        if SEPTEMBER_MS <= landed_ms < NOVEMBER_MS + DAY_MS and int(str(event["id"])[2:]) < stop
    ]
    labels = [(0, StoredRecord(i, 0, value)) for i, value in enumerate(known)]
    engine = Replay(
        pipeline.settings,
        "predictions",
        wire=pipeline.formats["predictions"],
        judge=pipeline.judge,
        references=[reference],
        future_guard=False,
        labels=Labels(labels, pipeline.formats["labels"], pipeline.judge_performance, "labels", has_timestamps=False),
    )
    outcome = engine.run(events, end_of_input=True)
    returned = Returned()
    for key, value in outcome.results:
        returned.result(key, value)
    for _, value in outcome.alerts:
        returned.alert(value)
    found = [orjson.loads(value) for _, value in outcome.results]
    return Replayed(flights, outcome, [one for one in found if one.get("type") == "performance"], returned, len(labels))


def test_accuracy_by_month_is_that_of_scikit_learn(replayed: Replayed) -> None:
    flights = replayed.flights
    months = replayed.returned.performance()
    assert list(months) == ["2013-09", "2013-10"]
    month_starts = (SEPTEMBER_MS, OCTOBER_MS, NOVEMBER_MS)
    for found, from_ms, to_ms in zip(months.values(), month_starts, month_starts[1:], strict=False):
        departed = (flights.time_ms >= from_ms) & (flights.time_ms < to_ms)
        landed = departed & (flights.is_late >= 0)
        is_flipped = (flights.time_ms >= FAULT.from_ms) & (flights.time_ms < FAULT.to_ms)
        is_flipped &= np.array(flights.carrier) == BROKEN_CARRIER
        truth = np.where(is_flipped, 1 - flights.is_late, flights.is_late)[landed]
        assert (found["n"], found["labelled"]) == (departed.sum(), landed.sum())
        assert found["accuracy"] == pytest.approx(accuracy_score(truth, flights.score[landed] > 0.5), abs=1e-12)
        assert found["low"] < found["accuracy"] < found["high"]
        assert found["high"] - found["low"] < 0.01


def test_the_estimate_is_the_mean_of_calibrated_scores_of_the_days_that_show_it(replayed: Replayed) -> None:
    shown = [report for report in replayed.returned.reports.values() if report["estimated"]["values"]]
    hidden = [report for report in replayed.returned.reports.values() if not report["estimated"]["values"]]
    assert len(shown) > 10
    for report in hidden:
        assert report["estimated"]["unknown"].startswith("concept drift indicated")
    flights = replayed.flights
    for report in shown:
        window = report["window"]
        scores = flights.score[(flights.time_ms >= window["start_ms"]) & (flights.time_ms < window["end_ms"])]
        expected = float(np.maximum(scores, 1 - scores).mean())
        assert report["estimated"]["values"]["accuracy"]["value"] == pytest.approx(expected, abs=0.02)


def test_the_carrier_whose_labels_turn_is_found_in_its_segment_and_not_in_the_average(replayed: Replayed) -> None:
    told = [a for a in replayed.returned.fired() if a["check"].startswith("performance.")]
    assert [(a["segment"], a["check"], a["severity"]) for a in told] == [(FAULT.segment, "performance.accuracy", "warning")]
    assert told[0]["window"]["end_ms"] == FAULT.from_ms + 2 * DAY_MS
    assert {member["segment"] for member in told[0]["members"]} == {FAULT.segment}
    during = [r for r in replayed.reports if FAULT.from_ms <= r["window"]["start_ms"] < FAULT.to_ms and r["is_final"]]
    of_all = [r for r in during if r["segment"] == "all"]
    of_carrier = [r for r in during if r["segment"] == FAULT.segment]
    assert len(of_all) == len(of_carrier) == 7
    assert all(report["values"]["accuracy"]["value"] > 0.8 and not report["findings"] for report in of_all)
    assert all(report["values"]["accuracy"]["high"] < 0.5 and report["findings"] for report in of_carrier)
    assert all("concept drift indicated" in report["estimated"]["unknown"] for report in of_carrier)


def test_a_report_grows_as_planes_land_and_every_label_is_accounted_for(replayed: Replayed) -> None:
    of_all = [report for report in replayed.reports if report["segment"] == "all"]
    first = [report["coverage"] for report in of_all if report["revision"] == 0]
    final = [report["coverage"] for report in of_all if report["is_final"]]
    assert len(first) == len(final) == 61
    assert max(first) < min(final)
    joined = replayed.outcome.joined
    assert joined["joined"] + joined["orphan_labels"] == replayed.n_labels
    assert 0 < joined["orphan_labels"] < 500


def test_a_month_is_told_once_with_its_last_labels(replayed: Replayed) -> None:
    returned = Returned()
    told = []
    for key, value in replayed.outcome.results:
        returned.result(key, value)
        told += returned.months_over(at_end=False)
    assert [month for month, _ in told] == ["2013-09"]
    told += returned.months_over(at_end=True)
    assert dict(told) == replayed.returned.performance()
    assert list(returned.months_over(at_end=True)) == []


def test_tail_prints_realised_accuracy_and_the_estimate_beside_it(replayed: Replayed) -> None:
    report = next(r for r in replayed.returned.reports.values() if r["estimated"]["values"])
    realised, estimated = report["values"]["accuracy"], report["estimated"]["values"]["accuracy"]
    expected = f"accuracy {realised['value']:.3f} [{realised['low']:.3f}, {realised['high']:.3f}] ~{estimated['value']:.3f}"
    assert expected in line("results", report)
