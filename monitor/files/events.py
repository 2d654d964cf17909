"""A file as the records of source partitions: what a producer would have sent, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson

from monitor.errors import InputError
from monitor.features import canonical
from monitor.files import ndjson
from monitor.files.delimited import MISSING_TEXTS, number_of
from monitor.files.rows import PARTITION, PLACES, RECORD_TIMESTAMP, RECORD_TIMESTAMP_TYPE, TIMESTAMP, ColumnOptions, Columns
from monitor.files.tables import NDJSON, OUTPUTS, Table, open_table, readable, role
from monitor.files.times import texts, times_ms, value_ms
from monitor.layout import Layout
from monitor.ports import StoredRecord
from monitor.reference import CONFIDENCE, class_of
from monitor.segments import TAGS
from monitor.views import WireType, primary_features, wire_type

NO_TIMESTAMP_MS = 1 << 61
"""Later than every event: an absent record timestamp does not limit the clock, which is then the event time."""

_TRUE, _FALSE = ("true", "1"), ("false", "0")


class _Place(msgspec.Struct):
    partition: int | None = None
    record_timestamp: int | None = None
    record_timestamp_type: int | None = None
    tick: Any = None


class _Row(NamedTuple):
    """One row of a table: raw values."""

    time_ms: int | None
    features: dict[str, Any]
    outputs: dict[str, Any]
    model: Any
    version: Any
    id: Any
    place: _Place
    tags: dict[str, str] | None = None


class EventFile:
    """A file as (partition, record) pairs; offsets count from 0 by partition; iterate as often as wanted.

    Native NDJSON lines pass as they are, byte for byte (a tick without its place). A row of anything else becomes a native event, its values typed as `layout`
    wants them where that loses nothing ("7" → 7 for a number); flat JSON rows keep their types. NaN and infinity become null: JSON
    has neither. Timestamps of Parquet become ISO 8601 texts, lists arrays.

    model, version: of rows whose columns do not say. A column or key `partition` (absent: 0), `record_timestamp` (epoch ms) or
    `record_timestamp_type` (1: log append time) says where a record lay. `has_record_timestamps` is False when the file has none: the
    event time is the clock then, and the future guard must be off. `is_native` is False when events were made: their time is then
    in `time`, epoch ms, whatever the source says of its own events.

    Raises InputError as `open_table` does, and where a time cannot be read or neither columns nor arguments name model or time.
    """

    def __init__(self, path: Path, options: ColumnOptions, model: str | None, version: str | None, layout: Layout | None) -> None:
        self.path = path
        self._options = options
        self._model = model
        self._version = version
        self._types: dict[str, WireType] = {}
        if layout:
            self._types = {name: wire_type(feature) for name, feature in primary_features(layout).items()}
        with readable(path):
            self.is_native = _is_json(path) and ndjson.is_native(path)
            names = frozenset(name for row in ndjson.head(path) for name in row) if self.is_native else frozenset()
        self._table: Table | None = None
        if not self.is_native:
            self._table = open_table(path, options, {name: "string" for name, t in self._types.items() if t == "string"})
            names = frozenset(self._table.names)
            if not (options.model or model):
                raise InputError(f"{path}: name the model of these rows, with --model or --model-column")
            if not options.time:
                raise InputError(f"{path}: name the column of event times, with --time-column")
        self.has_partitions = PARTITION in names
        self.has_record_timestamps = RECORD_TIMESTAMP in names

    def __iter__(self) -> Iterator[tuple[int, StoredRecord]]:
        next_offset: dict[int, int] = {}
        for place, value in self._native() if self._table is None else self._made(self._table):
            partition = place.partition or 0
            offset = next_offset.get(partition, 0)
            next_offset[partition] = offset + 1
            stamp = NO_TIMESTAMP_MS if place.record_timestamp is None else place.record_timestamp
            yield partition, StoredRecord(offset, stamp, value, timestamp_type=place.record_timestamp_type or 0)

    def _native(self) -> Iterator[tuple[_Place, bytes]]:
        decode = msgspec.json.Decoder(_Place).decode
        with readable(self.path):
            for line in ndjson.lines(self.path):
                try:
                    place = decode(line)
                    yield place, line if place.tick is None else _without_place(line)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    yield _Place(), line  # not ours to judge: the format rejects it, and it is counted

    def _made(self, table: Table) -> Iterator[tuple[_Place, bytes]]:
        """Make an event of every row."""
        for row in self._json_rows() if _is_json(self.path) else self._table_rows(table):
            event: dict[str, Any] = {"model": self._model if row.model is None else canonical(row.model)}
            version = self._version if row.version is None else canonical(row.version)
            if version is not None:
                event["version"] = version
            if row.id is not None:
                event["id"] = canonical(row.id)
            if row.time_ms is not None:
                event["time"] = row.time_ms
            if row.tags:
                event["tags"] = row.tags
            yield row.place, orjson.dumps(event | {"features": row.features} | row.outputs, default=str)

    def _table_rows(self, table: Table) -> Iterator[_Row]:
        for batch in table.batches():
            yield from self._batch_rows(table, batch)

    def _batch_rows(self, table: Table, batch: Columns) -> Iterator[_Row]:
        nothing = [None] * batch.n

        def values(name: str) -> list[Any]:
            return batch.arrays[role(name)].to_pylist() if role(name) in batch.arrays else nothing

        columns = {name: self._values(table, batch, name) for name in table.features if name != CONFIDENCE}
        outputs: dict[str, Any] = {name[1:]: columns.pop(name) for name in OUTPUTS.values() if name in columns}
        scores = {label: columns.pop(name) for name in table.features if (label := class_of(name)) is not None}
        if scores:
            outputs["scores"] = list(_dicts(scores, batch.n))
        with _about(self.path):
            times = times_ms(batch.arrays[role("time")], self._options.time_unit).to_pylist()
            stamps = nothing
            if role(RECORD_TIMESTAMP) in batch.arrays:
                stamps = times_ms(batch.arrays[role(RECORD_TIMESTAMP)], "ms").to_pylist()
            places = [
                _Place(_whole(p), stamp, _whole(t))
                for p, stamp, t in zip(values(PARTITION), stamps, values(RECORD_TIMESTAMP_TYPE), strict=True)
            ]
        features = _dicts(columns, batch.n)
        tags = [_tags(row) for row in _dicts({name: values(TAGS + name) for name in table.tags}, batch.n)]
        made = zip(
            times, features, _dicts(outputs, batch.n), values("model"), values("version"), values("id"), places, tags, strict=True
        )
        yield from map(_Row._make, made)

    def _json_rows(self) -> Iterator[_Row]:
        options = self._options
        named = options.named()
        outputs = {output[1:]: named[r] for r, output in OUTPUTS.items() if r in named}
        taken = options.taken() | set(options.exclude) | set(PLACES)
        with readable(self.path):
            for row in ndjson.rows(self.path):
                with _about(self.path):
                    time_ms = value_ms(row.get(options.time or ""), options.time_unit)
                    stamp = value_ms(row.get(RECORD_TIMESTAMP), "ms")
                    place = _Place(_whole(row.get(PARTITION)), stamp, _whole(row.get(RECORD_TIMESTAMP_TYPE)))
                found: dict[str, Any] = {output: row[name] for output, name in outputs.items() if name in row}
                if options.class_scores:
                    found["scores"] = {label: row[name] for label, name in options.class_scores if name in row}
                yield _Row(
                    time_ms,
                    {name: value for name, value in row.items() if name not in taken and not name.startswith(TAGS)},
                    found,
                    row.get(options.model or ""),
                    row.get(options.version or ""),
                    row.get(options.id or ""),
                    place,
                    _tags({name.removeprefix(TAGS): value for name, value in row.items() if name.startswith(TAGS)}),
                )

    def _values(self, table: Table, batch: Columns, name: str) -> list[Any]:
        array = batch.arrays[name]
        return self._typed(name, (texts(array) if table.kinds[name] == TIMESTAMP else array).to_pylist())

    def _typed(self, name: str, values: list[Any]) -> list[Any]:
        """Give values the type that the layout has for the feature; one that cannot have it stays as it is."""
        wanted = self._types.get(name)
        if wanted == "string":
            return [canonical(v) if isinstance(v, int | float) else v for v in values]
        if wanted == "number":
            return [_number(v) if isinstance(v, str) else v for v in values]
        if wanted == "boolean":
            return [v if v is None or isinstance(v, bool) else _boolean(v) for v in values]
        return values


def _without_place(line: bytes) -> bytes:
    """Return a control record as it lay in its partition: it has no other field than `tick`."""
    fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({"tick": fields["tick"]}) if fields.keys() - set(PLACES) == {"tick"} else line


def _tags(row: dict[str, Any]) -> dict[str, str] | None:
    """Return the tags of a row that has some: texts."""
    return {name: canonical(value) for name, value in row.items() if value is not None} or None


def _is_json(path: Path) -> bool:
    return path.name.lower().endswith(NDJSON) and path.is_file()


def _dicts(columns: dict[str, list[Any]], n: int) -> list[dict[str, Any]]:
    names = tuple(columns)
    return (
        [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)] if names else [{} for _ in range(n)]
    )


def _number(text: str) -> Any:
    if text.strip() in MISSING_TEXTS:
        return None
    number = number_of(text)
    return text if number is None else number


def _boolean(value: Any) -> Any:
    text = canonical(value).strip().lower()
    return True if text in _TRUE else False if text in _FALSE else value


def _whole(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 0:
        raise InputError(f"{value!r} is no partition or timestamp type; both are whole numbers")
    return int(value)


@contextmanager
def _about(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
