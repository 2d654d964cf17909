"""NDJSON: flat rows, or native events with their features in an object. JSON values keep the types that they have.

A value that is not of its column's most frequent type is of a wrong type, and a key that a row does not have is absent: as on the wire.
"""

from __future__ import annotations

import gzip
import itertools
from codecs import BOM_UTF8
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from monitor.columns import Codes, NoValue, Special
from monitor.errors import InputError
from monitor.features import ValueType
from monitor.files.rows import FEATURE_KINDS, LIST, MAX_CLASSES, NO_VALUES, Array, Columns, Source
from monitor.views import confidence

BATCH_ROWS = 10_000
HEAD_LINES = 1_000
MAX_NAMES = 10_000
"""More distinct keys than this are no columns."""

_TYPES: dict[type, ValueType] = {str: "string", int: "number", float: "number", bool: "boolean"}
_NESTED: dict[type, str] = {dict: "object", list: LIST}
_ORDER = ("string", "number", "boolean", "object", LIST)
_NATIVE_ROLES = {role: role for role in ("time", "prediction", "score", "id", "model", "version")} | {"latency": "latency_ms"}
Row = dict[str, Any]


def lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, plain or gzipped, without their ends."""
    with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
        for line in file:
            yield line.rstrip(b"\r\n")


def rows(path: Path) -> Iterator[Row]:
    """Yield the objects of a file, blank lines left out. Raises InputError with the line that is none."""
    for number, line in enumerate(lines(path), start=1):
        if not line or line.isspace():
            continue
        try:
            row = orjson.loads(line.removeprefix(BOM_UTF8))
        except orjson.JSONDecodeError as error:
            raise InputError(f"{path}:{number}: not JSON: {error}; every line must be one object, NaN is written null") from error
        if not isinstance(row, dict):
            what = "an array: write one object per line" if isinstance(row, list) else "not an object"
            raise InputError(f"{path}:{number}: the line is {what}")
        yield row


def head(path: Path) -> list[Row]:
    """Return the objects among the first `HEAD_LINES` lines; what is none is passed over."""
    found = []
    for line in itertools.islice(lines(path), HEAD_LINES):
        try:
            row = orjson.loads(line.removeprefix(BOM_UTF8))
        except orjson.JSONDecodeError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def is_native(path: Path) -> bool:
    """Whether a file holds native events, judged by its head: some object has features in it, or is a tick."""
    return any(isinstance(row.get("features"), dict) or set(row) == {"tick"} for row in head(path))


def ndjson_source(path: Path, wanted: Mapping[str, ValueType]) -> Source:
    """Look at an NDJSON file: one pass for names and types. `wanted` sets the type of some columns.

    Of native events only what stands under `features` is a feature; time, prediction, score, scores, latency_ms, id, model and version
    are known by their own names. Lines without `features` among them (ticks, labels) are no rows.
    """
    native = is_native(path)
    seen = _types_seen(path, native)
    names = {key: _name(key) if native else key for key in seen}
    kinds: dict[str, str] = {key: wanted.get(names[key]) or _kind(types) for key, types in seen.items()}
    features = {names[key]: key for key in seen if not native or key.startswith(_FEATURES)}
    if not native:
        return Source(kinds, features, features, _reader(path, kinds, seen), warnings=_wrong_types(features, kinds, seen))
    class_scores, warnings = _classes(seen)
    kinds |= dict.fromkeys((*class_scores.values(), _CONFIDENCE), "number")
    return Source(
        kinds,
        columns=features | {names[key]: key for key in seen if not key.startswith((_FEATURES, _SCORES, _TAGS))},
        features=features,
        read=_reader(path, kinds, seen, native=True),
        roles={role: name for role, name in _NATIVE_ROLES.items() if f"/{name}" in seen},
        class_scores=class_scores,
        confidence=_CONFIDENCE if class_scores else None,
        tags={key.removeprefix(_TAGS): key for key in seen if key.startswith(_TAGS)},
        warnings=warnings + _wrong_types(features, kinds, seen),
    )


_Seen = Mapping[str, Mapping[type, int]]
"""Key → type → rows."""


def _reader(
    path: Path, kinds: Mapping[str, str], seen: _Seen, *, native: bool = False
) -> Callable[[Sequence[str]], Iterator[Columns]]:
    def read(keys: Sequence[str]) -> Iterator[Columns]:
        types = {key: _arrow_type(kinds[key], {float: 1} if native and key == _CONFIDENCE else seen[key]) for key in keys}
        for batch in _batches(path, native):
            yield _columns(batch, types, _event_value if native else _row_value)

    return read


def _wrong_types(features: Mapping[str, str], kinds: Mapping[str, str], seen: _Seen) -> tuple[str, ...]:
    return tuple(
        f"column {name}: {wrong:,} values are not of the type of the others ({kinds[key]}); they count as wrong-typed"
        for name, key in features.items()
        if kinds[key] in FEATURE_KINDS and (wrong := _n_wrong(seen[key], kinds[key]))
    )


def _classes(seen: _Seen) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return class → key of the scores by class, those of the most rows where there are many; and what there is to say of it."""
    rows = {key: sum(types.values()) for key, types in seen.items() if key.startswith(_SCORES)}
    kept = sorted(sorted(rows, key=lambda key: (-rows[key], key))[:MAX_CLASSES])
    said = f"scores: of {len(rows):,} classes {MAX_CLASSES} are watched, those that most rows have"
    return {key.removeprefix(_SCORES): key for key in kept}, (said,) if len(rows) > MAX_CLASSES else ()


_FEATURES, _SCORES, _TAGS = "/features/", "/scores/", "/tags/"
_CONFIDENCE = "/scores"
"""The object of all scores: as a column, the confidence that it stands for."""


def _name(key: str) -> str:
    return key.removeprefix(_FEATURES) if key.startswith(_FEATURES) else key[1:]


def _keyed_rows(path: Path, native: bool) -> Iterator[Row]:
    """Yield rows by key: a name, or for native events a JSON pointer such as /time or /features/age."""
    if not native:
        yield from rows(path)
        return
    for row in rows(path):
        features = row.pop("features", None)
        if isinstance(features, dict):
            keyed = {f"/{name}": value for name, value in row.items()}
            keyed.update((_FEATURES + name, value) for name, value in features.items())
            if isinstance(row.get("scores"), dict):
                keyed.update((_SCORES + label, value) for label, value in row["scores"].items())
            if isinstance(row.get("tags"), dict):
                keyed.update((_TAGS + name, value) for name, value in row["tags"].items())
            yield keyed


def _types_seen(path: Path, native: bool) -> dict[str, dict[type, int]]:
    seen: dict[str, dict[type, int]] = {}
    for row in _keyed_rows(path, native):
        for key, value in row.items():
            try:
                types = seen[key]
            except KeyError:
                types = seen[key] = defaultdict(int)
                if len(seen) > MAX_NAMES:
                    raise InputError(f"{path}: more than {MAX_NAMES:,} different keys; the keys must be column names") from None
            types[type(value)] += 1
    return seen


def _kind(types: Mapping[type, int]) -> str:
    """Return the most frequent type, null aside; of equals the first in a fixed order."""
    counts: dict[str, int] = defaultdict(int)
    for kind, n in types.items():
        if kind is not type(None):
            counts[_TYPES.get(kind) or _NESTED[kind]] += n
    return min(counts, key=lambda kind: (-counts[kind], _ORDER.index(kind))) if counts else NO_VALUES


def _n_wrong(types: Mapping[type, int], kind: str) -> int:
    return sum(n for t, n in types.items() if t is not type(None) and (_TYPES.get(t) or _NESTED[t]) != kind)


def _batches(path: Path, native: bool) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in _keyed_rows(path, native):
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _arrow_type(kind: str, types: Mapping[type, int]) -> pa.DataType:
    if kind == "number":
        return pa.float64() if float in types else pa.int64()
    return {"string": pa.string(), "boolean": pa.bool_(), LIST: _LISTS}.get(kind, pa.null())


_LISTS = pa.list_(pa.null())
"""Only the lengths of lists are kept."""

_ACCEPTED: dict[str, frozenset[type]] = {
    "string": frozenset({str, type(None)}),
    "int64": frozenset({int, type(None)}),
    "double": frozenset({int, float, type(None)}),
    "bool": frozenset({bool, type(None)}),
    "null": frozenset({type(None)}),
    str(_LISTS): frozenset({list, type(None)}),
}


def _columns(batch: Sequence[Row], types: Mapping[str, pa.DataType], value_of: Callable[[Row, str], Any]) -> Columns:
    arrays: dict[str, Array] = {}
    specials: dict[str, Codes] = {}
    for key, kind in types.items():
        values = [value_of(row, key) for row in batch]
        accepted = _ACCEPTED[str(kind)]
        found = list(map(type, values))
        if not accepted.issuperset(found):
            codes = [
                Special.VALUE if t in accepted else Special.ABSENT if v is Special.ABSENT else Special.WRONG_TYPE
                for t, v in zip(found, values, strict=True)
            ]
            specials[key] = np.array(codes, np.uint8)
            values = [None if code else value for code, value in zip(codes, values, strict=True)]
        arrays[key] = _array(values, kind)
    return Columns(len(batch), arrays, specials)


def _row_value(row: Row, key: str) -> Any:
    return row.get(key, Special.ABSENT)


def _event_value(row: Row, key: str) -> Any:
    """Return the value of a key of a native event; `Special.ABSENT` where there is none."""
    if key == _CONFIDENCE:
        return confidence(row.get(_CONFIDENCE), row.get("/score", Special.ABSENT))
    if key.startswith(_SCORES) and key not in row and not isinstance(row.get(_CONFIDENCE, {}), dict):
        return None if row[_CONFIDENCE] is None else NoValue.WRONG_TYPE
    return row.get(key, Special.ABSENT)


def _array(values: list[Any], kind: pa.DataType) -> Array:
    if kind == _LISTS:
        lengths = [len(value or ()) for value in values]
        offsets = pa.array(np.concatenate(([0], np.cumsum(lengths, dtype=np.int32))), pa.int32())
        is_null = pa.array([value is None for value in values])
        return pa.ListArray.from_arrays(offsets, pa.nulls(sum(lengths)), mask=is_null)
    try:
        return pa.array(values, kind)
    except (OverflowError, pa.ArrowInvalid):  # integers beyond 64 bits
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
