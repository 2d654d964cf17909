"""Event times as producers write them → epoch milliseconds, rounded down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np

from monitor.columns import Int
from monitor.errors import InputError

TimeUnit = Literal["s", "ms", "us", "ns", "iso8601"]

EARLIEST_MS = -2_208_988_800_000
"""The year 1900."""

INVALID_MS = 253_402_300_800_000
"""The year 10000: what a time before 1900, after 9999, or none at all is turned into."""

JSON_TYPES: dict[TimeUnit, Any] = {"s": int | float, "ms": int, "us": int, "ns": int, "iso8601": str}
"""What a time of that unit must be in JSON."""

_PER_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)

_ROUNDING_MS = 0.0004
"""A float of seconds is up to 0.00036 ms below the millisecond, and above the microsecond, that it was written as (until 2106)."""


def times_ms(times: Sequence[Any], unit: TimeUnit) -> Int:
    """Return `time_ms` of every time, shape (n,) int64; times are of the unit's `JSON_TYPES`."""
    try:
        if unit in _PER_MS:
            found = np.array(times, np.int64) // _PER_MS[unit]
            found[(found < EARLIEST_MS) | (found > INVALID_MS)] = INVALID_MS
            return found
        if unit == "s":
            with np.errstate(over="ignore"):
                ms = np.floor(np.array(times, np.float64) * 1_000 + _ROUNDING_MS)
            return np.where((ms >= EARLIEST_MS) & (ms < INVALID_MS), ms, INVALID_MS).astype(np.int64)
    except OverflowError:  # some integer has no place in an array
        pass
    return np.array([time_ms(time, unit) for time in times], np.int64)


def time_ms(time: Any, unit: TimeUnit) -> int:
    """Return an event time in epoch milliseconds, rounded down, or INVALID_MS. A text must have an offset from UTC, or Z.

    >>> time_ms(1.5, "s"), time_ms("2025-01-01T01:00:00.5+01:00", "iso8601"), time_ms(-1, "us")
    (1500, 1735689600500, -1)
    >>> time_ms("2025-01-01", "iso8601") == time_ms(10**30, "ms") == INVALID_MS
    True
    """
    try:
        if unit == "iso8601":
            moment = datetime.fromisoformat(time)
            found = INVALID_MS if moment.tzinfo is None else (moment - _EPOCH) // _MS
        elif unit == "s":
            found = math.floor(float(time) * 1_000 + _ROUNDING_MS)
        else:
            found = math.floor(time // _PER_MS[unit])
    except (ValueError, OverflowError):
        return INVALID_MS
    return found if EARLIEST_MS <= found < INVALID_MS else INVALID_MS


def text_ms(text: str) -> int:
    """Return an ISO 8601 date or time in epoch milliseconds, rounded down; UTC unless it carries an offset. Raises InputError.

    >>> text_ms("2025-01-01"), text_ms("2025-01-01 01:00:00.5"), text_ms("2025-01-01T01:00:00+01:00")
    (1735689600000, 1735693200500, 1735689600000)
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InputError(f"{text!r} is not an ISO 8601 time, such as 2025-01-31T13:00:00Z") from error
    return moment_ms(moment)


def moment_ms(moment: datetime) -> int:
    """Return a date and time in epoch milliseconds, rounded down; UTC where it has no zone."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MS
