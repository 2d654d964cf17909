"""Label events: accepted, counted by model, or refused for a reason."""

from __future__ import annotations

import json

import numpy as np
import pytest

from monitor.formats.native_label import NativeLabelFormat
from monitor.layout import Layout
from monitor.ports import StoredRecord


def label(**fields: object) -> bytes:
    return json.dumps({"id": "a", "model": "m", "label": 1, "time": 5} | fields).encode()


def one(value: bytes | None, **options: object) -> object:
    batch = NativeLabelFormat(**options).decode([StoredRecord(3, 0, value)])  # type: ignore[arg-type]
    assert len(batch.offsets) == len(batch.payloads) == 0
    (found,) = batch.labels + batch.ticks + [(o, (why.reason.value, why.pointer)) for o, why in batch.rejections]
    assert found[0] == 3
    return found[1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (label(), "m"),
        (label(label="default"), "m"),
        (label(label=False), "m"),
        (label(label=0.25), "m"),
        (b"\xef\xbb\xbf" + label(extra=1), "m"),
        (b'{"tick": 5}', 5),
        (None, ("empty", "")),
        (b"", ("empty", "")),
        (b" " * (1 << 21), ("too_large", "")),
        (label(note="x" * (1 << 20)), ("too_large", "")),
        (label(note="x").replace(b"x", b"\xff"), ("bad_encoding", "")),
        (b"{", ("malformed_json", "")),
        (b'"label"', ("not_an_object", "")),
        (b"{}", ("missing_field", "id")),
        (label(id=7), ("wrong_type", "id")),
        (label(model=None), ("missing_field", "model")),
        (label(label=None), ("missing_field", "label")),
        (label(label=[1]), ("wrong_type", "label")),
        (label(time="now"), ("wrong_type", "time")),
        (label(time=10**17), ("invalid_time", "time")),
        (label(model="a b"), ("invalid_name", "model")),
    ],
)
def test_each_record_is_a_label_a_tick_or_has_a_reason(value: bytes | None, expected: object) -> None:
    assert one(value) == expected


def test_the_time_is_where_and_what_the_source_says() -> None:
    value = json.dumps({"id": "a", "model": "m", "label": 1, "at": "2025-01-01T00:00:00Z"}).encode()
    assert one(value, time_field="at", time_unit="iso8601") == "m"
    assert one(value.replace(b"Z", b""), time_field="at", time_unit="iso8601") == ("invalid_time", "at")


def test_there_are_no_columns_of_labels() -> None:
    assert NativeLabelFormat().columns(Layout(), [], np.zeros(0, np.int64)).n == 0
