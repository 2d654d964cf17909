"""Realised performance, against scikit-learn on the raw rows of real data sets."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import datasets, metrics
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monitor.features import CategoryFeature
from monitor.layout import layout_of
from monitor.performance import OutcomeCells, PerformanceSpec, realised
from monitor.profiles import Profile
from monitor.reference import Reference
from tests.shapes import number_feature_of
from tests.unit.performance.made import cells_of, reference_of, rows_of
from tests.unit.performance.nannyml import load_set

CLIP = 1e-7


def halves(n: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(3).permutation(n)
    return order[: n // 2], order[n // 2 :]


@cache
def binary(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels 0 and 1, the positive class's probabilities, and which rows are the reference's."""
    if name == "flights":
        rows = load_set("flights")
        return rows.label, rows.scores[:, 0], rows.chunk == 0
    x, y = datasets.load_breast_cancer(return_X_y=True)
    first, _ = halves(len(y))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[first][:, [1, 4, 8]], y[first])
    is_reference = np.zeros(len(y), bool)
    is_reference[first] = True
    return y, model.predict_proba(x[:, [1, 4, 8]])[:, 1], is_reference


@pytest.mark.parametrize("decimals", [None, 2])
@pytest.mark.parametrize("name", ["breast cancer", "flights"])
def test_two_classes_are_those_of_scikit_learn(tmp_path: Path, name: str, decimals: int | None) -> None:
    y, p, is_reference = binary(name)
    p = p if decimals is None else p.round(decimals)
    predicted = (p > 0.5).astype(int)
    spec = PerformanceSpec.of(reference_of(tmp_path, y[is_reference], predicted[is_reference], p[is_reference]))
    y, p, predicted = y[~is_reference], p[~is_reference], predicted[~is_reference]
    found = realised(cells_of(spec, y.tolist(), predicted.tolist(), p))
    values = {name: one.value for name, one in found.values.items()}
    assert (spec.task, spec.classes, spec.positive, found.n_made, found.n_labelled, found.n_scored) == (
        "binary", ("0", "1"), 1, len(y), len(y), len(y),
    )  # fmt: skip
    assert found.confusion[0][:2] + found.confusion[1][:2] == tuple(metrics.confusion_matrix(y, predicted).ravel().tolist())
    assert values["auc"] == pytest.approx(metrics.roc_auc_score(y, p), abs=5e-4 if decimals is None else 1e-12)
    assert values["brier"] == pytest.approx(metrics.brier_score_loss(y, p), abs=1e-7)
    assert values["log_loss"] == pytest.approx(metrics.log_loss(y, np.clip(p, CLIP, 1 - CLIP)), abs=1e-6)
    assert values["ece"] == pytest.approx(ece(y, p), abs=1e-6)
    assert {name: values[name] for name in ("accuracy", "precision", "recall", "f1")} == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(y, predicted),
            "precision": metrics.precision_score(y, predicted),
            "recall": metrics.recall_score(y, predicted),
            "f1": metrics.f1_score(y, predicted),
        },
        rel=1e-12,
    )
    for one in found.values.values():
        assert one.low is not None and one.high is not None and one.low <= one.value <= one.high


def ece(is_positive: np.ndarray, p: np.ndarray) -> float:
    """Ten bins (lo, hi], 0 in the first, by a plain loop."""
    total = 0.0
    for i in range(10):
        mine = (p > i / 10) & (p <= (i + 1) / 10) | ((p == 0) & (i == 0))
        if mine.any():
            total += mine.mean() * abs(p[mine].mean() - is_positive[mine].mean())
    return total


@pytest.mark.parametrize("load", [datasets.load_digits, datasets.load_wine, datasets.load_iris])
def test_many_classes_are_those_of_scikit_learn(tmp_path: Path, load: Any) -> None:
    x, y = load(return_X_y=True)
    first, second = halves(len(y))
    model = GaussianNB(var_smoothing=1e-2).fit(x[first][:, :20], y[first])
    p, predicted = model.predict_proba(x[:, :20]), model.predict(x[:, :20])
    spec = PerformanceSpec.of(reference_of(tmp_path, y[first], predicted[first], p[first]))
    assert (spec.task, spec.score_names) == ("multiclass", tuple(f"@score[{k}]" for k in range(int(y.max()) + 1)))
    y, p, predicted = y[second], p[second], predicted[second]
    found = realised(cells_of(spec, y.tolist(), predicted.tolist(), p))
    k = p.shape[1]
    assert [row[:k] for row in found.confusion[:k]] == [tuple(row) for row in metrics.confusion_matrix(y, predicted).tolist()]
    hot = np.eye(k)[y]
    expected = {
        "accuracy": metrics.accuracy_score(y, predicted),
        "precision": metrics.precision_score(y, predicted, average="macro", zero_division=0),
        "recall": metrics.recall_score(y, predicted, average="macro", zero_division=0),
        "f1": metrics.f1_score(y, predicted, average="macro", zero_division=0),
        "log_loss": float(-np.log(np.clip(p[np.arange(len(y)), y], CLIP, 1 - CLIP)).mean()),
        "brier": float(((p - hot) ** 2).mean()),
        "ece": float(np.mean([ece(y == i, p[:, i]) for i in range(k)])),
    }
    values = {name: one.value for name, one in found.values.items()}
    assert values.pop("auc") == pytest.approx(metrics.roc_auc_score(y, p, multi_class="ovr", average="macro"), abs=5e-4)
    assert values == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("far", [0.0, 1e200])
def test_numbers_are_those_of_scikit_learn(tmp_path: Path, far: float) -> None:
    x, y = datasets.load_diabetes(return_X_y=True)
    first, second = halves(len(y))
    predicted = LinearRegression().fit(x[first], y[first]).predict(x)
    spec = PerformanceSpec.of(reference_of(tmp_path, y[first], predicted[first]))
    y, predicted = y[second].copy(), predicted[second]
    y[3] += far
    found = realised(cells_of(spec, y.tolist(), predicted.tolist()))
    values = {name: one.value for name, one in found.values.items()}
    if far:  # no double holds such squares: values are right all the same, intervals are not known
        assert values["mae"] == pytest.approx(metrics.mean_absolute_error(y, predicted), rel=1e-6)
        assert values["rmse"] == pytest.approx(far / np.sqrt(len(y)), rel=1e-6)
        assert [found.values[name].low for name in ("mae", "rmse", "r2", "bias")] == [None] * 4
        return
    assert values == pytest.approx(
        {
            "mae": metrics.mean_absolute_error(y, predicted),
            "rmse": metrics.root_mean_squared_error(y, predicted),
            "r2": metrics.r2_score(y, predicted),
            "mape": metrics.mean_absolute_percentage_error(y, predicted),
            "bias": float((predicted - y).mean()),
        },
        rel=1e-6,
    )


def test_classes_and_values_that_the_reference_does_not_have_are_errors_and_no_rank(tmp_path: Path) -> None:
    y, p, is_reference = binary("breast cancer")
    predicted = (p > 0.5).astype(int)
    spec = PerformanceSpec.of(reference_of(tmp_path, y[is_reference], predicted[is_reference], p[is_reference]))
    labels = [1, 0, "maybe", 1, None, 1]
    made = [1, 0, 1, "maybe", 1, None]
    found = realised(cells_of(spec, labels, made, np.array([0.9, 0.1, 0.8, 0.7, 0.6, np.nan])))
    assert (found.n_made, found.n_labelled, found.n_unusable, found.n_scored) == (6, 5, 1, 3)
    assert found.classes == ("0", "1", "(other)")
    assert found.confusion == ((1, 0, 0), (0, 1, 1), (0, 1, 0))
    assert found.values["accuracy"].value == 0.5
    assert found.values["auc"].value == 1.0


def test_coverage_lag_and_selection_are_told(tmp_path: Path) -> None:
    y, p, is_reference = binary("flights")
    predicted = (p > 0.5).astype(int)
    spec = PerformanceSpec.of(reference_of(tmp_path, y[is_reference], predicted[is_reference], p[is_reference]))
    y, p, predicted = y[~is_reference][:2_000], p[~is_reference][:2_000], predicted[~is_reference][:2_000]

    def told(has_label: np.ndarray) -> Any:
        cells = OutcomeCells(spec)
        cells.add_made(rows_of(spec, predicted.tolist(), p))
        at = np.flatnonzero(has_label)
        lag = np.linspace(0, 86_400_000, len(at)).astype(np.int64)
        cells.add_labelled(rows_of(spec, predicted[at].tolist(), p[at]), spec.outcomes(y[at].tolist()), lag)
        return realised(cells)

    draw = np.random.default_rng(1)
    fair = told(draw.random(len(y)) < 0.3)
    assert fair.coverage == pytest.approx(0.3, abs=0.03)
    assert fair.selection_bias.p_value > 0.01
    assert [getattr(fair.lag, f"p{q}_ms") / 864_000 for q in (50, 90, 99)] == pytest.approx([50, 90, 99], rel=1 / 16)
    low = told(draw.random(len(y)) < 0.6 * (p < np.median(p)))
    assert low.selection_bias.p_value < 1e-6
    assert low.selection_bias.difference > 0.3
    assert told(np.ones(len(y), bool)).selection_bias is None


def test_a_segment_is_its_own_rows(tmp_path: Path) -> None:
    y, p, is_reference = binary("flights")
    predicted = (p > 0.5).astype(int)
    place = np.array(["EWR", "JFK", "LGA"])[np.arange(len(y)) % 3]
    made = reference_of(tmp_path, y[is_reference], predicted[is_reference], p[is_reference], segment=place[is_reference].tolist())
    spec = PerformanceSpec.of(made)
    own = made.performance.segments
    assert set(own) == {"place=EWR", "place=JFK", "place=LGA"}
    for name, one in own.items():
        mine = is_reference & (place == name.removeprefix("place="))
        assert (one.n, one.values["accuracy"]) == (int(mine.sum()), pytest.approx((y == predicted)[mine].mean(), rel=1e-5))
    segment = np.array([spec.segments.index(f"place={one}") for one in place[~is_reference]])
    y, p, predicted = y[~is_reference], p[~is_reference], predicted[~is_reference]
    rows = rows_of(spec, predicted.tolist(), p, segment)
    cells = OutcomeCells(spec)
    cells.add_made(rows)
    cells.add_labelled(rows, spec.outcomes(y.tolist()), np.zeros(rows.n, np.int64))
    for index in np.unique(segment).tolist():
        alone = cells_of(spec, y[segment == index].tolist(), predicted[segment == index].tolist(), p[segment == index])
        assert realised(cells, index) == realised(alone)
    assert cells.segments() == [0, *np.unique(segment).tolist()]


def test_a_reference_without_anything_to_tell_classes_by_counts_nothing(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    many = [f"c{one}" for one in draw.integers(0, 60, 900)]
    spec = PerformanceSpec.of(reference_of(tmp_path, many, many))
    assert (spec.task, spec.why) == ("unknown", "60 classes")
    found = realised(cells_of(spec, many[:5], many[:5]))
    assert (found.values, found.unknown) == ({}, "60 classes")


def test_without_labels_the_predictions_of_the_reference_say_what_the_task_is() -> None:
    def spec_of(*features: Any) -> PerformanceSpec:
        return PerformanceSpec.of(Reference.build("m", "1", Profile(layout_of(features))))

    classes = CategoryFeature(name="@prediction", values=("late", "on time"))
    known = CategoryFeature(name="@prediction", values=("true", "false"), value_type="boolean")
    score, number = number_feature_of("@score", np.linspace(0, 1, 500)), number_feature_of("@prediction", np.linspace(0, 90, 500))
    found = spec_of(classes, score)
    assert (found.task, found.classes, found.positive, found.score_names) == ("binary", ("late", "on time"), None, ())
    assert found.why == "which of late and on time is the positive class"
    assert set(realised(cells_of(found, ["late"] * 9, ["late"] * 9)).values) == {"accuracy"}
    found = spec_of(known, score)
    assert (found.task, found.positive, found.score_names, found.why) == ("binary", 1, ("@score",), None)
    assert set(realised(cells_of(found, [True, False], [True, True], np.array([0.9, 0.8]))).values) > {"auc", "brier", "f1"}
    found = spec_of(number)
    assert (found.task, set(realised(cells_of(found, [1.0, 2.0], [1.5, 2.0])).values)) == (
        "regression", {"mae", "rmse", "r2", "bias", "mape"},
    )  # fmt: skip
    assert spec_of(score).task == "unknown"
    assert spec_of(CategoryFeature(name="@prediction", values=("late",))).why == "only one class: late"
