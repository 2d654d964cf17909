"""Wire formats: bytes → rows. One file per format, one line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from monitor.columns import About, ColumnBatch, DecodedBatch, Int, Read
from monitor.event_time import TimeUnit
from monitor.formats.native import NativeFormat
from monitor.formats.native_label import NativeLabelFormat
from monitor.layout import Layout
from monitor.ports import Record


class Format(Protocol):
    """How a source's records are read. No method raises, whatever the bytes; all are functions of the records alone."""

    @property
    def in_tables(self) -> bool:
        """Whether predictions are read many at once, straight into columns, as far as that can be: they are best read with their fetch."""
        ...

    def decode(self, records: Sequence[Record]) -> DecodedBatch:
        """Sort records into predictions, labels, ticks and rejections."""
        ...

    def columns(self, layout: Layout, payloads: Sequence[object], offsets: Int) -> ColumnBatch:
        """Turn payloads of accepted predictions of one model version into columns of a layout: `values` and `about` together."""
        ...

    def values(self, layout: Layout, payloads: Sequence[object]) -> ColumnBatch:
        """Turn the values of accepted predictions, of any models, into columns of a layout; the same for all layouts of its shape."""
        ...

    def about(self, layout: Layout, payloads: Sequence[object], offsets: Int) -> About:
        """Return what accepted predictions of one model version say beside the values of a layout."""
        ...

    def read(self, layout: Layout, keys: Iterable[tuple[str, str]], payloads: Sequence[object], offsets: Int) -> Read:
        """Return `values` of accepted predictions of these model versions, whose layouts have one shape, and by row what `about` tells."""
        ...

    def ids(self, payloads: Sequence[object]) -> list[str | None]:
        """Return the id of each accepted prediction; None or "" where it has none."""
        ...

    def rows(self, payloads: Sequence[object]) -> list[dict[str, object]]:
        """Return the values of accepted predictions by name as JSON has them, outputs under their names in a layout.

        A value that is of no JSON type is a wrong one.
        """
        ...


class FormatFactory(Protocol):
    """Makes a format for one source: where an event's time is, what it counts, and the largest record in bytes."""

    def __call__(self, time_field: str, time_unit: TimeUnit, max_event_bytes: int, /) -> Format: ...  # noqa: D102


FORMATS: dict[str, FormatFactory] = {
    "native": NativeFormat,
    "native-label": NativeLabelFormat,
}
