"""CSV and CSV.gz. A column's kind comes from all of its values, so that it does not depend on the order of the rows."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from monitor.columns import Codes, Special
from monitor.errors import InputError
from monitor.features import ValueType
from monitor.files.rows import NO_VALUES, Array, Columns, Source

BLOCK_BYTES = 2 << 20
"""Read at a time; a single row must be shorter."""

MISSING_TEXTS = (
    *("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "Null", "null", "None"),
)  # fmt: skip
"""Missing values in a column of numbers or booleans. In a column of texts only the empty one is: NA is Namibia there."""

_CODE = r"^0[0-9xX]"
"""007 is a code and not a number."""


def csv_source(path: Path, wanted: Mapping[str, ValueType]) -> Source:
    """Look at a CSV file: one pass for the kinds of the columns. `wanted` sets the kind of some.

    A column is of numbers (whole ones if all are) or of booleans (true/false in any case) if every value is; else of texts.
    """
    names = _header(path)
    kinds = {name: _Kind() for name in names}
    free = [name for name in names if name not in wanted]
    for batch in _read(path, free):
        for name in free:
            kinds[name].look(batch.column(name))
    found = {name: wanted.get(name) or kinds[name].value_type for name in names}

    def read(keys: Sequence[str]) -> Iterator[Columns]:
        for batch in _read(path, keys):
            arrays: dict[str, Array] = {}
            specials: dict[str, Codes] = {}
            for key in keys:
                arrays[key], codes = _typed(batch.column(key), found[key], is_whole=key in free and kinds[key].is_whole)
                if codes is not None:
                    specials[key] = codes
            yield Columns(batch.num_rows, arrays, specials)

    own = {name: name for name in names}
    return Source(kinds=found, columns=own, features=own, read=read)


def _header(path: Path) -> list[str]:
    with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
        first = file.readline(BLOCK_BYTES)
    if not first.strip():
        raise InputError(f"{path}: the file has no rows; its first line must hold the names of the columns")
    for separator, called in ((b";", "semicolons"), (b"\t", "tabs")):
        if separator in first and b"," not in first:
            raise InputError(f"{path}: the columns are separated by {called}; write the file with commas")
    with csv.open_csv(path, read_options=csv.ReadOptions(block_size=BLOCK_BYTES), parse_options=_PARSE) as reader:
        names = list(reader.schema.names)
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        raise InputError(f"{path}: more than one column is called {', '.join(map(repr, twice))}; rename all but one")
    return names


_PARSE = csv.ParseOptions(newlines_in_values=True)


def _read(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield rows as texts, empty ones null."""
    if not names:
        return
    convert = csv.ConvertOptions(
        include_columns=list(names),
        column_types={name: pa.string() for name in names},
        strings_can_be_null=True,
        null_values=[""],
    )
    read = csv.ReadOptions(block_size=BLOCK_BYTES)
    with csv.open_csv(path, read_options=read, parse_options=_PARSE, convert_options=convert) as reader:
        for batch in reader:
            if batch.num_rows:
                yield batch


@dataclass(slots=True)
class _Kind:
    """What a column may still be, after all values so far."""

    has_values: bool = False
    is_whole: bool = True
    is_number: bool = True
    is_boolean: bool = True

    def look(self, column: Array) -> None:
        if not (self.is_number or self.is_boolean):
            return
        values = _present(column).drop_null()
        if not len(values):
            return
        self.has_values = True
        self.is_boolean = self.is_boolean and _all_boolean(values)
        self.is_whole = self.is_whole and _parses(values, pa.int64())
        self.is_number = self.is_number and (self.is_whole or _parses(values, pa.float64())) and not _has_codes(values)

    @property
    def value_type(self) -> str:
        if not self.has_values:
            return NO_VALUES
        return "boolean" if self.is_boolean else "number" if self.is_number else "string"


def _present(column: Array) -> Array:
    """Trim, and make null what says that a value is missing."""
    trimmed = pc.ascii_trim_whitespace(column)
    is_missing = pc.is_in(trimmed, _MISSING)
    return pc.if_else(is_missing, pa.scalar(None, pa.string()), trimmed) if pc.any(is_missing).as_py() else trimmed


_MISSING = pa.array(MISSING_TEXTS)
_BOOLEANS = pa.array(["true", "false"])


def _parses(values: Array, kind: pa.DataType) -> bool:
    try:
        values.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _all_boolean(values: Array) -> bool:
    return values[0].as_py().lower() in ("true", "false") and bool(pc.all(pc.is_in(pc.ascii_lower(values), _BOOLEANS)).as_py())


def _has_codes(values: Array) -> bool:
    candidates = values.filter(pc.starts_with(values, "0"))
    return bool(pc.any(pc.match_substring_regex(candidates, _CODE)).as_py())


def _typed(column: Array, kind: str, *, is_whole: bool) -> tuple[Array, Codes | None]:
    """Return values of a kind; with codes where a text is none of that kind (only in columns whose kind was wanted)."""
    if kind == NO_VALUES:
        return pa.nulls(len(column), pa.string()), None
    if kind == "string":
        return column, None
    values = _present(column)
    if kind == "boolean":
        lowered = pc.ascii_lower(values)
        is_one = pc.is_in(lowered, _BOOLEANS)
        typed = pc.if_else(is_one, pc.equal(lowered, "true"), pa.scalar(None, pa.bool_()))
    else:
        try:
            return values.cast(pa.int64() if is_whole else pa.float64()), None
        except pa.ArrowInvalid:
            typed = pa.array([number_of(text) for text in values.to_pylist()], pa.float64())
    is_wrong = np.asarray(pc.is_valid(values)) & ~np.asarray(pc.is_valid(typed))
    return typed, np.where(is_wrong, Special.WRONG_TYPE, Special.VALUE).astype(np.uint8) if is_wrong.any() else None


def number_of(text: str | None) -> float | None:
    """Return the number that a text is, or None.

    >>> number_of("1e3"), number_of("1_000"), number_of("abc")
    (1000.0, None, None)
    """
    try:
        return None if text is None or "_" in text else float(text)
    except ValueError:
        return None
