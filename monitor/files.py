"""Files of rows: CSV, CSV.gz, Parquet and NDJSON, read in batches of bounded memory; and rows as the events of a replay."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from monitor.columns import Int
from monitor.errors import InputError
from monitor.event_time import TimeUnit, time_ms
from monitor.layout import CategoryFeature, Layout
from monitor.ports import StoredRecord

BLOCK_BYTES = 8 << 20
_NDJSON = (".ndjson", ".jsonl", ".json")
PARTITION, RECORD_TIMESTAMP = "partition", "record_timestamp"


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """Which columns of a file are not features. time_unit: of integer times; texts are ISO 8601, UTC unless they say otherwise."""

    time: str | None = None
    prediction: str | None = None
    score: str | None = None
    label: str | None = None
    id: str | None = None
    model: str | None = None
    version: str | None = None
    exclude: tuple[str, ...] = ()
    time_unit: TimeUnit = "ms"

    def named(self) -> dict[str, str]:
        """Return role → column, of the roles that have one."""
        roles = [f.name for f in fields(self) if f.name not in ("exclude", "time_unit")]
        return {role: column for role in roles if (column := getattr(self, role))}


def read_batches(path: Path, options: ColumnOptions) -> Iterator[pa.RecordBatch]:
    """Yield a file's rows. Raises InputError for a missing, empty or unreadable file and for an unknown column."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    checked = False
    try:
        for batch in _open(path):
            if not checked:
                _check_columns(path, batch.schema.names, options)
                checked = True
            if batch.num_rows:
                yield batch
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error
    if not checked:
        raise InputError(f"{path}: the file has no rows")


def _open(path: Path) -> Iterator[pa.RecordBatch]:
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        # Types come from the first block; a second look at a column that changes its mind is asked for in the message.
        yield from csv.open_csv(
            path,
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES),
            convert_options=csv.ConvertOptions(strings_can_be_null=True, column_types=_csv_types(path)),
        )
    elif name.endswith(".parquet"):
        yield from parquet.ParquetFile(path).iter_batches(batch_size=65_536)
    elif name.endswith(_NDJSON):
        yield from _ndjson(path)
    else:
        raise InputError(f"{path}: reads .csv, .csv.gz, .parquet and .ndjson, not {path.suffix or 'a file without suffix'}")


def _csv_types(path: Path) -> dict[str, pa.DataType]:
    """Infer column types from the whole file, in bounded memory: an integer column may turn into real numbers, or text, late."""
    found: dict[str, pa.DataType] = {}
    order = [pa.null(), pa.bool_(), pa.int64(), pa.float64()]
    text = csv.open_csv(
        path,
        read_options=csv.ReadOptions(block_size=BLOCK_BYTES),
        convert_options=csv.ConvertOptions(
            strings_can_be_null=True, column_types={name: pa.string() for name in _csv_header(path)}
        ),
    )
    for batch in text:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            known = found.get(name, pa.null())
            while known in order and not _fits(column, known):
                at = order.index(known) + 1
                if known == pa.bool_() and found.get(name, pa.null()) == pa.bool_():
                    at = len(order)  # true and 7 in one column: text
                known = order[at] if at < len(order) else pa.string()
            found[name] = known
    return {name: pa.string() if kind == pa.null() else kind for name, kind in found.items()}


def _fits(column: pa.Array, kind: pa.DataType) -> bool:
    if kind == pa.null():
        return bool(column.null_count == len(column))
    if kind == pa.bool_():
        return bool(pc.all(pc.is_in(pc.utf8_lower(column.drop_null()), pa.array(["true", "false"]))).as_py() is not False)
    try:
        column.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _csv_header(path: Path) -> list[str]:
    with csv.open_csv(path, read_options=csv.ReadOptions(block_size=BLOCK_BYTES)) as reader:
        return list(reader.schema.names)


def _ndjson(path: Path) -> Iterator[pa.RecordBatch]:
    """Read flat objects, or native events whose features stand under `features`."""
    rows: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    size = 0
    for number, line in enumerate(path.open("rb"), start=1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: not a JSON object")
        nested = row.pop("features", None)
        if isinstance(nested, dict):
            row |= nested
        rows.append(row)
        names.update(dict.fromkeys(row))
        size += len(line)
        if size > BLOCK_BYTES:
            yield _table(rows, names)
            rows, size = [], 0
    if rows:
        yield _table(rows, names)


def _table(rows: list[dict[str, Any]], names: Mapping[str, None]) -> pa.RecordBatch:
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            columns[name] = pa.array([None if v is None else str(v) for v in values])
    return pa.RecordBatch.from_pydict(columns)


def _check_columns(path: Path, names: list[str], options: ColumnOptions) -> None:
    problems = []
    for role, column in options.named().items():
        if column not in names:
            near = difflib.get_close_matches(column, names, n=2)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            problems.append(f"{path}: no column {column!r} for --{role}-column{hint} It has: {', '.join(names)}")
    if problems:
        raise InputError("\n".join(problems))


def times_ms(column: pa.Array, unit: TimeUnit) -> Int:
    """Return epoch milliseconds, shape (n,) int64. Raises InputError for a null or a text that is no time."""
    if column.null_count:
        raise InputError("the time column has empty values")
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return np.asarray(column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()))
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array([_text_ms(text) for text in column.to_pylist()], np.int64)
    unit = "ms" if unit == "iso8601" else unit
    return np.array([time_ms(value, unit) for value in column.to_pylist()], np.int64)


def _text_ms(text: str) -> int:
    found = time_ms(text, "iso8601")
    if abs(found) >= 253_402_300_800_000:
        found = time_ms(text + "+00:00", "iso8601")
    if abs(found) >= 253_402_300_800_000:
        raise InputError(f"{text!r} in the time column is not an ISO 8601 time")
    return found


class EventFile:
    """A file as the records of source partitions: (partition, record), offsets counted by partition.

    Rows of a table become native events, typed as the layout wants; native NDJSON lines pass as they are. Columns (or keys)
    `partition` and `record_timestamp` say where a record lay; without timestamps `has_record_timestamps` is False.
    """

    def __init__(self, path: Path, options: ColumnOptions, model: str | None, version: str | None, layout: Layout | None) -> None:
        self.path = path
        self.has_record_timestamps = False
        self.has_partitions = False
        self._options = options
        self._model = model
        self._version = version
        self._types = {
            f.name: f.value_type if isinstance(f, CategoryFeature) else "float" for f in (layout.features if layout else ())
        }
        self._next: dict[int, int] = {}
        self._look()

    def _look(self) -> None:
        """Find out from the first row which form the file has."""
        if self.path.name.lower().endswith(_NDJSON) and self.path.exists():
            with self.path.open("rb") as file:
                try:
                    first = orjson.loads(file.readline() or b"{}")
                except orjson.JSONDecodeError:
                    first = {"features": None}
            self._is_native = isinstance(first, dict) and "features" in first
            names = set(first) if isinstance(first, dict) else set()
        else:
            self._is_native = False
            names = set(next(read_batches(self.path, self._options)).schema.names)
        self.has_partitions = PARTITION in names
        self.has_record_timestamps = RECORD_TIMESTAMP in names
        if not self._is_native and not (self._options.model or self._model):
            raise InputError(f"{self.path}: name the model of these rows, with --model or --model-column")
        if not self._is_native and not self._options.time:
            raise InputError(f"{self.path}: name the column of event times with --time-column")

    def __iter__(self) -> Iterator[tuple[int, StoredRecord]]:
        return self._native_lines() if self._is_native else self._table_rows()

    def _record(self, partition: int, timestamp: int, value: bytes) -> tuple[int, StoredRecord]:
        offset = self._next.get(partition, 0)
        self._next[partition] = offset + 1
        return partition, StoredRecord(offset, timestamp, value)

    def _native_lines(self) -> Iterator[tuple[int, StoredRecord]]:
        read = msgspec.json.Decoder(_Place).decode
        with self.path.open("rb") as file:
            for line in file:
                value = line.rstrip(b"\r\n")
                try:
                    place = read(value)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    place = _Place()
                yield self._record(
                    place.partition, _NO_STAMP if place.record_timestamp is None else place.record_timestamp, value
                )

    def _table_rows(self) -> Iterator[tuple[int, StoredRecord]]:
        options = self._options
        special = set(options.named().values()) | set(options.exclude) | {PARTITION, RECORD_TIMESTAMP}
        for batch in read_batches(self.path, options):
            columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
            time = times_ms(batch.column(options.time), options.time_unit).tolist()
            names = [name for name in columns if name not in special]
            typed = [self._typed(name, columns[name]) for name in names]
            prediction = self._typed("@prediction", columns[options.prediction]) if options.prediction else None
            for i in range(batch.num_rows):
                event = {
                    "model": columns[options.model][i] if options.model else self._model,
                    "time": time[i],
                    "features": dict(zip(names, (column[i] for column in typed), strict=True)),
                }
                if options.version or self._version:
                    event["version"] = str(columns[options.version][i]) if options.version else self._version
                if prediction is not None:
                    event["prediction"] = prediction[i]
                if options.score:
                    event["score"] = columns[options.score][i]
                if options.id:
                    event["id"] = str(columns[options.id][i])
                stamp = columns[RECORD_TIMESTAMP][i] if self.has_record_timestamps else _NO_STAMP
                partition = columns[PARTITION][i] if self.has_partitions else 0
                yield self._record(partition, stamp, orjson.dumps(event, default=str))

    def _typed(self, name: str, values: list[Any]) -> list[Any]:
        """Give a column the type that the reference has for it; a value that cannot have it stays as it is."""
        wanted = self._types.get(name)
        if wanted == "string":
            return [v if v is None or isinstance(v, str) else _text(v) for v in values]
        if wanted in ("float", "number"):
            return [_number(v) for v in values]
        if wanted == "boolean":
            return [_BOOLEANS.get(str(v).lower(), v) if v is not None else None for v in values]
        return values


class _Place(msgspec.Struct):
    partition: int = 0
    record_timestamp: int | None = None


_NO_STAMP = 1 << 61
"""Later than every event: an absent record timestamp never limits the clock."""
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
