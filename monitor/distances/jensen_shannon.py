"""Jensen–Shannon distance."""

from __future__ import annotations

import math

import numpy as np

from monitor.columns import Float
from monitor.sides import Sides, summed


def contributions(sides: Sides) -> Float:
    """Return each cell's part of the Jensen–Shannon divergence in bits, shape (..., k); none is negative, zeros when one side is empty.

    With t = (Q−P)/(Q+P) a cell gives (P ln(1−t) + Q ln(1+t)) / (2 ln 2) = (Q+P) (ln(1−t²) + 2t·artanh t) / (4 ln 2).
    """
    u, v = sides.scaled
    sums = u + v
    filled = np.where(sums > 0, sums, 1.0)
    t = sides.scaled_differences / filled
    near = np.where(np.abs(t) < 0.5, t, 0.0)  # the linear terms of both logarithms cancel: an expression without them
    close = sums / 2 * (np.log1p(-near * near) + 2 * near * np.arctanh(near))
    p, q = np.where(u > 0, 2 * u / filled, 1.0), np.where(v > 0, 2 * v / filled, 1.0)
    far = u * np.log2(p) + v * np.log2(q)
    return np.where(np.abs(t) < 0.5, close / math.log(2), far) / (2 * sides.total)


def js(sides: Sides) -> Float:
    """Return √(JSD / ln 2) without smoothing: a metric in [0, 1] (Endres & Schindelin 2003); 0 when one side is empty.

    >>> import numpy as np
    >>> float(js(Sides(np.array([10, 0]), np.array([0, 10]))))
    1.0
    """
    return np.sqrt(np.clip(summed(contributions(sides)), 0.0, 1.0))
