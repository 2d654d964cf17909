"""Pearson's two-sample χ²."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from monitor.chance.chi_square import survival
from monitor.columns import Float
from monitor.sides import Sides, summed


def contributions(sides: Sides) -> Float:
    """Return each cell's part of the statistic, shape (..., k); they add up to it, none is negative."""
    gap = sides.scaled_differences
    rows = sides.reference + sides.window
    return gap / sides.total * gap / np.where(rows > 0, rows, 1)


@lru_cache(maxsize=1)  # chi2_p follows on the same sides
def chi2(sides: Sides) -> Float:
    """Return Pearson's statistic of the 2×k table of counts, without continuity correction: Σ (w·m − r·n)² / (n·m·(r + w)).

    Degrees of freedom: the cells that hold a row (`sides.filled`) less one. 0 when one side is empty.

    >>> import numpy as np
    >>> round(float(chi2(Sides(np.array([50, 50]), np.array([25, 75])))), 9)
    13.333333333
    """
    return summed(contributions(sides))


def chi2_p(sides: Sides) -> Float:
    """Return the probability of a `chi2` at least as large when nothing has changed; right where a cell expects five rows or more.

    >>> import numpy as np
    >>> round(float(chi2_p(Sides(np.array([50, 50]), np.array([25, 75])))), 9)
    0.00026073
    """
    return survival(chi2(sides), sides.filled - 1)
