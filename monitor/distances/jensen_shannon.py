"""Jensen–Shannon distance."""

from __future__ import annotations

import numpy as np

from monitor.columns import Int


def jensen_shannon(reference: Int, window: Int) -> float:
    """Return √(JSD / ln 2) without smoothing: a metric in [0, 1] (Endres & Schindelin 2003); 0 when one side is empty.

    reference, window: (k,) counts of the same cells.

    >>> jensen_shannon(np.array([10, 0]), np.array([0, 10]))
    1.0
    """
    n, m = window.sum(), reference.sum()
    if not (n and m):
        return 0.0
    p, q = reference / m, window / n
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log(p / middle), 0.0).sum()
        right = np.where(q > 0, q * np.log(q / middle), 0.0).sum()
    return float(np.sqrt(min(max((left + right) / 2 / np.log(2), 0.0), 1.0)))
