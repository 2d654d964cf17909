"""Label events (schemas/label.schema.json): what really happened to a prediction. Accepted and counted; joined from labels on."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from monitor.columns import ColumnBatch, DecodedBatch, Int
from monitor.events import Label, Rejection, RejectionReason, Tick, is_name
from monitor.layout import Layout
from monitor.ports import Record

_decode = msgspec.json.Decoder(Label).decode
_decode_tick = msgspec.json.Decoder(Tick).decode


class NativeLabelFormat:
    """Reads label events; a source of labels has no predictions."""

    def __init__(self, time_field: str = "time", time_unit: str = "ms", max_event_bytes: int = 1 << 20) -> None:
        self._max_event_bytes = max_event_bytes

    def decode(self, records: Sequence[Record]) -> DecodedBatch:
        """Sort records into labels, ticks and rejections; never raises."""
        none = np.zeros(0, np.int64)
        batch = DecodedBatch(none, none, none, [], none, [], [], [], [])
        for record in records:
            found = self._decode_one(record.value)
            if isinstance(found, Label):
                batch.labels.append((record.offset, found.model))
            elif isinstance(found, Tick):
                batch.ticks.append((record.offset, found.tick))
            else:
                batch.rejections.append((record.offset, found))
        return batch

    def _decode_one(self, value: bytes | None) -> Label | Tick | Rejection:
        if not value:
            return Rejection(RejectionReason.EMPTY)
        if len(value) > self._max_event_bytes:
            return Rejection(RejectionReason.TOO_LARGE)
        for decode in (_decode, _decode_tick):
            try:
                found = decode(value)
            except msgspec.ValidationError:
                continue
            except UnicodeDecodeError:
                return Rejection(RejectionReason.BAD_ENCODING)
            except (msgspec.DecodeError, RecursionError):
                return Rejection(RejectionReason.MALFORMED_JSON)
            if isinstance(found, Label) and not is_name(found.model):
                return Rejection(RejectionReason.INVALID_NAME, "model")
            return found
        return Rejection(RejectionReason.WRONG_TYPE)

    def columns(self, layout: Layout, payloads: Sequence[object], offsets: Int) -> ColumnBatch:
        """Never called with rows: there are no predictions here."""
        return ColumnBatch(0, np.zeros((len(layout.numbers), 0)), None, [[] for _ in layout.categories])
