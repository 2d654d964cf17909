"""A file of rows, opened: what its columns are to the monitor, and its rows as often as they are wanted."""

from __future__ import annotations

import difflib
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from monitor.columns import Codes, Special
from monitor.errors import InputError
from monitor.features import ValueType
from monitor.files.delimited import BLOCK_BYTES, csv_source
from monitor.files.ndjson import ndjson_source
from monitor.files.parquet import parquet_source
from monitor.files.rows import FEATURE_KINDS, MAX_CLASSES, NO_VALUES, PLACES, VALUE_TYPES, Array, ColumnOptions, Columns, Source
from monitor.reference import CONFIDENCE, LATENCY, PREDICTION, SCORE, class_of, class_score_name
from monitor.segments import TAGS

CSV = (".csv", ".csv.gz")
PARQUET = (".parquet", ".pq")
NDJSON = (".ndjson", ".jsonl", ".json", ".ndjson.gz", ".jsonl.gz")

OUTPUTS = {"prediction": PREDICTION, "score": SCORE, "latency": LATENCY}
"""Role → name in a layout."""

_INDEX = ("", "__index_level_0__")
"""What pandas calls the row index in a CSV and in a Parquet file."""


@dataclass(frozen=True, slots=True)
class Table:
    """A file whose columns are known.

    features: name in the event → column; outputs stand under their names in a layout, and where there are scores by class, their
    largest under `@confidence`. kinds: of every feature, one of `rows.FEATURE_KINDS` or `rows.NO_VALUES`. roles: role (time, label,
    id, model, version) → column. names: every column. left_out: a sentence on each column that cannot be a feature.
    """

    path: Path
    features: Mapping[str, str]
    kinds: Mapping[str, str]
    roles: Mapping[str, str]
    names: tuple[str, ...]
    left_out: tuple[str, ...]
    tags: tuple[str, ...]
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
                yield _with_confidence(Columns(batch.n, arrays, specials), self.features)
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
    named = {r: name for r, name in source.roles.items() if name not in options.exclude} | options.named()
    roles = {r: source.columns[name] for r, name in named.items()}
    classes = _class_scores(source, options)
    features, left_out = _features(path, source, options, frozenset((*roles.values(), *classes.values())))
    keys = {name: source.features[name] for name in features}
    for r, output in OUTPUTS.items():
        if r in roles:
            _check_output(path, f"the {r}", named[r], source.kinds[roles[r]])
            features[output], keys[output] = named[r], roles.pop(r)
    own = dict(options.class_scores)
    for label, key in classes.items():
        column = own.get(label, f"scores.{label}")
        _check_output(path, f"the score of class {label}", column, source.kinds[key])
        features[class_score_name(label)], keys[class_score_name(label)] = column, key
    if source.confidence and not own and classes:
        keys[CONFIDENCE] = source.confidence
    kinds = {name: source.kinds[key] for name, key in keys.items()}
    if classes:
        features[CONFIDENCE], kinds[CONFIDENCE] = "the scores", "number"
    keys |= {role(r): key for r, key in roles.items()}
    flat_tags = {name: key for name, key in source.columns.items() if source.is_flat and name.startswith(TAGS)}
    keys |= {role(name): key for name, key in flat_tags.items()} | {role(TAGS + name): key for name, key in source.tags.items()}
    if source.is_flat:
        keys |= {role(place): source.columns[place] for place in PLACES if place in source.columns}
    names = {r: named[r] for r in roles}
    tags = tuple(name.removeprefix(TAGS) for name in (*flat_tags, *(TAGS + name for name in source.tags)))
    return Table(path, features, kinds, names, tuple(source.columns), tuple(left_out), tags, source, keys)


def _class_scores(source: Source, options: ColumnOptions) -> dict[str, str]:
    """Return class → key: as the user says, else as the format does."""
    if options.class_scores:
        return {label: source.columns[column] for label, column in options.class_scores}
    return {} if "scores" in options.exclude else dict(source.class_scores)


def _with_confidence(columns: Columns, features: Mapping[str, str]) -> Columns:
    """Add the largest score of each row, where the file has scores by class and not that."""
    names = [name for name in features if class_of(name) is not None]
    if not names or CONFIDENCE in columns.arrays:
        return columns
    largest, codes = _largest(columns, names)
    specials = columns.specials if codes is None else columns.specials | {CONFIDENCE: codes}
    return Columns(columns.n, columns.arrays | {CONFIDENCE: largest}, specials)


def _largest(columns: Columns, names: Sequence[str]) -> tuple[Array, Codes | None]:
    """Return `views.confidence` of columns: null where no score is a finite number, of a wrong type where one is no number at all."""
    scores = np.array([columns.arrays[name].cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False) for name in names])
    scores[~np.isfinite(scores)] = np.nan
    largest = np.fmax.reduce(scores, axis=0)
    is_wrong = np.zeros(columns.n, bool)
    for name in names:
        if name in columns.specials:
            is_wrong |= columns.specials[name] == Special.WRONG_TYPE
    is_wrong &= np.isnan(largest)
    codes = np.where(is_wrong, Special.WRONG_TYPE, Special.VALUE).astype(np.uint8) if is_wrong.any() else None
    return pa.array(largest, mask=np.isnan(largest)), codes


def _check_output(path: Path, use: str, name: str, kind: str) -> None:
    why = _why_not(name, kind, VALUE_TYPES)
    if why:
        raise InputError(f"{path}: column {name!r}: {why}, it cannot be {use}")


def _features(path: Path, source: Source, options: ColumnOptions, taken: frozenset[str]) -> tuple[dict[str, str], list[str]]:
    """Return the columns that are features, and a sentence on each that cannot be one."""
    features: dict[str, str] = {}
    left_out = list(source.warnings)
    for name, key in source.features.items():
        why = _why_not(name, source.kinds[key])
        if key in taken or name in options.exclude:
            continue
        if source.is_flat and name.startswith(TAGS):
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


def _why_not(name: str, kind: str, kinds: Sequence[str] = FEATURE_KINDS) -> str:
    if name in _INDEX:
        return "it has no name and is taken for a row index"
    return (
        ""
        if kind in kinds or kind == NO_VALUES
        else f"{kind} is not a kind of {'feature' if kinds is FEATURE_KINDS else 'output'}"
    )


def _check_names(path: Path, source: Source, options: ColumnOptions) -> None:
    asked = [(f"--{r}-column", name) for r, name in options.named().items()] + [("--exclude", name) for name in options.exclude]
    asked += [("--class-score", name) for _, name in options.class_scores]
    problems = [
        f"{path}: no column {name!r} ({flag}){near(name, source.columns)}" for flag, name in asked if name not in source.columns
    ]
    labels = Counter(label for label, _ in options.class_scores)
    problems += [f"--class-score names class {label!r} twice" for label, n in labels.items() if n > 1]
    if len(labels) > MAX_CLASSES:
        problems.append(f"--class-score names {len(labels)} classes; at most {MAX_CLASSES} are watched")
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
