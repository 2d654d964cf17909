"""The two sides of a comparison: how many rows of a reference and of a window lie in each of the same k cells.

What every distance needs is derived once. Differences of shares are taken between integers, so that nearly equal shares lose no digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from monitor.columns import Float, Int

_INT64 = 1 << 63


@dataclass(frozen=True, eq=False)
class Sides:
    """Counts of the same cells, shape (..., k) int64 each; leading axes are independent comparisons.

    A side without a row is taken as equal to the other one.
    """

    reference: Int
    window: Int

    @property
    def k(self) -> int:
        """Number of cells."""
        return int(self.window.shape[-1])

    @cached_property
    def n(self) -> Int:
        """Rows of the window, shape (..., 1)."""
        return np.asarray(self.window.sum(axis=-1, keepdims=True))

    @cached_property
    def m(self) -> Int:
        """Rows of the reference, shape (..., 1)."""
        return np.asarray(self.reference.sum(axis=-1, keepdims=True))

    @cached_property
    def total(self) -> Float:
        """n·m, the common denominator of all shares, shape (..., 1); 1 where a side is empty."""
        return np.maximum(self.n.astype(np.float64) * self.m, 1.0)

    @cached_property
    def _scaled(self) -> tuple[Any, Any]:
        """Reference·n and window·m: the shares over `total`, as integers."""
        (r, m), (w, n) = self._integers
        return r * n, w * m

    @cached_property
    def _integers(self) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Return (counts, rows) of reference and window, of a type in which the products below do not overflow."""
        largest = [2 * int(rows.max(initial=0)) + self.k for rows in (self.m, self.n)]
        if largest[0] * largest[1] < _INT64:
            return (self.reference, self.m), (self.window, self.n)
        return (self.reference.astype(object), self.m.astype(object)), (self.window.astype(object), self.n.astype(object))

    @cached_property
    def scaled(self) -> tuple[Float, Float]:
        """The shares P and Q times `total`, shape (..., k), rounded once."""
        u, v = self._scaled
        return u.astype(np.float64), v.astype(np.float64)

    @cached_property
    def scaled_differences(self) -> Float:
        """(Q − P) times `total`, shape (..., k), rounded once."""
        u, v = self._scaled
        return np.asarray((v - u).astype(np.float64))

    @cached_property
    def differences(self) -> Float:
        """Q − P, shape (..., k)."""
        return self.scaled_differences / self.total

    @cached_property
    def cumulative_differences(self) -> Float:
        """Σ of Q − P up to and including each cell, shape (..., k): the difference of the two distribution functions at the cells' ends."""
        u, v = self._scaled
        return np.asarray(np.cumsum(v - u, axis=-1).astype(np.float64)) / self.total

    @cached_property
    def shares(self) -> tuple[Float, Float]:
        """P and Q, shape (..., k); zeros where a side is empty."""
        return self.scaled[0] / self.total, self.scaled[1] / self.total

    @cached_property
    def smoothed(self) -> tuple[Float, Float, Float]:
        """P, Q and Q − P of shares (count + ½) / (rows + ½k), shape (..., k)."""
        (r, m), (w, n) = self._integers
        rows_r, rows_w = 2 * m + self.k, 2 * n + self.k
        u, v = (2 * r + 1) * rows_w, (2 * w + 1) * rows_r
        total = rows_r.astype(np.float64) * rows_w.astype(np.float64)
        return u.astype(np.float64) / total, v.astype(np.float64) / total, (v - u).astype(np.float64) / total

    @cached_property
    def filled(self) -> Int:
        """How many cells hold a row of either side, shape (...)."""
        return np.asarray(np.count_nonzero(self.reference + self.window, axis=-1))


@dataclass(frozen=True, eq=False)
class Spread:
    """Where the values of one side lie, exact; shape (...) of the comparisons each."""

    minimum: Float | float
    maximum: Float | float
    mean: Float | float
    std: Float | float
    """Population standard deviation."""


@dataclass(frozen=True, eq=False)
class FineSides(Sides):
    """Counts of a number's fine cells, and what else is known of its values.

    edges: (..., k−1) increasing; cell i holds (edges[i−1], edges[i]], the first and the last are open-ended.
    """

    edges: Float
    reference_spread: Spread
    window_spread: Spread


def summed(parts: Float) -> Float:
    """Return the sums over the cells, shape (...), the same bits for any order of the cells."""
    return np.asarray(np.sort(parts, axis=-1).sum(axis=-1))
