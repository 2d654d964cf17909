"""Intervals, against scipy, against plain loops over raw rows, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.intervals import coverage
from monitor.performance import intervals
from monitor.performance.classes import ece, mean_auc, of_confusion


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (3, 7), (180, 200), (1, 1)])
def test_a_share_has_wilsons_interval(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert intervals.wilson(hits, n) == pytest.approx((hits / n, expected.low, expected.high), abs=1e-12)


def test_a_mean_has_students_interval() -> None:
    x = np.random.default_rng(1).exponential(size=40)
    expected = stats.t.interval(0.95, len(x) - 1, loc=x.mean(), scale=stats.sem(x))
    assert intervals.mean(x.sum(), (x * x).sum(), len(x)) == pytest.approx((x.mean(), *expected), rel=1e-9)
    assert intervals.mean(2.0, 4.0, 1) == (2.0, None, None)
    assert intervals.mean(x.sum(), (x * x).sum(), len(x), low=0.9).low == max(0.9, expected[0])


def test_a_mean_of_losses_has_students_interval_on_the_logarithm() -> None:
    x = np.random.default_rng(1).exponential(size=40)
    half = stats.t.ppf(0.975, len(x) - 1) * stats.sem(x) / x.mean()
    expected = x.mean() * np.exp([0, -half, half])
    assert intervals.positive_mean(x.sum(), (x * x).sum(), len(x)) == pytest.approx(expected, rel=1e-9)
    assert intervals.positive_mean(x.sum(), (x * x).sum(), len(x), high=1.0).high == 1.0
    assert intervals.positive_mean(0.0, 0.0, 9) == (0.0, 0.0, 0.0)
    assert intervals.positive_mean(1e-3, 1e3, 2, high=1.0) == (pytest.approx(5e-4), pytest.approx(0.0), 1.0)


@pytest.mark.parametrize("cells", [5, 400])
def test_auc_has_delongs_variance(cells: int) -> None:
    draw = np.random.default_rng(2)
    high, low = draw.integers(0, cells, 60) // 2 + cells // 3, draw.integers(0, cells, 90) // 2
    psi = np.where(high[:, None] > low, 1.0, np.where(high[:, None] == low, 0.5, 0.0))
    area = psi.mean()
    error = math.sqrt(psi.mean(axis=1).var(ddof=1) / 60 + psi.mean(axis=0).var(ddof=1) / 90)
    logit, half = math.log(area / (1 - area)), 1.959963984540054 * error / (area * (1 - area))
    expected = (area, *(1 / (1 + math.exp(-(logit + sign * half))) for sign in (-1, 1)))
    found = intervals.auc(np.bincount(high, minlength=cells), np.bincount(low, minlength=cells))
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_perfect_order_has_an_interval_too() -> None:
    found = intervals.auc(np.array([0, 0, 30]), np.array([10, 40, 0]))
    assert found is not None and found.low is not None
    assert (found.value, found.high) == (1.0, pytest.approx(1.0))
    assert 0.8 < found.low < 0.95
    assert intervals.auc(np.array([1, 2]), np.array([0, 0])) is None
    assert mean_auc([(np.array([1, 2]), np.array([0, 0]))]) is None


def test_f1_is_that_of_its_counts_and_its_interval_the_delta_methods() -> None:
    found = intervals.f1(800, 300)
    assert found.value == pytest.approx(1600 / 1900)
    logit, half = math.log(found.value / (1 - found.value)), 1.96 * math.sqrt(1 / 800 + 1 / 300)
    assert found.low == pytest.approx(1 / (1 + math.exp(-(logit - half))), abs=1e-3)
    assert found.high == pytest.approx(1 / (1 + math.exp(-(logit + half))), abs=1e-3)
    assert intervals.f1(0, 10).value == 0.0


@pytest.mark.parametrize("metric", ["precision", "recall", "f1"])
def test_macro_intervals_follow_a_numeric_derivative(metric: str) -> None:
    """Of the counts with two hits and two misses more of each class."""
    counts = np.random.default_rng(3).integers(5, 60, (5, 5)).astype(float)
    counts[4, 4] = 0
    more = counts.copy()
    more[:4, :4] += np.where(np.eye(4), 2, 2 / 3)
    n = more.sum()

    def value(of: np.ndarray) -> float:
        return of_confusion(of, None)[metric].value

    gradient = np.zeros_like(more)
    for at in np.ndindex(more.shape):
        step = np.zeros_like(more)
        step[at] = 1e-4
        gradient[at] = (value(more + step) - value(more - step)) / 2e-4 * n
    shares = more / n
    error = math.sqrt(((gradient**2 * shares).sum() - (gradient * shares).sum() ** 2) / n)
    found = of_confusion(counts, None)[metric]
    assert (found.low, found.high) == pytest.approx((value(more) - 1.959964 * error, value(more) + 1.959964 * error), rel=1e-5)


def test_a_calibrated_model_is_not_below_the_error_that_chance_gives_it() -> None:
    draw = np.random.default_rng(4)
    beyond, above = 0, 0
    for _ in range(2_000):
        p = draw.random(300)
        y = draw.random(300) < p
        bins = np.minimum((p * 10).astype(int), 9)
        gaps = np.bincount(bins, weights=p - y, minlength=10)
        variance = np.bincount(bins, weights=p * (1 - p), minlength=10)
        found, critical = ece(gaps, variance, 300, 1)
        beyond += found.value > critical
        above += (found.low or 0) > 0
    assert beyond <= 10  # 2 are expected
    assert above <= 50


@pytest.mark.parametrize("n", [200, 1_000])
def test_intervals_cover_what_they_should(n: int) -> None:
    """The full simulation is `python -m benchmarks.intervals`; 400 windows have a standard error of 1.1 points."""
    for metric, share in coverage(n=n, windows=400, seed=9)["binary"].items():
        assert 0.915 <= share <= (1.0 if metric == "ece" else 0.985), metric  # its true value is 0
