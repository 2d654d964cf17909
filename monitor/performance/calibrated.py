"""Scores as the reference's labels calibrate them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monitor.columns import Float
from monitor.reference import ScoreCalibration


def calibrated(calibrations: Sequence[ScoreCalibration], scores: Float) -> list[Float]:
    """Return the share of rows that are of each class, given their scores; one (n,) array for each column of finite scores (n, k).

    The shares of several classes add up to 1, as CBPE of several classes has them; where all are 0 they are equal.
    """
    shares = [interpolated(one, np.ascontiguousarray(scores[:, column])) for column, one in enumerate(calibrations)]
    if len(shares) == 1:
        return shares
    total = shares[0]
    for share in shares[1:]:
        total = total + share
    equal = 1.0 / len(shares)
    return [np.divide(share, total, out=np.full(len(share), equal), where=total > 0) for share in shares]


def interpolated(calibration: ScoreCalibration, scores: Float) -> Float:
    """Return the share of rows that are of the class at each score, (n,)."""
    if not calibration.scores:
        return np.clip(scores, 0.0, 1.0)
    x, y = np.array(calibration.scores), np.array(calibration.shares)
    if len(x) == 1:
        return np.full(len(scores), y[0])
    clipped = np.clip(scores, x[0], x[-1])
    after = np.clip(np.searchsorted(x, clipped, side="left"), 1, len(x) - 1)
    left, right = after - 1, after
    return np.asarray(y[left] + (y[right] - y[left]) * ((clipped - x[left]) / (x[right] - x[left])))
