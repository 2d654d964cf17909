"""Metrics of classes, from a confusion and from score cells; the same for rows that are labelled and for rows as they are expected."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from monitor.columns import Float, Int
from monitor.performance import intervals
from monitor.performance.intervals import Estimate, wilson

_CHANCE_Z = 3.090232306167813
"""99.9 % quantile of the normal law."""


def of_confusion(confusion: Float | Int, positive: int | None) -> dict[str, Estimate]:
    """Return accuracy, precision, recall and f1; of several classes their means over those that occur.

    What is 0/0 is left out where there are two classes, and counts as 0 in a mean. confusion: (c, c) rows by
    label (outer) and prediction; the last class stands for all that the specification does not have, and only errs.
    """
    counts = confusion.astype(np.float64)
    n, hits = float(counts.sum()), counts.diagonal()[:-1]
    if n <= 0:
        return {}
    found = {"accuracy": wilson(float(hits.sum()), n)}
    actual, predicted = counts.sum(axis=1)[:-1], counts.sum(axis=0)[:-1]
    if positive is not None:
        tp, p, a = float(hits[positive]), float(predicted[positive]), float(actual[positive])
        found |= {name: wilson(tp, rows) for name, rows in (("precision", p), ("recall", a)) if rows > 0}
        if p + a > 0:
            found["f1"] = intervals.f1(tp, p + a - 2 * tp)
    elif len(hits) > 2:
        found |= _means(counts, n)
    return found


def _means(counts: Float, n: float) -> dict[str, Estimate]:
    """Return macro precision, recall and f1, with the delta method on the shares of the whole confusion.

    A class with a handful of rows has a variance of about 0 by itself: intervals are those of counts with two hits and two misses more of
    each class, as Agresti and Coull (1998) have it for one share.
    """
    k = len(counts) - 1
    occur = np.flatnonzero(counts.sum(axis=1)[:k] + counts.sum(axis=0)[:k] > 0)
    if not len(occur):
        return {}
    more = counts.copy()
    more[np.ix_(occur, occur)] += 2 / max(len(occur) - 1, 1)
    more[occur, occur] = counts[occur, occur] + 2
    found = {}
    for name, parts in _PARTS.items():
        value = _mean(counts, occur, parts)[0]
        centre, gradient = _mean(more, occur, parts)
        _, low, high = intervals.of_shares(centre, more, gradient, float(more.sum()))
        found[name] = Estimate(value, None if low is None else min(low, value), None if high is None else max(high, value))
    return found


_PARTS = {"precision": (0, 1, 1), "recall": (1, 0, 1), "f1": (1, 1, 2)}
"""Of the ratio's bottom: rows by label, rows by prediction; of its top: hits."""


def _mean(counts: Float, occur: Int, parts: tuple[int, int, int]) -> tuple[float, Float]:
    """Return the mean over some classes of times · hits / bottom, and its gradient by the shares of the cells."""
    by_label, by_prediction, times = parts
    n, gradient, total = float(counts.sum()), np.zeros_like(counts), 0.0
    for c in occur.tolist():
        bottom = by_label * counts[c].sum() + by_prediction * counts[:, c].sum()
        if bottom <= 0:
            continue
        value = float(times * counts[c, c] / bottom)
        total += value
        gradient[c, :] -= by_label * value * n / bottom
        gradient[:, c] -= by_prediction * value * n / bottom
        gradient[c, c] += times * n / bottom
    return total / len(occur), gradient / len(occur)


def mean_auc(sides: Sequence[tuple[Float | Int, Float | Int]]) -> Estimate | None:
    """Return the mean of one-against-rest areas, (positives, negatives) by score cell of each class; classes without either are left out.

    Its standard error is the mean of theirs, as if all rose and fell together: the interval is never too short for that.
    """
    areas = [area for area in (intervals.auc(*side) for side in sides) if area is not None]
    if not areas:
        return None
    if len(areas) == 1:
        return areas[0]
    ends = [[end for end in (area.low, area.high) if end is not None] for area in areas]
    value = math.fsum(area.value for area in areas) / len(areas)
    if any(len(pair) < 2 for pair in ends):
        return Estimate(value)
    return Estimate(value, math.fsum(pair[0] for pair in ends) / len(areas), math.fsum(pair[1] for pair in ends) / len(areas))


def ece(gaps: Float, hits_variance: Float, n: float, columns: int) -> tuple[Estimate, float]:
    """Return the expected calibration error, and what chance alone exceeds once in 1000 where scores are calibrated.

    gaps: (bins,) Σp − hits; hits_variance: (bins,) Σp(1 − p); of several classes all their bins, columns of them. A calibrated model has
    an error too: its mean at this n is taken off the lower end of the interval.
    """
    total = n * columns
    value = float(np.abs(gaps).sum()) / total
    by_chance = float(np.sqrt(hits_variance).sum()) * math.sqrt(2 / math.pi) / total
    deviation = math.sqrt(float(hits_variance.sum())) / total
    spread = math.sqrt(float(hits_variance.sum()) * (1 - 2 / math.pi)) / total
    low = max(0.0, value - by_chance - intervals.Z * deviation)
    return Estimate(value, low, min(1.0, value + intervals.Z * deviation)), by_chance + _CHANCE_Z * spread
