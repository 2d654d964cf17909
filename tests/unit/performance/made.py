"""References and outcomes from arrays, as a model would have left them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from monitor.files import ColumnOptions
from monitor.performance import OutcomeCells, PerformanceSpec, Rows
from monitor.reference import Reference
from monitor.reference_build import SegmentOptions, build_reference
from monitor.segments import Key


def reference_of(
    folder: Path,
    label: Any,
    prediction: Any,
    scores: np.ndarray | None = None,
    *,
    segment: Any = None,
    positive: str | None = None,
) -> Reference:
    """Build a reference; scores (n,) of the positive class, or (n, k) by class, whose names are the sorted labels."""
    columns: dict[str, Any] = {"x": np.arange(len(label)) + 0.5, "label": label, "prediction": prediction}
    options: dict[str, Any] = {"prediction": "prediction", "label": "label"}
    if scores is not None and scores.ndim == 1:
        columns["score"] = scores
        options["score"] = "score"
    elif scores is not None:
        names = sorted({str(one) for one in label})
        columns |= {f"p {name}": scores[:, i] for i, name in enumerate(names)}
        options["class_scores"] = tuple((name, f"p {name}") for name in names)
    if segment is not None:
        columns["place"] = segment
    pa.parquet.write_table(pa.table(columns), folder / "rows.parquet")
    segments = () if segment is None else (SegmentOptions((Key(name="place"),)),)
    return build_reference(
        folder / "rows.parquet", "m", "1", ColumnOptions(**options), segments=segments, positive_class=positive
    )


def rows_of(spec: PerformanceSpec, prediction: Any, scores: np.ndarray | None, segment: np.ndarray | None = None) -> Rows:
    """Return rows of all rows, and of a segment each if given."""
    n = len(prediction)
    index = np.tile(np.arange(n), 1 if segment is None else 2)
    where = np.zeros(n, np.int64) if segment is None else np.concatenate((np.zeros(n, np.int64), segment))
    matrix = np.zeros((n, 0)) if scores is None else np.asarray(scores, np.float64).reshape(n, -1)
    return Rows(spec.outcomes(list(prediction)), matrix, (index, where))


def cells_of(
    spec: PerformanceSpec, label: Any, prediction: Any, scores: np.ndarray | None = None, lag_ms: np.ndarray | None = None
) -> OutcomeCells:
    """Return the outcomes of rows that all have a label."""
    cells = OutcomeCells(spec)
    rows = rows_of(spec, prediction, scores)
    cells.add_made(rows)
    cells.add_labelled(rows, spec.outcomes(list(label)), np.zeros(rows.n, np.int64) if lag_ms is None else lag_ms)
    return cells
