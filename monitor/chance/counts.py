"""What chance alone explains: exact tails for counts of bad rows in a window, next to those in its reference.

Both sides are taken as draws from one population (n rows in the window, m in the reference), whatever its distribution.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

ALPHA = 0.001
"""False alarms per measurement that a critical count allows, when nothing has changed."""

_NORMAL_FROM = 400.0
"""Above this variance (a standard deviation of 20 rows) the normal law stands in for the exact one."""


def excess_p(bad: int, n: int, bad_ref: int, m: int) -> float:
    """Return P(at least `bad` of the bad rows fall into the window), given how many there are: Fisher's exact test, one-sided.

    Relative error ≤ 1e-6 up to 10 million rows. Cost: a few standard deviations of steps.

    >>> round(excess_p(4, 30, 0, 100), 6)
    0.002413
    """
    marked, rows = bad + bad_ref, n + m
    first, last = max(0, marked - m), min(marked, n)
    if bad > last:
        return 0.0
    if bad * rows <= marked * n:  # below the mean: the other tail is the short one
        return 1.0 - _tail_down(bad - 1, first, (marked, n, rows)) if bad > first else 1.0
    term = total = _probability(bad, (marked, n, rows))
    for x in range(bad, last):
        term *= (marked - x) * (n - x) / ((x + 1) * (rows - marked - n + x + 1))
        total += term
        if term < 1e-17 * total:
            break
    return min(total, 1.0)


def _tail_down(bad: int, first: int, law: tuple[int, int, int]) -> float:
    """Return P(at most `bad`) of a hypergeometric law (marked, drawn, rows)."""
    marked, n, rows = law
    term = total = _probability(bad, law)
    for x in range(bad, first, -1):
        term *= x * (rows - marked - n + x) / ((marked - x + 1) * (n - x + 1))
        total += term
        if term < 1e-17 * total:
            break
    return min(total, 1.0)


def _probability(bad: int, law: tuple[int, int, int]) -> float:
    marked, n, rows = law
    return math.exp(_log_choose(marked, bad) + _log_choose(rows - marked, n - bad) - _log_choose(rows, n))


@lru_cache(maxsize=64)
def normal_quantile(alpha: float = ALPHA) -> float:
    """Return what a standard normal value exceeds with probability alpha.

    >>> round(normal_quantile(), 6)
    3.090232
    """
    return -NormalDist().inv_cdf(alpha)


def normal_p(z: float) -> float:
    """Return the probability that a standard normal value exceeds z."""
    return 0.5 * math.erfc(z / math.sqrt(2))


@lru_cache(maxsize=16_384)
def critical_excess(n: int, bad_ref: int, m: int, alpha: float = ALPHA) -> int:
    """Return the smallest count of bad rows in the window with `excess_p` ≤ alpha; n + 1 when no count is enough.

    Exact up to a standard deviation of 20 rows; beyond, the normal law with continuity correction (within 1 % of the count).

    >>> critical_excess(30, 0, 100), critical_excess(1000, 100, 10_000)
    (5, 23)
    """
    guess = _normal_guess(n, bad_ref, m, normal_quantile(alpha))
    pooled = (guess + bad_ref) / (n + m)
    if n * m / (n + m) * pooled * (1 - pooled) > _NORMAL_FROM:
        return min(guess, n + 1)
    low, high, stride = -1, min(guess, n + 1), 1  # low is never enough, high always is
    while high <= n and excess_p(high, n, bad_ref, m) > alpha:
        low, high, stride = high, min(high + stride, n + 1), 2 * stride
    stride = 1
    while high - low > 1:
        middle = max(high - stride, (low + high) // 2)
        if excess_p(middle, n, bad_ref, m) > alpha:
            low = middle
        else:
            high, stride = middle, 2 * stride
    return high


def _normal_guess(n: int, bad_ref: int, m: int, z: float) -> int:
    """Return the count from which the pooled two-proportion z test with continuity correction rejects, by iteration."""
    count = bad_ref / m * n
    for _ in range(6):
        pooled = min((count + bad_ref + 1) / (n + m + 2), 1 - 1 / (n + m + 2))
        spread = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
        count = n * (bad_ref / m + z * spread) + 0.5
    return max(1, math.ceil(count))


def extremes_p(k: int, n: int, m: int, sides: int = 2) -> float:
    """Return an upper bound of P(at least k values of the window lie outside the reference's range), at both ends or at a given one.

    That the b smallest and the k − b largest of n + m values are all of the window has probability C(n, k) / C(n + m, k), whatever
    the distribution (ties make it rarer); there are k + 1 such splits, and one for a given side.

    >>> round(extremes_p(1, 1000, 1000), 3), f"{extremes_p(10, 1000, 20_000):.0e}", round(extremes_p(1, 1000, 1000, sides=1), 9)
    (1.0, '6e-13', 0.5)
    """
    if k > n:
        return 0.0
    splits = k + 1 if sides == 2 else 1
    return min(1.0, splits * math.exp(_log_choose(n, k) - _log_choose(n + m, k)))


@lru_cache(maxsize=4_096)
def critical_extremes(n: int, m: int, sides: int = 2) -> int:
    """Return the smallest k with `extremes_p` ≤ `ALPHA`; n + 1 when no count is enough.

    >>> critical_extremes(1000, 10_000)
    4
    """
    low, high = 0, n + 1  # the bound is 1 at 0, rises, then falls: once below ALPHA it stays there
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if extremes_p(middle, n, m, sides) > ALPHA else (low, middle)
    return high


def wilson_upper(bad: int, n: int) -> float:
    """Return the upper end of the Wilson interval of a share, which lies above the true one but for `ALPHA` (approximate).

    >>> round(wilson_upper(0, 1000), 4), round(wilson_upper(100, 1000), 4), wilson_upper(0, 0)
    (0.0095, 0.1332, 1.0)
    """
    if not n:
        return 1.0
    z = normal_quantile()
    share, extra = bad / n, z * z / n
    return min(1.0, (share + extra / 2 + z * math.sqrt(share * (1 - share) / n + extra / (4 * n))) / (1 + extra))


def silence_p(share: float, n: int) -> float:
    """Return P(none of n moments, uniform over a span, lies in its last `share`): exact for a Poisson stream of steady rate.

    >>> silence_p(0.5, 3)
    0.125
    """
    return math.pow(1 - min(max(share, 0.0), 1.0), n)


def critical_silence(n: int, alpha: float = ALPHA) -> float:
    """Return the share of a span that is silent at its end with probability alpha when n ≥ 1 moments lie in it.

    >>> round(critical_silence(100), 4)
    0.0667
    """
    return 1 - math.pow(alpha, 1 / n)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
