"""How fast outcomes are folded, and what they take: `python -m benchmarks.outcomes [rows]`.

Predictions and their labels, each row in three segments of fifty, in batches of several sizes; bytes of a delta of ten rows, of a pane.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.intervals import populations
from monitor.performance import OutcomeCells, PerformanceSpec, Rows, estimated, realised
from monitor.reference import PerformanceEstimator, ScoreCalibration

SEGMENTS, MEMBERSHIPS = 50, 3
BATCHES = (100, 1_000, 10_000)


def _estimating(spec: PerformanceSpec) -> PerformanceSpec:
    points = np.linspace(0, 1, 100)
    one = ScoreCalibration(scores=points.tolist(), shares=(points**2).tolist())
    cells = len(spec.predicted_edges) + 1
    estimator = PerformanceEstimator(
        n=10_000,
        calibrations=[one] * len(spec.score_names),
        predicted=[1_000] * max(spec.n_classes, 1),
        absolute_error=[1.0] * cells,
        squared_error=[2.0] * cells,
    )
    return replace(spec, estimator=estimator, segments=tuple(map(str, range(SEGMENTS))))


def _batches(columns: list[Any], n: int, size: int) -> list[tuple[Rows, Any, Any]]:
    draw = np.random.default_rng(0)
    found = []
    for start in range(0, n, size):
        predicted, scores, labels = (column[start : start + size] for column in columns)
        mine = len(labels)
        others = draw.integers(1, SEGMENTS, (MEMBERSHIPS - 1) * mine)
        members = np.tile(np.arange(mine), MEMBERSHIPS), np.concatenate((np.zeros(mine, np.int64), others))
        found.append((Rows(predicted, scores, members), labels, draw.integers(0, 10**9, mine)))
    return found


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    for name, (spec, *columns) in populations(0).items():
        if name not in ("binary", "four classes", "numbers"):
            continue
        spec = _estimating(spec)  # noqa: PLW2901
        for size in BATCHES:
            batches, cells = _batches(columns, n, size), OutcomeCells(spec)
            begin = time.perf_counter()
            for rows, labels, lag in batches:
                cells.add_made(rows)
                cells.add_labelled(rows, labels, lag)
            cells.segments()
            print(f"{name}: batches of {size:6}: {n / (time.perf_counter() - begin):9,.0f} labelled rows/s")
        ten = OutcomeCells(spec)
        rows, labels, lag = _batches(columns, 10, 10)[0]
        ten.add_made(rows)
        ten.add_labelled(rows, labels, lag)
        begin = time.perf_counter()
        realised(cells), estimated(cells)
        took = 1_000 * (time.perf_counter() - begin)
        print(f"{name}: {len(ten.to_bytes()):,} bytes for 10 rows, {len(cells.to_bytes()):,} for {n:,}; {took:.1f} ms a segment")


if __name__ == "__main__":
    main()
