"""Wire formats: bytes → rows. One file per format, one line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from monitor.columns import ColumnBatch, Int
from monitor.events import Rejection
from monitor.layout import Layout
from monitor.ports import Record


@dataclass(slots=True)
class DecodedBatch:
    """Records of one fetch, sorted out; every array and list in offset order."""

    offsets: Int
    """(n,) predictions only"""
    times_ms: Int
    """(n,) event time, epoch ms"""
    record_ms: Int
    """(n,) record timestamp"""
    keys: list[tuple[str, str]]
    """distinct (model, version)"""
    key_index: Int
    """(n,) index into keys"""
    payloads: list[object]
    """opaque per event, for `columns`"""
    ticks: list[tuple[int, int]]
    """(offset, ms)"""
    labels: list[tuple[int, str]]
    """(offset, model)"""
    rejections: list[tuple[int, Rejection]]
    """(offset, why)"""


class Format(Protocol):
    """How a source's records are read. Neither method raises, whatever the bytes."""

    def decode(self, records: Sequence[Record]) -> DecodedBatch:
        """Sort records into predictions, labels, ticks and rejections."""
        ...

    def columns(self, layout: Layout, payloads: Sequence[object], offsets: Int) -> ColumnBatch:
        """Turn payloads of accepted predictions into columns of a layout."""
        ...
