"""Kolmogorov–Smirnov distance."""

from __future__ import annotations

import numpy as np

from monitor.columns import Float
from monitor.sides import FineSides


def ks(sides: FineSides) -> Float:
    """Return the largest difference of the two distribution functions at the fine cells' edges: in [0, 1], symmetric.

    Never above the distance of the raw rows, and below it by at most the largest share that either side has in one cell between two
    edges: ≤ 0.01 of a continuous feature without drift.
    """
    return np.asarray(np.abs(sides.cumulative_differences).max(axis=-1))
