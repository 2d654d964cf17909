"""Event times in every unit."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.event_time import EARLIEST_MS, INVALID_MS, TimeUnit, time_ms, times_ms


@pytest.mark.parametrize(
    ("unit", "time", "ms"),
    [
        ("ms", 1_700, 1_700),
        ("ms", EARLIEST_MS, EARLIEST_MS),
        ("ms", EARLIEST_MS - 1, INVALID_MS),
        ("ms", INVALID_MS - 1, INVALID_MS - 1),
        ("ms", INVALID_MS, INVALID_MS),
        ("ms", 10**30, INVALID_MS),
        ("us", 1_999, 1),
        ("us", -1, -1),
        ("ns", 1_999_999, 1),
        ("ns", -(10**30), INVALID_MS),
        ("s", 2, 2_000),
        ("s", 1.5, 1_500),
        ("s", -0.0015, -2),
        ("s", 1_735_689_600.123, 1_735_689_600_123),
        ("s", 1_735_689_600.123_999, 1_735_689_600_123),
        ("s", 1e300, INVALID_MS),
        ("s", 10**400, INVALID_MS),
        ("iso8601", "1970-01-01T00:00:01Z", 1_000),
        ("iso8601", "1970-01-01 01:00:01.0019+01:00", 1_001),
        ("iso8601", "2025-01-01T00:00:00.123456789Z", 1_735_689_600_123),
        ("iso8601", "1970-01-01T00:00:01", INVALID_MS),
        ("iso8601", "1970-01-01", INVALID_MS),
        ("iso8601", "0001-01-01T00:00:00+14:00", INVALID_MS),
        ("iso8601", "9999-12-31T23:59:59-14:00", INVALID_MS),
        ("iso8601", "1735689600", INVALID_MS),
        ("iso8601", "", INVALID_MS),
    ],
)
def test_a_time_becomes_milliseconds_rounded_down(unit: TimeUnit, time: object, ms: int) -> None:
    assert time_ms(time, unit) == ms
    assert times_ms([time, time], unit).tolist() == [ms, ms]


@given(st.lists(st.integers(-(10**20), 10**20) | st.integers(EARLIEST_MS, INVALID_MS)), st.sampled_from(["ms", "us", "ns", "s"]))
def test_many_integers_become_what_each_becomes(times: list[int], unit: TimeUnit) -> None:
    found = times_ms(times, unit)
    assert found.dtype == np.int64
    assert found.tolist() == [time_ms(time, unit) for time in times]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers()))
def test_many_seconds_become_what_each_becomes(times: list[float]) -> None:
    assert times_ms(times, "s").tolist() == [time_ms(time, "s") for time in times]


@given(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001
def test_seconds_written_to_the_microsecond_lose_no_millisecond(moment: datetime) -> None:
    whole = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // datetime.resolution
    assert time_ms(whole / 1_000_000, "s") == time_ms(whole, "us") == time_ms(moment.isoformat() + "Z", "iso8601")
