"""Averages hide segments: what the search over them finds, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency, hypergeom

from monitor.checks.segments import segments
from monitor.findings import Measurement, gather
from monitor.segments import Key, Segmentation, parse_key
from tests.closed_windows import closed, reference_of

BY_COUNTRY = Segmentation((Key(name="country"),), (("DE",), ("FR",), ("US",)))
BY_AGE = Segmentation((parse_key("age >= 60"),), (("true",), ("false",)))
Rows = dict[str, list[object]]


def rows(dice: np.random.Generator, n: int, shift: float = 0.0, **changes: object) -> Rows:
    """Amounts of ten values; those of one country in fifty are shifted."""
    countries = dice.choice(["DE", "FR", "US", "IT"], n, p=[0.6, 0.28, 0.1, 0.02])
    amounts = dice.normal(size=n) + np.where(countries == "US", shift, 0.0)
    ages = dice.integers(18, 90, n).astype(float)
    return {"amount": amounts.tolist(), "age": ages.tolist(), "country": countries.tolist(), **changes}


REFERENCE = reference_of(rows(np.random.default_rng(1), 20_000), segmentations=(BY_COUNTRY, BY_AGE))


def measured(columns: Rows) -> dict[str, Measurement]:
    return {found.check: found for found in segments(gather(closed(REFERENCE, columns)))}


def psi_by_hand(reference: np.ndarray, window: np.ndarray) -> float:
    """Of the deciles of all rows of the reference, corrected for its expectation."""
    edges = np.quantile(np.array(rows(np.random.default_rng(1), 20_000)["amount"]), np.arange(1, 10) / 10, method="inverted_cdf")
    p, q = (np.bincount(np.searchsorted(edges, side), minlength=10) for side in (reference, window))
    smooth_p, smooth_q = (p + 0.5) / (p.sum() + 5), (q + 0.5) / (q.sum() + 5)
    return float(((smooth_q - smooth_p) * np.log(smooth_q / smooth_p)).sum()) - 9 * (1 / p.sum() + 1 / q.sum())


def test_the_segment_that_drifts_is_found_though_all_rows_together_hardly_do() -> None:
    window = rows(np.random.default_rng(2), 5_000, shift=1.5)
    found = measured(window)["segments.drift"]
    worst = found.evidence["worst"][0]
    assert (worst["segment"], worst["feature"]) == ("country=US", "amount")
    reference = rows(np.random.default_rng(1), 20_000)
    of_us = [np.array(side["amount"])[np.array(side["country"]) == "US"] for side in (reference, window)]
    whole = psi_by_hand(np.array(reference["amount"]), np.array(window["amount"]))
    assert whole < 0.1
    assert worst["psi_corrected"] == pytest.approx(psi_by_hand(*of_us), rel=1e-9)
    assert found.value == pytest.approx(psi_by_hand(*of_us) - max(0.0, whole), rel=1e-9)
    assert worst["n"] == len(of_us[1])
    assert worst["rows_share"] == len(of_us[1]) / 5_000
    assert worst["explains"] > 0.8
    edges = np.quantile(np.array(reference["amount"]), np.arange(1, 10) / 10, method="inverted_cdf")
    table = [np.bincount(np.searchsorted(edges, side), minlength=10) for side in of_us]
    assert worst["p_value"] == pytest.approx(chi2_contingency(table, correction=False).pvalue, rel=1e-6)


def test_a_quiet_day_is_quiet_in_every_segment() -> None:
    alarms = sum(measured(rows(np.random.default_rng(seed), 2_000))["segments.drift"].value > 0 for seed in range(100, 160))
    assert alarms <= 1


def test_segments_with_few_rows_are_not_compared() -> None:
    found = measured(rows(np.random.default_rng(3), 700, shift=3.0))["segments.drift"]
    assert all(one["segment"] != "country=US" for one in found.evidence["worst"])


def test_rows_of_new_values_are_a_growing_other() -> None:
    window = rows(np.random.default_rng(4), 2_000)
    window["country"] = ["ZZ" if i % 10 == 0 else value for i, value in enumerate(window["country"])]
    found = measured(window)["segments.other"]
    n_other = sum(value not in ("DE", "FR", "US") for value in window["country"])
    n_other_ref = sum(value == "IT" for value in rows(np.random.default_rng(1), 20_000)["country"])
    assert found.value == pytest.approx(n_other / 2_000 - n_other_ref / 20_000, rel=1e-12)
    assert found.evidence == {"by": "country", "other_ratio": n_other / 2_000, "other_ratio_ref": n_other_ref / 20_000}
    law = hypergeom(22_000, n_other + n_other_ref, 2_000)
    assert found.p_value == pytest.approx(law.sf(n_other - 1), rel=1e-6)
    assert found.critical_value is not None
    assert found.value > found.critical_value


def test_the_share_of_other_on_a_quiet_day_is_within_chance() -> None:
    found = measured(rows(np.random.default_rng(5), 2_000))["segments.other"]
    assert found.critical_value is not None
    assert found.value < found.critical_value


def test_without_segments_or_reference_nothing_is_said() -> None:
    plain = reference_of(rows(np.random.default_rng(1), 500))
    assert list(segments(gather(closed(plain, rows(np.random.default_rng(2), 500))))) == []
    assert list(segments(gather(closed(None, {})))) == []


def test_an_empty_window_is_not_enough_data() -> None:
    found = measured({})
    assert [(m.value, m.n, m.n < m.min_n) for m in found.values()] == [(0.0, 0, True)] * 2
