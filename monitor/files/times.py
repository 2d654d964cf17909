"""Times as users write them → epoch milliseconds."""

from __future__ import annotations

import re
from datetime import date, datetime, time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitor import event_time
from monitor.errors import InputError
from monitor.event_time import INVALID_MS, TimeUnit, moment_ms, text_ms
from monitor.windows import NEVER_MS

_NUMBER = re.compile(r"\s*-?(?:\d{1,7}|\d{9,19})(?:\.\d+)?\s*").fullmatch
"""A number written as text; eight digits are an ISO 8601 date."""
_NEW_MS, _OLD_MS = 946_684_800_000, 4_102_444_800_000  # 2000 … 2100: where an integer of the right unit is likely to lie


def value_ms(value: Any, unit: TimeUnit) -> int | None:
    """Return one time in epoch milliseconds, rounded down; None for None. Raises InputError.

    >>> value_ms(1_735_689_600, "s"), value_ms("2025-01-01", "ms"), value_ms(None, "ms")
    (1735689600000, 1735689600000, None)
    """
    if value is None:
        return None
    if isinstance(value, datetime):
        return moment_ms(value)
    if isinstance(value, date):
        return moment_ms(datetime.combine(value, time()))
    if isinstance(value, str):
        if not _NUMBER(value):
            return text_ms(value)
        value = float(value) if "." in value else int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{value!r} is not a time")
    return int(_numbers_ms(np.array([value]), unit)[0])


def texts(column: Any) -> Any:
    """Return a column of timestamps or dates as pyarrow strings, ISO 8601 in UTC: what an event has of them.

    >>> texts(pa.array([1_500], pa.timestamp("ms"))).to_pylist()
    ['1970-01-01 00:00:01.500000']
    """
    return column.cast(pa.timestamp("us"), safe=False).cast(pa.string())


def times_ms(column: Any, unit: TimeUnit) -> Any:
    """Return a column of times as pyarrow int64 epoch milliseconds, rounded down; nulls stay.

    Raises InputError for a value that is no time, or that lies outside the years 1900 to 9999.
    """
    kind = column.type
    if pa.types.is_null(kind):
        return column.cast(pa.int64())
    if pa.types.is_date(kind):
        column, kind = column.cast(pa.timestamp("ms")), pa.timestamp("ms")
    if pa.types.is_timestamp(kind):
        numbers, unit = column.cast(pa.int64()), kind.unit
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = column
    else:
        return pa.array([value_ms(value, unit) for value in column.to_pylist()], pa.int64())
    valid = np.asarray(pc.is_valid(numbers).to_numpy(zero_copy_only=False), bool)
    found = np.full(len(numbers), NEVER_MS, np.int64)
    found[valid] = _numbers_ms(np.asarray(numbers.drop_null()), unit)
    return pa.array(found, mask=~valid)


def _numbers_ms(values: Any, unit: TimeUnit) -> Any:
    """Turn numbers into milliseconds as the wire does; numbers where texts were announced are taken as ms."""
    unit = "ms" if unit == "iso8601" else unit
    if values.dtype.kind == "f" and unit != "s":
        values = np.floor(values)
    found = event_time.times_ms(values.tolist(), unit)
    bad = np.flatnonzero(found == INVALID_MS)
    if len(bad):
        value = values[bad[0]].item()
        units: tuple[TimeUnit, ...] = ("s", "ms", "us", "ns")
        likely = [u for u in units if _NEW_MS <= event_time.time_ms(value, u) < _OLD_MS]
        hint = f"; with --time-unit {likely[0]} it is" if likely else ""
        raise InputError(f"{value!r} is no time of the years 1900 to 9999 in {unit}{hint}")
    return found
