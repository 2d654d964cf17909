"""L-infinity, or Chebyshev, distance."""

from __future__ import annotations

import numpy as np

from monitor.columns import Float
from monitor.sides import Sides


def contributions(sides: Sides) -> Float:
    """Return |Q−P| of the first cell where it is largest and 0 of the others, shape (..., k)."""
    gap = np.abs(sides.differences)
    return np.where(np.arange(sides.k) == gap.argmax(axis=-1)[..., np.newaxis], gap, 0.0)


def linf(sides: Sides) -> Float:
    """Return max|Q−P|: a metric in [0, 1]; 0 when one side is empty.

    >>> import numpy as np
    >>> float(linf(Sides(np.array([50, 25, 25]), np.array([25, 50, 25]))))
    0.25
    """
    return np.asarray(np.abs(sides.differences).max(axis=-1))
