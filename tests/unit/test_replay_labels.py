"""Labels of a real data set, replayed: every report equals what scikit-learn makes of the raw rows that were known at its age."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from sklearn import datasets, metrics
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from monitor.cli import app
from monitor.errors import InputError

START_MS, HOUR_MS = 1_735_689_600_000, 3_600_000
AGES_MS = [0, 6 * HOUR_MS, 48 * HOUR_MS, 96 * HOUR_MS]
CONFIG = """
sources:
  - {topic: predictions}
  - {topic: labels, format: native-label}
models:
  cancer:
    windows: [{size: 1h}, {size: 4h, step: 1h}]
    grace: 0s
    segments: [size]
    labels: {retention: 4d, report_at: [0s, 6h, 2d, 4d]}
"""
POLICY = """
name: quality
owner: ops
rules:
  - {when: accuracy < 0.9, segment: "*"}
  - {when: "mean(accuracy, 3) < 0.95"}
"""
SEGMENTS = {"small": "size=small", "large": "size=(other)"}
"""The reference has too few of the large ones for a segment."""
Row = dict[str, Any]
Label = tuple[str, int, int]


def rows(seed: int = 3) -> list[Row]:
    """569 biopsies, scored by a model that knows two features; the last 369 come over eight hours."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    x, y = x[order], y[order]
    known = x[:, [1, 4]] / x[:200, [1, 4]].std(axis=0)
    scores = LogisticRegression().fit(known[:200], y[:200]).predict_proba(known)[:, 1]
    return [
        {
            "id": f"r{i}",
            "time": START_MS + (i - 200) * 8 * HOUR_MS // 369 if i >= 200 else START_MS - HOUR_MS,
            "texture": float(x[i, 1]),
            "size": "large" if x[i, 0] > 14 else "small",
            "prediction": int(scores[i] > 0.5),
            "score": round(float(scores[i]), 2),
            "label": int(y[i]),
        }
        for i in range(len(y))
    ]


def labels_of(events: list[Row], seed: int = 5) -> list[Label]:
    """(id, time, label) by time: up to three days late, some before their prediction, twice, corrected, or of nobody."""
    dice = random.Random(seed)
    made: list[Label] = []
    for row in events:
        time = row["time"] + int(
            dice.choice((-600_000, 60_000, 20 * 60_000, 5 * HOUR_MS, 30 * HOUR_MS, 70 * HOUR_MS)) * dice.random()
        )
        if dice.random() < 0.9:
            made.append((row["id"], time, row["label"]))
        if dice.random() < 0.05:
            made.append((row["id"], time, row["label"]))
        if dice.random() < 0.05:
            made.append((row["id"], time + dice.randrange(1, 9 * HOUR_MS), 1 - row["label"]))
        if dice.random() < 0.05:
            made.append((f"nobody-{row['id']}", time, 1))
    return sorted(made, key=lambda label: label[1])


def write(path: Path, content: list[Row]) -> None:
    table = pa.Table.from_pylist(content)
    if path.suffix == ".csv":
        csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in content))


def run(folder: Path, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--config", str(folder / "monitor.yaml")])
    assert done.exit_code == 0, done.output
    return done.stderr


def replayed(folder: Path, labels: str, *more: str) -> tuple[list[Row], str]:
    """Return the reports of performance, and what was said."""
    paths = {name: str(folder / f"{name}.ndjson") for name in ("results", "alerts")}
    said = run(
        folder,
        *("replay", "--reference", str(folder / "reference.json"), "--events", str(folder / "events.csv")),
        *("--time-column", "time", "--id-column", "id", "--prediction-column", "prediction", "--score-column", "score"),
        *("--labels", str(folder / labels), "--results", paths["results"], "--alerts", paths["alerts"], "--end-of-input"),
        *("--policy", str(folder / "quality.yaml"), *more),
    )
    found = [json.loads(line) for line in Path(paths["results"]).read_text().splitlines()]
    return [one for one in found if one.get("type") == "performance"], said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cancer")
    made = rows()
    write(folder / "train.csv", made[:200])
    write(folder / "events.csv", [{k: v for k, v in row.items() if k != "label"} for row in made[200:]])
    labels = [{"id": key, "label": label, "time": time} for key, time, label in labels_of(made[200:])]
    for suffix in ("csv", "parquet", "ndjson"):
        write(folder / f"labels.{suffix}", labels)
    write(folder / "native.ndjson", [{"model": "cancer"} | label for label in labels])
    (folder / "monitor.yaml").write_text(CONFIG)
    (folder / "quality.yaml").write_text(POLICY)
    options = ("--model", "cancer", "--model-version", "1", "--time-column", "time", "--prediction-column", "prediction")
    options += ("--score-column", "score", "--label-column", "label", "--id-column", "id")
    run(folder, "reference", "build", str(folder / "train.csv"), *options, "--output", str(folder / "reference.json"))
    return folder


def cut(time: int) -> int:
    """From when on something of this time is known: the end of its pane."""
    return time // HOUR_MS * HOUR_MS + HOUR_MS


def known(events: list[Row], labels: list[Label], as_of_ms: int) -> list[tuple[Row, int | None]]:
    by_id: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for key, time, label in labels:
        if cut(time) <= as_of_ms:
            by_id[key].append((time, label))
    made = [row for row in events if cut(row["time"]) <= as_of_ms]
    return [(row, max(by_id[row["id"]], key=lambda one: one[0])[1] if by_id[row["id"]] else None) for row in made]


def test_every_report_is_what_scikit_learn_makes_of_the_rows_known_then(folder: Path) -> None:
    events = rows()[200:]
    labels = labels_of(events)
    reports, said = replayed(folder, "labels.csv")
    assert "369 records" not in said  # labels are records too
    compared: Counter[str] = Counter()
    for report in reports:
        window = report["window"]
        assert report["as_of_ms"] - window["end_ms"] in AGES_MS
        inside = [
            (row, label)
            for row, label in known(events, labels, report["as_of_ms"])
            if window["start_ms"] <= row["time"] < window["end_ms"]
            and (report["segment"] == "all" or report["segment"] == SEGMENTS[row["size"]])
        ]
        labelled = [(row["prediction"], row["score"], label) for row, label in inside if label is not None]
        assert (report["n"], report["labelled"]) == (len(inside), len(labelled)), (window, report["segment"])
        assert report["coverage"] == pytest.approx(len(labelled) / len(inside))
        if not labelled:
            continue
        predicted, scores, truth = map(np.array, zip(*labelled, strict=True))
        values = {name: one["value"] for name, one in report["values"].items()}
        expected = {
            "accuracy": (metrics.accuracy_score(truth, predicted), 1e-12),
            "precision": (metrics.precision_score(truth, predicted, zero_division=0), 1e-12),
            "recall": (metrics.recall_score(truth, predicted, zero_division=0), 1e-12),
            "f1": (metrics.f1_score(truth, predicted, zero_division=0), 1e-12),
            "brier": (float(np.mean((scores - truth) ** 2)), 1e-6),
            "log_loss": (metrics.log_loss(truth, scores, labels=[0, 1]), 1e-6),
        }
        if len(set(truth.tolist())) == 2:
            expected["auc"] = (metrics.roc_auc_score(truth, scores), 5e-4)
        for name, (value, error) in expected.items():
            if name in values:
                assert values[name] == pytest.approx(value, abs=error), (name, window, report["segment"])
                compared[name] += 1
            else:
                assert name in ("precision", "recall", "f1"), name
        for estimate in report["values"].values():
            assert estimate["low"] is None or estimate["low"] <= estimate["value"] <= estimate["high"]
    assert min(compared.values()) > 50
    assert compared["auc"] > 50


def test_windows_are_reported_at_the_configured_ages_and_where_something_became_known(folder: Path) -> None:
    events = rows()[200:]
    labels = labels_of(events)
    reports, _ = replayed(folder, "labels.csv")
    found: dict[tuple[int, int], list[tuple[int, bool]]] = defaultdict(list)
    revisions: dict[tuple[int, int], list[int]] = defaultdict(list)
    for report in reports:
        window = report["window"]
        if report["segment"] == "all":
            revisions[window["start_ms"], window["size_ms"]].append(report["revision"])
            found[window["start_ms"], window["size_ms"]].append((report["as_of_ms"] - window["end_ms"], report["is_final"]))
    assert len(found) == 8 + 11
    for (start, size), of_window in found.items():
        expected, before = [], None
        for age in AGES_MS:
            now = [
                (r["id"], label) for r, label in known(events, labels, start + size + age) if start <= r["time"] < start + size
            ]
            if now and now != before:
                expected.append((age, age == AGES_MS[-1]))
                before = now
        assert list(dict.fromkeys(of_window)) == expected, (start, size)
        assert revisions[start, size] == list(range(len(of_window)))


def test_alerts_are_restated_as_labels_come_and_in_the_end_say_what_the_last_reports_say(folder: Path) -> None:
    reports, _ = replayed(folder, "labels.csv")
    alerts = [json.loads(line)["data"] for line in (folder / "alerts.ndjson").read_text().splitlines()]
    assert {alert["policy_name"] for alert in alerts if alert["check"] == "performance.accuracy"} == {"quality"}
    newest = {(r["window"]["start_ms"], r["window"]["size_ms"], r["segment"]): r for r in reports}
    below = [r for r in newest.values() if r["values"]["accuracy"]["high"] < 0.9 and r["labelled"] >= 30]
    assert below
    for report in below:
        assert "performance.accuracy" in [finding["check"] for finding in report["findings"]]
    for report in newest.values():
        for finding in report["findings"]:
            threshold, high = finding["threshold"], finding["evidence"]["interval"][1]
            assert high < threshold
    assert any(alert["supersedes"] for alert in alerts)


def test_a_backtest_of_the_policy_gives_the_alerts_of_the_replay(folder: Path) -> None:
    reports, _ = replayed(folder, "labels.csv")
    alerts = [json.loads(line) for line in (folder / "alerts.ndjson").read_text().splitlines()]
    (folder / "softer.yaml").write_text(POLICY.replace("0.9,", "0.8,"))
    policies = ("--policy", str(folder / "softer.yaml"), "--against", str(folder / "quality.yaml"))
    done = CliRunner().invoke(
        app, ["backtest", *policies, str(folder / "results.ndjson"), "--config", str(folder / "monitor.yaml")]
    )
    assert done.exit_code == 0, done.output
    n = len({(r["as_of_ms"], r["window"]["start_ms"], r["window"]["size_ms"]) for r in reports})
    assert f"{n} reports of performance" in done.stderr
    assert "note:" not in done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    live = {one["id"]: one["data"] for one in alerts if one["data"]["check"].startswith("performance.")}
    old = {
        one["alert"]["id"]
        for one in told
        if one["change"] != "added" and one["alert"]["data"]["check"].startswith("performance.")
    }
    assert old == set(live)
    assert {one["change"] for one in told} >= {"kept", "removed"}


@pytest.mark.parametrize("labels", ["labels.parquet", "labels.ndjson", "native.ndjson"])
def test_a_file_of_labels_says_the_same_in_every_format(folder: Path, labels: str) -> None:
    assert replayed(folder, labels)[0] == replayed(folder, "labels.csv")[0]


def test_what_became_of_labels_is_said(folder: Path) -> None:
    labels = labels_of(rows()[200:])
    _, said = replayed(folder, "labels.csv")
    ids = {key for key, *_ in labels if not key.startswith("nobody")}
    assert f"{369 + len(labels):,} records: 369 counted" in said
    assert f"{len(ids):,} joined" in said
    assert f"{sum(key.startswith('nobody') for key, *_ in labels):,} orphan labels" in said


def test_a_file_without_the_columns_of_labels_is_refused(folder: Path) -> None:
    write(folder / "wrong.csv", [{"key": "a", "label": 1, "time": 0}])
    words = ["replay", "--events", str(folder / "events.csv"), "--time-column", "time", "--model", "cancer"]
    done = CliRunner().invoke(app, [*words, "--labels", str(folder / "wrong.csv"), "--config", str(folder / "monitor.yaml")])
    assert isinstance(done.exception, InputError)
    assert "labels need the columns id, label and time; it has key, label, time" in str(done.exception)
