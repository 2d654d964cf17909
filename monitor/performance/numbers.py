"""Exact sums of labels and errors of a regression: integers of any size, the same whatever the order.

Per segment, `N_SUMS` pairs (Σq, Σq²) of quantised values. The first rows are on the grid of the reference's predictions; those of higher
moments are in units of its spread, on a grid of 2^−20, and only of rows within `FAR` spreads, so that no square leaves a double.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from monitor.columns import Bool, Float, Int, Objects
from monitor.performance.spec import PerformanceSpec
from monitor.sketches.moments import exact_sums_by_group, mean_std

N_SUMS = 9
FAR = float(1 << 20)
"""Rows whose label or error is so many spreads away: their window has values, but no intervals that need higher moments."""
_MOMENT_BITS = 20
_RATIO_BITS = 36


class NumberSums(NamedTuple):
    """Power sums of n rows, in the label's unit; e = label − prediction, d = label − centre."""

    rmse: float
    label_std: float
    """Population standard deviation; both are right where squares leave a double."""
    error: float
    error2: float
    absolute: float
    label: float
    """Σd"""
    label2: float
    ratio: float
    """Σ|e|/|label|, of labels other than 0"""
    ratio2: float
    error4: float
    error2_label2: float
    error2_label: float
    label3: float
    label4: float


def far_rows(spec: PerformanceSpec, labels: Float, errors: Float) -> Bool:
    """Return which rows are too far away for the higher moments; (n,)."""
    limit = FAR * spec.spread
    return ~((np.abs(errors) < limit) & (np.abs(labels - spec.centre) < limit))


def group_sums(spec: PerformanceSpec, labels: Float, predicted: Float, starts: Int) -> Objects:
    """Return the sums of groups of finite rows, (n_groups, N_SUMS, 2) Python integers; starts: first row of each group."""
    errors = labels - predicted
    errors = np.where(np.isfinite(errors), errors, np.copysign(np.finfo(np.float64).max, errors))
    is_far = far_rows(spec, labels, errors)
    u = np.where(is_far, 0.0, errors / spec.spread)
    v = np.where(is_far, 0.0, (labels - spec.centre) / spec.spread)
    with np.errstate(over="ignore"):
        ratio = np.divide(np.abs(errors), np.abs(labels), out=np.zeros(len(labels)), where=labels != 0)
    ratio = np.where(np.isfinite(ratio), ratio, np.finfo(np.float64).max)
    squares = u * u, v * v
    values = np.stack((errors, np.abs(errors), labels, ratio, squares[0], squares[1], u * v, squares[0] + v, squares[1] + v))
    own, moment = spec.exponent, -_MOMENT_BITS
    centres = np.array([0.0, 0.0, spec.centre, *[0.0] * 6])
    exponents = np.array([own, own, own, -_RATIO_BITS, *[moment] * 5])
    return exact_sums_by_group(values, centres, exponents, starts)


def number_sums(spec: PerformanceSpec, sums: Objects, n: int) -> NumberSums:
    """Return what integers of `group_sums`, (N_SUMS, 2), of n > 0 rows stand for."""
    own = spec.exponent
    first = [sums[i, 0] for i in range(N_SUMS)]
    second = [sums[i, 1] for i in range(N_SUMS)]
    moments = [_scaled(total, -2 * _MOMENT_BITS) for total in second[4:]]
    u4, v4, u2v2, u2_and_v, v2_and_v = moments
    v2 = _scaled(second[2], 2 * (own - math.frexp(spec.spread)[1] + 1))
    mean, std = mean_std(n, first[0], second[0], 0.0, own)
    return NumberSums(
        rmse=math.hypot(mean, std),
        label_std=mean_std(n, first[2], second[2], 0.0, own)[1],
        error=_scaled(first[0], own),
        error2=_scaled(second[0], 2 * own),
        absolute=_scaled(first[1], own),
        label=_scaled(first[2], own),
        label2=_scaled(second[2], 2 * own),
        ratio=_scaled(first[3], -_RATIO_BITS),
        ratio2=_scaled(second[3], -2 * _RATIO_BITS),
        error4=u4 * spec.spread**4,
        error2_label2=u2v2 * spec.spread**4,
        error2_label=(u2_and_v - u4 - v2) / 2 * spec.spread**3,
        label3=(v2_and_v - v4 - v2) / 2 * spec.spread**3,
        label4=v4 * spec.spread**4,
    )


def _scaled(total: int, exponent: int) -> float:
    """Return total · 2^exponent, ±inf where a double cannot hold it."""
    try:
        if exponent >= 0:
            return float(total << exponent)
        return total / (1 << -exponent)
    except OverflowError:
        return math.inf if total > 0 else -math.inf
