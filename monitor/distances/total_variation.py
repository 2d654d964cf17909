"""Total variation."""

from __future__ import annotations

import numpy as np

from monitor.columns import Float
from monitor.sides import Sides, summed


def contributions(sides: Sides) -> Float:
    """Return ½|Q−P| per cell, shape (..., k); they add up to the distance."""
    return np.abs(sides.differences) / 2


def tv(sides: Sides) -> Float:
    """Return ½ Σ|Q−P|, the share of rows that would have to change cells: a metric in [0, 1]; 0 when one side is empty.

    >>> import numpy as np
    >>> float(tv(Sides(np.array([50, 50]), np.array([25, 75]))))
    0.25
    """
    return np.minimum(summed(contributions(sides)), 1.0)
