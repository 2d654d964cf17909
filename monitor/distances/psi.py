"""Population stability index."""

from __future__ import annotations

import math

import numpy as np

from monitor.columns import Float, Int


def contributions(reference: Int, window: Int) -> list[float]:
    """Return each cell's part of psi, (Q−P) ln(Q/P), in cell order; they add up to it, none is negative.

    Differences of shares are taken between integers, so that nearly equal cells lose no digits; both sides are treated alike.
    """
    k = len(reference)
    n, m = 2 * int(window.sum()) + k, 2 * int(reference.sum()) + k
    parts = []
    for r, w in zip(reference.tolist(), window.tolist(), strict=True):
        p, q = (2 * r + 1) * n, (2 * w + 1) * m
        parts.append(abs(q - p) / (n * m) * math.log1p(abs(q - p) / min(p, q)))
    return parts


def psi(reference: Int, window: Int) -> float:
    """Return Σ (Q−P) ln(Q/P) on shares of (count + ½)/(n + ½k): a symmetric divergence, ≥ 0, unbounded.

    reference, window: (k,) counts of the same cells.

    >>> import numpy as np
    >>> psi(np.array([50, 50]), np.array([50, 50]))
    0.0
    >>> round(psi(np.array([50, 50]), np.array([25, 75])), 9)
    0.268676783
    """
    return math.fsum(contributions(reference, window))


def psi_by_row(reference: Int, window: Int) -> Float:
    """Return `psi` of each row of counts, shape (rows, k) each: within 1e-12 of it.

    >>> import numpy as np
    >>> psi_by_row(np.array([[50, 50], [1, 1]]), np.array([[25, 75], [1, 1]])).round(9).tolist()
    [0.268676783, 0.0]
    """
    k = reference.shape[1]
    p, q = ((counts + 0.5) / (counts.sum(axis=1, keepdims=True) + 0.5 * k) for counts in (reference, window))
    found: Float = ((q - p) * np.log(q / p)).sum(axis=1)
    return found


def psi_corrected(reference: Int, window: Int) -> float:
    """Return psi less its expectation without drift, (k−1)(1/n + 1/m); may be negative; 0 when one side is empty."""
    n, m = int(window.sum()), int(reference.sum())
    if not (n and m):
        return 0.0
    return psi(reference, window) - (len(window) - 1) * (1 / n + 1 / m)
