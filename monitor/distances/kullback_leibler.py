"""Kullback–Leibler divergence."""

from __future__ import annotations

import numpy as np

from monitor.columns import Float
from monitor.sides import Sides, summed

_SMALL = 1 / 16
_ODD_POWERS = (1 / 3, 1 / 5, 1 / 7, 1 / 9, 1 / 11, 1 / 13)


def contributions(sides: Sides) -> Float:
    """Return Q ln(Q/P) − (Q − P) per cell, shape (..., k): never negative, and they add up to the divergence, for ΣP = ΣQ.

    With S = Q + P and t = (Q − P)/S this is S (t·artanh t + artanh t − t); for small t the last difference is taken by its series.
    """
    p, q, differences = sides.smoothed
    total = p + q
    t = differences / total
    squared = t * t
    series = np.zeros_like(t)
    for power in reversed(_ODD_POWERS):
        series = (series + power) * squared
    artanh = np.log(q / p) / 2
    small = np.abs(t) < _SMALL
    excess = np.where(small, series * t, artanh - t)
    return total * np.where(small, squared + (1 + t) * excess, t * artanh + excess)


def kl(sides: Sides) -> Float:
    """Return Σ Q ln(Q/P) in nats on shares of (count + ½)/(n + ½k): ≥ 0, unbounded, not symmetric.

    >>> import numpy as np
    >>> round(float(kl(Sides(np.array([50, 50]), np.array([25, 75])))), 9)
    0.128109001
    """
    return np.maximum(summed(contributions(sides)), 0.0)
