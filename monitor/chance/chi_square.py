"""Tails and quantiles of the χ² distribution, by which a distance's critical value is known at any sample size."""

from __future__ import annotations

import numpy as np
from scipy import special  # type: ignore[import-untyped]  # it has no stubs

from monitor.columns import Float, Int


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
    return np.asarray(np.where(np.greater(dof, 0), special.chdtri(np.maximum(dof, 1), alpha), 0.0))
