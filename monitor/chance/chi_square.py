"""Quantiles of the χ² distribution, by which a distance's critical value is known at any sample size."""

from __future__ import annotations

import math
from functools import lru_cache

_HORNER_BELOW = 600.0
"""e^600 is a double, e^750 is none."""


def survival(x: float, dof: int) -> float:
    """Return P(χ²_dof > x), to about 1e-13: the closed forms of integer degrees of freedom (Abramowitz & Stegun 26.4.4–5).

    >>> round(survival(27.877164871256568, 9), 12)
    0.001
    """
    if x <= 0:
        return 1.0
    half = x / 2
    if dof % 2:
        total, log_term, first = math.erfc(math.sqrt(half)), 0.5 * math.log(half) - half - math.lgamma(1.5), 1.5
    else:
        total, log_term, first = 0.0, -half, 1.0
    n_terms = dof // 2
    if n_terms and half < _HORNER_BELOW:
        series = 1.0
        for k in range(n_terms - 2, -1, -1):
            series = 1.0 + series * half / (first + k)
        return min(total + math.exp(log_term) * series, 1.0)
    log_half = math.log(half)
    for k in range(n_terms):
        total += math.exp(log_term)
        log_term += log_half - math.log(first + k)
    return min(total, 1.0)


@lru_cache(maxsize=4_096)
def critical(dof: int, alpha: float) -> float:
    """Return the x with P(χ²_dof > x) = alpha, by bisection to 1e-12 relative; 0 for dof < 1.

    >>> round(critical(9, 0.001), 9)
    27.877164871
    """
    if dof < 1:
        return 0.0
    low, high = 0.0, float(dof + 10)
    while survival(high, dof) > alpha:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if survival(middle, dof) > alpha else (low, middle)
    return (low + high) / 2
