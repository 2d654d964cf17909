"""Parquet files; their types are the schema's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from monitor.errors import InputError
from monitor.files.rows import LIST, NO_VALUES, TIMESTAMP, Array, Columns, Source

BATCH_ROWS = 65_536
_BUFFER_BYTES = 1 << 20
"""Of each column chunk; without a bound a whole row group is read at once, and with `pre_buffer` the file is kept until its end."""


def parquet_source(path: Path) -> Source:
    """Look at a Parquet file: its schema only."""
    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
    twice = sorted(name for name, n in Counter(schema.names).items() if n > 1)
    if twice:
        raise InputError(f"{path}: more than one column is called {', '.join(map(repr, twice))}; rename all but one")

    def read(keys: Sequence[str]) -> Iterator[Columns]:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=list(keys)):
                if batch.num_rows:
                    yield Columns(batch.num_rows, {key: _plain(batch.column(key)) for key in keys}, {})

    own = {name: name for name in schema.names}
    return Source({item.name: _kind(item.type) for item in schema}, own, own, read)


def _kind(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "string"
    return NO_VALUES if types.is_null(kind) else _richer_kind(kind)


def _richer_kind(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_timestamp(kind) or types.is_date(kind):
        return TIMESTAMP
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return LIST
    return str(kind)


def _plain(column: Array) -> Array:
    """Decode dictionaries; make decimals and half floats doubles."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_decimal(column.type) or pa.types.is_float16(column.type):
        return column.cast(pa.float64(), safe=False)
    return column
