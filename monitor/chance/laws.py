"""What a distance does by chance: the value that it exceeds once in 1000 windows when nothing has changed, and how likely a value is.

Rows are taken as independent draws; cells are fixed before the window is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from monitor.chance.chi_square import critical, survival
from monitor.chance.counts import ALPHA
from monitor.columns import Float, Int

RARE_ROWS = 10
"""Cells that expect fewer rows on a side are rare: the square roots and logarithms of their shares vary more than χ² knows."""


class Sample(NamedTuple):
    """How much was compared; (…,) each, of one or several comparisons."""

    n: Int | int
    """Rows of the window, at least 1."""
    m: Int | int
    """Rows of the reference, at least 1."""
    k: Int | int
    """Cells."""
    filled: Int | int
    """Cells that hold a row of either side."""
    rare: Int | int
    """Those of them that expect fewer than `RARE_ROWS` rows on the smaller side."""

    def of(self, places: Int) -> Sample:
        """Return some of several comparisons."""
        return Sample(*(np.asarray(column)[places] for column in self))


def sample_of(cells: Sequence[tuple[Int, Int]]) -> Sample:
    """Return how much (reference, window) counts compare, (k,) both of them, k ≥ 1 of its own for each comparison.

    >>> sample_of([(np.array([500, 490, 10, 0]), np.array([60, 39, 1, 0])), (np.array([1]), np.array([1]))])
    Sample(n=array([100,   1]), m=array([1000,    1]), k=array([4, 1]), filled=array([3, 1]), rare=array([1, 1]))
    """
    k = np.array([len(reference) for reference, _ in cells])
    starts = np.cumsum(k) - k
    reference, window = (np.concatenate(side) for side in zip(*cells, strict=True))
    rows = reference + window
    n, m = np.add.reduceat(window, starts), np.add.reduceat(reference, starts)
    is_filled = rows > 0
    is_rare = is_filled & (rows * np.repeat(np.minimum(n, m) / np.maximum(n + m, 1), k) < RARE_ROWS)
    return Sample(n, m, k, *(np.add.reduceat(cell, starts, dtype=np.int64) for cell in (is_filled, is_rare)))


class Law(Protocol):
    """What chance does to a distance; (…,) as the sample."""

    def critical(self, sample: Sample) -> Float:
        """Return the value that is exceeded with probability `chance.ALPHA`, or at most with that."""

    def p_value(self, value: Float | float, sample: Sample) -> Float:
        """Return the probability of a value at least as large, or a bound of it."""


@dataclass(frozen=True, slots=True)
class ChiSquareLaw:
    """factor · value^power / (1/n + 1/m) is χ² with cells − 1 degrees of freedom, to first order in the differences of shares.

    is_smoothed: empty cells count as cells. doubles_rare: a rare cell counts as two, an upper bound. is_centred: the expectation k − 1
    was taken off the statistic. is_statistic: the value is the statistic itself, 1/n + 1/m in it.
    """

    factor: float
    power: int = 1
    is_smoothed: bool = False
    doubles_rare: bool = True
    is_centred: bool = False
    is_statistic: bool = False

    def _scale(self, sample: Sample) -> Float | float:
        return self.factor if self.is_statistic else self.factor / (1 / sample.n + 1 / sample.m)

    def _dof(self, sample: Sample) -> Int | int:
        cells = sample.k if self.is_smoothed else sample.filled
        return cells - 1 + (cells - sample.filled + sample.rare if self.doubles_rare else 0)

    def critical(self, sample: Sample) -> Float:
        """Return the value whose statistic is the 0.999 quantile of χ².

        >>> ChiSquareLaw(1.0).critical(Sample(np.array([1000, 100]), 10_000, 10, 10, 0)).round(4).tolist()
        [0.0307, 0.2816]
        """
        dof = self._dof(sample)
        statistic = critical(dof, ALPHA) - (dof if self.is_centred else 0)
        return np.asarray((statistic / self._scale(sample)) ** (1 / self.power))

    def p_value(self, value: Float | float, sample: Sample) -> Float:
        """Return the upper tail of χ² at the value's statistic; 1 without a degree of freedom."""
        dof = self._dof(sample)
        statistic = np.asarray(self._scale(sample) * value**self.power + (dof if self.is_centred else 0), np.float64)
        return survival(statistic, dof)


@dataclass(frozen=True, slots=True)
class ExponentialBound:
    """P(value > t) ≤ 2·exp(−2t² / (1/n + 1/m)), whatever the distribution; is_per_cell: k times that.

    Of one difference of shares: Hoeffding 1963, theorem 2. Of two distribution functions, at any number of places: Massart 1990; for
    unequal n and m the constant 2 is that of large samples.
    """

    is_per_cell: bool = False

    def _tails(self, sample: Sample) -> Int | int:
        return 2 * sample.k if self.is_per_cell else 2

    def critical(self, sample: Sample) -> Float:
        """Return where the bound is `chance.ALPHA`, at most 1.

        >>> ExponentialBound().critical(Sample(np.array([1000, 1]), 10_000, 10, 10, 0)).round(4).tolist()
        [0.0647, 1.0]
        """
        return np.minimum(1.0, np.sqrt(np.log(self._tails(sample) / ALPHA) * (1 / sample.n + 1 / sample.m) / 2))

    def p_value(self, value: Float | float, sample: Sample) -> Float:
        """Return the bound, at most 1."""
        return np.minimum(1.0, self._tails(sample) * np.exp(-2 * value * value / (1 / sample.n + 1 / sample.m)))
