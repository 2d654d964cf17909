"""Kolmogorov–Smirnov distance."""

from __future__ import annotations

import numpy as np

from monitor.columns import Float
from monitor.sides import FineSides


def ks(sides: FineSides) -> Float:
    """Return the largest difference of the two distribution functions at the fine cells' edges: in [0, 1], symmetric.

    Never above the distance of the raw rows, and below it by at most the smaller of the two shares of one cell: ≤ 1/128 + 1/m of a
    continuous feature, whatever the drift.

    >>> import numpy as np
    >>> from monitor.sides import Spread
    >>> spread = Spread(0.0, 3.0, 1.5, 1.0)
    >>> float(ks(FineSides(np.array([2, 1, 1]), np.array([0, 3, 1]), np.array([1.0, 2.0]), spread, spread)))
    0.5
    """
    return np.asarray(np.abs(sides.cumulative_differences).max(axis=-1))
