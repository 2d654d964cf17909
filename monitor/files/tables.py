"""A file of rows, opened: what its columns are to the monitor, and its rows as often as they are wanted."""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from monitor.errors import InputError
from monitor.files.delimited import BLOCK_BYTES, csv_source
from monitor.files.ndjson import ndjson_source
from monitor.files.parquet import parquet_source
from monitor.files.rows import NO_VALUES, PLACES, VALUE_TYPES, ColumnOptions, Columns, Source
from monitor.layout import ValueType
from monitor.reference import PREDICTION, SCORE

CSV = (".csv", ".csv.gz")
PARQUET = (".parquet", ".pq")
NDJSON = (".ndjson", ".jsonl", ".json", ".ndjson.gz", ".jsonl.gz")

_OUTPUTS = {"prediction": PREDICTION, "score": SCORE}
_INDEX = ("", "__index_level_0__")
"""What pandas calls the row index in a CSV and in a Parquet file."""


@dataclass(frozen=True, slots=True)
class Table:
    """A file whose columns are known.

    features: name in the layout → column; outputs stand under `@prediction` and `@score`. kinds: of every feature, a value type or
    `rows.NO_VALUES`. roles: role (time, label, id, model, version) → column. names: every column. left_out: a sentence on each
    column that cannot be a feature.
    """

    path: Path
    features: Mapping[str, str]
    kinds: Mapping[str, str]
    roles: Mapping[str, str]
    names: tuple[str, ...]
    left_out: tuple[str, ...]
    _source: Source
    _keys: Mapping[str, str]

    def batches(self) -> Iterator[Columns]:
        """Yield all rows; columns by name of a feature, and by role. Raises InputError when there are none, or they are unreadable."""
        is_empty = True
        with readable(self.path):
            for batch in self._source.read(tuple(set(self._keys.values()))):
                arrays = {name: batch.arrays[key] for name, key in self._keys.items()}
                specials = {name: batch.specials[key] for name, key in self._keys.items() if key in batch.specials}
                is_empty = False
                yield Columns(batch.n, arrays, specials)
        if is_empty:
            raise InputError(f"{self.path}: the file has no rows")

    def column(self, name: str) -> str:
        """Return what the file calls a feature or a role."""
        return self.features.get(name) or self.roles[name]


def role(name: str) -> str:
    """Return the name under which `Table.batches` has a role's column: no feature can be called so.

    >>> role("time")
    '@role:time'
    """
    return f"@role:{name}"


def open_table(path: Path, options: ColumnOptions, wanted: Mapping[str, ValueType] | None = None) -> Table:
    """Open a CSV, CSV.gz, Parquet or NDJSON file; `wanted` sets the type of columns by name, where the format leaves a choice.

    Raises InputError, with a sentence that says what to do, for a file that is missing, empty, unreadable or of another format,
    and for names that no column has (all of them at once, with near misses and what there is).
    """
    with readable(path):
        source = _source(path, wanted or {})
    if not source.columns:
        raise InputError(f"{path}: the file has no rows")
    _check_names(path, source, options)
    named = dict(source.roles) | options.named()
    roles = {r: source.columns[name] for r, name in named.items()}
    features, left_out = _features(path, source, options, frozenset(roles.values()))
    keys = {name: source.features[name] for name in features}
    for r, output in _OUTPUTS.items():
        if r in roles:
            why = _why_not(named[r], source.kinds[roles[r]])
            if why:
                raise InputError(f"{path}: column {named[r]!r}: {why}, it cannot be the {r}")
            features[output], keys[output] = named[r], roles.pop(r)
    kinds = {name: source.kinds[key] for name, key in keys.items()}
    keys |= {role(r): key for r, key in roles.items()}
    if source.is_flat:
        keys |= {role(place): source.columns[place] for place in PLACES if place in source.columns}
    names = {r: named[r] for r in roles}
    return Table(path, features, kinds, names, tuple(source.columns), tuple(left_out), source, keys)


def _features(path: Path, source: Source, options: ColumnOptions, taken: frozenset[str]) -> tuple[dict[str, str], list[str]]:
    """Return the columns that are features, and a sentence on each that cannot be one."""
    features: dict[str, str] = {}
    left_out = list(source.warnings)
    for name, key in source.features.items():
        why = _why_not(name, source.kinds[key])
        if key in taken or name in options.exclude:
            continue
        if source.is_flat and name in PLACES:
            left_out.append(f"column {name}: says where a record lies in Kafka, left out")
        elif name.startswith("@"):
            raise InputError(f"{path}: column {name!r}: names that begin with @ are taken; rename it or --exclude it")
        elif why:
            left_out.append(f"column {name}: {why}, left out")
        else:
            features[name] = name
    return features, left_out


def _source(path: Path, wanted: Mapping[str, ValueType]) -> Source:
    name = path.name.lower()
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: a directory; name one file")
    if not name.endswith(CSV + PARQUET + NDJSON):
        raise InputError(f"{path}: reads .csv, .csv.gz, .parquet and .ndjson, not {path.suffix or 'a file without a suffix'}")
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty")
    if name.endswith(CSV):
        return csv_source(path, wanted)
    return parquet_source(path) if name.endswith(PARQUET) else ndjson_source(path, wanted)


def _why_not(name: str, kind: str) -> str:
    if name in _INDEX:
        return "it has no name and is taken for a row index"
    return "" if kind in VALUE_TYPES or kind == NO_VALUES else f"{kind} is not a kind of feature"


def _check_names(path: Path, source: Source, options: ColumnOptions) -> None:
    asked = [(f"--{r}-column", name) for r, name in options.named().items()] + [("--exclude", name) for name in options.exclude]
    problems = [
        f"{path}: no column {name!r} ({flag}){near(name, source.columns)}" for flag, name in asked if name not in source.columns
    ]
    if problems:
        raise InputError("\n".join([*problems, f"it has: {', '.join(source.columns)}"]))


def near(name: str, names: Mapping[str, object]) -> str:
    """Return a question about a name's near misses, or nothing.

    >>> near("tiem", {"time": 0, "age": 0})
    "; did you mean 'time'?"
    """
    lowered = {known.lower(): known for known in names}
    found = [lowered[match] for match in difflib.get_close_matches(name.lower(), list(lowered), n=2)]
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what libraries raise about a file into InputError, without the file's values in it."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: {_advice(said)}") from error


def _advice(said: str) -> str:
    if "Expected" in said and "columns, got" in said:
        head, _, tail = said.partition("columns, got ")
        return f"{head}columns, got {tail.split(':')[0]}; every row must have as many fields as the header"
    if "straddles two block boundaries" in said:
        return f"a row is longer than {BLOCK_BYTES >> 20} MiB, or a quote is never closed"
    if "UTF8" in said or "utf-8" in said.lower():
        return "text that is not UTF-8; save the file as UTF-8"
    return said
