"""Scores of a reference's rows as cells and exact sums: ranks, losses and calibration, the same for any order of the rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from monitor.columns import Float, Int
from monitor.features import NumberFeature
from monitor.performance.rows import CLIP
from monitor.performance.spec import ECE_BINS
from monitor.reference import ScoreCalibration
from monitor.reference_build.score_calibration import calibration_of
from monitor.sketches.moments import exact_sums

SCORE_CELLS = 1 << 16
"""Equal cells between the smallest and the largest score, besides the layout's; the scores of several classes share them. AUC counts rows
of one cell as ties: its error is at most half the pairs of both classes that share a cell and are none."""
QUANTUM = -40
"""Exponent of the grid on which scores and losses are summed: exact sums, the same for any order of the rows."""
_CELL_BITS = 30


@dataclass
class Scores:
    """Scores of two sorts of rows, say those of a class and all others: counts by sort and cell, and exact sums by sort."""

    feature: NumberFeature
    n_cells: int = SCORE_CELLS
    edges: Float = field(init=False)
    counts: Int = field(init=False)
    totals: Int = field(init=False)
    """by cell: Σ score, in 2^−30"""
    bins: Int = field(default_factory=lambda: np.zeros((2, ECE_BINS), np.int64))
    bin_sums: list[int] = field(default_factory=lambda: [0] * ECE_BINS)
    sums: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0), (0, 0)])
    losses: list[list[int]] = field(default_factory=lambda: [[0, 0], [0, 0]])
    """by sort: Σ −ln(score), Σ −ln(1 − score)"""

    def __post_init__(self) -> None:
        grid = np.linspace(self.feature.minimum, self.feature.maximum, self.n_cells + 1)
        self.edges = np.unique(np.concatenate((grid, np.array(self.feature.edges))))
        self.counts = np.zeros((2, len(self.edges) + 1), np.int64)
        self.totals = np.zeros(len(self.edges) + 1, np.int64)

    @property
    def are_probabilities(self) -> bool:
        """Whether all scores lie in [0, 1]."""
        return self.feature.minimum >= 0 and self.feature.maximum <= 1

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.counts.sum())

    def add(self, scores: Float, label: int) -> None:
        """Take the finite scores of rows of one sort in."""
        cells = np.searchsorted(self.edges, scores, side="left")
        self.counts[label] += np.bincount(cells, minlength=self.counts.shape[1])
        if not self.are_probabilities:
            return
        np.add.at(self.totals, cells, np.rint(np.ldexp(scores, _CELL_BITS)).astype(np.int64))
        self.sums[label] = plus(self.sums[label], exact_sums(scores, 0.0, QUANTUM))
        clipped = np.clip(scores, CLIP, 1 - CLIP)
        for i, loss in enumerate((-np.log(clipped), -np.log1p(-clipped))):
            self.losses[label][i] += exact_sums(loss, 0.0, QUANTUM)[0]
        bins = np.searchsorted(np.arange(1, ECE_BINS) / ECE_BINS, scores, side="left")  # (lo, hi], 0 in the first
        self.bins[label] += np.bincount(bins, minlength=ECE_BINS)
        for b in range(ECE_BINS):
            self.bin_sums[b] += exact_sums(scores[bins == b], 0.0, QUANTUM)[0]

    def values(self, positive: int) -> dict[str, float]:
        """Return auc, and for probabilities brier, log_loss and ece; positive: the sort that the scores are of."""
        negative, n = 1 - positive, int(self.counts.sum())
        n_of = self.counts.sum(axis=1).tolist()
        found: dict[str, float] = {}
        if min(n_of):
            below = np.cumsum(self.counts[negative]) - self.counts[negative]
            wins = int((2 * self.counts[positive] * below + self.counts[positive] * self.counts[negative]).sum())
            found["auc"] = wins / (2 * n_of[0] * n_of[1])
        if n and self.are_probabilities:
            first, second = self.sums[positive]
            square = second + self.sums[negative][1]
            found["brier"] = math.ldexp(square, 2 * QUANTUM) / n - 2 * math.ldexp(first, QUANTUM) / n + n_of[positive] / n
            found["log_loss"] = math.ldexp(self.losses[positive][0] + self.losses[negative][1], QUANTUM) / n
            gaps = (
                abs(math.ldexp(total, QUANTUM) - int(hits))
                for total, hits in zip(self.bin_sums, self.bins[positive], strict=True)
            )
            found["ece"] = math.fsum(gaps) / n
        return found

    def calibration(self, positive: int) -> ScoreCalibration:
        """Return which share of rows is of the sort that the scores are of."""
        rows = self.counts.sum(axis=0)
        used = np.flatnonzero(rows)
        means = np.ldexp(self.totals[used].astype(np.float64), -_CELL_BITS) / rows[used]
        return calibration_of(self.counts[positive][used], self.counts[1 - positive][used], means)


def plus(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """Return the sums of two pairs."""
    return a[0] + b[0], a[1] + b[1]
