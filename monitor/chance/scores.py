"""Scores of windows against a reference, from counts of the same cells: X², and two rank tests in which a cell's rows are tied.

Vectorised over windows. Here are statistics, not probabilities: what a score means is `calibration`'s matter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.columns import Float, Int

MIN_EXPECTED = 5
"""Rows that a cell of X² must expect, else it is pooled (Cochran 1954)."""


class RankScores(NamedTuple):
    """What one row of each cell counts in a rank test; (…, k) float64 each."""

    location: Float
    """Wilcoxon's: the mid-rank, less ½, over N; in (0, 1)."""
    dispersion: Float
    """Mood's: the mean of (rank − (N+1)/2)² over the cell's ranks, over N²; in [0, ¼)."""


def chi_square(windows: Int, reference: Int) -> Float:
    """Return Pearson's X² of each 2×k table of a window and its reference, without continuity correction; shape (w,).

    windows: (w, k) counts. reference: (k,), or (w, k): one for each window. Neither side may be empty; a cell without a row on either
    side adds nothing. Without drift about χ²(k−1), where no cell is empty on both sides.

    >>> chi_square(np.array([[30, 10]]), np.array([20, 20])).round(9).tolist()
    [5.333333333]
    """
    window, rest = windows.astype(np.float64), reference.astype(np.float64)
    n, m = window.sum(axis=-1, keepdims=True), rest.sum(axis=-1, keepdims=True)
    pooled = window + rest
    difference = m * window - n * rest
    parts = np.divide(difference * difference, n * m * pooled, out=np.zeros(np.shape(difference)), where=pooled > 0)
    return np.asarray(parts.sum(axis=-1))


def rank_scores(pooled: Int) -> RankScores:
    """Return the scores of the cells in which N rows lie, both samples pooled; pooled: (…, k) counts in the order of the values.

    Rows of a cell share the mean of their ranks' scores (Wilcoxon 1945; Mood 1954 with ties as Mielke 1967): with L rows below
    a cell of t rows the ranks are L+1 … L+t, whose mean of (rank − c)² is (L + (t+1)/2 − c)² + (t² − 1)/12. 0 where there are no rows.

    >>> rank_scores(np.array([1, 2, 1])).location.tolist()
    [0.125, 0.5, 0.875]
    """
    t = pooled.astype(np.float64)
    n_rows = np.maximum(t.sum(axis=-1, keepdims=True), 1)
    below = np.cumsum(t, axis=-1) - t
    from_centre = below + t / 2 - n_rows / 2
    squares = from_centre * from_centre + (t * t - 1) / 12
    return RankScores((below + t / 2) / n_rows, np.where(t > 0, squares / (n_rows * n_rows), 0.0))


def rank_z(sums: Float | Int, n: Int, pooled: Int, scores: Float | Int) -> Float:
    """Return (T − E T)/√(Var T) of each window's sum of scores T, under all ways to draw its n rows from the N pooled ones; shape (w,).

    E T = n·s̄ and Var T = n·m / (N (N−1)) · Σ (s − s̄)², m = N − n: exact moments for any scores and ties (Hájek & Šidák 1967,
    II.3.1). pooled, scores: (k,), or (w, k), in any unit. 0 where all pooled rows share one score.

    >>> pooled = np.array([1, 1, 1, 1])
    >>> rank_z(np.array([0.125 + 0.375]), np.array([2]), pooled, rank_scores(pooled).location).round(6).tolist()
    [-1.549193]
    """
    t = pooled.astype(np.float64)
    n_rows = t.sum(axis=-1)
    mean = (t * scores).sum(axis=-1) / n_rows
    squares = (t * (scores - mean[..., np.newaxis]) ** 2).sum(axis=-1)
    drawn = n.astype(np.float64)
    variance = drawn * (n_rows - drawn) / (n_rows * np.maximum(n_rows - 1, 1)) * squares
    z = np.divide(sums - drawn * mean, np.sqrt(variance), out=np.zeros(np.shape(variance)), where=variance > 0)
    return np.asarray(z)


def rank_tests(windows: Int, reference: Int) -> tuple[Float, Float]:
    """Return (z of location, z of dispersion) of each window, (w,) each: Wilcoxon's and Mood's test on cells.

    windows: (w, k) counts in the order of the values; reference: (k,) or (w, k). Positive: the window's values are larger, or lie
    further out. Standard normal without drift.
    """
    pooled = windows + reference
    n = windows.sum(axis=-1)
    location, dispersion = ((rank_z((windows * s).sum(axis=-1), n, pooled, s)) for s in rank_scores(pooled))
    return location, dispersion


def number_groups(reference: Int, n: float) -> Int:
    """Return a group for each of k ordered cells, neighbours joined until a group expects `MIN_EXPECTED` of n rows; shape (k,).

    >>> number_groups(np.array([50, 1, 0, 49, 0]), 100).tolist()
    [0, 1, 1, 1, 1]
    """
    needed = MIN_EXPECTED * int(reference.sum())
    groups = np.zeros(len(reference), np.int64)
    group = held = 0
    for cell, count in enumerate(reference.tolist()):
        if held * n >= needed > 0:
            group, held = group + 1, 0
        groups[cell] = group
        held += count
    if group and held * n < needed:
        groups[groups == group] = group - 1
    return groups


def category_groups(reference: Int, n: float) -> Int:
    """Return a group for each of k cells: those that expect `MIN_EXPECTED` of n rows alone, the rest pooled; shape (k,).

    A rest that expects fewer joins the rarest of the others.

    >>> category_groups(np.array([50, 2, 45, 3]), 100).tolist()
    [0, 2, 1, 2]
    """
    needed = MIN_EXPECTED * int(reference.sum())
    order = np.argsort(-reference, kind="stable")
    is_large = reference[order] * n >= max(needed, 1)
    n_large = int(is_large.sum())
    rest = int(reference[order[n_large:]].sum())
    last = n_large if rest * n >= needed or not n_large else n_large - 1
    groups = np.empty(len(reference), np.int64)
    groups[order] = np.minimum(np.arange(len(reference)), last)
    return groups


def grouped(counts: Int, groups: Int) -> Int:
    """Return counts added up by group; (…, k) → (…, number of groups).

    >>> grouped(np.array([[1, 2, 3], [4, 5, 6]]), np.array([0, 1, 0])).tolist()
    [[4, 2], [10, 5]]
    """
    total = np.zeros((*counts.shape[:-1], int(groups.max(initial=-1)) + 1), np.int64)
    np.add.at(np.moveaxis(total, -1, 0), groups, np.moveaxis(counts, -1, 0))
    return total
