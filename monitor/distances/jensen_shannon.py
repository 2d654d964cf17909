"""Jensen–Shannon distance."""

from __future__ import annotations

import math

from monitor.columns import Int


def contributions(reference: Int, window: Int) -> list[float]:
    """Return each cell's part of the Jensen–Shannon divergence in bits, in cell order; zeros when one side is empty.

    A cell with u = P·nm and v = Q·nm gives (u ln(2u/(u+v)) + v ln(2v/(u+v))) / (2nm ln 2).
    """
    n, m = int(window.sum()), int(reference.sum())
    if not (n and m):
        return [0.0] * len(reference)
    scale = 2 * n * m * math.log(2)
    return [_cell(r * n, w * m) / scale for r, w in zip(reference.tolist(), window.tolist(), strict=True)]


def jensen_shannon(reference: Int, window: Int) -> float:
    """Return √(JSD / ln 2) without smoothing: a metric in [0, 1] (Endres & Schindelin 2003); 0 when one side is empty.

    reference, window: (k,) counts of the same cells.

    >>> import numpy as np
    >>> jensen_shannon(np.array([10, 0]), np.array([0, 10]))
    1.0
    """
    return math.sqrt(min(max(math.fsum(contributions(reference, window)), 0.0), 1.0))


def _cell(u: int, v: int) -> float:
    """Return u ln(2u/(u+v)) + v ln(2v/(u+v))."""
    if u == v:
        return 0.0
    total = u + v
    t = (u - v) / total
    if abs(t) < 0.5:  # the linear terms of both logarithms cancel: the same expression without them
        return total / 2 * (math.log1p(-t * t) + 2 * t * math.atanh(t))
    return (u * math.log(2 * u / total) if u else 0.0) + (v * math.log(2 * v / total) if v else 0.0)
