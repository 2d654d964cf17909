"""Numbers in log-linear cells that depend on nothing: the finest ones that fit a budget, and what each of them holds.

A double x ≠ 0 has a key, the bits of |x| as an integer that rises with x. At shift s a cell holds the doubles whose keys agree above
their lowest s bits: (a, b], the largest double b included; at shift 0 it is one double, at shift 47 an octave has 32 cells. Zero stands
apart. The shift is the smallest one at which the cells fit the budget. More values never need fewer cells, so it is a function of the
set of values, and merging is exact: any order, batching and partitioning leads to the same cells. (The uniform collapse of UDDSketch,
Epicoco et al. 2020, on the cells of an HDR histogram.)
"""

from __future__ import annotations

import math
import struct

import numpy as np

from monitor.columns import Float, Int

MAX_SHIFT = 62
"""At this one, every double is in one of four cells."""
_MAGNITUDE = (1 << 63) - 1
_LARGEST = 0x7FEF_FFFF_FFFF_FFFF
"""Bits of the largest finite double."""
BELOW_ZERO = math.nextafter(0.0, -math.inf)

MANTISSA_BITS = 52
_COUNT_BITS = 16
_KEY_BITS = 64


def relative_width(shift: int) -> float:
    """Return the largest width of a cell at a shift, relative to its ends, but for doubles below 1e-307.

    >>> relative_width(47), relative_width(0) < 1e-15
    (0.03125, True)
    """
    return math.ldexp(1.0, shift - MANTISSA_BITS)


class LogCells:
    """Counts of finite numbers by cell.

    keys, counts: (n_cells,) int64, occupied cells by rising key; zeros: rows with 0 or −0. minimum, maximum: ±inf without rows.
    is_whole: every number is an integer.
    """

    __slots__ = ("counts", "is_whole", "keys", "maximum", "minimum", "shift", "zeros")

    def __init__(self) -> None:
        self.shift = 0
        self.keys: Int = np.zeros(0, np.int64)
        self.counts: Int = np.zeros(0, np.int64)
        self.zeros = 0
        self.minimum = math.inf
        self.maximum = -math.inf
        self.is_whole = True

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.counts.sum()) + self.zeros

    @property
    def is_exact(self) -> bool:
        """Whether every cell holds one double only, so that all values are known."""
        return self.shift == 0

    def update(self, values: Float, budget_bits: int) -> None:
        """Count finite values, shape (n,) float64. Cost: about 80 ns per value."""
        if not len(values):
            return
        self.minimum = min(self.minimum, float(values.min()) + 0.0)
        self.maximum = max(self.maximum, float(values.max()) + 0.0)
        self.is_whole = self.is_whole and bool((values == np.floor(values)).all())
        others = values[values != 0]
        self.zeros += len(values) - len(others)
        bits = np.ascontiguousarray(others, np.float64).view(np.int64)
        self._add(np.where(bits > 0, bits - 1, -1 - (bits & _MAGNITUDE)) >> self.shift, np.ones(len(bits), np.int64))
        self.fit(budget_bits)

    def merge(self, other: LogCells, budget_bits: int) -> None:
        """Add another one's counts; both must have been fitted to at least this budget."""
        self.minimum, self.maximum = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        self.is_whole = self.is_whole and other.is_whole
        self.zeros += other.zeros
        self._coarsen(other.shift)
        self._add(other.keys >> (self.shift - other.shift), other.counts)
        self.fit(budget_bits)

    def fit(self, budget_bits: int) -> None:
        """Make the cells as coarse as the budget demands: n_cells · (bits of a key + 16 of a count) ≤ budget_bits."""
        low, high = self.shift, MAX_SHIFT
        while low < high:
            middle = (low + high) // 2
            if self._cells_at(middle) * (_KEY_BITS - middle + _COUNT_BITS) <= budget_bits:
                high = middle
            else:
                low = middle + 1
        self._coarsen(low)

    def _cells_at(self, shift: int) -> int:
        if not len(self.keys):
            return 0
        keys = self.keys >> (shift - self.shift)
        return 1 + int(np.count_nonzero(keys[1:] != keys[:-1]))

    def _coarsen(self, shift: int) -> None:
        if shift > self.shift:
            keys, self.keys = self.keys >> (shift - self.shift), self.keys[:0]
            counts, self.counts = self.counts, self.counts[:0]
            self.shift = shift
            self._add(keys, counts)

    def _add(self, keys: Int, counts: Int) -> None:
        """Add counts by key, keys in any order, at the present shift."""
        keys = np.concatenate((self.keys, keys))
        counts = np.concatenate((self.counts, counts))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if len(keys) else np.zeros(0, np.int64)
        self.keys = keys[first]
        self.counts = np.add.reduceat(counts[order], first) if len(keys) else counts

    def cells(self) -> tuple[Float, Int]:
        """Return the upper ends of the occupied cells, rising, shape (k,), and their rows; zero has a cell of its own.

        The end of the cell below zero is the largest double below it, and no end lies above the maximum.
        """
        ends = [min(_end(key, self.shift), self.maximum) for key in self.keys.tolist()]
        counts = self.counts.tolist()
        if self.zeros:
            at = int(np.searchsorted(self.keys, 0))
            ends.insert(at, 0.0)
            counts.insert(at, self.zeros)
        return np.array(ends, np.float64), np.array(counts, np.int64)


def _end(key: int, shift: int) -> float:
    """Return the largest double of a cell, zero being in none."""
    last = ((key + 1) << shift) - 1
    if last >= 0:
        return _double(min(last + 1, _LARGEST))
    return min(-_double(-1 - last), BELOW_ZERO)


def _double(bits: int) -> float:
    return float(struct.unpack("<d", struct.pack("<q", bits))[0])
