"""Estimates without labels, against NannyML 0.13 on the same rows (`benchmarks/nannyml_fixture.py`)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from sklearn.isotonic import IsotonicRegression

from monitor.performance import OutcomeCells, PerformanceSpec, estimated, realised
from monitor.performance.calibrated import interpolated
from monitor.performance.estimated import concept_drift
from monitor.reference import PerformanceEstimator, Reference, ScoreCalibration
from monitor.reference_build import score_calibration
from monitor.reference_build.score_calibration import isotonic
from tests.unit.performance.made import cells_of, reference_of, rows_of
from tests.unit.performance.nannyml import figures, load_set

NAMES = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "f1", "auc": "roc_auc"}
BINARY = ("breast_cancer", "high_digits", "flights", "car_loans")
MULTICLASS = ("digits", "products")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def build(name: str) -> tuple[Reference, PerformanceSpec]:
        rows = load_set(name)
        mine = rows.chunk == 0
        scores = None if not rows.scores.shape[1] else rows.scores[mine, 0] if rows.scores.shape[1] == 1 else rows.scores[mine]
        label, prediction = (values[mine] for values in (rows.label, rows.prediction))
        if scores is None:
            label, prediction = label.astype(float), prediction.astype(float)
        made = reference_of(tmp_path_factory.mktemp(name), label, prediction, scores)
        return made, PerformanceSpec.of(made)

    return build


def chunks(name: str) -> list[int]:
    return list(range(1, int(load_set(name).chunk.max()) + 1))


def forced(made: Reference, name: str, variant: str) -> PerformanceSpec:
    """Return a specification whose scores are calibrated whatever the reference found best, or never."""
    known = made.performance.estimator
    assert isinstance(known, PerformanceEstimator)
    rows = load_set(name)
    mine, k = rows.chunk == 0, rows.scores.shape[1]
    calibrations = [ScoreCalibration()] * k
    if variant == "calibrated":
        calibrations = []
        for i in range(k):
            values, at = np.unique(rows.scores[mine, i], return_inverse=True)
            is_hit = rows.label[mine] == (1 if k == 1 else i)
            calibrations.append(isotonic(np.bincount(at, weights=is_hit).astype(np.int64), np.bincount(at), values))
    estimator = structs.replace(known, calibrations=calibrations)
    return PerformanceSpec.of(made.with_performance(structs.replace(made.performance, estimator=estimator)))


def agrees(spec: PerformanceSpec, name: str, variant: str, within: float) -> None:
    rows = load_set(name)
    for number, expected in figures()[name]["chunks"][variant].items():
        mine = rows.chunk == int(number)
        cells = OutcomeCells(spec)
        cells.add_made(rows_of(spec, rows.prediction[mine].tolist(), rows.scores[mine]))
        found = estimated(cells)
        assert (found.method, found.n, found.unknown) == ("cbpe", int(mine.sum()), None)
        values = {m: found.values[m].value for m in NAMES}
        assert values == pytest.approx({m: expected[theirs] for m, theirs in NAMES.items()}, abs=within), number


WITHIN = {**dict.fromkeys(BINARY, 5e-4), **dict.fromkeys(MULTICLASS, 2e-3)}


@pytest.mark.parametrize("variant", ["calibrated", "as they are"])
@pytest.mark.parametrize("name", WITHIN)
def test_cbpe_is_nannymls_where_both_calibrate_alike(built: Any, name: str, variant: str) -> None:
    agrees(forced(built(name)[0], name, variant), name, variant, WITHIN[name])


@pytest.mark.parametrize("name", [name for name in WITHIN if name != "breast_cancer"])
def test_cbpe_from_a_built_reference_is_nannymls_where_it_draws_enough_splits(built: Any, name: str) -> None:
    """Breast cancer has a reference of 269 rows, of which NannyML calibrates scores and this does not (`MIN_ROWS`)."""
    made, spec = built(name)
    assert [bool(one.scores) for one in made.performance.estimator.calibrations] == figures()[name]["calibrates"]["many"]
    agrees(spec, name, "many", WITHIN[name])


@pytest.mark.parametrize("name", [name for name in WITHIN if name != "digits"])
def test_cbpe_from_a_built_reference_is_nannymls_as_it_comes(built: Any, name: str) -> None:
    """Of digits, NannyML's ten splits decide otherwise than a thousand, and than ten of the same rows in another order."""
    made, spec = built(name)
    assert [bool(one.scores) for one in made.performance.estimator.calibrations] == figures()[name]["calibrates"]["own"]
    agrees(spec, name, "own", WITHIN[name])


def test_cbpe_of_digits_lies_within_what_nannyml_says_of_the_same_rows_in_other_orders(built: Any) -> None:
    rows, (_, spec) = load_set("digits"), built("digits")
    orders = figures()["digits"]["orders"]
    assert orders["choices"] > 10
    for number in chunks("digits"):
        mine = rows.chunk == number
        cells = OutcomeCells(spec)
        cells.add_made(rows_of(spec, rows.prediction[mine].tolist(), rows.scores[mine]))
        for metric, theirs in NAMES.items():
            spread = orders["chunks"][str(number)][theirs]
            assert spread["min"] - 2e-3 <= estimated(cells).values[metric].value <= spread["max"] + 2e-3, (number, metric)
            assert spread["max"] - spread["min"] > 5e-3


@pytest.mark.parametrize("digit", range(10))
def test_whether_scores_are_calibrated_is_no_matter_of_the_draw(digit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = load_set("digits")
    mine = rows.chunk == 0
    scores, at = np.unique(rows.scores[mine, digit], return_inverse=True)
    hits = np.bincount(at, weights=rows.label[mine] == digit).astype(np.int64)
    decided = set()
    for seed in range(8):
        monkeypatch.setattr(score_calibration, "_SEED", seed)
        decided.add(bool(score_calibration.calibration_of(hits, np.bincount(at) - hits, scores).scores))
    assert len(decided) == 1


def test_the_calibration_is_scikit_learns_isotonic_regression() -> None:
    draw = np.random.default_rng(6)
    score = draw.random(4_000).round(3)
    label = draw.random(4_000) < score**2
    values, at = np.unique(score, return_inverse=True)
    rows, hits = np.bincount(at), np.bincount(at, weights=label).astype(np.int64)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(score, label)
    anywhere = draw.random(1_000)
    assert interpolated(isotonic(hits, rows, values), anywhere) == pytest.approx(theirs.predict(anywhere), abs=1e-9)


@pytest.mark.parametrize("name", BINARY)
def test_estimates_are_as_near_to_what_labels_say_as_nannymls(built: Any, name: str) -> None:
    rows, (_, spec) = load_set(name), built(name)
    ours, theirs = [], []
    for number in chunks(name):
        mine = rows.chunk == number
        cells = OutcomeCells(spec)
        cells.add_made(rows_of(spec, rows.prediction[mine].tolist(), rows.scores[mine]))
        truth = realised(cells_of(spec, rows.label[mine].tolist(), rows.prediction[mine].tolist(), rows.scores[mine])).values
        for metric, name_there in NAMES.items():
            ours.append(abs(estimated(cells).values[metric].value - truth[metric].value))
            theirs.append(abs(figures()[name]["chunks"]["own"][str(number)][name_there] - truth[metric].value))
    assert np.mean(ours) <= 1.05 * np.mean(theirs)


def test_dle_knows_more_of_errors_than_their_mean(built: Any) -> None:
    """NannyML sees the features, this only predictions; a constant sees neither."""
    rows, (made, spec) = load_set("car_prices"), built("car_prices")
    errors: dict[str, list[float]] = {"ours": [], "theirs": [], "constant": []}
    for number in chunks("car_prices"):
        mine = rows.chunk == number
        cells = OutcomeCells(spec)
        cells.add_made(rows_of(spec, rows.prediction[mine].astype(float).tolist(), None))
        found, truth = estimated(cells), np.abs(rows.label - rows.prediction)[mine].mean()
        assert (found.method, found.n) == ("dle", int(mine.sum()))
        errors["ours"].append(abs(found.values["mae"].value - truth))
        errors["theirs"].append(abs(figures()["car_prices"]["chunks"][str(number)]["mae"] - truth))
        errors["constant"].append(abs(made.performance.values["mae"] - truth))
    mean = {name: float(np.mean(values)) for name, values in errors.items()}
    assert mean["theirs"] < mean["ours"] < 0.6 * mean["constant"]


def test_labels_that_contradict_the_estimate_silence_it(built: Any) -> None:
    rows, (_, spec) = load_set("flights"), built("flights")
    mine = rows.chunk > 0
    label, prediction, scores = rows.label[mine], rows.prediction[mine].tolist(), rows.scores[mine]
    flipped = np.where(np.arange(len(label)) % 4 == 0, 1 - label, label)
    silent = estimated(cells_of(spec, flipped.tolist(), prediction, scores))
    assert silent.values == {}
    assert silent.unknown is not None and silent.unknown.startswith("concept drift indicated: of ")
    few = cells_of(spec, flipped[:20].tolist(), prediction[:20], scores[:20])
    assert concept_drift(few) is None
    assert estimated(few).values


def test_labels_as_expected_silence_nothing(built: Any) -> None:
    """Labels drawn with the calibrated probabilities: 300 windows, chance 0.001 each."""
    rows, (made, spec) = load_set("car_loans"), built("car_loans")
    draw, silenced = np.random.default_rng(8), 0
    share = interpolated(made.performance.estimator.calibrations[0], np.ascontiguousarray(rows.scores[:, 0]))
    for _ in range(300):
        at = draw.choice(len(share), 400)
        label = (draw.random(400) < share[at]).astype(int)
        silenced += concept_drift(cells_of(spec, label.tolist(), rows.prediction[at].tolist(), rows.scores[at])) is not None
    assert silenced <= 3


def test_errors_that_grow_silence_the_estimate_of_numbers(built: Any) -> None:
    rows, (_, spec) = load_set("car_prices"), built("car_prices")
    mine = rows.chunk == 1
    predicted, label = rows.prediction[mine].astype(float), rows.label[mine].astype(float)
    worse = predicted + 2 * (label - predicted)
    assert estimated(cells_of(spec, label.tolist(), predicted.tolist())).values
    assert "the mean absolute error of" in str(estimated(cells_of(spec, worse.tolist(), predicted.tolist())).unknown)


def test_without_a_calibration_there_is_a_reason(tmp_path: Path) -> None:
    label = ["yes", "no", "yes", "no"] * 80
    spec = PerformanceSpec.of(reference_of(tmp_path, label, label[::-1]))
    found = estimated(cells_of(spec, label, label))
    assert found.values == {}
    assert "build it again from rows with labels" in str(found.unknown)
