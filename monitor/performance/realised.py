"""What the labels that have come say: each metric with its interval, how many labels there are, and whether they are of typical rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from monitor.chance.chi_square import survival
from monitor.chance.scores import chi_square
from monitor.columns import Float, Int
from monitor.performance import intervals
from monitor.performance.cells import OutcomeCells
from monitor.performance.classes import ece, mean_auc, of_confusion
from monitor.performance.intervals import Estimate
from monitor.performance.lags import lag_curve, lag_quantile_ms
from monitor.performance.numbers import NumberSums, number_sums
from monitor.performance.rows import SUM_BITS
from monitor.performance.spec import ECE_BINS, PerformanceSpec

MIN_BIAS_ROWS = 20
"""Labelled, and unlabelled, rows that a comparison of the two takes."""
_BIAS_GROUPS = 10


class Lag(NamedTuple):
    """How long labels took, milliseconds, by quantile; what was known no later than the prediction took 0."""

    p50_ms: int
    p90_ms: int
    p99_ms: int
    curve: tuple[float, ...]
    """Share of the labels that had come after each of `lags.CURVE_MS`."""


class SelectionBias(NamedTuple):
    """Whether the rows with a label differ from those without, by score or by prediction."""

    by: str
    """`score` or `prediction`."""
    difference: float
    """Total variation of the shares of the two, in [0, 1]."""
    p_value: float
    """Of Pearson's χ²: small where chance does not explain it."""


class Realised(NamedTuple):
    """Performance of one segment on the labels that have come."""

    values: dict[str, Estimate]
    """By metric: accuracy, precision, recall, f1, auc, log_loss, brier, ece; mae, rmse, r2, bias, mape. Only what is known."""
    n_made: int
    """Predictions."""
    n_labelled: int
    """Of them, with a label."""
    n_scored: int = 0
    """With a label and a score."""
    n_unusable: int = 0
    """Labels that are none of the task's, such as a text where numbers are predicted."""
    classes: tuple[str, ...] = ()
    """Of the confusion, the last one for what the reference does not have; empty without confusion."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows by label (outer) and prediction (inner), in the order of `classes`."""
    lag: Lag | None = None
    selection_bias: SelectionBias | None = None
    ece_by_chance: float | None = None
    """What the `ece` of calibrated scores exceeds once in 1000 windows of as many rows."""
    unknown: str | None = None
    """Why nothing, or not everything, is known."""

    @property
    def coverage(self) -> float:
        """Share of the predictions that have a label; 0 without predictions."""
        return self.n_labelled / self.n_made if self.n_made else 0.0


OTHER = "(other)"


def realised(cells: OutcomeCells, segment: int = 0) -> Realised:
    """Return the performance of a segment. A function of the counts alone."""
    spec = cells.spec
    if spec.task == "unknown":
        return Realised({}, 0, 0, unknown=spec.why)
    counts = Counts(spec, cells.vector(segment))
    made, lag = counts["made"], counts["lag"]
    found = Realised(
        {},
        int(made.sum()),
        int(lag.sum()),
        n_unusable=int(counts["unusable"].sum()),
        lag=_lag(lag),
        selection_bias=_selection_bias(counts),
        unknown=spec.why,
    )
    if not spec.is_classes:
        n = int(counts["labelled"][:-1].sum())
        if not n:
            return found
        moments = number_sums(spec, cells.sums(segment), n)
        values = _of_numbers(moments, n, int(counts["nonzero"].sum()), has_moments=not counts["far"].any())
        return found._replace(values={name: one for name, one in values.items() if math.isfinite(one.value)})
    confusion = counts.confusion[:, :-1]
    values = of_confusion(confusion, spec.positive)
    n_scored, by_chance = _add_scores(counts, values)
    return found._replace(
        values=values,
        n_scored=n_scored,
        ece_by_chance=by_chance,
        classes=(*spec.classes, OTHER),
        confusion=tuple(map(tuple, confusion.tolist())),
    )


class Counts:
    """One segment's counts, by the names of their blocks."""

    def __init__(self, spec: PerformanceSpec, vector: Int) -> None:
        self.spec = spec
        self._vector = vector

    def __getitem__(self, name: str) -> Int:
        where = self.spec.blocks.get(name)
        return np.zeros(0, np.int64) if where is None else self._vector[where]

    def sums(self, name: str) -> Float:
        """Return a block of sums."""
        return np.ldexp(self[name].astype(np.float64), -SUM_BITS)

    @property
    def confusion(self) -> Int:
        """(k + 1, k + 2) rows by label and prediction; the last prediction is none."""
        k = self.spec.n_classes
        return self["confusion"].reshape(k + 1, k + 2)

    def sides(self, column: int) -> tuple[Int, Int]:
        """Return the rows of a score's class, and the others, by score cell."""
        return self[f"positives{column}"][:-1], self[f"negatives{column}"][:-1]


def _add_scores(counts: Counts, values: dict[str, Estimate]) -> tuple[int, float | None]:
    """Add what scores make; return how many rows have one and a label, and what an ECE is by chance."""
    spec = counts.spec
    sides = [counts.sides(column) for column in range(len(spec.score_names))]
    n = int(sides[0][0].sum() + sides[0][1].sum()) if sides else 0
    area = mean_auc(sides)
    if area is not None:
        values["auc"] = area
    if not n or not spec.are_probabilities:
        return n, None
    loss, loss2, square, square2 = counts.sums("sums").tolist()
    values["log_loss"] = intervals.positive_mean(loss, loss2, n)
    values["brier"] = intervals.positive_mean(square, square2, n, high=1.0)
    totals = counts.sums("bins").reshape(len(sides), ECE_BINS)
    hits, rows = np.zeros_like(totals), np.zeros_like(totals)
    for column, (positives, negatives) in enumerate(sides):
        groups = np.searchsorted(np.arange(1, ECE_BINS) / ECE_BINS, _upper_ends(spec.edges[column]), side="left")
        hits[column] = np.bincount(groups, weights=positives, minlength=ECE_BINS)
        rows[column] = np.bincount(groups, weights=positives + negatives, minlength=ECE_BINS)
    share = np.divide(totals, rows, out=np.zeros_like(totals), where=rows > 0)
    values["ece"], by_chance = ece((totals - hits).ravel(), (rows * share * (1 - share)).ravel(), n, len(sides))
    return n, by_chance


def _upper_ends(edges: Float) -> Float:
    return np.append(edges, np.inf)


def _of_numbers(moments: NumberSums, n: int, n_nonzero: int, *, has_moments: bool) -> dict[str, Estimate]:
    found = {
        "mae": intervals.positive_mean(moments.absolute, moments.error2, n),
        "bias": intervals.mean(-moments.error, moments.error2, n),
        "rmse": Estimate(moments.rmse),
    }
    if n_nonzero:
        found["mape"] = intervals.positive_mean(moments.ratio, moments.ratio2, n_nonzero)
    if moments.label_std > 0:
        found["r2"] = Estimate(1 - (moments.rmse / moments.label_std) ** 2)
    square = moments.rmse**2 if has_moments else 0.0
    if n > 1 and square > 0:
        error = math.sqrt(max(0.0, moments.error4 / n - square * square) / (n - 1))
        half = intervals.Z * error / (2 * square)  # of ln(rmse), to first order
        found["rmse"] = Estimate(moments.rmse, moments.rmse * math.exp(-half), moments.rmse * math.exp(half))
        if moments.label_std > 0:
            variance = moments.label_std**2
            found["r2"] = _r2(moments, n, square / variance, variance)
    return found


def _r2(moments: NumberSums, n: int, ratio: float, variance: float) -> Estimate:
    """Return R² = 1 − MSE/variance; influence of a row: (ratio·(y − ȳ)² − e²)/variance, whose mean is 0."""
    c = moments.label / n
    e4, e2d2, e2d, e2 = moments.error4 / n, moments.error2_label2 / n, moments.error2_label / n, moments.error2 / n
    d4, d3, d2 = moments.label4 / n, moments.label3 / n, moments.label2 / n
    from_mean4 = d4 - 4 * c * d3 + 6 * c * c * d2 - 3 * c**4
    cross = e2d2 - 2 * c * e2d + c * c * e2
    square = max(0.0, ratio * ratio * from_mean4 - 2 * ratio * cross + e4) / (variance * variance)
    return intervals.around(1 - ratio, math.sqrt(square / n), n, high=1.0)


def _lag(counts: Int) -> Lag | None:
    found = [lag_quantile_ms(counts, share) for share in (0.5, 0.9, 0.99)]
    if found[0] is None or found[1] is None or found[2] is None:
        return None
    return Lag(found[0], found[1], found[2], tuple(lag_curve(counts)))


def _selection_bias(counts: Counts) -> SelectionBias | None:
    """Compare rows with a label and rows without, on up to ten groups of cells; None where either side has too few."""
    spec = counts.spec
    by = "score"
    if not spec.is_classes:
        made, labelled, by = counts["made"][:-1], counts["labelled"][:-1], "prediction"
    elif len(spec.score_names) == 1:
        made, labelled = counts["made_scores0"][:-1], counts["positives0"][:-1] + counts["negatives0"][:-1]
    else:
        made, labelled, by = counts["made"], counts.confusion.sum(axis=0), "prediction"
    rest = made - labelled
    n, m = int(labelled.sum()), int(rest.sum())
    if min(n, m) < MIN_BIAS_ROWS or (rest < 0).any():
        return None
    if spec.is_classes and by == "prediction":
        groups = np.arange(len(made))
    else:
        groups = np.minimum((np.cumsum(made) - made) * _BIAS_GROUPS // int(made.sum()), _BIAS_GROUPS - 1)
    window = np.bincount(groups, weights=labelled).astype(np.int64)
    other = np.bincount(groups, weights=rest).astype(np.int64)
    used = int(np.count_nonzero(window + other))
    if used < 2:
        return SelectionBias(by, 0.0, 1.0)
    difference = float(np.abs(window / n - other / m).sum()) / 2
    return SelectionBias(by, difference, float(survival(chi_square(window, other), used - 1)))
