"""Distances as measurements."""

import numpy as np
import pytest
from scipy.stats import chi2

from monitor.checks.drift import drift
from monitor.decision.fixed import decide
from monitor.findings import Finding
from monitor.pipeline import gather
from monitor.policy import DEFAULT_RULE_SET
from tests.closed_windows import MISSING, closed, reference_of

DICE = np.random.default_rng(8)
REFERENCE = reference_of({"x": DICE.normal(size=5000).tolist()})


def judged(values: list[float | None]) -> dict[str, Finding]:
    found = decide("credit", drift(gather(closed(REFERENCE, {"x": values}))), DEFAULT_RULE_SET)
    return {finding.measurement.check: finding for finding in found}


def test_each_distance_with_a_law_is_measured_once_per_feature() -> None:
    assert list(judged(DICE.normal(size=200).tolist())) == ["drift.psi", "drift.js"]


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
    finding = decide("credit", drift(gather(closed(small, {"x": column}))), DEFAULT_RULE_SET)[0]
    assert finding.measurement.critical_value == pytest.approx(0.02 * chi2.isf(0.001, 9))
    assert 0.2 < finding.measurement.value < finding.measurement.critical_value
    assert (finding.verdict, finding.measurement.p_value) == ("ok", None)


def test_no_quiet_window_of_a_thousand_rows_breaches() -> None:
    verdicts = {f.verdict for _ in range(60) for f in judged(DICE.normal(size=1000).tolist()).values()}
    assert verdicts == {"ok"}
