"""Label events (schemas/label.schema.json): what really happened to a prediction. Joined with predictions by id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from monitor.columns import About, ColumnBatch, DecodedBatch, Int, LabelRow, Payloads, Read, Said
from monitor.event_time import INVALID_MS, JSON_TYPES, TimeUnit, time_ms
from monitor.events import Outcome, Rejection, RejectionReason, Tick, is_name
from monitor.json_objects import FAILURES, needs_care, parse_record, typed
from monitor.layout import Layout
from monitor.ports import Record


class NativeLabelFormat:
    """Reads label events; a source of labels has no predictions. Parameters as of `NativeFormat`."""

    in_tables = False

    def __init__(self, time_field: str = "time", time_unit: TimeUnit = "ms", max_event_bytes: int = 1 << 20) -> None:
        self._time_field = time_field
        self._time_unit = time_unit
        self._max_event_bytes = max_event_bytes
        self._types = {"id": str, "model": str, "label": Outcome, time_field: JSON_TYPES[time_unit]}
        wire: Any = msgspec.defstruct(
            "LabelEvent",
            [("id", str), ("model", str), ("label", Outcome), ("time", JSON_TYPES[time_unit])],
            rename={"time": time_field},
            gc=False,
        )
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(wire).decode

    def decode(self, records: Sequence[Record]) -> DecodedBatch:
        """Sort records into labels, ticks and rejections; never raises."""
        none = np.zeros(0, np.int64)
        batch = DecodedBatch(none, none, none, [], none, Payloads(), [], [], [])
        careful = set(needs_care([record.value or b"" for record in records], self._max_event_bytes))
        for i, record in enumerate(records):
            found = self._read(record.value, i in careful)
            if isinstance(found, Rejection):
                batch.rejections.append((record.offset, found))
            elif isinstance(found, Tick):
                batch.ticks.append((record.offset, found.tick))
            else:
                row = LabelRow(record.offset, *found)
                batch.labels.append((record.offset, row.model))
                batch.label_rows.append(row)
        return batch

    def _read(self, value: bytes | None, is_careful: bool) -> tuple[str, str, Outcome, int] | Tick | Rejection:
        """Return model, id, value and time of a label, or what the record is instead."""
        try:
            label = self._decode(b"" if is_careful or value is None else value)
            model, key, outcome, time = label.model, label.id, label.label, label.time
        except FAILURES:
            fields = parse_record(value, self._max_event_bytes)
            if isinstance(fields, Rejection | Tick):
                return fields
            parts = {name: typed(fields, name, wanted) for name, wanted in self._types.items()}
            for part in parts.values():
                if isinstance(part, Rejection):
                    return part
            model, key, outcome, time = parts["model"], parts["id"], parts["label"], parts[self._time_field]
        if not is_name(model):
            return Rejection(RejectionReason.INVALID_NAME, "model")
        ms = time_ms(time, self._time_unit)
        if ms == INVALID_MS:
            return Rejection(RejectionReason.INVALID_TIME, self._time_field)
        return str(model), key, outcome, ms

    def columns(self, layout: Layout, payloads: Sequence[object], offsets: Int) -> ColumnBatch:
        """Never called with rows: there are no predictions here."""
        return ColumnBatch(0, np.zeros((len(layout.numbers), 0)), None, [[] for _ in layout.categories])

    def values(self, layout: Layout, payloads: Sequence[object]) -> ColumnBatch:
        """Never called with rows, likewise."""
        return self.columns(layout, payloads, np.zeros(0, np.int64))

    def about(self, layout: Layout, payloads: Sequence[object], offsets: Int) -> About:
        """Never called with rows, likewise."""
        return About(None)

    def read(self, layout: Layout, keys: Iterable[tuple[str, str]], payloads: Sequence[object], offsets: Int) -> Read:
        """Never called with rows, likewise."""
        return Read(self.values(layout, payloads), Said((), has_ids=True), np.zeros(0, bool), {})

    def ids(self, payloads: Sequence[object]) -> list[str | None]:
        """Never called with rows, likewise."""
        return []

    def rows(self, payloads: Sequence[object]) -> list[dict[str, object]]:
        """Never called with rows, likewise."""
        return []
