"""The number of different values: bounds from raw rows, quiet windows, a collapse, an explosion."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from monitor.checks.cardinality import cardinality, expected
from monitor.findings import ClosedWindow, Finding, Measurement, gather
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET
from monitor.profiles import Profile
from monitor.reference import Reference
from tests.closed_windows import MISSING, closed, reference_of
from tests.shapes import judged_alone as decide

DICE = np.random.default_rng(5)
SHAPES: dict[str, np.ndarray] = {
    "two values": DICE.integers(0, 2, 6_000),
    "a hundred, equally frequent": DICE.integers(0, 100, 6_000),
    "zipf": np.minimum(DICE.zipf(1.3, 6_000), 5_000),
    "an identifier": np.arange(6_000),
    "an identifier with repeats": DICE.integers(0, 20_000, 6_000),
}


def texts(values: np.ndarray) -> list[str]:
    return [f"v{value}" for value in values.tolist()]


def measured(window: ClosedWindow) -> Measurement:
    (found,) = cardinality(gather(window))
    return found


def judged(window: ClosedWindow) -> Finding:
    (found,) = decide("credit", cardinality(gather(window)), DEFAULT_RULE_SET)
    return found


@pytest.mark.parametrize("dictionary", [20, 200])
@pytest.mark.parametrize("n", [100, 1_000, 3_000])
@pytest.mark.parametrize("name", SHAPES)
def test_the_mean_of_independent_draws_lies_within_the_bounds(name: str, n: int, dictionary: int) -> None:
    """Draws from the reference's own rows, each row at most once and each row again and again."""
    values = SHAPES[name]
    summary = reference_of({"c": texts(values)}, dictionary).profile.summary("c")
    assert summary.distinct is not None
    bounds = expected(n, summary, summary.distinct)
    for replace in (False, True):
        mean = np.mean([len(np.unique(DICE.choice(values, n, replace=replace))) for _ in range(40)])
        assert 0.97 * bounds.low <= mean <= 1.03 * bounds.high


def test_the_bounds_of_a_whole_dictionary_are_the_exact_expectation() -> None:
    counts = np.array([600, 300, 90, 10])
    column = np.repeat(np.arange(4), counts)
    summary = reference_of({"c": texts(column)}).profile.summary("c")
    bounds = expected(50, summary, 4)
    exact = sum(1 - (1 - c / 1000) ** 50 for c in counts.tolist())
    assert bounds.low == pytest.approx(exact, rel=1e-12)
    assert bounds.high == pytest.approx(exact + 50 / 1000, rel=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_quiet_windows_do_not_leave_the_range_by_more_than_chance(name: str) -> None:
    values, fresh = SHAPES[name], iter(range(10**6, 10**9))
    reference = reference_of({"c": texts(values)}, 20)
    beyond = 0
    for n in (100, 500, 2_000):
        for _ in range(30):
            column = [f"v{next(fresh)}" for _ in range(n)] if name == "an identifier" else texts(DICE.choice(values, n))
            found = measured(closed(reference, {"c": column}))
            assert found.critical_value is not None
            beyond += found.value > found.critical_value
    assert beyond == 0


@pytest.mark.parametrize("n", [500, 5_000, 50_000])
def test_an_identifier_in_a_window_longer_than_its_reference_is_quiet(n: int) -> None:
    reference = reference_of({"c": texts(np.arange(1_000))}, 20)
    assert judged(closed(reference, {"c": [f"w{i}" for i in range(n)]})).verdict == "ok"


def test_an_identifier_that_collapses_to_three_values_is_a_breach() -> None:
    reference = reference_of({"c": texts(SHAPES["an identifier"])}, 20)
    finding = judged(closed(reference, {"c": ["x", "y", "z"] * 300}))
    assert (finding.verdict, finding.severity) == ("breach", "notice")
    evidence = finding.measurement.evidence
    assert (evidence["distinct"], evidence["distinct_ref"]) == (3, pytest.approx(6_000, rel=0.05))
    assert finding.measurement.value == pytest.approx(math.log2(evidence["expected_low"] / 3))


def test_a_category_that_explodes_is_a_breach() -> None:
    reference = reference_of({"c": texts(DICE.integers(0, 20, 6_000))})
    finding = judged(closed(reference, {"c": texts(DICE.integers(0, 10**6, 1_000))}))
    assert finding.verdict == "breach"
    evidence = finding.measurement.evidence
    assert evidence["distinct"] == pytest.approx(1_000, rel=0.05)
    assert finding.measurement.value == pytest.approx(math.log2(evidence["distinct"] / evidence["expected_high"]))


def test_a_measurement_can_be_published() -> None:
    for values in SHAPES.values():
        reference = reference_of({"c": texts(values)}, 20)
        for column in (["x", "y"] * 100, texts(np.arange(7_000, 9_000))):
            judgement = judge_window(closed(reference, {"c": column}), b"", DEFAULT_RULE_SET)
            assert json.loads(judgement.results[0][1])["features"]["c"]["distinct"] == pytest.approx(len(set(column)), rel=0.065)


def test_five_rows_of_every_customer_are_no_breach_by_default() -> None:
    reference = reference_of({"c": texts(np.repeat(np.arange(2_000), 5))}, 20)
    finding = judged(closed(reference, {"c": texts(np.repeat(np.arange(100), 5))}))
    assert finding.measurement.value > 1
    assert finding.verdict == "ok"


def test_below_a_hundred_rows_nothing_can_be_said() -> None:
    reference = reference_of({"c": texts(SHAPES["an identifier"])}, 20)
    assert judged(closed(reference, {"c": ["x"] * 99 + [MISSING] * 50})).verdict == "insufficient"
    assert judged(closed(reference, {"c": ["x"] * 100})).verdict == "breach"
    assert judged(closed(reference, {})).verdict == "insufficient"


def test_numbers_are_not_measured_nor_is_what_a_former_version_did_not_count() -> None:
    reference = reference_of({"c": texts(SHAPES["zipf"]), "x": [1.0, 2.0] * 3_000}, 20)
    assert measured(closed(reference, {"c": ["v1"] * 200, "x": [1.0] * 200})).feature == "c"
    window = closed(reference, {"c": ["v1"] * 200})
    window.profile.outside[0].registers = None
    assert judged(window).verdict == "insufficient"
    assert list(cardinality(gather(closed(without_registers(reference), {"c": ["v1"] * 200})))) == []


def without_registers(reference: Reference) -> Reference:
    profile = Profile.from_bytes(reference.profile.to_bytes(), reference.layout)
    for outside in profile.outside:
        outside.registers = None
    return Reference.build("credit", "7", profile)
