"""Tails and quantiles of the χ² distribution, by which a distance's critical value is known at any sample size."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import special  # type: ignore[import-untyped]  # it has no stubs

from monitor.columns import Float, Int

KNOWN = 1_024
"""Quantiles of fewer degrees of freedom are kept."""


def survival(x: Float | float, dof: Int | int) -> Float:
    """Return P(χ²_dof > x), (…,) each; 1 where x ≤ 0 or dof < 1.

    >>> survival(np.array([27.877164871256568, -1.0]), 9).round(12).tolist()
    [0.001, 1.0]
    """
    tail = special.chdtrc(np.maximum(dof, 1), np.maximum(x, 0.0))
    return np.asarray(np.where(np.greater(dof, 0), tail, 1.0))


def critical(dof: Int | int, alpha: float) -> Float:
    """Return the x with P(χ²_dof > x) = alpha, (…,); 0 where dof < 1.

    >>> critical(np.array([9, 0]), 0.001).round(9).tolist()
    [27.877164871, 0.0]
    """
    dof = np.maximum(dof, 0)
    known = _quantiles(alpha)
    return known[dof] if np.max(dof, initial=0) < len(known) else _critical(dof, alpha)


@lru_cache(maxsize=8)
def _quantiles(alpha: float) -> Float:
    """Return `critical` of 0, 1, … degrees of freedom: each takes a microsecond to find, and most distances of a window ask for the same."""
    return _critical(np.arange(KNOWN), alpha)


def _critical(dof: Int, alpha: float) -> Float:
    return np.asarray(np.where(dof > 0, special.chdtri(np.maximum(dof, 1), alpha), 0.0))
