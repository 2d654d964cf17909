"""What rules are told of performance, and what they make of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.config.rule_text import parse_rule
from monitor.findings import Measurement
from monitor.performance import Needed, OutcomeCells, PerformanceSpec, estimated, measurements, realised
from monitor.policy import PERFORMANCE_CHECKS, RuleSet
from monitor.reference import Reference, ReferencePerformance, SegmentPerformance
from monitor.rules import Rule
from tests.shapes import judged_alone as decide
from tests.unit.performance.made import cells_of, reference_of, rows_of
from tests.unit.performance.nannyml import load_set


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reference, PerformanceSpec]:
    rows = load_set("flights")
    mine = rows.chunk == 0
    made = reference_of(tmp_path_factory.mktemp("flights"), rows.label[mine], rows.prediction[mine], rows.scores[mine, 0])
    return made, PerformanceSpec.of(made)


def measured(flights: tuple[Reference, PerformanceSpec], flip: float = 0.0, **needed: Any) -> dict[str, Measurement]:
    rows, (made, spec) = load_set("flights"), flights
    mine = rows.chunk == 3
    label = rows.label[mine].copy()
    flipped = np.random.default_rng(0).random(len(label)) < flip
    label[flipped] = 1 - label[flipped]
    cells = cells_of(spec, label.tolist(), rows.prediction[mine].tolist(), rows.scores[mine])
    found = measurements(realised(cells), estimated(cells), made.performance, needed=Needed(**needed))
    return {one.check: one for one in found}


def verdict(measurement: Measurement, text: str) -> str:
    short = parse_rule(text)
    rule = Rule(above=short.above, below=short.below, drop=short.drop, rise=short.rise)
    [finding] = decide("m", [measurement], RuleSet({measurement.check: rule}))
    return finding.verdict


def test_every_metric_is_measured_beside_the_references(flights: tuple[Reference, PerformanceSpec]) -> None:
    found = measured(flights)
    assert set(found) == {
        f"performance.{m}" for m in ("accuracy", "precision", "recall", "f1", "auc", "brier", "log_loss", "ece")
    }
    assert set(found) <= set(PERFORMANCE_CHECKS)
    one, own = found["performance.accuracy"], flights[0].performance
    assert (one.n, one.n_ref, one.reference_value, one.segment) == (1_500, own.n, own.values["accuracy"], "all")
    assert one.interval == tuple(one.evidence["interval"])
    assert one.evidence["reference"] == one.reference_value
    assert one.evidence["coverage"] == 1.0
    assert one.evidence["estimated"][0] == pytest.approx(one.value, abs=0.05)
    assert json.loads(json.dumps(dict(one.evidence))) == dict(one.evidence)
    assert found["performance.ece"].critical_value is not None


def test_a_rule_is_broken_where_the_whole_interval_is_beyond(flights: tuple[Reference, PerformanceSpec]) -> None:
    well, broken = measured(flights)["performance.accuracy"], measured(flights, 0.3)["performance.accuracy"]
    assert [verdict(one, "accuracy drop > 5 %") for one in (well, broken)] == ["ok", "breach"]
    assert [verdict(one, "accuracy < 0.8") for one in (well, broken)] == ["ok", "breach"]
    assert verdict(well, f"accuracy < {well.value + 0.001:.4f}") == "insufficient"
    worse = measured(flights, 0.3)
    assert verdict(worse["performance.log_loss"], "log_loss rise > 20 %") == "breach"
    assert verdict(worse["performance.ece"], "ece > 0.02") == "breach"
    assert "concept drift" in worse["performance.accuracy"].evidence["not_estimated"]


def test_too_few_labels_are_not_enough(flights: tuple[Reference, PerformanceSpec]) -> None:
    rows, (made, spec) = load_set("flights"), flights
    mine = rows.chunk == 3
    cells = OutcomeCells(spec)
    cells.add_made(rows_of(spec, rows.prediction[mine].tolist(), rows.scores[mine]))
    some = np.flatnonzero(mine)[:200]
    worst = 1 - rows.prediction[some]
    cells.add_labelled(rows_of(spec, rows.prediction[some].tolist(), rows.scores[some]), worst, np.zeros(200, np.int64))
    for needed, expected in ((Needed(), "breach"), (Needed(min_coverage=0.5), "insufficient"), (Needed(201), "insufficient")):
        [one] = [
            one
            for one in measurements(realised(cells), estimated(cells), made.performance, needed=needed)
            if one.check == "performance.accuracy"
        ]
        assert verdict(one, "accuracy < 0.5") == expected


def test_labels_of_other_rows_than_most_are_evidence(flights: tuple[Reference, PerformanceSpec]) -> None:
    rows, (made, spec) = load_set("flights"), flights
    mine = np.flatnonzero(rows.chunk == 3)
    cells = OutcomeCells(spec)
    cells.add_made(rows_of(spec, rows.prediction[mine].tolist(), rows.scores[mine]))
    low = mine[rows.scores[mine, 0] < np.median(rows.scores[mine, 0])]
    cells.add_labelled(
        rows_of(spec, rows.prediction[low].tolist(), rows.scores[low]), rows.label[low], np.zeros(len(low), np.int64)
    )
    found = measurements(realised(cells), estimated(cells), made.performance)
    assert found[0].evidence["selection_bias"]["by"] == "score"
    assert found[0].evidence["coverage"] == pytest.approx(0.5, abs=0.01)


def test_a_segment_is_compared_with_its_own_reference(flights: tuple[Reference, PerformanceSpec]) -> None:
    own = ReferencePerformance(
        task="binary",
        n=900,
        values={"accuracy": 0.9},
        segments={"carrier=B6": SegmentPerformance(n=120, values={"accuracy": 0.7})},
    )
    rows, (_, spec) = load_set("flights"), flights
    cells = cells_of(spec, rows.label[-99:].tolist(), rows.prediction[-99:].tolist(), rows.scores[-99:])
    for segment, expected in (("carrier=B6", (120, 0.7)), ("carrier=UA", (900, 0.9))):
        found = measurements(realised(cells), estimated(cells), own, segment)
        assert {(one.segment, one.n_ref, one.reference_value) for one in found if one.check == "performance.accuracy"} == {
            (segment, *expected)
        }


def test_a_metric_without_interval_breaks_no_rule() -> None:
    infinite = (-math.inf, math.inf)
    one = Measurement("performance.rmse", "", 9.0, 500, 500, interval=infinite, reference_value=1.0)
    assert [verdict(one, text) for text in ("rmse > 2", "rmse rise > 10 %", "rmse > 10")] == [
        "insufficient",
        "insufficient",
        "ok",
    ]


def test_nothing_is_measured_without_labels(flights: tuple[Reference, PerformanceSpec]) -> None:
    made, spec = flights
    cells = OutcomeCells(spec)
    cells.add_made(rows_of(spec, [1, 0], np.array([0.7, 0.1])))
    assert measurements(realised(cells), estimated(cells), made.performance) == []


def test_old_references_say_that_they_hold_no_calibration() -> None:
    path = Path(__file__).parents[2] / "fixtures" / "reference_format_1.json"
    spec = PerformanceSpec.of(Reference.from_bytes(path.read_bytes()))
    assert (spec.task, len(spec.classes), spec.estimator) == ("binary", 2, None)
    assert "build it again" in str(estimated(OutcomeCells(spec)).unknown)
