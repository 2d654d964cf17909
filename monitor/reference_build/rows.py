"""Rows of a file → what a profile counts: null is missing, NaN is NaN; absent and wrong-typed as the file's reader says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitor.columns import ColumnBatch, Float, NoValue, Special, specials_of
from monitor.event_time import TimeUnit
from monitor.features import canonical, source_of
from monitor.files import Columns, times_ms
from monitor.files.tables import role
from monitor.files.times import texts
from monitor.layout import Layout
from monitor.reference_build.gather import floats
from monitor.segments import TAGS
from monitor.views import category_view, number_view
from monitor.views import specials_of as marks_of


def column_batch(batch: Columns, layout: Layout, time_unit: TimeUnit = "ms") -> ColumnBatch:
    """Turn rows into columns of a layout; time_unit: of event times that are numbers."""
    numbers = np.empty((len(layout.numbers), batch.n))
    codes = np.zeros(numbers.shape, np.uint8)
    for row, (_, feature) in enumerate(layout.numbers):
        name = source_of(feature)
        if feature.view is not None:
            numbers[row] = number_view(feature, source_values(batch, name), lambda: event_times_ms(batch, time_unit))
            marks = marks_of(numbers[row])
            if marks is not None:
                codes[row] = marks
            continue
        column = batch.arrays[name]
        numbers[row] = floats(column)
        if column.null_count:
            codes[row] = np.where(np.asarray(column.is_null()), Special.MISSING, Special.VALUE)
        if name in batch.specials:
            odd = batch.specials[name]
            codes[row] = np.where(odd, odd, codes[row])
    specials = specials_of(numbers)
    if specials is not None:
        specials = np.where(codes, codes, specials)
    categories = []
    for _, category in layout.categories:
        values = source_values(batch, source_of(category))
        categories.append(values if category.view is None else category_view(category, values))
    return ColumnBatch(batch.n, numbers, specials, categories, tags=[_tag(batch, name) for name in layout.tags])


def _tag(batch: Columns, name: str) -> list[str | None]:
    """Return a tag of every row, as texts; None where there is none, or the file has no such tag."""
    column = batch.arrays.get(role(TAGS + name))
    return [None] * batch.n if column is None else [None if v is None else canonical(v) for v in column.to_pylist()]


def source_values(batch: Columns, name: str) -> list[Any]:
    """Return values as the wire has them; NaN is missing, infinity is of a wrong type; of lists the lengths."""
    column = batch.arrays[name]
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        column = texts(column)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        column = pc.list_value_length(column)
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(kind):
        values = [v if v is None or np.isfinite(v) else NoValue.WRONG_TYPE if np.isinf(v) else None for v in values]
    if name in batch.specials:
        codes = batch.specials[name]
        for i in np.flatnonzero(codes).tolist():
            values[i] = NoValue.ABSENT if codes[i] == Special.ABSENT else NoValue.WRONG_TYPE
    return values


def event_times_ms(batch: Columns, time_unit: TimeUnit) -> Float:
    """Return the event times of rows, NaN where there is none; shape (n,)."""
    return floats(times_ms(batch.arrays[role("time")], time_unit))
