"""Which share of rows is of a class, by score: isotonic regression on the reference's labels, where it makes scores better probabilities.

As CBPE has it (NannyML 0.13): splits, stratified by label, one row in ten left out; isotonic only if the expected calibration error of the
rows left out is smaller with it. NannyML draws ten, and of a thousand rows often decides otherwise with another draw. Here every row is left
out equally often, so that chance is in the calibrated side alone, and often enough to decide as NannyML does where it draws a thousand.
Scores come as cells, so that the rows' order does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import optimize  # type: ignore[import-untyped]  # it has no stubs

from monitor.columns import Float, Int
from monitor.performance.calibrated import interpolated
from monitor.performance.intervals import auc
from monitor.reference import ScoreCalibration

PARTS = 10
"""Of the rows; each is left out once in a round."""
ROUNDS = (10, 20, 40, 80, 160)
"""After so many the decision may be made: as soon as it is `SURE` standard errors from being another one, after the last anyway."""
SURE = 4.0
MIN_ROUNDS, ROUND_CELLS = 5, 330_000
"""No more rounds than cells of scores make so many together, beyond the first few: memory. Many cells come of many rows, which need fewer."""
BINS = 10
"""Of as many rows each."""
NEARLY_PERFECT_AUC = 0.999
"""Above, scores stay as they are: there is hardly a row from which a share between 0 and 1 could be learnt."""
MIN_ROWS = 500
"""With fewer, isotonic regression fits noise (scikit-learn's guide says so of far fewer than 1,000): scores stay as they are."""
_SEED = 42
_DIGITS = 10


def calibration_of(hits: Int, misses: Int, scores: Float) -> ScoreCalibration:
    """Return the calibration of one class's scores; hits, misses: rows of the class and others by cell, scores: their means, rising.

    All of shape (k,), no cell empty. Without points where scores are as good as they are.
    """
    area, n_hits = auc(hits, misses), int(hits.sum())
    if area is None or area.value > NEARLY_PERFECT_AUC or n_hits + int(misses.sum()) < MIN_ROWS:
        return ScoreCalibration()
    before, after = _errors(hits, misses, scores)
    if before <= after:
        return ScoreCalibration(ece=(before, after))
    made = isotonic(hits, hits + misses, scores)
    return ScoreCalibration(scores=made.scores, shares=made.shares, ece=(before, after))


def isotonic(hits: Int, rows: Int, scores: Float) -> ScoreCalibration:
    """Return the non-decreasing shares that are nearest to hits/rows, by rows: the ends of each level stretch."""
    shares = np.asarray(optimize.isotonic_regression(hits / rows, weights=rows).x)
    kept = np.ones(len(shares), bool)
    kept[1:-1] = (shares[1:-1] != shares[:-2]) | (shares[1:-1] != shares[2:])
    points: dict[float, float] = {}
    for score, share in zip(scores[kept].tolist(), shares[kept].tolist(), strict=True):
        points.setdefault(float(f"{score:.{_DIGITS}g}"), float(f"{share:.{_DIGITS}g}"))
    return ScoreCalibration(scores=list(points), shares=list(points.values()))


def _errors(hits: Int, misses: Int, scores: Float) -> tuple[float, float]:
    """Return the expected calibration error of the rows left out, as they are and calibrated by the others."""
    draw, before = np.random.default_rng(_SEED), _error(scores, hits + misses, hits)
    rounds: list[tuple[Float, Int, Int]] = []
    limit = max(ROUND_CELLS // len(scores), MIN_ROUNDS)
    for n in (min(n, limit) for n in ROUNDS):
        rounds += [_round(hits, misses, scores, draw) for _ in range(n - len(rounds))]
        after = _error(*(np.concatenate(column) for column in zip(*rounds, strict=True)))
        chance = np.std([_error(*one) for one in rounds], ddof=1) / math.sqrt(n)
        if n == limit or abs(before - after) > SURE * chance:
            break
    return before, after


def _round(hits: Int, misses: Int, scores: Float, draw: np.random.Generator) -> tuple[Float, Int, Int]:
    """Return what `_error` takes, of all rows: each as calibrated by the parts that it is not in; cells without rows are left out."""
    calibrated, rows_left, hits_left = [], [], []
    for left_hits, left_misses in zip(_parts(hits, draw), _parts(misses, draw), strict=True):
        rows = hits + misses - left_hits - left_misses
        known = rows > 0
        made = isotonic((hits - left_hits)[known], rows[known], scores[known])
        left = rows < hits + misses
        calibrated.append(interpolated(made, scores[left]))
        rows_left.append((left_hits + left_misses)[left])
        hits_left.append(left_hits[left])
    return np.concatenate(calibrated), np.concatenate(rows_left), np.concatenate(hits_left)


def _parts(side: Int, draw: np.random.Generator) -> Iterator[Int]:
    """Yield the rows by cell of random parts, which differ by one row at most and together are the whole."""
    rest, n = side, int(side.sum())
    for i in range(PARTS):
        part = draw.multivariate_hypergeometric(rest, n * (i + 1) // PARTS - n * i // PARTS, method="marginals")
        rest = rest - part
        yield part


def _error(scores: Float, rows: Int, hits: Int) -> float:
    """Return the expected calibration error in bins of as many rows; a cell on the border of two gives each its share."""
    order = np.argsort(scores, kind="stable")
    sums = np.cumsum(np.stack((rows, rows * scores, hits))[:, order], axis=1)
    ends = np.concatenate((np.arange(BINS) * (sums[0, -1] // BINS), [sums[0, -1]]))
    at = np.concatenate(([0.0], sums[0]))
    totals, found = (np.diff(np.interp(ends, at, np.concatenate(([0.0], one)))) for one in sums[1:])
    return float(np.abs(totals - found).sum() / sums[0, -1])
