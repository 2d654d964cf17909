"""How good the model was on the reference's rows: labels beside predictions and scores, summed in one pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitor.cells import FEW_VALUES
from monitor.columns import Float, Int
from monitor.features import NumberFeature, canonical
from monitor.files import Columns
from monitor.files.rows import VALUE_TYPES
from monitor.files.tables import role
from monitor.layout import Layout
from monitor.reference import PREDICTION, SCORE, ReferencePerformance
from monitor.reference_build.gather import floats
from monitor.sketches.moments import exact_sums, mean_std

MAX_CLASSES = 50
"""Beyond, neither confusion nor what is made of it."""
SCORE_CELLS = 1 << 16
"""Equal cells between the smallest and the largest score, besides the layout's. AUC counts rows of one cell as ties: its error is at most
half the pairs of both classes that share a cell and are none."""
CLIP = 1e-7
ECE_BINS = 10
_QUANTUM = -40
"""Exponent of the grid on which scores and losses are summed: exact sums, the same for any order of the rows."""
_DIGITS = 10

POSITIVES = (
    ("0", "1"),
    ("-1", "1"),
    ("false", "true"),
    ("False", "True"),
    ("no", "yes"),
    ("n", "y"),
    ("N", "Y"),
    ("negative", "positive"),
)
"""Pairs of classes of which everybody knows which one is the positive; of others the model's own predictions tell."""


class Unknown:
    """Nothing can be said; holds why."""

    def __init__(self, why: str) -> None:
        self._why = why

    def add(self, batch: Columns) -> None:
        """Take nothing in."""

    def result(self) -> ReferencePerformance:
        """Return the reason."""
        return ReferencePerformance(unknown=self._why)


@dataclass(frozen=True, slots=True)
class Found:
    """What the first pass found. labels: rows by label, empty where there are very many. label_kind: a value type, or what it is."""

    layout: Layout
    has_prediction: bool
    has_score: bool
    labels: Mapping[str, int]
    label_kind: str | None


def performance_of(found: Found, positive: str | None = None) -> Performance:
    """Return what will sum up the second pass. positive: the user's word for the positive class.

    Classes are compared where labels are texts, booleans, or at most `FEW_VALUES` different numbers while predictions are classes too;
    numbers where both are numbers.
    """
    predicted, score = (
        found.layout.features[found.layout.index[name]] if name in found.layout.index else None for name in (PREDICTION, SCORE)
    )
    why = _why_unknown(found, has_number=isinstance(predicted, NumberFeature))
    if why is not None:
        return Unknown(why)
    if isinstance(predicted, NumberFeature):
        return Residuals(predicted.centre, predicted.exponent)
    scores = Scores(score, tuple(sorted(found.labels))) if isinstance(score, NumberFeature) and len(found.labels) == 2 else None
    return Classes(scores, positive)


def _why_unknown(found: Found, *, has_number: bool) -> str | None:
    """has_number: predictions are a numeric feature."""
    kind, n_labels = found.label_kind, len(found.labels)
    why = None
    if kind is None:
        why = "no labels"
    elif kind not in VALUE_TYPES:
        why = f"labels are {kind}"
    elif not (found.has_prediction or found.has_score):
        why = "no prediction and no score column"
    elif has_number and kind != "number":
        why = "predictions are numbers, labels are not; if these are scores, name them with --score-column"
    elif has_number and 0 < n_labels <= 2:
        why = "labels are two classes, predictions are numbers; if these are scores, name them with --score-column"
    elif kind == "number" and not has_number and not 0 < n_labels <= FEW_VALUES:
        why = "labels are numbers, predictions are not"
    elif not found.has_prediction and n_labels != 2:
        why = f"a score alone says nothing of {n_labels or 'very many'} classes; name the predictions"
    return why


class Residuals:
    """Differences of numeric labels and predictions, on the grid of the predictions."""

    def __init__(self, centre: float, exponent: int) -> None:
        self._centre, self._exponent = centre, exponent
        self._n = 0
        self._labels = self._errors = (0, 0)
        self._absolute = 0

    def add(self, batch: Columns) -> None:
        """Take rows in that have both as finite numbers."""
        label, predicted = floats(batch.arrays[role("label")]), floats(batch.arrays[PREDICTION])
        both = np.isfinite(label) & np.isfinite(predicted)
        label, error = label[both], label[both] - predicted[both]
        self._n += len(label)
        self._labels = _plus(self._labels, exact_sums(label, self._centre, self._exponent))
        self._errors = _plus(self._errors, exact_sums(error, 0.0, self._exponent))
        self._absolute += exact_sums(np.abs(error), 0.0, self._exponent)[0]

    def result(self) -> ReferencePerformance:
        """Return mae, rmse and r2 (against the mean of these labels; left out where all labels are equal)."""
        if not self._n:
            return ReferencePerformance(unknown="no row has both a label and a prediction")
        mean, std = mean_std(self._n, *self._errors, 0.0, self._exponent)
        mean_absolute, _ = mean_std(self._n, self._absolute, 0, 0.0, self._exponent)
        _, label_std = mean_std(self._n, *self._labels, self._centre, self._exponent)
        values = {"mae": mean_absolute, "rmse": math.hypot(mean, std)}
        if label_std:
            values["r2"] = 1 - (values["rmse"] / label_std) ** 2
        return ReferencePerformance(task="regression", n=self._n, values=_shortened(values))


@dataclass
class Scores:
    """Scores of two classes: counts by label and cell, and exact sums by label."""

    feature: NumberFeature
    classes: tuple[str, ...]
    edges: Float = field(init=False)
    counts: Int = field(init=False)
    bins: Int = field(default_factory=lambda: np.zeros((2, ECE_BINS), np.int64))
    bin_sums: list[int] = field(default_factory=lambda: [0] * ECE_BINS)
    sums: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0), (0, 0)])
    losses: list[list[int]] = field(default_factory=lambda: [[0, 0], [0, 0]])
    """by label: Σ −ln(score), Σ −ln(1 − score)"""

    def __post_init__(self) -> None:
        grid = np.linspace(self.feature.minimum, self.feature.maximum, SCORE_CELLS + 1)
        self.edges = np.unique(np.concatenate((grid, np.array(self.feature.edges))))
        self.counts = np.zeros((2, len(self.edges) + 1), np.int64)

    @property
    def are_probabilities(self) -> bool:
        """Whether all scores lie in [0, 1]."""
        return self.feature.minimum >= 0 and self.feature.maximum <= 1

    def add(self, scores: Float, label: int) -> None:
        """Take the finite scores of rows with one label in."""
        cells = np.searchsorted(self.edges, scores, side="left")
        self.counts[label] += np.bincount(cells, minlength=self.counts.shape[1])
        if not self.are_probabilities:
            return
        self.sums[label] = _plus(self.sums[label], exact_sums(scores, 0.0, _QUANTUM))
        clipped = np.clip(scores, CLIP, 1 - CLIP)
        for i, loss in enumerate((-np.log(clipped), -np.log1p(-clipped))):
            self.losses[label][i] += exact_sums(loss, 0.0, _QUANTUM)[0]
        bins = np.searchsorted(np.arange(1, ECE_BINS) / ECE_BINS, scores, side="left")  # (lo, hi], 0 in the first
        self.bins[label] += np.bincount(bins, minlength=ECE_BINS)
        for b in range(ECE_BINS):
            self.bin_sums[b] += exact_sums(scores[bins == b], 0.0, _QUANTUM)[0]

    def values(self, positive: int) -> dict[str, float]:
        """Return auc, and for probabilities brier, log_loss and ece; positive: index of its class."""
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
            found["brier"] = math.ldexp(square, 2 * _QUANTUM) / n - 2 * math.ldexp(first, _QUANTUM) / n + n_of[positive] / n
            found["log_loss"] = math.ldexp(self.losses[positive][0] + self.losses[negative][1], _QUANTUM) / n
            gaps = (
                abs(math.ldexp(total, _QUANTUM) - int(hits))
                for total, hits in zip(self.bin_sums, self.bins[positive], strict=True)
            )
            found["ece"] = math.fsum(gaps) / n
        return found


class Classes:
    """Labels and predictions as classes, by their canonical texts; and scores where there are two labels."""

    def __init__(self, scores: Scores | None, positive: str | None) -> None:
        self._scores, self._positive = scores, positive
        self._n = self._hits = 0
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._classes: set[str] = set()
        self._predicted: dict[str, tuple[int, int]] = {}
        """class that is predicted → rows with a score, sum of their scores"""

    def add(self, batch: Columns) -> None:
        """Take rows in that have a label, and a prediction or a score."""
        label, labels = _codes(batch.arrays[role("label")])
        predicted, predictions = _codes(batch.arrays[PREDICTION]) if PREDICTION in batch.arrays else (None, [])
        scores = floats(batch.arrays[SCORE]) if SCORE in batch.arrays and self._scores else None
        if predicted is not None:
            both = (label >= 0) & (predicted >= 0)
            pairs = np.bincount(label[both] * len(predictions) + predicted[both], minlength=len(labels) * len(predictions))
            for at in np.flatnonzero(pairs).tolist():
                self._add_pair(labels[at // len(predictions)], predictions[at % len(predictions)], int(pairs[at]))
        if scores is not None and self._scores is not None:
            for i, text in enumerate(self._scores.classes):
                if text in labels:
                    self._scores.add(scores[(label == labels.index(text)) & np.isfinite(scores)], i)
            if predicted is not None and len(self._predicted) <= MAX_CLASSES:
                for code, text in enumerate(predictions):
                    mine = scores[(predicted == code) & np.isfinite(scores)]
                    rows, total = self._predicted.get(text, (0, 0))
                    self._predicted[text] = rows + len(mine), total + exact_sums(mine, 0.0, _QUANTUM)[0]

    def _add_pair(self, label: str, predicted: str, rows: int) -> None:
        self._n += rows
        self._hits += rows * (label == predicted)
        if len(self._classes) <= MAX_CLASSES:
            self._classes |= {label, predicted}
            self._pairs[label, predicted] += rows

    def result(self) -> ReferencePerformance:
        """Return accuracy and confusion, what these make, and what the scores make."""
        labels = self._scores.classes if self._scores else ()
        n_scored = int(self._scores.counts.sum()) if self._scores else 0
        if not self._n and not n_scored:
            return ReferencePerformance(unknown="no row has both a label and a prediction or score")
        values: dict[str, float] = {"accuracy": self._hits / self._n} if self._n else {}
        if len(self._classes) > MAX_CLASSES:
            why = f"more than {MAX_CLASSES} classes: accuracy only"
            return ReferencePerformance(task="multiclass", n=self._n, values=_shortened(values), unknown=why)
        classes = sorted(self._classes | set(labels))
        is_binary = len(classes) <= 2
        positive = self._positive_of(classes) if is_binary else None
        is_told = not is_binary or positive is not None
        confusion = [[self._pairs[a, b] for b in classes] for a in classes] if self._n else []
        if confusion and is_told:
            values |= _of_confusion(np.array(confusion), None if positive is None else classes.index(positive))
        if self._scores and positive in labels:
            values |= self._scores.values(labels.index(positive))
        return ReferencePerformance(
            task="binary" if is_binary else "multiclass",
            n=self._n,
            n_scored=n_scored,
            values=_shortened(values),
            classes=classes if confusion else [],
            confusion=confusion,
            positive_class=positive,
            unknown=None if is_told else f"which of {', '.join(classes)} is the positive class; --positive-class says it",
        )

    def _positive_of(self, classes: list[str]) -> str | None:
        """Return the positive class: what the user says, what everybody knows, or what is predicted at the higher scores."""
        if self._positive is not None:
            return self._positive if self._positive in classes else None
        for pair in POSITIVES:
            if set(classes) == set(pair):
                return pair[1]
        means = {text: total / rows for text, (rows, total) in self._predicted.items() if rows and text in classes}
        if len(means) < 2 or len(set(means.values())) < 2:
            return None
        return max(means, key=lambda text: means[text])


Performance = Unknown | Classes | Residuals


def kind_of(column: Any) -> str | None:
    """Return the value type of a label column, or what else it holds; None where it has no value."""
    types = pa.types
    if types.is_null(column.type):
        return None
    if types.is_boolean(column.type):
        return "boolean"
    if types.is_integer(column.type) or types.is_floating(column.type):
        return "number"
    return "string" if types.is_string(column.type) or types.is_large_string(column.type) else str(column.type)


def counts_of(column: Any) -> Counter[str]:
    """Return rows by canonical text; null, NaN and infinity are none."""
    codes, texts = _codes(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts)).tolist()
    return Counter({text: n for text, n in zip(texts, counts, strict=True) if n})


def _of_confusion(confusion: Int, positive: int | None) -> dict[str, float]:
    """Return precision, recall and f1 of the positive class, or without one their means over the classes; what is 0/0 counts as 0.

    confusion: (c, c), rows are labels.
    """
    hits = np.diag(confusion).astype(np.float64)
    predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    by_class = {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, actual),
        "f1": _ratio(2 * hits, predicted + actual),
    }
    return {name: float(v.mean() if positive is None else v[positive]) for name, v in by_class.items()}


def _ratio(top: Float, bottom: Int) -> Float:
    return np.divide(top, bottom, out=np.zeros(len(top)), where=bottom > 0)


def _codes(column: Any) -> tuple[Int, list[str]]:
    """Return, per row, the index of its value among the canonical texts, −1 where there is none."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
    encoded = column.dictionary_encode()
    texts = [canonical(value) for value in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    known = list(dict.fromkeys(texts))
    places = np.array([known.index(text) for text in texts] + [-1], np.int64)
    return places[codes], known


def _plus(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    return a[0] + b[0], a[1] + b[1]


def _shortened(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.{_DIGITS}g}") for name, value in values.items() if math.isfinite(value)}
