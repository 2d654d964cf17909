"""Events of one shape → columns straight from their bytes, by the compiled part (native/) where that is installed.

What it reads, it reads as `FeatureReader` and the decoder of events do; an event that is odd in any way is left to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import msgspec
import numpy as np

from monitor.columns import Bool, Coded, ColumnBatch, Float, Indices, Int, NoValue, Said, present
from monitor.compiled import columns as native
from monitor.event_envelope import FIELD_TYPES, MORE, tag_of
from monitor.event_time import INVALID_MS, TimeUnit, times_ms
from monitor.feature_reader import (
    OUTPUTS,
    FeatureReader,
    as_numbers,
    columns_of,
    is_plain_number,
    is_scored,
    json_type,
    scores_from,
    scores_in,
    viewable,
)
from monitor.features import CategoryFeature, ValueType, source_of
from monitor.json_objects import FAILURES, is_utf8
from monitor.reference import SCORE
from monitor.views import checked

FORGET: Final = 2_048
"""A column that has had more texts is given new codes: they hardly repeat."""
MANY_KEYS: Final = 1 << 16
"""Models times versions; fewer are found without sorting."""
MANY_ODD, SPARED = 0.25, 16
"""Where more than this share of a batch was odd, so many batches are not tried."""

_BAD: Final = object()
"""A JSON text that is not what is required, or that no decoder takes."""

_Decode = Callable[[bytes], Any]


class _Place(NamedTuple):
    """Where the values of a field go: a kind of `native`, and a column of that kind."""

    kind: int
    column: int


class _Wanted:
    """The fields that are read, each with its place; and what the JSON texts of a column are turned into.

    tokens: by column, what decodes a text, and what stands for an absent one. raws: likewise.
    """

    def __init__(self) -> None:
        self.event: dict[str, _Place] = {}
        self.features: dict[str, _Place] = {}
        self.tokens: list[tuple[_Decode, Any]] = []
        self.raws: list[tuple[_Decode, Any]] = []
        self._n = dict.fromkeys(range(native.FEATURES + 1), 0)

    def add(self, fields: dict[str, _Place], name: str, kind: int, decode: _Decode | None = None, absent: Any = None) -> None:
        """Want a field of `event` or `features`."""
        fields[name] = _Place(kind, self._n[kind])
        self._n[kind] += 1
        if kind in (native.TOKEN, native.RAW):
            assert decode is not None
            (self.tokens if kind == native.TOKEN else self.raws).append((decode, absent))

    def n(self, kind: int) -> int:
        """How many columns of a kind there are."""
        return self._n[kind]


class TableReader:
    """Reads events whose features are those of a reader's layout; only where the compiled part is.

    fields: names of an event's fields, in the order that producers write them. time_field, time_unit: as of `NativeFormat`.
    """

    def __init__(self, reader: FeatureReader, fields: Iterable[str], time_field: str, time_unit: TimeUnit) -> None:
        self.layout = reader.layout
        self.sources = reader.sources
        self.wanted = _wanted_of(reader, time_field, time_unit)
        self._time_field, self._time_unit = time_field, time_unit
        order = dict.fromkeys((*fields, *self.wanted.event))
        skipped = _Place(native.SKIPPED, 0)
        self._parser = native.Parser(
            [(name, *self.wanted.event.get(name, skipped)) for name in order],
            [(name, *self.wanted.features[name]) for name in reader.order],
        )
        self._values: list[list[Any]] = [[] for _ in self.wanted.tokens]
        self._bad: list[list[int]] = [[] for _ in self.wanted.tokens]
        self._to_spare = 0

    def is_spared(self) -> bool:
        """Whether the next batch is not worth trying: one of the last ones was too odd."""
        self._to_spare -= self._to_spare > 0
        return self._to_spare > 0

    def read(self, records: list[bytes | None], max_bytes: int) -> tuple[Table, Bool]:
        """Return a table of the events that could be read, and which of the records these are, shape (n,); longer ones than `max_bytes` never."""
        n, wanted = len(records), self.wanted
        numbers = np.empty((wanted.n(native.NUMBER), n))
        codes = np.zeros((wanted.n(native.TOKEN), n), np.int32)
        integers = np.zeros((wanted.n(native.INTEGER), n), np.int64)
        outcomes = np.empty(n, np.uint8)
        self._forget()
        objects = self._parser.parse(records, max_bytes, numbers, codes, integers, outcomes)
        is_read = outcomes & native.ODD == 0
        for i in np.flatnonzero(outcomes & native.NOT_ASCII).tolist():
            is_read[i] &= is_utf8(records[i] or b"")
        self._learn()
        for of_column, bad in zip(codes, self._bad, strict=True):
            if bad:
                is_read &= of_column != bad[0] if len(bad) == 1 else ~np.isin(of_column, bad)
        n_texts = wanted.n(native.TEXT)
        raws = [_decoded(column, *how, is_read) for column, how in zip(objects[n_texts:], wanted.raws, strict=True)]
        kind, column = wanted.event[self._time_field]
        if kind == native.RAW:
            times: Sequence[Any] = [time if type(time) is str else "" for time in raws[column]]
        else:
            times = (numbers if kind == native.NUMBER else integers)[column]
        in_ms, has_more = times_ms(times, self._time_unit), outcomes & native.MORE != 0
        is_read &= in_ms != INVALID_MS
        table = Table(
            self, cast("list[bytes]", records), numbers, codes, in_ms, objects[:n_texts], raws, list(self._values), has_more
        )
        n_odd = n - int(np.count_nonzero(is_read))
        if n_odd > MANY_ODD * n:
            self._to_spare = SPARED
        return (table.take(np.flatnonzero(is_read)) if n_odd else table), is_read

    def _forget(self) -> None:
        for column, texts in enumerate(self._parser.tokens):
            if len(texts) > FORGET:
                self._parser.forget(column)
                self._values[column], self._bad[column] = [], []

    def _learn(self) -> None:
        """Decode the texts that came for the first time."""
        for (decode, absent), texts, values, bad in zip(
            self.wanted.tokens, self._parser.tokens, self._values, self._bad, strict=True
        ):
            first = len(values)
            if first < len(texts):
                values += [decode(text) if text else absent for text in texts[first:]]
                bad += [code for code in range(first, len(texts)) if values[code] is _BAD]


@dataclass(slots=True)
class Table:
    """Events that were read at once: `Sources` of columns; what is of an event has shape (n,), or is a list of n.

    records: their bytes. numbers, codes: shape (columns, n). values_of: by column what its codes stand for. has_more: whether an event has
    features that the layout has not.
    """

    reader: TableReader
    records: list[bytes]
    numbers: Float
    codes: Indices
    times_ms: Int
    texts: list[list[Any]]
    raws: list[list[Any]]
    values_of: list[list[Any]]
    has_more: Bool

    def __len__(self) -> int:
        return len(self.records)

    def take(self, at: Int) -> Table:
        """Return some of the events."""
        if len(at) == len(self) and (at[1:] > at[:-1]).all():
            return self
        places = at.tolist()
        return Table(
            self.reader,
            [self.records[i] for i in places],
            self.numbers[:, at],
            self.codes[:, at],
            self.times_ms[at],
            [[column[i] for i in places] for column in self.texts],
            [[column[i] for i in places] for column in self.raws],
            self.values_of,
            self.has_more[at],
        )

    def keys(self) -> tuple[list[tuple[str, str | int | None]], Int]:
        """Return models with versions as the events have them, none twice, and the place of each event's among them, shape (n,)."""
        (models, model_of), (versions, version_of) = self._coded("model"), self._coded("version")
        codes = model_of.astype(np.int64) * len(versions) + version_of
        if len(codes) and (codes == codes[0]).all():
            return [(models[model_of[0]], versions[version_of[0]])], np.zeros(len(codes), np.int64)
        if len(models) * len(versions) > MANY_KEYS:
            found, places = np.unique(codes, return_inverse=True)
        else:
            found, of_code = present(codes), np.empty(len(models) * len(versions), np.int64)
            of_code[found] = np.arange(len(found))
            places = of_code[codes]
        of_models, of_versions = (part.tolist() for part in np.divmod(found, len(versions)))
        return list(zip(map(models.__getitem__, of_models), map(versions.__getitem__, of_versions), strict=True)), places

    def ids(self) -> list[bytes | None]:
        """Return the id of each event, None where it has none."""
        return self.texts[self.reader.wanted.event["id"].column]

    def said(self) -> Said:
        """Return what events say of themselves."""
        ids = self.ids()
        has_ids = all(ids) or None not in ids  # the first is the faster question; empty ids fail it
        columns = [self._coded(name) for name in MORE]
        if not any(codes.any() for _, codes in columns):
            return Said(ids, has_ids)
        return Said(ids, has_ids, tuple([values[code] for code in codes.tolist()] for values, codes in columns))

    def columns(self) -> ColumnBatch:
        """Return the columns of the reader's layout."""
        batch = columns_of(self.reader.layout, len(self), self, lambda: self.times_ms)
        if self.reader.layout.tags:
            tags = self._raw("tags")
            batch.tags = [[tag_of(of_event, name) for of_event in tags] for name in self.reader.layout.tags]
        return batch

    def floats(self, name: str) -> Float:
        """As `Sources` has it."""
        if is_scored(name):
            return as_numbers(self._scores(name))
        kind, column = self._place(name)
        return self.numbers[column] if kind == native.NUMBER else as_numbers(self.raws[column])

    def category(self, name: str, value_type: ValueType) -> Sequence[object]:
        """As `Sources` has it."""
        if is_scored(name):
            return [checked(value, value_type) for value in self._scores(name)]
        kind, column = self._place(name)
        if kind == native.RAW:
            return [checked(value, value_type) for value in self.raws[column]]
        return Coded(self.values_of[column], self.codes[column])

    def values(self, name: str) -> Sequence[Any]:
        """As `Sources` has it."""
        found = self._scores(name) if is_scored(name) else self.raws[self._place(name).column]
        return viewable(self.reader.sources[name], found, is_typed=False)

    def _place(self, name: str) -> _Place:
        wanted = self.reader.wanted
        return wanted.event[OUTPUTS[name]] if name in OUTPUTS else wanted.features[name]

    def _coded(self, field_name: str) -> tuple[list[Any], Indices]:
        column = self.reader.wanted.event[field_name].column
        return self.values_of[column], self.codes[column]

    def _raw(self, field_name: str) -> list[Any]:
        return self.raws[self.reader.wanted.event[field_name].column]

    def _scores(self, name: str) -> list[Any]:
        return scores_in(name, self._raw("scores"), lambda: self._raw("score"))


def _wanted_of(reader: FeatureReader, time_field: str, time_unit: TimeUnit) -> _Wanted:
    wanted = _Wanted()
    event, features = wanted.event, wanted.features
    wanted.add(event, "model", native.TOKEN, _of_type(str), _BAD)
    wanted.add(event, "version", native.TOKEN, _of_type(str | int | None))
    wanted.add(event, time_field, _time_kind(time_unit), _of_type(str), _BAD)
    wanted.add(event, "features", native.FEATURES)
    wanted.add(event, "id", native.TEXT)
    for name in MORE:
        wanted.add(event, name, native.TOKEN, _of_type(FIELD_TYPES[name] | None), msgspec.UNSET)
    if reader.layout.tags:
        wanted.add(event, "tags", native.RAW, _or_wrong(FIELD_TYPES["tags"] | None), msgspec.UNSET)
    if any(map(is_scored, reader.sources)):
        wanted.add(event, "scores", native.RAW, lambda raw: scores_from(msgspec.Raw(raw)), msgspec.UNSET)
        wanted.add(event, OUTPUTS[SCORE], native.RAW, _or_wrong(FIELD_TYPES[OUTPUTS[SCORE]] | None), msgspec.UNSET)
    viewed = {source_of(feature) for feature in reader.layout.features if feature.view is not None}
    for name, feature in reader.sources.items():
        if name in features or is_scored(name) or OUTPUTS.get(name) in event:
            continue
        fields, field = (event, OUTPUTS[name]) if name in OUTPUTS else (features, name)
        if name not in viewed and is_plain_number(feature):
            wanted.add(fields, field, native.NUMBER)
            continue
        decode = _or_wrong(FIELD_TYPES[field] | None) if name in OUTPUTS else _or_wrong(json_type(feature))
        if name in viewed:
            wanted.add(fields, field, native.RAW, decode, NoValue.ABSENT)
        else:
            assert isinstance(feature, CategoryFeature)
            wanted.add(fields, field, native.TOKEN, _checked(decode, feature.value_type), NoValue.ABSENT)
    return wanted


def _time_kind(unit: TimeUnit) -> int:
    return native.NUMBER if unit == "s" else native.RAW if unit == "iso8601" else native.INTEGER


def _of_type(wanted: Any) -> _Decode:
    """Return what reads a JSON text as a type, `_BAD` where it is not of it."""
    decode = msgspec.json.Decoder(wanted).decode

    def read(raw: bytes) -> Any:
        try:
            return decode(raw)
        except FAILURES:
            return _BAD

    return read


_of_any_type = _of_type(Any)


def _or_wrong(wanted: Any) -> _Decode:
    """Return what reads a JSON text as a type, and what is of another one as a value of a wrong type."""
    decode = _of_type(wanted)

    def read(raw: bytes) -> Any:
        found = decode(raw)
        if found is _BAD and _of_any_type(raw) is not _BAD:
            return NoValue.WRONG_TYPE
        return found

    return read


def _checked(decode: _Decode, wanted: ValueType) -> _Decode:
    def read(raw: bytes) -> Any:
        found = decode(raw)
        return found if found is _BAD else checked(found, wanted)

    return read


def _decoded(column: Sequence[bytes | None], decode: _Decode, absent: Any, is_read: Bool) -> list[Any]:
    """Decode a column of JSON texts; mark as not read what is bad."""
    found = [absent if raw is None else decode(raw) for raw in column]
    for i, value in enumerate(found):
        if value is _BAD:
            is_read[i] = False
    return found
