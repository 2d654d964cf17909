"""A file as the records of a source of labels: what becomes known of predictions, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson

from monitor.errors import InputError
from monitor.event_time import TimeUnit
from monitor.features import canonical
from monitor.files import ndjson
from monitor.files.events import NO_TIMESTAMP_MS
from monitor.files.rows import PARTITION, RECORD_TIMESTAMP, ColumnOptions
from monitor.files.tables import NDJSON, open_table, readable, role
from monitor.files.times import times_ms
from monitor.ports import StoredRecord

COLUMNS = ("id", "label", "time")
MODEL = "model"


class _Place(msgspec.Struct):
    partition: int | None = None
    record_timestamp: int | None = None


class LabelFile:
    """A file as (partition, record) pairs; offsets count from 0 by partition; iterate as often as wanted.

    Rows have the columns id, label and time, and may have a model. NDJSON lines with a model are label events already and pass as they
    are. model: of rows without one. A column or key `partition` or `record_timestamp` (epoch ms) says where a record lay, as in a file of
    events. `is_native` is False where events were made: their time is then in `time`, epoch ms.

    Raises InputError as `open_table` does, and where a column is missing.
    """

    def __init__(self, path: Path, model: str | None, time_unit: TimeUnit = "ms") -> None:
        self.path = path
        self._model = model
        self._unit: TimeUnit = time_unit
        with readable(path):
            head = ndjson.head(path) if path.name.lower().endswith(NDJSON) and path.is_file() else []
        self.is_native = any(MODEL in row or set(row) == {"tick"} for row in head)
        names = frozenset(name for row in head for name in row)
        if not self.is_native:
            table = open_table(path, ColumnOptions())
            names = frozenset(table.names)
            missing = [name for name in COLUMNS if name not in names]
            if missing:
                raise InputError(f"{path}: labels need the columns id, label and time; it has {', '.join(table.names)}")
            if MODEL not in names and model is None:
                raise InputError(f"{path}: name the model of these labels, with --model or a column `model`")
            options = ColumnOptions(time="time", label="label", id="id", model=MODEL if MODEL in names else None)
            self._table = open_table(path, options, {"id": "string"})
        self.has_record_timestamps = RECORD_TIMESTAMP in names
        self.has_partitions = PARTITION in names

    def __iter__(self) -> Iterator[tuple[int, StoredRecord]]:
        next_offset: dict[int, int] = {}
        for place, value in self._native() if self.is_native else self._made():
            partition = place.partition or 0
            offset = next_offset.get(partition, 0)
            next_offset[partition] = offset + 1
            stamp = NO_TIMESTAMP_MS if place.record_timestamp is None else place.record_timestamp
            yield partition, StoredRecord(offset, stamp, value)

    def _native(self) -> Iterator[tuple[_Place, bytes]]:
        decode = msgspec.json.Decoder(_Place).decode
        with readable(self.path):
            for line in ndjson.lines(self.path):
                try:
                    yield decode(line), line
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    yield _Place(), line  # not ours to judge: the format rejects it, and it is counted

    def _made(self) -> Iterator[tuple[_Place, bytes]]:
        for batch in self._table.batches():
            nothing: list[Any] = [None] * batch.n

            def values(name: str, arrays: Any = batch.arrays, nothing: list[Any] = nothing) -> list[Any]:
                return arrays[role(name)].to_pylist() if role(name) in arrays else nothing

            times = times_ms(batch.arrays[role("time")], self._unit).to_pylist()
            stamps = nothing
            if role(RECORD_TIMESTAMP) in batch.arrays:
                stamps = times_ms(batch.arrays[role(RECORD_TIMESTAMP)], "ms").to_pylist()
            for key, label, time, model, partition, stamp in zip(
                values("id"), values("label"), times, values(MODEL), values(PARTITION), stamps, strict=True
            ):
                event = {"id": None if key is None else canonical(key), "label": label, "time": time}
                event["model"] = self._model if model is None else canonical(model)
                place = _Place(None if partition is None else int(partition), stamp)
                yield place, orjson.dumps({name: value for name, value in event.items() if value is not None})
