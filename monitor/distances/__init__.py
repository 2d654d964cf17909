"""Distances between a reference's cells and a window's. One function in a file of its own, one line in `DISTANCES`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from monitor.columns import Int
from monitor.distances import jensen_shannon as js
from monitor.distances import psi
from monitor.distances.chi_square import critical, survival

ALPHA = 0.001
"""False alarms per feature and window that a critical value allows, without drift."""

Kind = Literal["number", "category"]


@dataclass(frozen=True, slots=True)
class Distance:
    """A function of (reference counts, window counts), both (k,) int64 of the same cells.

    kinds: of features that it is defined for. bounds: of its values. symmetric: the same with both sides exchanged.
    contributions: each cell's share of it. statistic: (value, n, m) → a number that is χ²(k−1) without drift.
    critical: (n, m, k) → the value that it exceeds with probability `ALPHA` without drift; None: no rule uses it.
    """

    name: str
    function: Callable[[Int, Int], float]
    kinds: tuple[Kind, ...]
    bounds: tuple[float, float]
    symmetric: bool
    contributions: Callable[[Int, Int], Sequence[float]] | None = None
    statistic: Callable[[float, int, int], float] | None = None
    critical: Callable[[int, int, int], float] | None = None

    def p_value(self, value: float, n: int, m: int, k: int) -> float | None:
        """Return the probability that it reaches `value` without drift, or None where no law is known."""
        return None if self.statistic is None or k < 2 else survival(self.statistic(value, n, m), k - 1)


def statistic_psi(value: float, n: int, m: int) -> float:
    """Return PSI / (1/n + 1/m): χ²(k−1) without drift (Yurdakul 2018; right from n ≈ 300)."""
    return value / (1 / n + 1 / m)


def critical_psi(n: int, m: int, k: int) -> float:
    """Return (1/n + 1/m)·χ²(k−1), the inverse of `statistic_psi` at `ALPHA`.

    >>> round(critical_psi(1000, 10_000, 10), 4)
    0.0307
    """
    return (1 / n + 1 / m) * critical(k - 1, ALPHA)


def statistic_js(value: float, n: int, m: int) -> float:
    """Return the same for the Jensen–Shannon distance, by JSD ≈ PSI / 8 (nats) for small differences."""
    return statistic_psi(8 * math.log(2) * value * value, n, m)


def critical_js(n: int, m: int, k: int) -> float:
    """Return the inverse of `statistic_js` at `ALPHA`.

    >>> round(critical_js(1000, 10_000, 10), 4)
    0.0744
    """
    return min(1.0, math.sqrt(critical_psi(n, m, k) / 8 / math.log(2)))


BOTH: tuple[Kind, ...] = ("number", "category")

DISTANCES: tuple[Distance, ...] = (
    Distance("psi", psi.psi, BOTH, (0.0, math.inf), True, psi.contributions, statistic_psi, critical_psi),
    Distance("psi_corrected", psi.psi_corrected, BOTH, (-math.inf, math.inf), True),
    Distance("js", js.jensen_shannon, BOTH, (0.0, 1.0), True, js.contributions, statistic_js, critical_js),
)
