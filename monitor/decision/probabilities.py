"""Tail probabilities of scores, right down to the small ones that a budget of false alarms asks for; and how many of them may be believed.

χ² and the normal law are right in the middle and up to 20 times too optimistic at 1e-5 where a cell expects five rows; with the third
moment, which is known exactly, they are within a factor of six, and with the chance of a single cell within two and a half (docs/decisions.md).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special  # type: ignore[import-untyped]  # it has no stubs

from monitor.columns import Bool, Float, Int

SMALLEST = 1e-300
_LARGEST = 0.99
"""Cauchy's rule: one test that fits too well must not outweigh the others."""
_SYMMETRIC = 1e-3
"""A skewness that changes no tail by more than a few per cent."""


class Moments(NamedTuple):
    """Mean, variance and skewness of X² under independent rows; (…,) each."""

    mean: Float
    variance: Float
    skewness: Float


def chi_square_moments(shares: Float, n: Float) -> Moments:
    """Return the exact moments of Pearson's X² of n rows over cells with these shares; shares (…, k), 0: no cell. n: (…,), above 1.

    With R = Σ 1/p: variance 2(k−1)(n−1)/n + (R−k²)/n, third central moment (Σ 1/p² − 3kR + 2k³)/n² + [18 (R−k²) + 4 (R−3k+2) +
    8 (n−2)(k−1)] (n−1)/n²: X² is a sum of |u|² and of 2 u·u' over pairs, for iid vectors u of unit covariance (cf. Haldane 1937).

    >>> even = chi_square_moments(np.full((1, 10), 0.1), np.array([1e9]))
    >>> even.mean.tolist(), even.variance.round(6).tolist(), (8 / even.skewness**2).round(6).tolist()
    ([9.0], [18.0], [9.0])
    """
    is_cell = shares > 0
    inverse = np.divide(1.0, shares, out=np.zeros(shares.shape), where=is_cell)
    k, r = is_cell.sum(axis=-1), inverse.sum(axis=-1)
    n = np.maximum(n, 2.0)
    excess = r - k * k
    variance = (2 * (k - 1) * (n - 1) + excess) / n
    single = (inverse**2).sum(axis=-1) - 3 * k * r + 2 * k**3
    pairs = 18 * excess + 4 * (r - 3 * k + 2) + 8 * (n - 2) * (k - 1)
    third = (single + pairs * (n - 1)) / n**2
    skewness = np.divide(third, variance**1.5, out=np.zeros(np.shape(third)), where=variance > 0)
    return Moments(np.asarray(k - 1.0), np.asarray(variance), skewness)


def gamma_tail(z: Float, skewness: Float) -> Float:
    """Return P(Z > z) of a standardised Pearson type III law, which is the normal one at skewness 0 and that of χ² at √(8/dof); (…,) each.

    >>> gamma_tail(np.array([3.090232, 3.090232]), np.array([0.0, 0.5])).round(5).tolist()
    [0.001, 0.00453]
    """
    z, skewness = np.broadcast_arrays(z, skewness)
    tail = np.array(special.ndtr(-z))
    for sign, function in ((1, special.gammaincc), (-1, special.gammainc)):
        leans = sign * skewness >= _SYMMETRIC
        shape = 4 / skewness[leans] ** 2
        tail[leans] = function(shape, np.maximum(shape + np.sqrt(shape) * sign * z[leans], 0.0))
    return tail


def chi_square_p(x2: Float, moments: Moments, phi: Float, shape_dof: Float, independent: Float) -> Float:
    """Return P(X² > x2); (…,) each. phi 1 and shape_dof 0: rows are independent, and the moments are all there is to know.

    Otherwise X²/(phi·dof) ~ F(shape_dof, max(4, independent·shape_dof)), see `calibration.ScaleLaw`; x2 is first brought to where χ²
    with its degrees of freedom has the same tail.
    """
    dof = np.maximum(moments.mean, 1.0)
    spread = np.sqrt(np.where(moments.variance > 0, moments.variance, 1.0))
    p = gamma_tail((x2 - moments.mean) / spread, moments.skewness)
    like = special.chdtri(dof, np.clip(p, SMALLEST, 1.0))
    h = np.where(shape_dof > 0, shape_dof, 1.0)
    dispersed = special.fdtrc(h, np.maximum(4.0, independent * h), like / (phi * dof))
    return np.where(moments.mean > 0, np.where(shape_dof > 0, dispersed, p), 1.0)


def one_cell_p(x2: Float, shares: Float, n: Float) -> Float:
    """Return the chance that one cell alone makes X² of n independent rows so large, the others adding what they do on average.

    shares: (…, k), 0: no cell. x2, n: (…,). Far out it is most of the tail where cells expect few rows, and three moments miss it: a binomial
    count falls off more slowly than a gamma law.

    >>> one_cell_p(np.array([36.0]), np.array([[0.05, 0.25, 0.3, 0.4]]), np.array([100.0])).round(8).tolist()
    [2.29e-06]
    """
    expected, cells = n[..., np.newaxis] * shares, (shares > 0).sum(axis=-1)
    alone = np.maximum(x2 - np.maximum(cells - 2, 0), 0.0)[..., np.newaxis]
    enough = np.ceil(expected + np.sqrt(alone * expected * (1 - shares)) - 1e-6)
    chances = np.where(enough <= n[..., np.newaxis], special.betainc(enough, n[..., np.newaxis] - enough + 1, shares), 0.0)
    return np.asarray(np.where(shares > 0, chances, 0.0).sum(axis=-1))


def two_sided_p(z: Float, skewness: Float, phi: Float, independent: Float) -> Float:
    """Return P(|Z| ≥ |z|) of a standardised sum, twice the smaller tail; (…,) each. phi 1: rows are independent.

    Otherwise z/√phi ~ t(max(3, independent)), after its skewness was taken out.
    """
    scaled = z / np.sqrt(phi)
    smaller = gamma_tail(scaled, skewness)
    is_upper = smaller > 0.5
    smaller[is_upper] = gamma_tail(-scaled[is_upper], -skewness[is_upper])
    p = np.clip(2 * smaller, SMALLEST, 1.0)
    heavy = 2 * special.stdtr(np.maximum(3.0, independent), special.ndtri(p / 2))
    return np.asarray(np.where(phi > 1, heavy, p))


def cauchy(p_values: Float, is_used: Bool) -> Float:
    """Return the p of several tests of one thing, whatever they have to do with one another (Liu & Xie 2020); (t, …) → (…,).

    >>> cauchy(np.array([[1e-6], [0.5], [0.3]]), np.ones((3, 1), bool)).round(9).tolist()
    [3e-06]
    """
    p = np.clip(p_values, SMALLEST, _LARGEST)
    is_small = p < 1e-15
    terms = np.where(is_small, 1 / (p * np.pi), np.tan((0.5 - np.where(is_small, 0.5, p)) * np.pi))
    used = is_used.sum(axis=0)
    mean = np.where(is_used, terms, 0.0).sum(axis=0) / np.maximum(used, 1)
    is_large = mean > 1e15
    combined = np.where(is_large, 1 / (np.where(is_large, mean, 1.0) * np.pi), 0.5 - np.arctan(mean) / np.pi)
    return np.asarray(np.where(used > 0, combined, 1.0))


def benjamini_hochberg(p_values: Float, alpha: float) -> tuple[Bool, float]:
    """Return which of (h,) hypotheses are rejected at a false discovery rate, and the p up to which one is (Benjamini & Hochberg 1995).

    >>> benjamini_hochberg(np.array([0.001, 0.02, 0.5, 0.6]), 0.05)
    (array([ True,  True, False, False]), 0.025)
    """
    h = len(p_values)
    if not h:
        return np.zeros(0, bool), 0.0
    ranks: Int = np.arange(1, h + 1)
    passed = np.flatnonzero(np.sort(p_values) <= alpha * ranks / h)
    limit = float(alpha * (passed[-1] + 1 if len(passed) else 1) / h)
    return p_values <= limit, limit
