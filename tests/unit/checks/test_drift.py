"""Distances as measurements."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from monitor.checks.drift import drift
from monitor.distances import CHECKS, DISTANCES
from monitor.findings import Finding, gather
from monitor.policy import DEFAULT_RULE_SET, Rule, RuleSet
from monitor.reference import Reference
from tests.closed_windows import MISSING, closed, reference_of
from tests.shapes import judged_alone as decide

DICE = np.random.default_rng(8)
REFERENCE = reference_of({"x": DICE.normal(size=5000).tolist()})


def judged(values: list[float | None]) -> dict[str, Finding]:
    rules = RuleSet({"drift.psi": Rule(above=0.2), "drift.js": Rule(above=0.2)})
    found = decide("credit", drift(gather(closed(REFERENCE, {"x": values}))), rules)
    return {finding.measurement.check: finding for finding in found}


def measured(columns: dict[str, list[Any]], reference: Reference = REFERENCE) -> list[tuple[str, str]]:
    return [(m.feature, m.check) for m in drift(gather(closed(reference, columns)))]


def test_each_distance_with_a_law_is_measured_once_per_feature_that_it_is_for() -> None:
    reference = reference_of({"c": ["a", "b"] * 100, "x": [float(i) for i in range(200)]})
    with_law = [distance for distance in DISTANCES if distance.law]
    assert measured({"c": ["a"] * 200, "x": [1.0] * 200}, reference) == [
        (name, distance.check)
        for distance in with_law
        for name, kind in (("c", "category"), ("x", "number"))
        if kind in distance.kinds
    ]
    assert ("c", "drift.ks") not in measured({"c": ["a"] * 200}, reference)


def test_no_distance_is_judged_without_a_rule_of_ones_own() -> None:
    assert decide("credit", drift(gather(closed(REFERENCE, {"x": [1.0] * 200}))), DEFAULT_RULE_SET) == []


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_finds_a_shift_of_one_sigma_where_a_rule_is_for_it(check: str) -> None:
    rules = RuleSet({check: Rule(above=0.01)})
    shifted = closed(REFERENCE, {"x": DICE.normal(1, 1, size=1000).tolist()})
    [finding] = decide("credit", drift(gather(shifted)), rules)
    assert (finding.measurement.check, finding.verdict) == (check, "breach")
    assert finding.measurement.p_value is not None
    assert finding.measurement.p_value < 0.001


@pytest.mark.parametrize("check", CHECKS)
def test_no_check_breaches_in_quiet_windows_whatever_its_threshold(check: str) -> None:
    rules = RuleSet({check: Rule(above=-1.0)})
    windows = [closed(REFERENCE, {"x": DICE.normal(size=500).tolist()}) for _ in range(60)]
    verdicts = [finding.verdict for window in windows for finding in decide("credit", drift(gather(window)), rules)]
    assert verdicts.count("breach") <= 1  # 0.06 expected


def test_cells_are_the_fine_ones_where_they_were_compared() -> None:
    cells = {m.check: m.evidence["cells"] for m in drift(gather(closed(REFERENCE, {"x": [1.0] * 100})))}
    [feature] = REFERENCE.layout.features
    assert (cells["drift.psi"], cells["drift.ks"]) == (10, feature.n_values)


def test_a_shift_of_one_sigma_is_a_breach_with_its_p_value() -> None:
    finding = judged(DICE.normal(1, 1, size=1000).tolist())["drift.psi"]
    measurement = finding.measurement
    assert finding.verdict == "breach"
    assert measurement.critical_value == pytest.approx((1 / 1000 + 1 / 5000) * chi2.isf(0.001, 9), rel=1e-9)
    assert measurement.p_value == pytest.approx(chi2.sf(measurement.value / (1 / 1000 + 1 / 5000), 9), rel=1e-6)
    assert measurement.evidence == {"cells": 10}


def test_below_a_hundred_values_nothing_can_be_said() -> None:
    far: list[float | None] = [9.0] * 99
    assert {finding.verdict for finding in judged(far).values()} == {"insufficient"}
    assert {finding.verdict for finding in judged([*far, 9.0]).values()} == {"breach"}
    assert {finding.verdict for finding in judged([*far, *[MISSING] * 500]).values()} == {"insufficient"}


def test_above_the_threshold_but_within_chance_is_no_breach() -> None:
    small = reference_of({"x": [float(i) for i in range(100)]})
    column = [float(i) for i in range(100)]
    column[:10] = [95.0] * 10
    finding = decide("credit", drift(gather(closed(small, {"x": column}))), RuleSet({"drift.psi": Rule(above=0.2)}))[0]
    assert finding.measurement.critical_value == pytest.approx(0.02 * chi2.isf(0.001, 9))
    assert 0.2 < finding.measurement.value < finding.measurement.critical_value
    assert (finding.verdict, finding.measurement.p_value) == ("ok", None)


def test_no_quiet_window_of_a_thousand_rows_breaches() -> None:
    verdicts = {f.verdict for _ in range(60) for f in judged(DICE.normal(size=1000).tolist()).values()}
    assert verdicts == {"ok"}
