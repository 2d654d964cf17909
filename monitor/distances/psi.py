"""Population stability index."""

from __future__ import annotations

import numpy as np

from monitor.columns import Float, Int


def psi(reference: Int, window: Int) -> float:
    """Return Σ (Q−P) ln(Q/P) on shares of (count + ½)/(n + ½k): a symmetric divergence, ≥ 0, unbounded.

    reference, window: (k,) counts of the same cells.

    >>> psi(np.array([50, 50]), np.array([50, 50]))
    0.0
    """
    p, q = contributions_shares(reference, window)
    return float(((q - p) * np.log(q / p)).sum())


def psi_corrected(reference: Int, window: Int) -> float:
    """Return psi less its expectation without drift, (k−1)(1/n + 1/m); may be negative."""
    n, m = int(window.sum()), int(reference.sum())
    if not (n and m):
        return 0.0
    return psi(reference, window) - (len(window) - 1) * (1 / n + 1 / m)


def contributions_shares(reference: Int, window: Int) -> tuple[Float, Float]:
    """Return (P, Q), the ½-smoothed shares, each (k,)."""
    k = len(reference)
    return (reference + 0.5) / (reference.sum() + 0.5 * k), (window + 0.5) / (window.sum() + 0.5 * k)


def contributions(reference: Int, window: Int) -> Float:
    """Return each cell's part of psi, shape (k,); they add up to it."""
    p, q = contributions_shares(reference, window)
    return np.asarray((q - p) * np.log(q / p))
