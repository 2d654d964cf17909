"""How near estimates of a regression come to its errors before labels, beside NannyML's DLE and beside the reference's own mean error.

`python -m benchmarks.model_performance --only errors` runs it. NannyML's car prices are what the settings of the trees were chosen on.
On diamonds they were found to take too small steps (`LARGE_RATE`); minutes in the air were measured once, afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from pyarrow import csv

from benchmarks.decisions.peers import PEERS
from benchmarks.environments import SILENT, python_with
from benchmarks.regressions import Regression, air_times, diamonds, flights
from monitor.columns import Float
from monitor.files import ColumnOptions, open_table
from monitor.files.tables import role
from monitor.performance import ErrorTrees, OutcomeCells, PerformanceSpec, Rows, estimated
from monitor.reference import Reference
from monitor.reference_build import build_reference
from monitor.reference_build.rows import column_batch

CHUNK = 6_000
"""Rows of a window."""
CARS = "car prices*"
CAR_FEATURES = ("car_age", "km_driven", "price_new", "accident_count", "door_count", "fuel", "transmission")
SETS: dict[str, Callable[[Path], Regression]] = {
    "arrival delays of flights, by departure": flights,
    "prices of diamonds, by weight": lambda folder: diamonds(folder, is_sorted=True),
    "prices of diamonds, in any order": lambda folder: diamonds(folder, is_sorted=False),
    "minutes of flights in the air, by distance": air_times,
}
SCRIPT = Path(__file__).parent / "peers" / "errors_nannyml.py"
COLUMNS = ColumnOptions(prediction="y_pred", label="y_true")
METRICS = ("mae", "rmse")


def measure(data: Path) -> dict[str, Any]:
    """Return by set how far estimates of its windows are off in the mean; data: where packages with rows are kept."""
    python, found = python_with(*PEERS["NannyML 0.13.1"]), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _asked(python, "cars", str(folder))
        found[CARS] = _of_set(python, folder, CAR_FEATURES)
    for of, made in SETS.items():
        regression = made(data)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            csv.write_csv(regression.reference, folder / "reference.csv")
            csv.write_csv(regression.analysis, folder / "analysis.csv")
            found[of] = _of_set(python, folder, regression.features)
    return found


def _of_set(python: Path, folder: Path, features: Sequence[str]) -> dict[str, Any]:
    theirs = json.loads(_asked(python, "estimates", str(folder), str(CHUNK), *features))
    begun = time.process_time()
    made = build_reference(folder / "reference.csv", "m", "1", COLUMNS)
    built_s = time.process_time() - begun
    truth, ours, row_us = _estimates(made, folder / "analysis.csv")
    constant = [[made.performance.values[metric] for metric in METRICS]] * len(truth)
    return {
        "reference": made.performance.n,
        "windows": len(truth),
        "trees": len(model.trees) if (model := PerformanceSpec.of(made).error_model) is not None else 0,
        "cost": {"built_s": built_s, "model_bytes": len(msgspec.json.encode(model)), "row_us": row_us},
        "realised": {m: [min(one), max(one)] for m, one in zip(METRICS, np.array(truth).T.tolist(), strict=True)},
        "off_by": {
            who: dict(zip(METRICS, np.abs(np.array(said) - np.array(truth)).mean(axis=0).tolist(), strict=True))
            for who, said in (("monitor", ours), ("NannyML 0.13.1", theirs), ("the reference's own", constant))
        },
    }


def _asked(python: Path, *words: str) -> str:
    done = subprocess.run([python, SCRIPT, *words], capture_output=True, text=True, check=False, env=os.environ | SILENT)
    if done.returncode:
        raise RuntimeError(f"NannyML's interpreter ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout.splitlines()[-1] if done.stdout else ""


def _estimates(made: Reference, rows: Path) -> tuple[list[list[float]], list[list[float]], float]:
    """Return mae and rmse by window, of the rows and as they are estimated; and what trees cost a row, in µs of CPU."""
    spec = PerformanceSpec.of(made)
    trees = None if spec.error_model is None else ErrorTrees(spec.error_model, made.layout)
    parts: list[tuple[Float, Float, Float]] = []
    spent = 0.0
    for batch in open_table(rows, COLUMNS, {}).batches():
        columns = column_batch(batch, made.layout)
        predicted, label = (np.array(batch.arrays[name].to_pylist(), np.float64) for name in ("@prediction", role("label")))
        cells, begun = made.layout.category_cells(columns), time.process_time()
        expected = np.zeros((batch.n, 0)) if trees is None else trees.expected(columns, cells)[:, np.newaxis]
        spent += time.process_time() - begun
        parts.append((predicted, expected, label - predicted))
    whole = [np.concatenate(column) for column in zip(*parts, strict=True)]
    truth, found = [], []
    for start in range(0, len(whole[0]), CHUNK):
        predicted, expected, error = (column[start : start + CHUNK] for column in whole)
        n = len(predicted)
        outcomes = OutcomeCells(spec)
        outcomes.add_made(Rows(predicted, expected, (np.arange(n), np.zeros(n, np.int64))))
        values = estimated(outcomes).values
        truth.append([float(np.abs(error).mean()), float(np.sqrt((error**2).mean()))])
        found.append([values[metric].value for metric in METRICS])
    return truth, found, 1e6 * spent / len(whole[0])
