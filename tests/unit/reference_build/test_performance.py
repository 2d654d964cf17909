"""The reference's performance, against scikit-learn on the raw rows of data sets that it ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from sklearn import datasets, metrics
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monitor.files import ColumnOptions
from monitor.reference import ReferencePerformance
from monitor.reference_build import build_reference, performance


def found(path: Path, positive: str | None = None, **columns: Any) -> ReferencePerformance:
    columns.setdefault("x", np.arange(len(columns["label"])) + 0.5)
    pa.parquet.write_table(pa.table(columns), path / "t.parquet")
    options = ColumnOptions(**{name: name for name in ("prediction", "score", "label") if name in columns})
    return build_reference(path / "t.parquet", "m", "1", options, positive_class=positive).performance


def cancer() -> tuple[np.ndarray, np.ndarray]:
    """Labels 0 and 1, and the probabilities of a plain model that saw few features."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[:, [1, 4, 8]], y)
    return y, model.predict_proba(x[:, [1, 4, 8]])[:, 1]


@pytest.mark.parametrize("decimals", [None, 2])
@pytest.mark.parametrize("names", [None, ("malignant", "benign"), ("yes", "no")])
def test_two_classes_are_those_of_scikit_learn(tmp_path: Path, names: tuple[str, str] | None, decimals: int | None) -> None:
    y, p = cancer()
    p = p if decimals is None else p.round(decimals)
    predicted = (p > 0.5).astype(int)
    text = np.array(names or ("0", "1"))
    positive = "yes" if names == ("yes", "no") else str(text[1])
    if positive == "yes":
        p = 1 - p  # the score is that of "yes", which is label 0
    is_positive = text[y] == positive
    made = found(tmp_path, prediction=text[predicted] if names else predicted, score=p, label=text[y] if names else y)
    expected = {
        "accuracy": metrics.accuracy_score(y, predicted),
        "precision": metrics.precision_score(is_positive, text[predicted] == positive),
        "recall": metrics.recall_score(is_positive, text[predicted] == positive),
        "f1": metrics.f1_score(is_positive, text[predicted] == positive),
        "auc": metrics.roc_auc_score(is_positive, p),
        "brier": metrics.brier_score_loss(is_positive, p),
        "log_loss": metrics.log_loss(is_positive, np.clip(p, 1e-7, 1 - 1e-7)),
        "ece": ece(is_positive, p),
    }
    assert (made.task, made.n, made.n_scored, made.positive_class, made.unknown) == ("binary", len(y), len(y), positive, None)
    assert made.values.pop("auc") == pytest.approx(expected.pop("auc"), abs=1e-4 if decimals is None else 1e-9)
    assert made.values == pytest.approx(expected, rel=1e-9)
    assert made.confusion == metrics.confusion_matrix(text[y], text[predicted], labels=made.classes).tolist()


def ece(is_positive: np.ndarray, p: np.ndarray) -> float:
    """Ten bins (lo, hi], 0 in the first, by a plain loop."""
    total = 0.0
    for i in range(10):
        mine = [(q, t) for q, t in zip(p, is_positive, strict=True) if i / 10 < q <= (i + 1) / 10 or (q == 0 and i == 0)]
        if mine:
            total += len(mine) / len(p) * abs(np.mean([q for q, _ in mine]) - np.mean([t for _, t in mine]))
    return total


@pytest.mark.parametrize("load", [datasets.load_iris, datasets.load_wine, datasets.load_digits])
def test_many_classes_are_those_of_scikit_learn(tmp_path: Path, load: Any) -> None:
    x, y = load(return_X_y=True)
    predicted = make_pipeline(StandardScaler(), LogisticRegression(C=0.001)).fit(x, y).predict(x)
    made = found(tmp_path, prediction=predicted, label=[f"{v}" for v in y])
    classes = [int(c) for c in made.classes]
    kept: dict[str, Any] = {"labels": classes, "average": "macro", "zero_division": 0}
    assert made.task == "multiclass"
    assert made.confusion == metrics.confusion_matrix(y, predicted, labels=classes).tolist()
    assert made.values == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(y, predicted),
            "precision": metrics.precision_score(y, predicted, **kept),
            "recall": metrics.recall_score(y, predicted, **kept),
            "f1": metrics.f1_score(y, predicted, **kept),
        },
        rel=1e-9,
    )


def test_numbers_are_those_of_scikit_learn(tmp_path: Path) -> None:
    x, y = datasets.load_diabetes(return_X_y=True)
    predicted = LinearRegression().fit(x, y).predict(x)
    label = pa.array(y, mask=np.arange(len(y)) % 7 == 0)
    made = found(tmp_path, prediction=predicted, label=label)
    kept = np.arange(len(y)) % 7 != 0
    assert (made.task, made.n, made.unknown) == ("regression", int(kept.sum()), None)
    assert made.values == pytest.approx(
        {
            "mae": metrics.mean_absolute_error(y[kept], predicted[kept]),
            "rmse": metrics.root_mean_squared_error(y[kept], predicted[kept]),
            "r2": metrics.r2_score(y[kept], predicted[kept]),
        },
        rel=1e-7,
    )


def test_rows_without_a_label_or_a_prediction_or_a_score_are_left_out_where_it_is_missing(tmp_path: Path) -> None:
    made = found(
        tmp_path,
        label=["1", "0", None, "1", "0"],
        prediction=["1", "1", "1", None, "0"],
        score=[0.9, None, 0.8, 0.7, 0.1],
    )
    assert (made.n, made.n_scored) == (3, 3)
    assert made.values["accuracy"] == pytest.approx(2 / 3, rel=1e-9)
    assert made.values["brier"] == pytest.approx((0.01 + 0.09 + 0.01) / 3, rel=1e-9)
    assert made.values["auc"] == 1


def test_a_score_of_0_or_1_costs_no_more_than_the_clip_allows(tmp_path: Path) -> None:
    made = found(tmp_path, label=[0, 1, 1, 0] * 10, score=[1.0, 0.0, 1.0, 0.0] * 10)
    assert made.values["log_loss"] == pytest.approx((2 * -np.log(1e-7) + 2 * -np.log1p(-1e-7)) / 4, rel=1e-9)
    assert (made.values["brier"], made.values["auc"]) == (0.5, 0.5)


def test_scores_that_are_no_probabilities_rank_only(tmp_path: Path) -> None:
    y, p = cancer()
    margins = np.log(p / (1 - p)) * 7
    made = found(tmp_path, label=y, score=margins)
    assert made.values == pytest.approx({"auc": metrics.roc_auc_score(y, margins)}, abs=1e-6)
    assert made.confusion == []


def test_scores_over_many_orders_of_magnitude_rank_to_the_stated_error(tmp_path: Path) -> None:
    dice = np.random.default_rng(3)
    y = dice.integers(0, 2, 20_000)
    score = np.exp(dice.normal(0, 8, 20_000) + y)
    assert found(tmp_path, label=y, score=score).values["auc"] == pytest.approx(metrics.roc_auc_score(y, score), abs=5e-4)


def test_the_positive_class_is_what_the_user_says(tmp_path: Path) -> None:
    label, prediction, score = ["paid", "default"] * 20, ["paid", "paid", "default", "default"] * 10, [0.2, 0.4, 0.7, 0.9] * 10
    made = found(tmp_path, label=label, prediction=prediction, score=score)
    assert made.positive_class == "default"  # it is predicted at the higher scores
    said = found(tmp_path, "paid", label=label, prediction=prediction, score=score)
    assert said.positive_class == "paid"
    assert said.values["auc"] == pytest.approx(1 - made.values["auc"])
    lost = found(tmp_path, "pade", label=label, prediction=prediction, score=score)
    assert lost.values == {"accuracy": 0.5}
    assert lost.unknown == "which of default, paid is the positive class; --positive-class says it"


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"label": ["a", "b"] * 20}, "no prediction and no score column"),
        ({"label": [None] * 40, "prediction": ["a", "b"] * 20}, "no labels"),
        ({"label": np.arange(40) / 3, "prediction": ["a", "b"] * 20}, "labels are numbers, predictions are not"),
        ({"label": [0, 1] * 20, "prediction": np.linspace(0, 1, 40)}, "name them with --score-column"),
        ({"label": ["a", "b"] * 20, "prediction": np.linspace(0, 1, 40)}, "name them with --score-column"),
        ({"label": ["a", "b", "c", "d"] * 10, "score": np.linspace(0, 1, 40)}, "a score alone says nothing of 4 classes"),
        ({"label": ["a", "b"] * 20, "prediction": ["a", None] * 20, "score": [None] * 40}, None),
        ({"label": [None, "b"] * 20, "prediction": ["a", None] * 20}, "no row has both a label and a prediction"),
    ],
)
def test_where_it_cannot_be_known_the_record_says_why(tmp_path: Path, columns: dict[str, Any], why: str | None) -> None:
    made = found(tmp_path, **columns)
    if why is None:
        assert made.values["accuracy"] == 1
    else:
        assert made.unknown is not None
        assert why in made.unknown
        assert (made.task, made.n, made.values) == (None, 0, {})


def test_beyond_the_bound_of_classes_accuracy_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(performance, "MAX_CLASSES", 10)
    label = [f"c{i % 20}" for i in range(200)]
    made = found(tmp_path, label=label, prediction=[f"c{i % 20 if i % 4 else 0}" for i in range(200)])
    assert (made.confusion, made.classes) == ([], [])
    assert made.unknown == "more than 10 classes: accuracy only"
    assert made.values == {"accuracy": (150 + 10) / 200}


def test_any_order_of_the_rows_and_any_batches_give_the_same_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    y, p = cancer()
    order = np.random.default_rng(1).permutation(len(y))
    whole = found(tmp_path, label=y, prediction=p > 0.5, score=p, x=np.arange(len(y)) + 0.5)
    monkeypatch.setattr("monitor.files.parquet.BATCH_ROWS", 11)
    assert found(tmp_path, label=y[order], prediction=(p > 0.5)[order], score=p[order]) == whole
