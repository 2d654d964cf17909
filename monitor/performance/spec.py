"""What of a model's outcomes is counted, and where: a function of its reference alone, so that every worker counts alike.

One segment's counts are one flat int64 vector of `n_cells`, its blocks in this order:

    classes  confusion · made · score cells · sums · expected sums · lag · unusable labels
    numbers  made · labelled · far · expected errors · lag · unusable labels    (their sums are wide integers, see numbers.py)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np

from monitor.columns import Float, Int
from monitor.features import CategoryFeature, NumberFeature, canonical
from monitor.layout import Layout
from monitor.performance.lags import N_LAG_CELLS
from monitor.reference import (
    PREDICTION,
    SCORE,
    ErrorModel,
    PerformanceEstimator,
    Reference,
    ReferencePerformance,
    class_score_name,
)
from monitor.sketches.moments import QUANTUM_BITS

Task = Literal["binary", "multiclass", "regression", "unknown"]

MAX_CLASSES = 50
"""Beyond, nothing is counted."""
OTHER_CLASS = -1
"""Code of a class that the reference does not have."""
NO_CLASS = -2
"""Code of a prediction that is none: the event has a score only; or of a label that is none."""
ECE_BINS = 10
SCORE_CELLS = 1024
"""Equal cells of one score, besides the reference's own; several scores share them, each has at least `MIN_SCORE_CELLS`."""
MIN_SCORE_CELLS = 200

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


@dataclass(frozen=True)
class PerformanceSpec:
    """Task, classes, cells and segments of one reference.

    why: why nothing (task `unknown`) or not everything is counted. positive: index of the positive class among two. score_names: names in
    the layout of the scores that are counted, one column of `Rows.scores` each: none, the positive class's, or one for each class.
    edges: of the score cells, per column; cell i holds (edges[i−1], edges[i]]. predicted_edges: of the cells of a predicted number. error_edges: of the
    cells of what error is expected of a row, empty where features do not say.
    centre, exponent: grid of the sums of numbers. estimator: what the reference knows for estimates.
    """

    task: Task
    why: str | None = None
    classes: tuple[str, ...] = ()
    positive: int | None = None
    score_names: tuple[str, ...] = ()
    are_probabilities: bool = False
    edges: tuple[Float, ...] = field(default=(), compare=False)
    predicted_edges: Float = field(default_factory=lambda: np.zeros(0), compare=False)
    error_edges: Float = field(default_factory=lambda: np.zeros(0), compare=False)
    centre: float = 0.0
    exponent: int = 0
    segments: tuple[str, ...] = ("all",)
    estimator: PerformanceEstimator | None = None
    reference: str = ""
    """Its sha256."""

    @classmethod
    def of(cls, reference: Reference) -> PerformanceSpec:
        """Return the specification of a reference; task `unknown` where neither its labels nor its predictions say what the model does."""
        layout, found = reference.layout, reference.performance
        estimator = None if isinstance(found.estimator, msgspec.UnsetType) else found.estimator
        nothing = cls("unknown", segments=layout.segments, estimator=estimator, reference=reference.sha256)
        predicted = layout.features[layout.index[PREDICTION]] if PREDICTION in layout.index else None
        if not isinstance(predicted, NumberFeature) or found.task not in (None, "regression"):
            classes = _classes(reference, predicted if isinstance(predicted, CategoryFeature) else None)
            return _of_classes(nothing, reference, classes)
        if found.task is None and 0 < len(reference.record.labels) <= 2:
            return replace(nothing, why=found.unknown)
        edges = np.array(predicted.edges)
        expected = np.zeros(0) if nothing.error_model is None else np.array(nothing.error_model.edges, np.float64)
        return replace(
            nothing,
            task="regression",
            predicted_edges=edges,
            error_edges=expected,
            centre=predicted.centre,
            exponent=predicted.exponent,
        )

    def outcomes(self, values: Sequence[object]) -> Int | Float:
        """Return predictions or labels, as events have them, as `Rows.predicted` has them.

        Classes: their codes, (n,) int64, `OTHER_CLASS` and, for null, `NO_CLASS`. Numbers: (n,) float64, NaN where it is none.
        """
        if self.task == "regression":
            numbers = [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else math.nan for v in values]
            return np.where(np.isfinite(numbers), numbers, np.nan)
        return self.codes([None if value is None else canonical(value) for value in values])

    def codes(self, texts: Sequence[str | None]) -> Int:
        """Return the codes of classes by their canonical texts; (n,) int64."""
        return np.fromiter((self._codes.get(text, OTHER_CLASS) for text in texts), np.int64, len(texts))

    @cached_property
    def _codes(self) -> dict[str | None, int]:
        return {**{text: i for i, text in enumerate(self.classes)}, None: NO_CLASS}

    @property
    def n_classes(self) -> int:
        """Classes of the reference."""
        return len(self.classes)

    @property
    def error_model(self) -> ErrorModel | None:
        """What tells the error to be expected of a row; None where the reference has no such model."""
        found = msgspec.UNSET if self.estimator is None else self.estimator.error_model
        return None if isinstance(found, msgspec.UnsetType) else found

    @property
    def n_scores(self) -> int:
        """Columns of `Rows.scores`: of numbers one where there is an `error_model`."""
        return len(self.score_names) if self.error_model is None else 1

    @property
    def is_classes(self) -> bool:
        """Whether labels are classes."""
        return self.task in ("binary", "multiclass")

    @property
    def spread(self) -> float:
        """Unit of a regression's higher moments: a power of two near the standard deviation of the reference's predictions."""
        return math.ldexp(1.0, self.exponent + QUANTUM_BITS)

    @cached_property
    def blocks(self) -> dict[str, slice]:
        """Name → where its cells lie in a segment's vector."""
        k, scores, numbers = self.n_classes, len(self.score_names), len(self.predicted_edges) + 2
        sizes: dict[str, int] = {}
        if self.is_classes:
            sizes = {"confusion": (k + 1) * (k + 2), "made": k + 2}
            for column, edges in enumerate(self.edges):
                sizes |= {f"{side}{column}": len(edges) + 2 for side in ("made_scores", "positives", "negatives")}
            if scores and self.are_probabilities:
                sizes |= {"scored": 1, "sums": 4, "bins": scores * ECE_BINS}
                sizes |= {"expected": (k + 2) * (scores + 2), "expected_labelled": (k + 2) * (scores + 2)}
                sizes |= {f"expected_scores{column}": len(edges) + 2 for column, edges in enumerate(self.edges) if scores > 1}
        elif self.task == "regression":
            sizes = {"made": numbers, "labelled": numbers, "far": 1, "nonzero": 1}
            if self.error_model is not None:
                errors = len(self.error_edges) + 2
                sizes |= {"made_expected": errors, "labelled_expected": errors}
        sizes |= {"lag": N_LAG_CELLS, "unusable": 1}
        starts = np.cumsum([0, *sizes.values()]).tolist()
        return {name: slice(start, end) for name, start, end in zip(sizes, starts[:-1], starts[1:], strict=True)}

    @cached_property
    def n_cells(self) -> int:
        """Length of a segment's vector."""
        return int(max(block.stop for block in self.blocks.values()))


def _of_classes(nothing: PerformanceSpec, reference: Reference, classes: tuple[str, ...]) -> PerformanceSpec:
    """nothing: the specification to fill in, if it can be."""
    layout, k = reference.layout, len(classes)
    if not classes:
        no_classes = "no prediction of the reference says what the classes are"
        return replace(nothing, why=reference.performance.unknown or no_classes)
    if not 2 <= k <= MAX_CLASSES:
        return replace(nothing, why=f"only one class: {classes[0]}" if k == 1 else f"{k} classes")
    positive = _positive(classes, reference.performance)
    names = _score_names(layout, classes, positive)
    scores = [feature for name in names if isinstance(feature := layout.features[layout.index[name]], NumberFeature)]
    are_probabilities = bool(scores) and all(feature.minimum >= 0 and feature.maximum <= 1 for feature in scores)
    if k > 2 and not are_probabilities:
        names, scores = (), []
    n_cells = max(SCORE_CELLS // max(len(scores), 1), MIN_SCORE_CELLS)
    return replace(
        nothing,
        task="binary" if k == 2 else "multiclass",
        why=None if k > 2 or positive is not None else f"which of {' and '.join(classes)} is the positive class",
        classes=classes,
        positive=positive,
        score_names=names,
        are_probabilities=are_probabilities,
        edges=tuple(score_edges(feature, n_cells, is_probability=are_probabilities) for feature in scores),
    )


def _classes(reference: Reference, predicted: CategoryFeature | None) -> tuple[str, ...]:
    """Return the classes: those of the reference's confusion, of its labels and predictions, or of its predictions alone."""
    if reference.performance.classes:
        return tuple(reference.performance.classes)
    labels = reference.record.labels
    if predicted is None or predicted.is_hashed:
        return tuple(sorted(labels)) if len(labels) == 2 else ()
    return tuple(sorted({*predicted.values, *labels}))


def _positive(classes: tuple[str, ...], found: ReferencePerformance) -> int | None:
    if len(classes) > 2:
        return None
    if found.positive_class in classes:
        return classes.index(found.positive_class)
    return next((classes.index(pair[1]) for pair in POSITIVES if set(pair) == set(classes)), None)


def _score_names(layout: Layout, classes: tuple[str, ...], positive: int | None) -> tuple[str, ...]:
    if len(classes) > 2:
        names = tuple(map(class_score_name, classes))
        return names if all(name in layout.index for name in names) else ()
    if positive is None:
        return ()
    return next(((name,) for name in (SCORE, class_score_name(classes[positive])) if name in layout.index), ())


def score_edges(feature: NumberFeature, n_cells: int, *, is_probability: bool) -> Float:
    """Return equal cells joined with the reference's own, which are fine where its scores are; borders of the ECE's bins are among them."""
    low, high = (0.0, 1.0) if is_probability else (feature.minimum, feature.maximum)
    own = np.array(feature.edges)
    bins = np.arange(1, ECE_BINS) / ECE_BINS if is_probability else np.zeros(0)
    own = own[(own >= low) & (own <= high)]
    return np.unique(np.concatenate((np.linspace(low, high, n_cells + 1), bins, own)))
