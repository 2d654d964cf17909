"""What a distance does by chance: the value that it exceeds once in 1000 windows when nothing has changed, and how likely a value is.

Rows are taken as independent draws; cells are fixed before the window is seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from monitor.chance.chi_square import critical, survival
from monitor.chance.counts import ALPHA
from monitor.columns import Int

RARE_ROWS = 10
"""Cells that expect fewer rows on a side are rare: the square roots and logarithms of their shares vary more than χ² knows."""


class Sample(NamedTuple):
    """How much was compared."""

    n: int
    """Rows of the window, at least 1."""
    m: int
    """Rows of the reference, at least 1."""
    k: int
    """Cells."""
    filled: int
    """Cells that hold a row of either side."""
    rare: int
    """Those of them that expect fewer than `RARE_ROWS` rows on the smaller side."""


def sample_of(reference: Int, window: Int) -> Sample:
    """Return how much two sides with counts (k,) each compare.

    >>> sample_of(np.array([500, 490, 10, 0]), np.array([60, 39, 1, 0]))
    Sample(n=100, m=1000, k=4, filled=3, rare=1)
    """
    n, m, rows = int(window.sum()), int(reference.sum()), reference + window
    is_rare = rows * (min(n, m) / max(n + m, 1)) < RARE_ROWS
    return Sample(n, m, len(rows), int(np.count_nonzero(rows)), int(np.count_nonzero(is_rare & (rows > 0))))


class Law(Protocol):
    """What chance does to a distance."""

    def critical(self, sample: Sample) -> float:
        """Return the value that is exceeded with probability `chance.ALPHA`, or at most with that."""

    def p_value(self, value: float, sample: Sample) -> float:
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

    def _scale(self, sample: Sample) -> float:
        return self.factor if self.is_statistic else self.factor / (1 / sample.n + 1 / sample.m)

    def _dof(self, sample: Sample) -> int:
        cells = sample.k if self.is_smoothed else sample.filled
        return cells - 1 + (cells - sample.filled + sample.rare if self.doubles_rare else 0)

    def critical(self, sample: Sample) -> float:
        """Return the value whose statistic is the 0.999 quantile of χ².

        >>> round(ChiSquareLaw(1.0).critical(Sample(1000, 10_000, 10, 10, 0)), 4)
        0.0307
        """
        dof = self._dof(sample)
        statistic = critical(dof, ALPHA) - (dof if self.is_centred else 0)
        value: float = (statistic / self._scale(sample)) ** (1 / self.power)
        return value

    def p_value(self, value: float, sample: Sample) -> float:
        """Return the upper tail of χ² at the value's statistic; 1 without a degree of freedom."""
        dof = self._dof(sample)
        statistic = self._scale(sample) * value**self.power + (dof if self.is_centred else 0)
        return survival(statistic, dof) if dof > 0 else 1.0


@dataclass(frozen=True, slots=True)
class ExponentialBound:
    """P(value > t) ≤ 2·exp(−2t² / (1/n + 1/m)), whatever the distribution; is_per_cell: k times that.

    Of one difference of shares: Hoeffding 1963, theorem 2. Of two distribution functions, at any number of places: Massart 1990; for
    unequal n and m the constant 2 is that of large samples.
    """

    is_per_cell: bool = False

    def _tails(self, sample: Sample) -> int:
        return 2 * sample.k if self.is_per_cell else 2

    def critical(self, sample: Sample) -> float:
        """Return where the bound is `chance.ALPHA`, at most 1.

        >>> round(ExponentialBound().critical(Sample(1000, 10_000, 10, 10, 0)), 4)
        0.0647
        """
        return min(1.0, math.sqrt(math.log(self._tails(sample) / ALPHA) * (1 / sample.n + 1 / sample.m) / 2))

    def p_value(self, value: float, sample: Sample) -> float:
        """Return the bound, at most 1."""
        return min(1.0, self._tails(sample) * math.exp(-2 * value * value / (1 / sample.n + 1 / sample.m)))
