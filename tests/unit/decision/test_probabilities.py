"""Tail probabilities against enumeration and scipy."""

from itertools import product
from math import factorial, prod

import numpy as np
import pytest
from scipy import stats

from monitor.decision.probabilities import (
    Moments,
    benjamini_hochberg,
    cauchy,
    chi_square_moments,
    chi_square_p,
    gamma_tail,
    one_cell_p,
    two_sided_p,
)

DICE = np.random.default_rng(12)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.2, 0.3, 0.5), (0.05, 0.05, 0.9), (0.1, 0.2, 0.3, 0.4)])
@pytest.mark.parametrize("n", [2, 5, 9])
def test_the_moments_of_chi_square_are_those_of_all_tables(shares: tuple[float, ...], n: int) -> None:
    tables = [t for t in product(range(n + 1), repeat=len(shares)) if sum(t) == n]
    weights = np.array(
        [factorial(n) / prod(map(factorial, t)) * prod(p**c for p, c in zip(shares, t, strict=True)) for t in tables]
    )
    values = np.array([sum((c - n * p) ** 2 / (n * p) for p, c in zip(shares, t, strict=True)) for t in tables])
    mean = float(weights @ values)
    variance = float(weights @ (values - mean) ** 2)
    skewness = float(weights @ (values - mean) ** 3) / variance**1.5 if variance > 1e-12 else 0.0
    found = chi_square_moments(np.array([shares]), np.array([float(n)]))
    assert (found.mean[0], found.variance[0]) == pytest.approx((mean, variance), abs=1e-9)
    if variance > 1e-12:
        assert found.skewness[0] == pytest.approx(skewness, rel=1e-9)


def test_cells_without_a_share_do_not_count() -> None:
    with_empty = chi_square_moments(np.array([[0.3, 0.0, 0.7]]), np.array([50.0]))
    assert np.ravel(with_empty).tolist() == np.ravel(chi_square_moments(np.array([[0.3, 0.7]]), np.array([50.0]))).tolist()


@pytest.mark.parametrize("dof", [1, 2, 9, 60])
def test_the_gamma_law_is_that_of_chi_square_where_its_skewness_is(dof: int) -> None:
    x = np.array([dof * 0.5, dof, dof * 3.0, dof * 8.0])
    z = (x - dof) / np.sqrt(2 * dof)
    assert gamma_tail(z, np.full(4, np.sqrt(8 / dof))) == pytest.approx(stats.chi2.sf(x, dof), rel=1e-9)
    assert gamma_tail(-z, np.full(4, -np.sqrt(8 / dof))) == pytest.approx(stats.chi2.cdf(x, dof), rel=1e-9)


def test_without_skewness_it_is_the_normal_law_down_to_the_smallest_tails() -> None:
    z = np.array([-3.0, 0.0, 4.0, 20.0])
    assert gamma_tail(z, np.zeros(4)) == pytest.approx(stats.norm.sf(z), rel=1e-12)
    assert gamma_tail(z[:3], np.full(3, 1.01e-3)) == pytest.approx(stats.norm.sf(z[:3]), rel=0.02)


@pytest.mark.parametrize("shares", [[0.1] * 10, [0.9, 0.05, 0.05], [0.95, 0.05]], ids=["deciles", "three", "two"])
def test_a_hundred_rows_pass_a_small_p_hardly_more_often_than_it_says(shares: list[float]) -> None:
    """χ² itself lets up to 12 times as many pass at 1e-5."""
    n, m, runs = 100, 20_000, 400_000
    window, reference = DICE.multinomial(n, shares, runs), DICE.multinomial(m, shares, runs)
    x2 = ((np.sqrt(m / n) * window - np.sqrt(n / m) * reference) ** 2 / (window + reference)).sum(axis=1)
    moments = chi_square_moments(np.array([shares]), np.array([float(n)]))
    p = chi_square_p(x2, moments, np.ones(runs), np.zeros(runs), np.ones(runs))
    assert np.mean(p <= 1e-3) <= 1.4e-3
    assert np.mean(p <= 1e-4) <= 2.6e-4


@pytest.mark.parametrize("shares", [(0.95, 0.05), (0.9, 0.05, 0.05), (0.45, 0.45, 0.1)])
def test_with_the_chance_of_one_cell_the_far_tail_is_at_most_two_and_a_half_times_what_it_says(shares: tuple[float, ...]) -> None:
    """Of all tables of 100 rows; by three moments alone it is up to a hundred times as heavy."""
    n, p = 100, np.array(shares)
    tables = np.array([(*t, n - sum(t)) for t in product(range(n + 1), repeat=len(p) - 1) if sum(t) <= n])
    weights = stats.multinomial.pmf(tables, n, p)
    x2 = ((tables - n * p) ** 2 / (n * p)).sum(axis=1).round(9)
    order = np.argsort(-x2)
    x2, tail = x2[order], np.cumsum(weights[order])
    last = np.append(x2[1:] != x2[:-1], True) & (tail > 1e-9) & (tail < 1e-4)
    x2, tail = x2[last], tail[last]
    moments = Moments(*(np.broadcast_to(part, x2.shape) for part in chi_square_moments(p[np.newaxis], np.array([100.0]))))
    gamma = chi_square_p(x2, moments, *(np.full(len(x2), value) for value in (1.0, 0.0, 1.0)))
    both = gamma + one_cell_p(x2, np.broadcast_to(p, (len(x2), len(p))), np.full(len(x2), 100.0))
    assert (tail / both).max() < 2.5
    assert (tail / gamma).max() > 5
    assert (both / tail).max() < 6


def test_a_dispersed_chi_square_has_an_f_law() -> None:
    even = Moments(np.array([9.0]), np.array([18.0]), np.array([np.sqrt(8 / 9)]))
    for x2, phi, h, independent in ((30.0, 2.0, 5.0, 100.0), (200.0, 5.0, 9.0, 20.0)):
        p = chi_square_p(np.array([x2]), even, np.array([phi]), np.array([h]), np.array([independent]))
        assert p[0] == pytest.approx(stats.f.sf(x2 / (phi * 9), h, independent * h), rel=1e-9)


def test_a_dispersed_score_has_a_t_law() -> None:
    z, phi = np.array([-6.0, 2.0]), np.array([4.0, 1.5])
    p = two_sided_p(z, np.zeros(2), phi, np.array([50.0, 2.0]))
    assert p == pytest.approx(2 * stats.t.sf(np.abs(z) / np.sqrt(phi), [50, 3]), rel=1e-9)
    assert two_sided_p(z, np.zeros(2), np.ones(2), np.ones(2)) == pytest.approx(2 * stats.norm.sf(np.abs(z)), rel=1e-9)


def test_a_score_of_few_rare_rows_is_judged_by_its_skewed_law() -> None:
    """Rows of a value that one in a hundred has: the normal law says 1e-9 where the binomial one says 1e-4."""
    n, p, seen = 100, 0.01, 7
    z = (seen - n * p) / np.sqrt(n * p * (1 - p))
    skewness = (1 - 2 * p) / np.sqrt(n * p * (1 - p))
    found = two_sided_p(np.array([z]), np.array([skewness]), np.ones(1), np.ones(1))[0] / 2
    exact = stats.binom.sf(seen - 1, n, p)
    assert exact / 6 < found < exact * 6
    assert stats.norm.sf(z) < exact / 1e4


def test_cauchys_rule_leaves_out_what_was_not_tested() -> None:
    p = np.array([[1e-8, 0.2], [0.7, 1.0], [0.4, 1.0]])
    used = np.array([[True, True], [True, False], [True, False]])
    joint = cauchy(p, used)
    assert joint[0] == pytest.approx(3e-8, rel=1e-3)
    assert joint[1] == pytest.approx(0.2, rel=1e-9)
    assert cauchy(np.ones((3, 1)), np.zeros((3, 1), bool)).tolist() == [1.0]
    assert cauchy(np.full((2, 1), 1e-280), np.ones((2, 1), bool))[0] == pytest.approx(1e-280, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_rejections_are_those_of_scipy(alpha: float) -> None:
    for _ in range(30):
        p = DICE.random(40) ** 3
        rejected, limit = benjamini_hochberg(p, alpha)
        assert rejected.tolist() == (stats.false_discovery_control(p) <= alpha * (1 + 1e-12)).tolist()
        assert rejected.tolist() == (p <= limit).tolist()


def test_without_hypotheses_nothing_is_rejected() -> None:
    assert benjamini_hochberg(np.zeros(0), 0.1)[0].tolist() == []
