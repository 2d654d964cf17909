"""What a model's own scores say before labels come: CBPE of classes, DLE of numbers, as the reference's labels calibrated them.

CBPE (Białek et al. 2024) takes a calibrated score for the share of rows that will turn out to be of the class, and DLE (NannyML) a mean
error by what features and the prediction make one expect. Both hold while labels depend on these as in the reference: if that changes
(concept drift) they cannot see it. Labels that have come can, and then there is no estimate but a reason.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from monitor.columns import Float
from monitor.performance import intervals
from monitor.performance.calibrated import interpolated
from monitor.performance.cells import OutcomeCells
from monitor.performance.classes import mean_auc, of_confusion
from monitor.performance.intervals import Estimate
from monitor.performance.numbers import number_sums
from monitor.performance.realised import Counts
from monitor.performance.rows import SUM_BITS
from monitor.reference import PerformanceEstimator

ALPHA = 0.001
"""Chance of saying concept drift where there is none."""
MIN_LABELLED = 30
"""Labels, of one predicted class, that contradict an estimate; fewer say nothing."""
FLOOR = 0.02
"""Smaller differences of a hit rate, or relative ones of a mean error, are no contradiction, however certain they are."""


class Estimated(NamedTuple):
    """Performance of one segment as expected of all its predictions, labelled or not."""

    values: dict[str, Estimate]
    """By metric, as `Realised.values`; empty where `unknown` says why. Intervals are of what labels would show."""
    method: str = ""
    """`cbpe` or `dle`."""
    n: int = 0
    """Predictions that it is of."""
    unknown: str | None = None
    """Why there is no estimate, or why it is not shown: labels contradict it (concept drift)."""


def estimated(cells: OutcomeCells, segment: int = 0) -> Estimated:
    """Return what is expected of a segment's predictions; the calibration is the specification's."""
    spec = cells.spec
    if spec.task == "unknown":
        return Estimated({}, unknown=spec.why)
    if spec.estimator is None:
        return Estimated(
            {}, unknown="the reference does not hold what estimates are made from; build it again from rows with labels"
        )
    counts = Counts(spec, cells.vector(segment))
    found = _of_classes(counts, spec.estimator) if spec.is_classes else _of_numbers(counts, spec.estimator)
    why = concept_drift(cells, segment) if found.values else None
    return found if why is None else found._replace(values={}, unknown=why)


def concept_drift(cells: OutcomeCells, segment: int = 0) -> str | None:
    """Return how the labels that have come contradict what was expected of the same rows; None where they do not.

    Classes: hits among the rows of each predicted class, whose variance is at most that of equal probabilities. Numbers: the sum of
    absolute errors. Both allow for the calibration's own error.
    """
    spec = cells.spec
    if spec.estimator is None:
        return None
    counts = Counts(spec, cells.vector(segment))
    if not spec.is_classes:
        return _drift_of_numbers(cells, segment, counts, spec.estimator)
    if "expected_labelled" not in spec.blocks:
        return None
    expected, rows, hits = _expected_labelled(counts)
    looked_at = [j for j in range(spec.n_classes) if rows[j] >= MIN_LABELLED]
    worst: tuple[float, str] | None = None
    for j in looked_at:
        share, n = min(max(expected[j] / rows[j], 0.0), 1.0), rows[j]
        variance = n * share * (1 - share) + 1 / 12
        m = spec.estimator.predicted[j] if j < len(spec.estimator.predicted) else spec.estimator.n
        z = (hits[j] - expected[j]) / math.sqrt(variance * (1 + n / max(m, 1)))
        p = min(1.0, math.erfc(abs(z) / math.sqrt(2)) * len(looked_at))
        if p < ALPHA and abs(hits[j] / n - share) >= FLOOR and (worst is None or p < worst[0]):
            text = f"of {n:.0f} labelled predictions of {spec.classes[j]} {hits[j] / n:.1%} are right, {share:.1%} were expected"
            worst = p, f"concept drift indicated: {text} (p = {p:.1g})"
    return None if worst is None else worst[1]


def _of_classes(counts: Counts, estimator: PerformanceEstimator) -> Estimated:
    spec = counts.spec
    k, columns = spec.n_classes, len(spec.score_names)
    if "expected" not in spec.blocks or not estimator.calibrations:
        return Estimated({}, unknown="no scores of the reference are calibrated probabilities")
    by_predicted = counts["expected"].reshape(k + 2, columns + 2)
    shares = np.ldexp(by_predicted[:, :columns].astype(np.float64), -SUM_BITS)
    rows = by_predicted[:, columns].astype(np.float64)
    n = int(rows.sum())
    if not n:
        return Estimated({}, method="cbpe", unknown="no predictions with a score")
    if columns == 1:
        positive = spec.positive or 0
        both = np.empty((k + 2, 2))
        both[:, positive], both[:, 1 - positive] = shares[:, 0], rows - shares[:, 0]
        shares = both
    confusion = np.zeros((k + 1, k + 1))
    confusion[:k] = np.maximum(shares[: k + 1].T, 0.0)
    values = of_confusion(confusion, spec.positive)
    area = mean_auc(_expected_sides(counts, estimator))
    if area is not None:
        values["auc"] = area
    return Estimated(_widened(values, n, estimator.n), "cbpe", n)


def _expected_sides(counts: Counts, estimator: PerformanceEstimator) -> list[tuple[Float, Float]]:
    """Return how many rows of each score cell are expected to be of the score's class, and how many not."""
    spec, sides = counts.spec, []
    for column, edges in enumerate(spec.edges):
        rows = counts[f"made_scores{column}"][:-1].astype(np.float64)
        if len(spec.edges) > 1:
            positives = np.clip(counts.sums(f"expected_scores{column}")[:-1], 0.0, rows)
        else:
            middles = np.concatenate(([edges[0]], (edges[1:] + edges[:-1]) / 2, [edges[-1]]))
            positives = rows * interpolated(estimator.calibrations[0], middles)
        sides.append((positives, rows - positives))
    return sides


def _expected_labelled(counts: Counts) -> tuple[Float, Float, Float]:
    """Return expected hits, rows and hits by predicted class, of the rows with a label and a score; (k,) each."""
    spec = counts.spec
    k, columns = spec.n_classes, len(spec.score_names)
    block = counts["expected_labelled"].reshape(k + 2, columns + 2)[:k]
    shares = np.ldexp(block[:, :columns].astype(np.float64), -SUM_BITS)
    rows, hits = block[:, columns].astype(np.float64), block[:, columns + 1].astype(np.float64)
    if columns > 1:
        return shares.diagonal(), rows, hits
    is_positive = np.arange(k) == spec.positive
    return np.where(is_positive, shares[:, 0], rows - shares[:, 0]), rows, hits


def _of_numbers(counts: Counts, estimator: PerformanceEstimator) -> Estimated:
    rows, absolute, square = _error_cells(counts, "made", estimator)
    n = int(rows.sum())
    if not n:
        return Estimated({}, method="dle", unknown="no predictions")
    first, second = float((rows * absolute).sum()), float((rows * square).sum())
    values = {"mae": intervals.positive_mean(first, second, n), "rmse": Estimate(math.sqrt(second / n))}
    return Estimated(_widened(values, n, estimator.n), "dle", n)


def _error_cells(counts: Counts, block: str, estimator: PerformanceEstimator) -> tuple[Float, Float, Float]:
    """Return rows, mean |error| and mean square by cell: of the error that is expected of rows where that is known, else of predictions."""
    model = counts.spec.error_model
    if model is None:
        return counts[block][:-1].astype(np.float64), np.array(estimator.absolute_error), np.array(estimator.squared_error)
    return counts[f"{block}_expected"][:-1].astype(np.float64), np.array(model.absolute_error), np.array(model.squared_error)


def _drift_of_numbers(cells: OutcomeCells, segment: int, counts: Counts, estimator: PerformanceEstimator) -> str | None:
    rows, absolute, square = _error_cells(counts, "labelled", estimator)
    n = float(rows.sum())
    if n < MIN_LABELLED:
        return None
    found, expected = number_sums(cells.spec, cells.sums(segment), int(n)).absolute, float((rows * absolute).sum())
    variance = float((rows * np.maximum(square - absolute * absolute, 0.0)).sum()) * (1 + n / max(estimator.n, 1))
    if not variance or abs(found - expected) < FLOOR * expected:
        return None
    p = math.erfc(abs(found - expected) / math.sqrt(2 * variance))
    if p >= ALPHA:
        return None
    text = f"the mean absolute error of {n:.0f} labelled predictions is {found / n:.4g}, {expected / n:.4g} was expected"
    return f"concept drift indicated: {text} (p = {p:.1g})"


def _widened(values: dict[str, Estimate], n: int, m: int) -> dict[str, Estimate]:
    """Return intervals that allow for a calibration made of m rows, too."""
    factor = math.sqrt(1 + n / max(m, 1))
    return {name: _wider(value, factor, is_share=name not in ("mae", "rmse")) for name, value in values.items()}


def _wider(one: Estimate, factor: float, *, is_share: bool) -> Estimate:
    if one.low is None or one.high is None:
        return one
    low, high = max(0.0, one.value - (one.value - one.low) * factor), one.value + (one.high - one.value) * factor
    return Estimate(one.value, low, min(1.0, high) if is_share else high)
