"""Errors that features tell of: learnt with a reference, told by ingest for every row, estimated before labels come."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from monitor.cli import app
from monitor.files import ColumnOptions, open_table
from monitor.performance import ErrorTrees, OutcomeCells, PerformanceSpec, Rows, estimated
from monitor.reference import ErrorModel, Reference
from monitor.reference_build import build_reference, error_model
from monitor.reference_build.rows import column_batch

START_MS, HOUR_MS = 1_735_689_600_000, 3_600_000
COLUMNS = ColumnOptions(prediction="prediction", label="label")
CONFIG = """
sources:
  - {topic: predictions}
  - {topic: labels, format: native-label}
models:
  prices:
    windows: [{size: 1h}]
    grace: 0s
    labels: {retention: 1d, report_at: [0s]}
"""


def rows(n: int, seed: int, *, rusty: float = 0.2) -> list[dict[str, Any]]:
    """Prices of cars; errors are large of old cars that rust, whatever was predicted. Age is missing of some."""
    draw = np.random.default_rng(seed)
    age, is_rusty, predicted = draw.uniform(0, 20, n), draw.random(n) < rusty, draw.normal(9_000, 1_000, n)
    error = draw.standard_normal(n) * np.where(is_rusty, 100 + 60 * age, 100)
    return [
        {
            "id": f"{seed}-{i}",
            "time": START_MS + i * HOUR_MS // n,
            "age": "" if i % 50 == 7 else round(age[i], 2),
            "body": "rusty" if is_rusty[i] else "sound",
            "prediction": round(predicted[i], 1),
            "label": round(predicted[i] + error[i], 1),
        }
        for i in range(n)
    ]


def written(path: Path, made: list[dict[str, Any]], *without: str) -> Path:
    names = [name for name in made[0] if name not in without]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(made)
    return path


def built(path: Path, made: list[dict[str, Any]]) -> Reference:
    return build_reference(written(path, made, "id", "time"), "prices", "1", COLUMNS)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return built(tmp_path_factory.mktemp("prices") / "train.csv", rows(3_000, 1))


@pytest.fixture
def model(reference: Reference) -> ErrorModel:
    found = PerformanceSpec.of(reference).error_model
    assert found is not None
    return found


def cells_of(reference: Reference, path: Path, parts: int = 1) -> OutcomeCells:
    """Return what was made of the rows of a file, counted in some parts."""
    spec = PerformanceSpec.of(reference)
    assert spec.error_model is not None
    trees, cells = ErrorTrees(spec.error_model, reference.layout), OutcomeCells(spec)
    for batch in open_table(path, COLUMNS, {}).batches():
        for rest in range(parts):
            part = batch.where(np.arange(batch.n) % parts == rest)
            expected = trees.expected(column_batch(part, reference.layout))
            predicted = np.array(part.arrays["@prediction"].to_pylist())
            cells.add_made(Rows(predicted, expected[:, np.newaxis], (np.arange(part.n), np.zeros(part.n, np.int64))))
    return cells


def test_what_drifts_where_errors_are_large_is_estimated(reference: Reference, tmp_path: Path) -> None:
    made = rows(2_000, 2, rusty=0.8)
    error = np.array([row["label"] - row["prediction"] for row in made])
    found = estimated(cells_of(reference, written(tmp_path / "new.csv", made, "id", "time"))).values
    own = reference.performance.values["mae"]
    assert abs(found["mae"].value - np.abs(error).mean()) < 0.1 * np.abs(error).mean() < 0.2 * (np.abs(error).mean() - own)
    assert found["rmse"].value == pytest.approx(np.sqrt((error**2).mean()), rel=0.15)


def test_any_order_of_the_rows_makes_the_same_reference(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rows(3_000, 1)
    order = np.random.default_rng(9).permutation(len(made))
    again = built(tmp_path / "again.csv", [made[i] for i in order])
    assert again.to_bytes() == reference.to_bytes()
    monkeypatch.setattr(error_model, "MAX_ROWS", 1_000)
    few = [built(tmp_path / "few.csv", [made[i] for i in some]) for some in (range(len(made)), order)]
    assert few[0].to_bytes() == few[1].to_bytes() != reference.to_bytes()


def test_any_split_of_the_rows_counts_the_same(reference: Reference, tmp_path: Path) -> None:
    path = written(tmp_path / "new.csv", rows(500, 3), "id", "time")
    whole = cells_of(reference, path).to_bytes()
    assert cells_of(reference, path, 7).to_bytes() == whole
    assert OutcomeCells.from_bytes(PerformanceSpec.of(reference), whole).to_bytes() == whole


def test_trees_say_of_a_row_what_a_plain_walk_says(reference: Reference, model: ErrorModel, tmp_path: Path) -> None:
    layout = reference.layout
    batch = next(iter(open_table(written(tmp_path / "new.csv", rows(200, 4), "id", "time"), COLUMNS, {}).batches()))
    columns = column_batch(batch, layout)
    names = [layout.features[position].name for position, _ in (*layout.numbers, *layout.categories)]
    by_name = dict(zip(names, layout.cells(columns), strict=True))
    expected = []
    for row in range(batch.n):
        total = model.start
        for questions, values in zip(model.trees, model.values, strict=True):
            leaf = 0
            for feature, rank in (model.questions[question] for question in questions):
                name = model.features[feature]
                cell = int(by_name[name][row]) - layout.offsets[layout.index[name]]
                leaf = 2 * leaf + ((model.ranks[feature][cell] if model.ranks[feature] else cell) > rank)
            total += values[leaf]
        expected.append(total)
    assert ErrorTrees(model, layout).expected(columns).tolist() == expected
    assert len(set(expected)) > 50


def test_large_steps_are_taken_where_errors_depend_much_on_features_and_no_others() -> None:
    draw = np.random.default_rng(11)
    codes, fold = draw.integers(0, 64, (3, 3_000)).astype(np.int16), draw.integers(0, error_model.FOLDS, 3_000)
    waves, noise = 1 + np.sin(codes[0] / 6) * np.cos(codes[1] / 9), draw.exponential(1 + codes[0] / 64)
    said, _, rate = error_model._best_outside(codes, waves, fold)
    small, _ = error_model._said_outside(codes, waves, fold, error_model.RATE)
    assert rate == error_model.LARGE_RATE
    assert ((waves - said) ** 2).mean() < 0.7 * ((waves - small) ** 2).mean()
    assert error_model._best_outside(codes, noise, fold)[2] == error_model.RATE


def test_there_is_no_model_where_features_say_nothing_or_rows_are_few(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    dull = [row | {"label": round(row["prediction"] + draw.normal(0, 200), 1)} for row in rows(2_000, 6)]
    for made in (dull, rows(error_model.MIN_ROWS - 1, 7)):
        spec = PerformanceSpec.of(built(tmp_path / "few.csv", made))
        assert (spec.task, spec.error_model, spec.n_scores) == ("regression", None, 0)


def test_a_replay_reports_what_is_expected_of_the_rows_it_saw(reference: Reference, tmp_path: Path) -> None:
    made = rows(900, 8, rusty=0.6)
    events = written(tmp_path / "events.csv", made, "label")
    (tmp_path / "reference.json").write_bytes(reference.to_bytes())
    (tmp_path / "monitor.yaml").write_text(CONFIG)
    written(tmp_path / "labels.csv", [{"id": "nobody", "label": 1.0, "time": START_MS}])
    options = ("--reference", "reference.json", "--events", events.name, "--labels", "labels.csv", "--results", "results.ndjson")
    options += ("--alerts", "alerts.ndjson")
    paths = [str(tmp_path / word) if "." in word else word for word in options]
    columns = ("--time-column", "time", "--id-column", "id", "--prediction-column", "prediction", "--end-of-input")
    done = CliRunner().invoke(app, ["replay", *paths, *columns, "--config", str(tmp_path / "monitor.yaml")])
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in (tmp_path / "results.ndjson").read_text().splitlines()]
    report = next(one for one in found if one.get("type") == "performance")
    expected = estimated(cells_of(reference, written(tmp_path / "same.csv", made, "id", "time")))
    assert (report["n"], report["labelled"]) == (900, 0)
    assert report["estimated"]["values"]["mae"]["value"] == pytest.approx(expected.values["mae"].value, rel=1e-6)
