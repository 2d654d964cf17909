"""Exact tails against scipy."""

import random

import pytest
from scipy.stats import binomtest, hypergeom, norm

from monitor.chance.counts import (
    ALPHA,
    critical_excess,
    critical_extremes,
    critical_silence,
    excess_p,
    extremes_p,
    normal_p,
    normal_quantile,
    silence_p,
    wilson_upper,
)

SIZES = [(n, m) for n in (1, 5, 30, 100, 1000, 5000) for m in (1, 10, 100, 2000, 20_000)]
RATIOS = (0.0, 0.001, 0.01, 0.05, 0.3, 0.9, 1.0)


def test_the_excess_probability_is_fishers_exact_test() -> None:
    dice = random.Random(5)
    for _ in range(400):
        n, m, share = dice.randint(1, 3000), dice.randint(1, 30_000), dice.choice((0.02, 0.2, 1.0))
        bad, bad_ref = int(n * share * dice.random()), int(m * share * dice.random())
        expected = hypergeom.sf(bad - 1, n + m, bad + bad_ref, n)
        assert excess_p(bad, n, bad_ref, m) == pytest.approx(expected, rel=1e-6, abs=1e-250)


@pytest.mark.parametrize(("n", "m"), SIZES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_the_critical_excess_is_the_smallest_count_that_chance_does_not_explain(n: int, m: int, ratio: float) -> None:
    bad_ref = int(m * ratio)
    count = critical_excess(n, bad_ref, m)
    pooled = (count + bad_ref) / (n + m)
    if n * m / (n + m) * pooled * (1 - pooled) > 400:  # the normal law: within 1 % of the count
        near = hypergeom.sf(int(count * 1.01), n + m, int(count * 1.01) + 1 + bad_ref, n)
        far = hypergeom.sf(int(count * 0.99) - 2, n + m, int(count * 0.99) - 1 + bad_ref, n)
        assert near <= ALPHA < far
        return
    if count <= n:
        assert excess_p(count, n, bad_ref, m) <= ALPHA
    assert excess_p(count - 1, n, bad_ref, m) > ALPHA


def test_too_few_rows_are_never_enough() -> None:
    assert critical_excess(3, 0, 10) == 4


def test_more_bad_rows_than_the_window_holds_are_impossible() -> None:
    assert excess_p(11, 10, 0, 100) == 0.0
    assert extremes_p(11, 10, 100) == 0.0


def test_one_row_beyond_the_range_is_expected_where_the_window_is_as_large_as_the_reference() -> None:
    assert extremes_p(1, 1000, 1000) == 1.0


def test_ten_rows_of_a_thousand_beyond_twenty_thousand_are_no_accident() -> None:
    assert extremes_p(10, 1000, 20_000) == pytest.approx(11 * 5.55e-14, rel=0.05)


@pytest.mark.parametrize(("n", "m"), [(30, 100), (1000, 1000), (1000, 20_000), (100_000, 1000), (3, 2)])
def test_the_critical_number_of_extremes_is_where_the_bound_passes_alpha(n: int, m: int) -> None:
    k = critical_extremes(n, m)
    assert extremes_p(k - 1, n, m) > ALPHA
    assert k == n + 1 or extremes_p(k, n, m) <= ALPHA


@pytest.mark.parametrize("alpha", [0.0005, 0.00001])
def test_the_critical_excess_follows_its_level(alpha: float) -> None:
    for n, bad_ref, m in ((30, 0, 100), (500, 10, 2_000), (1_000, 300, 10_000)):
        count = critical_excess(n, bad_ref, m, alpha)
        assert excess_p(count, n, bad_ref, m) <= alpha < excess_p(count - 1, n, bad_ref, m)


def test_rows_beyond_one_end_of_the_range_have_the_chance_of_the_largest_ones() -> None:
    for k, n, m in ((1, 10, 30), (3, 50, 200), (10, 1_000, 20_000)):
        expected = hypergeom.pmf(k, n + m, k, n)  # the k largest of all are of the window
        assert extremes_p(k, n, m, sides=1) == pytest.approx(expected, rel=1e-9)
        critical = critical_extremes(n, m, sides=1)
        assert extremes_p(critical, n, m, sides=1) <= ALPHA < extremes_p(critical - 1, n, m, sides=1)


@pytest.mark.parametrize(("bad", "n"), [(0, 100), (3, 100), (50, 1_000), (999, 1_000), (1_000, 1_000)])
def test_the_upper_bound_of_a_share_is_wilsons(bad: int, n: int) -> None:
    expected = binomtest(bad, n).proportion_ci(confidence_level=1 - 2 * ALPHA, method="wilson").high
    assert wilson_upper(bad, n) == pytest.approx(expected, rel=1e-9)


def test_a_silence_has_the_chance_that_no_moment_falls_into_it() -> None:
    for n in (1, 30, 5_000):
        assert silence_p(critical_silence(n), n) == pytest.approx(ALPHA, rel=1e-9)
    assert (silence_p(1.5, 10), silence_p(-0.1, 10)) == (0.0, 1.0)


def test_the_normal_law_is_scipys() -> None:
    assert normal_quantile(0.0005) == pytest.approx(norm.isf(0.0005), rel=1e-12)
    assert normal_p(4.5) == pytest.approx(norm.sf(4.5), rel=1e-12)
