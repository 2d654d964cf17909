"""Distances between a reference's cells and a window's. One function in a file of its own, one line in `DISTANCES`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from monitor.columns import Int
from monitor.distances.chi_square import critical
from monitor.distances.jensen_shannon import jensen_shannon
from monitor.distances.psi import psi, psi_corrected

ALPHA = 0.001
"""False alarms per feature and window that a critical value allows, without drift."""


@dataclass(frozen=True, slots=True)
class Distance:
    """A function of (reference counts, window counts), both (k,) int64 of the same cells.

    bounds: of its values. critical: (n, m, k) → the value that it exceeds with probability `ALPHA` without drift; None: no rule uses it.
    """

    name: str
    function: Callable[[Int, Int], float]
    bounds: tuple[float, float]
    symmetric: bool
    critical: Callable[[int, int, int], float] | None = None


def critical_psi(n: int, m: int, k: int) -> float:
    """Return (1/n + 1/m)·χ²(k−1): PSI over that factor is χ² without drift (Yurdakul 2018; right from n ≈ 300).

    >>> round(critical_psi(1000, 10_000, 10), 4)
    0.0307
    """
    return (1 / n + 1 / m) * critical(k - 1, ALPHA)


def critical_js(n: int, m: int, k: int) -> float:
    """Return the same for the Jensen–Shannon distance, by JSD ≈ PSI / 8 for small differences."""
    return min(1.0, math.sqrt(critical_psi(n, m, k) / 8 / math.log(2)))


DISTANCES: tuple[Distance, ...] = (
    Distance("psi", psi, (0.0, math.inf), symmetric=False, critical=critical_psi),
    Distance("psi_corrected", psi_corrected, (-math.inf, math.inf), symmetric=False),
    Distance("js", jensen_shannon, (0.0, 1.0), symmetric=True, critical=critical_js),
)
