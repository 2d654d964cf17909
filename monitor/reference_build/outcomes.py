"""How good the model was in each segment of the reference, counted as windows count their outcomes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from msgspec import structs

from monitor.columns import Float, Int
from monitor.event_time import TimeUnit
from monitor.files import Columns
from monitor.files.tables import role
from monitor.layout import Layout
from monitor.performance import NO_CLASS, OutcomeCells, PerformanceSpec, Rows, realised
from monitor.reference import PREDICTION, Reference, ReferencePerformance, SegmentPerformance
from monitor.reference_build.gather import floats
from monitor.reference_build.performance import class_codes
from monitor.reference_build.rows import column_batch

MIN_ROWS = 100
"""Labels of a segment, to compare windows with."""
_DIGITS = 6


def with_segments(reference: Reference, batches: Iterable[Columns], time_unit: TimeUnit) -> ReferencePerformance:
    """Return the performance of a reference, and that of each of its segments with enough labels; batches: its rows once more."""
    spec = PerformanceSpec.of(reference)
    cells = OutcomeCells(spec)
    for batch in batches:
        labels = _outcomes(batch, role("label"), spec)
        scores = [floats(batch.arrays[name]) for name in spec.score_names]
        rows = Rows(
            _outcomes(batch, PREDICTION, spec),
            np.stack(scores, axis=1) if scores else np.full((batch.n, spec.n_scores), np.nan),
            _segments(batch, reference.layout, time_unit),
        )
        cells.add_labelled(rows, labels, np.zeros(batch.n, np.int64))
    found = {}
    for segment in cells.segments():
        known = realised(cells, segment)
        if segment and known.n_labelled >= MIN_ROWS:
            values = {name: float(f"{one.value:.{_DIGITS}g}") for name, one in sorted(known.values.items())}
            found[spec.segments[segment]] = SegmentPerformance(n=known.n_labelled, values=values)
    return structs.replace(reference.performance, segments=found) if found else reference.performance


def _outcomes(batch: Columns, name: str, spec: PerformanceSpec) -> Int | Float:
    if name not in batch.arrays:
        return np.full(batch.n, NO_CLASS, np.int64)
    if not spec.is_classes:
        return floats(batch.arrays[name])
    codes, texts = class_codes(batch.arrays[name])
    return np.append(spec.codes(texts), NO_CLASS)[codes]


def _segments(batch: Columns, layout: Layout, time_unit: TimeUnit) -> tuple[Int, Int]:
    columns = column_batch(batch, layout, time_unit)
    by_segmentation = layout.segment_rows(columns, layout.category_cells(columns))
    rows = np.tile(np.arange(batch.n), len(by_segmentation) + 1)
    return rows, np.concatenate((np.zeros(batch.n, np.int64), by_segmentation.ravel()))
