"""Sums of numbers: exact, whatever the order, and means and deviations to 1e-9 of the truth."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.columns import Float
from monitor.sketches.moments import exact_sums, mean_std, scale_of

FINITE = st.floats(allow_nan=False, allow_infinity=False)
GRID = st.tuples(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9)).map(lambda pair: scale_of(*pair))

DICE = np.random.default_rng(9)
SHAPES = {
    "normal": DICE.normal(5, 2, 50_000),
    "lognormal": DICE.lognormal(0, 2, 50_000),
    "heavy tails": DICE.standard_t(2, 50_000),
    "cauchy": DICE.standard_cauchy(50_000),
    "integers": DICE.integers(0, 90, 50_000).astype(float),
    "cents": DICE.lognormal(3, 1, 50_000).round(2),
    "far from zero": DICE.normal(1e9, 1.0, 50_000),
    "milliseconds": 1.7e12 + DICE.uniform(0, 1e7, 50_000),
    "tiny": DICE.normal(0, 1e-140, 50_000),
    "huge": DICE.normal(0, 1e150, 50_000),
    "mostly zero": np.where(DICE.random(50_000) < 0.99, 0.0, DICE.normal(size=50_000)),
}


def exactly(values: Float) -> tuple[float, float]:
    """Mean and population standard deviation by rational arithmetic, rounded at the end."""
    fractions = [Fraction(x) for x in values.tolist()]
    mean = sum(fractions) / len(fractions)
    variance = sum((x - mean) ** 2 for x in fractions) / len(fractions)
    scale = 10 ** max(0, 40 - 2 * (len(str(variance.numerator)) - len(str(variance.denominator))))
    root = math.isqrt(variance.numerator * scale * scale // variance.denominator)
    return float(mean), float(Fraction(root, scale))


@pytest.mark.parametrize("name", SHAPES)
def test_means_and_deviations_are_right_to_a_billionth(name: str) -> None:
    values = SHAPES[name]
    mean, std = mean_std(len(values), *exact_sums(values, *(grid := scale_of(float(values.mean()), float(values.std())))), *grid)
    assert abs(mean - math.fsum(values) / len(values)) <= 1e-9 * float(values.std())
    assert std == pytest.approx(float(values.std()), rel=1e-9)


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_the_window_may_be_of_another_scale_than_the_reference(factor: float) -> None:
    values = DICE.normal(3, 2, 500) * factor
    centre, exponent = scale_of(3.0, 2.0)
    mean, std = mean_std(len(values), *exact_sums(values, centre, exponent), centre, exponent)
    true_mean, true_std = exactly(values)
    quantum = 2.0**exponent
    assert abs(mean - true_mean) <= quantum / 2 + 1e-12 * abs(true_mean)
    assert abs(std - true_std) <= quantum + 1e-12 * true_std


@given(st.lists(FINITE, max_size=40), GRID, st.randoms(use_true_random=False), st.integers(0, 40))
def test_sums_do_not_depend_on_order_or_batches(values: list[float], grid: tuple[float, int], dice: object, cut: int) -> None:
    whole = exact_sums(np.array(values, np.float64), *grid)
    dice.shuffle(values)  # type: ignore[attr-defined]
    left, right = exact_sums(np.array(values[:cut], np.float64), *grid), exact_sums(np.array(values[cut:], np.float64), *grid)
    assert (left[0] + right[0], left[1] + right[1]) == whole


@given(st.integers(1, 40_000), st.integers(0, 2**32 - 1))
def test_a_batch_longer_than_a_chunk_adds_up(n: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=n) * 2.0 ** np.random.default_rng(seed + 1).integers(-3, 12, n)
    first, second = exact_sums(values, 0.0, -20)
    quanta = [round(math.ldexp(x, 20)) for x in values.tolist()]
    assert (first, second) == (sum(quanta), sum(q * q for q in quanta))


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=50), st.floats(-100, 100))
def test_whole_numbers_have_no_error_at_all(values: list[int], centre: float) -> None:
    grid = scale_of(round(centre), 1_000.0)
    mean, std = mean_std(len(values), *exact_sums(np.array(values, np.float64), *grid), *grid)
    true_mean, true_std = exactly(np.array(values, np.float64))
    assert mean == pytest.approx(true_mean, rel=1e-15, abs=1e-15)
    assert std == pytest.approx(true_std, rel=1e-14)


@given(st.lists(FINITE, min_size=1, max_size=20), GRID)
def test_any_finite_values_have_a_mean_between_them(values: list[float], grid: tuple[float, int]) -> None:
    mean, std = mean_std(len(values), *exact_sums(np.array(values), *grid), *grid)
    quantum = 2.0 ** grid[1]
    slack = quantum + 1e-12 * max(map(abs, values)) + 1e-12 * abs(grid[0])
    assert min(values) - slack <= mean <= max(values) + slack
    assert std >= 0
    assert std / 2 <= max(values) / 2 - min(values) / 2 + slack


@given(FINITE, st.integers(1, 50), GRID)
def test_a_constant_has_no_deviation(value: float, n: int, grid: tuple[float, int]) -> None:
    assert mean_std(n, *exact_sums(np.full(n, value), *grid), *grid)[1] == 0.0


@given(FINITE, st.floats(allow_nan=True, allow_infinity=True))
def test_a_grid_exists_for_any_centre_and_spread(centre: float, spread: float) -> None:
    on_grid, exponent = scale_of(centre, spread)
    assert math.isfinite(on_grid)
    assert -1_000 <= exponent <= 1_024
    exact_sums(np.array([centre, 0.0, 1.0]), on_grid, exponent)
