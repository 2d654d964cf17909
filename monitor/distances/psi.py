"""Population stability index, corrected for the sample size, and as tools that clip shares compute it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from monitor.columns import Float
from monitor.sides import Sides, summed

EPS = 1e-4
"""What most batch tools put in place of an empty cell's share."""


def contributions(sides: Sides) -> Float:
    """Return each cell's part of psi, (Q−P) ln(Q/P), shape (..., k); they add up to it, none is negative."""
    p, q, differences = sides.smoothed
    gap = np.abs(differences)
    return gap * np.log1p(gap / np.minimum(p, q))


@lru_cache(maxsize=1)  # psi_corrected follows on the same sides
def psi(sides: Sides) -> Float:
    """Return Σ (Q−P) ln(Q/P) on shares of (count + ½)/(n + ½k): a symmetric divergence, ≥ 0, unbounded.

    >>> import numpy as np
    >>> float(psi(Sides(np.array([50, 50]), np.array([50, 50]))))
    0.0
    >>> round(float(psi(Sides(np.array([50, 50]), np.array([25, 75])))), 9)
    0.268676783
    """
    return summed(contributions(sides))


def psi_corrected(sides: Sides) -> Float:
    """Return psi less its expectation without drift, (k−1)(1/n + 1/m); may be negative; 0 when one side is empty."""
    n, m = sides.n[..., 0], sides.m[..., 0]
    expected = (sides.k - 1) * (1 / np.maximum(n, 1) + 1 / np.maximum(m, 1))
    return np.where((n > 0) & (m > 0), psi(sides) - expected, 0.0)


def psi_eps_contributions(sides: Sides, eps: float = EPS) -> Float:
    """Return each cell's part of psi_eps, shape (..., k); they add up to it, none is negative."""
    p, q = sides.shares
    p_clipped, q_clipped = np.maximum(p, eps), np.maximum(q, eps)
    gap = np.abs(np.where(np.minimum(p, q) >= eps, sides.differences, q_clipped - p_clipped))
    return gap * np.log1p(gap / np.minimum(p_clipped, q_clipped))


def psi_eps(sides: Sides, eps: float = EPS) -> Float:
    """Return Σ (Q−P) ln(Q/P) on shares that are clipped below at `eps` and not renormalised: symmetric, ≥ 0, unbounded.

    >>> import numpy as np
    >>> round(float(psi_eps(Sides(np.array([50, 50]), np.array([0, 100])))), 9)
    4.604318467
    """
    return summed(psi_eps_contributions(sides, eps))
