"""Hellinger distance."""

from __future__ import annotations

import numpy as np

from monitor.columns import Float
from monitor.sides import Sides, summed


def contributions(sides: Sides) -> Float:
    """Return ½(√Q − √P)² per cell, shape (..., k): they add up to the square of the distance, for ΣP = ΣQ = 1."""
    u, v = sides.scaled
    roots = np.sqrt(u) + np.sqrt(v)
    gap = sides.scaled_differences / np.where(roots > 0, roots, 1.0)
    return gap * gap / (2 * sides.total)


def hellinger(sides: Sides) -> Float:
    """Return √(1 − Σ√(PQ)) without smoothing: a metric in [0, 1]; 0 when one side is empty.

    >>> import numpy as np
    >>> round(float(hellinger(Sides(np.array([50, 50]), np.array([50, 0])))), 9)
    0.5411961
    """
    return np.sqrt(np.minimum(summed(contributions(sides)), 1.0))
