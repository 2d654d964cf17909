"""How good the model was on the reference's rows: labels beside predictions and scores, summed in one pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import structs

from monitor.cells import FEW_VALUES
from monitor.columns import ColumnBatch, Float, Int
from monitor.features import NumberFeature, canonical
from monitor.files import Columns
from monitor.files.rows import VALUE_TYPES
from monitor.files.tables import role
from monitor.layout import Layout
from monitor.performance.spec import MAX_CLASSES, POSITIVES
from monitor.reference import (
    PREDICTION,
    SCORE,
    PerformanceEstimator,
    ReferencePerformance,
    ScoreCalibration,
    class_of,
    class_score_name,
)
from monitor.reference_build.error_model import ErrorRows, learnt
from monitor.reference_build.expected_errors import ExpectedErrors
from monitor.reference_build.gather import floats
from monitor.reference_build.scores import QUANTUM, SCORE_CELLS, Scores, plus
from monitor.sketches.moments import exact_sums, mean_std

_DIGITS = 10


class Unknown:
    """Nothing can be said; holds why."""

    def __init__(self, why: str) -> None:
        self._why = why

    def add(self, batch: Columns, columns: ColumnBatch) -> None:
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
        return Residuals(predicted, found.layout)
    if isinstance(score, NumberFeature) and len(found.labels) == 2:
        return Classes({SCORE: Scores(score)}, tuple(sorted(found.labels)), positive)
    own = {f.name: f for f in found.layout.features if isinstance(f, NumberFeature) and class_of(f.name) is not None}
    names = [class_score_name(label) for label in found.labels]
    is_scored = 2 <= len(names) <= MAX_CLASSES >= len(own) and all(name in own for name in names)
    scores = {name: Scores(feature, SCORE_CELLS // len(own)) for name, feature in own.items()} if is_scored else {}
    return Classes(scores, tuple(sorted(found.labels)), positive)


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

    def __init__(self, predicted: NumberFeature, layout: Layout) -> None:
        self._rows = ErrorRows(layout)
        self._centre, self._exponent = predicted.centre, predicted.exponent
        self._expected = ExpectedErrors(predicted)
        self._n = 0
        self._labels = self._errors = (0, 0)
        self._absolute = 0

    def add(self, batch: Columns, columns: ColumnBatch) -> None:
        """Take rows in that have both as finite numbers."""
        label, predicted = floats(batch.arrays[role("label")]), floats(batch.arrays[PREDICTION])
        both = np.isfinite(label) & np.isfinite(predicted)
        self._rows.add(columns, np.where(both, label - predicted, np.nan))
        label, error = label[both], label[both] - predicted[both]
        self._n += len(label)
        self._expected.add(predicted[both], error)
        self._labels = plus(self._labels, exact_sums(label, self._centre, self._exponent))
        self._errors = plus(self._errors, exact_sums(error, 0.0, self._exponent))
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
        estimator = self._expected.estimator()
        model = learnt(self._rows, np.array(estimator.absolute_error), values["mae"], values["rmse"])
        if model is not None:
            estimator = structs.replace(estimator, error_model=model)
        return ReferencePerformance(task="regression", n=self._n, values=_shortened(values), estimator=estimator)


class Classes:
    """Labels and predictions as classes, by their canonical texts; and scores.

    scores: by name in the layout; one of two classes, or one for each class. labels: that the file has.
    """

    def __init__(self, scores: Mapping[str, Scores], labels: tuple[str, ...], positive: str | None) -> None:
        self._scores, self._labels, self._positive = scores, labels if scores else (), positive
        self._n = self._hits = 0
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._classes: set[str] = set()
        self._predicted: dict[str, tuple[int, int]] = {}
        """class that is predicted → rows with a score, sum of their scores"""

    def add(self, batch: Columns, columns: ColumnBatch) -> None:
        """Take rows in that have a label, and a prediction or a score."""
        label, labels = class_codes(batch.arrays[role("label")])
        predicted, predictions = class_codes(batch.arrays[PREDICTION]) if PREDICTION in batch.arrays else (None, [])
        if predicted is not None:
            both = (label >= 0) & (predicted >= 0)
            pairs = np.bincount(label[both] * len(predictions) + predicted[both], minlength=len(labels) * len(predictions))
            for at in np.flatnonzero(pairs).tolist():
                self._add_pair(labels[at // len(predictions)], predictions[at % len(predictions)], int(pairs[at]))
        if not self._scores:
            return
        scores = {name: floats(batch.arrays[name]) for name in self._scores}
        is_scored = np.isfinite(np.stack(list(scores.values()))).all(axis=0)
        for name, mine in scores.items():
            sort = labels.index(text) if (text := class_of(name) or self._labels[1]) in labels else -1
            for i, of_sort in enumerate((label != sort, label == sort)):
                self._scores[name].add(mine[of_sort & (label >= 0) & is_scored], i)
        if predicted is not None and len(self._predicted) <= MAX_CLASSES and SCORE in scores:
            for code, text in enumerate(predictions):
                mine = scores[SCORE][(predicted == code) & is_scored]
                rows, total = self._predicted.get(text, (0, 0))
                self._predicted[text] = rows + len(mine), total + exact_sums(mine, 0.0, QUANTUM)[0]

    def _add_pair(self, label: str, predicted: str, rows: int) -> None:
        self._n += rows
        self._hits += rows * (label == predicted)
        if len(self._classes) <= MAX_CLASSES:
            self._classes |= {label, predicted}
            self._pairs[label, predicted] += rows

    def result(self) -> ReferencePerformance:
        """Return accuracy and confusion, what these make, and what the scores make."""
        n_scored = min((one.n for one in self._scores.values()), default=0)
        if not self._n and not n_scored:
            return ReferencePerformance(unknown="no row has both a label and a prediction or score")
        values: dict[str, float] = {"accuracy": self._hits / self._n} if self._n else {}
        if len(self._classes) > MAX_CLASSES:
            why = f"more than {MAX_CLASSES} classes: accuracy only"
            return ReferencePerformance(task="multiclass", n=self._n, values=_shortened(values), unknown=why)
        classes = sorted(self._classes | set(self._labels))
        is_binary = len(classes) <= 2
        positive = self._positive_of(classes) if is_binary else None
        is_told = not is_binary or positive is not None
        confusion = [[self._pairs[a, b] for b in classes] for a in classes] if self._n else []
        if confusion and is_told:
            values |= _of_confusion(np.array(confusion), None if positive is None else classes.index(positive))
        of_scores, calibrations = self._of_scores(classes, positive)
        values |= of_scores
        predicted = np.array(confusion).sum(axis=0).tolist() if confusion else []
        estimator = (
            PerformanceEstimator(n=n_scored, calibrations=calibrations, predicted=predicted) if calibrations else msgspec.UNSET
        )
        return ReferencePerformance(
            task="binary" if is_binary else "multiclass",
            n=self._n,
            n_scored=n_scored,
            values=_shortened(values),
            classes=classes if confusion else [],
            confusion=confusion,
            positive_class=positive,
            unknown=None if is_told else f"which of {', '.join(classes)} is the positive class; --positive-class says it",
            estimator=estimator,
        )

    def _of_scores(self, classes: list[str], positive: str | None) -> tuple[dict[str, float], list[ScoreCalibration]]:
        """Return what scores make: of the positive class, or means over all classes; and their calibrations, of probabilities."""
        sorts = [1] * len(classes)
        if len(classes) > 2:
            names = [class_score_name(text) for text in classes]
        elif positive in self._labels:
            names = [SCORE if SCORE in self._scores else class_score_name(positive)]
            sorts = [self._labels.index(positive) if SCORE in self._scores else 1]
        else:
            names = []
        scores = [(self._scores[name], sort) for name, sort in zip(names, sorts, strict=False) if name in self._scores]
        if not scores or len(scores) < len(names):
            return {}, []
        are_probabilities = all(one.are_probabilities for one, _ in scores)
        if len(scores) == 1:
            values = scores[0][0].values(scores[0][1])
        elif are_probabilities:
            each = [one.values(sort) for one, sort in scores]
            known = {name: [found[name] for found in each if name in found] for name in ("auc", "brier", "ece")}
            values = {name: math.fsum(found) / len(found) for name, found in known.items() if found}
            values["log_loss"] = math.ldexp(sum(one.losses[1][0] for one, _ in scores), QUANTUM) / max(scores[0][0].n, 1)
        else:
            values = {}
        return values, [one.calibration(sort) for one, sort in scores] if are_probabilities and scores[0][0].n else []

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
    codes, texts = class_codes(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts)).tolist()
    return Counter({text: n for text, n in zip(texts, counts, strict=True) if n})


def _of_confusion(confusion: Int, positive: int | None) -> dict[str, float]:
    """Return precision, recall and f1 of the positive class, or their means over the classes that occur; what is 0/0 counts as 0.

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


def class_codes(column: Any) -> tuple[Int, list[str]]:
    """Return, per row, the index of its value among the canonical texts, −1 where there is none."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
    encoded = column.dictionary_encode()
    texts = [canonical(value) for value in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    known = list(dict.fromkeys(texts))
    places = np.array([known.index(text) for text in texts] + [-1], np.int64)
    return places[codes], known


def _shortened(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.{_DIGITS}g}") for name, value in values.items() if math.isfinite(value)}
