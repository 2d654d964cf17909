"""Which share of rows is of a class, by score: isotonic regression on the reference's labels, where it makes scores better probabilities.

As CBPE has it (NannyML 0.13): splits, stratified by label, one row in ten left out; isotonic only if the expected calibration error of the
rows left out is smaller with it. NannyML makes ten, and on a few hundred rows decides otherwise with another draw; fifty make that rare.
Scores come as cells, so that the rows' order does not matter.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize  # type: ignore[import-untyped]  # it has no stubs

from monitor.columns import Float, Int
from monitor.performance.calibrated import interpolated
from monitor.performance.intervals import auc
from monitor.reference import ScoreCalibration

SPLITS = 50
LEFT_OUT = 0.1
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
    """Return the expected calibration error of the rows left out of ten splits, as they are and calibrated by the others."""
    draw = np.random.default_rng(_SEED)
    rows_left, hits_left, calibrated = [], [], []
    for _ in range(SPLITS):
        left = [
            draw.multivariate_hypergeometric(side, round(int(side.sum()) * LEFT_OUT), method="marginals")
            for side in (hits, misses)
        ]
        rows = hits + misses - left[0] - left[1]
        known = rows > 0
        made = isotonic((hits - left[0])[known], rows[known], scores[known])
        rows_left.append(left[0] + left[1])
        hits_left.append(left[0])
        calibrated.append(interpolated(made, scores))
    rows, of_class = np.concatenate(rows_left), np.concatenate(hits_left)
    return _error(np.tile(scores, SPLITS), rows, of_class), _error(np.concatenate(calibrated), rows, of_class)


def _error(scores: Float, rows: Int, hits: Int) -> float:
    """Return the expected calibration error in bins of as many rows; a cell on the border of two gives each its share."""
    order = np.argsort(scores, kind="stable")
    sums = np.cumsum(np.stack((rows, rows * scores, hits))[:, order], axis=1)
    ends = np.concatenate((np.arange(BINS) * (sums[0, -1] // BINS), [sums[0, -1]]))
    at = np.concatenate(([0.0], sums[0]))
    totals, found = (np.diff(np.interp(ends, at, np.concatenate(([0.0], one)))) for one in sums[1:])
    return float(np.abs(totals - found).sum() / sums[0, -1])
