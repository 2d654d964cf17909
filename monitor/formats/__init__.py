"""Wire formats: bytes → rows. One file per format, one line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from monitor.columns import ColumnBatch, DecodedBatch, Int
from monitor.formats.native import NativeFormat
from monitor.formats.native_label import NativeLabelFormat
from monitor.layout import Layout
from monitor.ports import Record


class Format(Protocol):
    """How a source's records are read. Neither method raises, whatever the bytes."""

    def decode(self, records: Sequence[Record]) -> DecodedBatch:
        """Sort records into predictions, labels, ticks and rejections."""
        ...

    def columns(self, layout: Layout, payloads: Sequence[object], offsets: Int) -> ColumnBatch:
        """Turn payloads of accepted predictions into columns of a layout."""
        ...


FORMATS: dict[str, Callable[[str, Any, int], Format]] = {
    "native": NativeFormat,
    "native-label": NativeLabelFormat,
}
"""Name → (time field, time unit, largest record in bytes) → format."""
