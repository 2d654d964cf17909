"""The native JSON event (schemas/prediction.schema.json).

One typed decode per record reads the envelope. Its `features` are read in the same pass when the batch before was of model versions
whose layouts are known and read alike, and otherwise left raw until they are folded: which of the two never shows in the columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, NamedTuple, overload

import msgspec
import numpy as np

from monitor.columns import (
    About,
    Bool,
    ColumnBatch,
    DecodedBatch,
    Indices,
    Int,
    NoValue,
    PayloadRows,
    Payloads,
    Places,
    Read,
    Said,
    Special,
)
from monitor.event_envelope import FIELD_TYPES, envelope_of, said_by, tag_of
from monitor.event_time import INVALID_MS, JSON_TYPES, TimeUnit, times_ms
from monitor.events import DEFAULT_VERSION, Rejection, RejectionReason, Tick, is_name
from monitor.feature_reader import OUTPUTS, FeatureReader
from monitor.json_objects import FAILURES, Fields, fields_of, is_object, needs_care, parse_fields, read_tick, typed
from monitor.layout import Layout
from monitor.ports import Record
from monitor.table_reader import Table, TableReader, is_available

INSPECT_EVERY = 64
"""A row whose offset is divisible by this has its names compared with the layout's: a share that the log decides."""

EVENT_BYTES, READ_FACTOR = 300, 3
"""What an event takes beside its record, and features that were read, of which JSON has some 15 bytes each."""

MAX_NAME_CHARS = 128
"""Of an unexpected feature's name, that much is kept."""

_MAX_READERS = 1_024
_MAX_NAMES = 10_000

_NOT_FINITE = {b'"NaN"': Special.NAN, b'"Infinity"': Special.POS_INF, b'"-Infinity"': Special.NEG_INF}
"""How protobuf's JSON, Jackson and pydantic write what JSON has no number for."""

_decode_values = msgspec.json.Decoder(dict[str, Any]).decode
_decode_value = msgspec.json.Decoder().decode

_Key = tuple[str, str | int | None]
_key_of, _time_of = attrgetter("model", "version"), attrgetter("time")
_offset_of, _timestamp_of, _value_of = attrgetter("offset"), attrgetter("timestamp"), attrgetter("value")


class Event(msgspec.Struct, kw_only=True, gc=False):
    """The fields that are read. An optional one is UNSET, None, a value, or `NoValue.WRONG_TYPE`.

    features: a row of some `FeatureReader`, or Raw.
    """

    model: str
    version: str | int | None = None
    time: Any
    features: Any
    prediction: Any = msgspec.UNSET
    score: Any = msgspec.UNSET
    latency_ms: Any = msgspec.UNSET
    id: Any = msgspec.UNSET
    schema: Any = msgspec.UNSET
    producer: Any = msgspec.UNSET
    status: Any = msgspec.UNSET
    sample_rate: Any = msgspec.UNSET
    tags: Any = msgspec.UNSET


class _Known(NamedTuple):
    """The reader of layouts of one shape, the decoder of events that reads its features in the same pass, and what does without events."""

    reader: FeatureReader
    decode: Callable[[bytes], Event]
    table: TableReader | None


class TableRows(PayloadRows):
    """Payloads of a batch that was read as a table.

    rows: of the table; −1 − k: payload k of those that are in none. event: makes one of a record that is in the table, for those who ask.
    """

    def __init__(self, table: Table, rows: Int, others: Sequence[Any], event: Callable[[bytes], Event]) -> None:
        self.table = table
        self._rows = rows
        self._others = others
        self._event = event

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        row = int(self._rows[at])
        if row < 0:
            return self._others[-1 - row]
        record = self.table.records[row]
        return self._event(record), record

    def take(self, at: Int) -> TableRows:
        """Return those of some rows."""
        return TableRows(self.table, self._rows[at], self._others, self._event)

    def ids(self) -> list[str | None]:
        """Return the id of each, None where it has none that is a text."""
        ids = self.table.ids()
        found = [ids[row] if row >= 0 else None for row in self._rows.tolist()]
        texts = [None if one is None else one.decode() for one in found]
        for i in np.flatnonzero(self._rows < 0).tolist():
            texts[i] = _text_id(self[i][0])
        return texts

    def may_have_more(self) -> Bool:
        """Return which of them may have features that the table's layout has not, shape (n,)."""
        return np.where(self._rows < 0, True, self.table.has_more[np.maximum(self._rows, 0)])

    def table_rows(self) -> tuple[Table, Int]:
        """Return a table of the rows, and the places of those that are to be filled in."""
        alone = np.flatnonzero(self._rows < 0)
        return self.table.take(np.maximum(self._rows, 0)), alone


class NativeFormat:
    """Reads native events.

    time_field, time_unit: where an event's time is, and what it counts. max_event_bytes: longer records are rejected unparsed.
    in_tables: whether events of models that are known are read by the compiled part; what is read is the same.
    A payload is (Event, the record's bytes).
    """

    def __init__(
        self,
        time_field: str = "time",
        time_unit: TimeUnit = "ms",
        max_event_bytes: int = 1 << 20,
        *,
        in_tables: bool = is_available,
    ) -> None:
        self._time_field = time_field
        self._time_unit = time_unit
        self._max_event_bytes = max_event_bytes
        self._reads_tables = in_tables and is_available
        self._decode_raw = self._decoder(msgspec.Raw)
        self._known: dict[str, _Known] = {}
        self._ahead: dict[tuple[str, str], _Known] = {}
        self._in_tables: set[tuple[str, str]] = set()
        self._last_names: list[tuple[str, str]] = []
        self._names: dict[_Key, tuple[str, str]] = {}

    def _decoder(self, features: Any) -> Callable[[bytes], Event]:
        envelope: Any = msgspec.defstruct(
            "Envelope",
            [
                ("time", JSON_TYPES[self._time_unit]),
                ("features", features),
                *((name, wanted | None, msgspec.UNSET) for name, wanted in FIELD_TYPES.items()),
            ],
            bases=(Event,),
            rename={"time": self._time_field},
            kw_only=True,
            gc=False,
        )
        decode: Callable[[bytes], Event] = msgspec.json.Decoder(envelope).decode
        return decode

    def decode(self, records: Sequence[Record]) -> DecodedBatch:
        """Sort records into predictions, ticks and rejections; never raises."""
        reader = self._table_reader()
        batch = self._decode_each(records) if reader is None else self._decode_table(reader, records)
        self._last_names = batch.keys
        return batch

    def _decode_table(self, reader: TableReader, records: Sequence[Record]) -> DecodedBatch:
        """Read what can be read at once so, and the others one by one."""
        table, is_read = reader.read(list(map(_value_of, records)), self._max_event_bytes)
        keys, key_index = table.keys()
        names = self._names_of(keys)
        if None in names:
            unnamed = np.array([name is None for name in names])[key_index]
            is_read[np.flatnonzero(is_read)[unnamed]] = False
            table, key_index = table.take(np.flatnonzero(~unnamed)), key_index[~unnamed]
        rest = self._decode_each([records[i] for i in np.flatnonzero(~is_read).tolist()])
        if not len(table):
            return rest
        mine = records if len(table) == len(records) else [records[i] for i in np.flatnonzero(is_read).tolist()]
        rows, stamps = np.arange(len(mine)), np.fromiter(map(_timestamp_of, mine), np.int64, len(mine))
        offsets = _offsets(mine)
        times, n_names = table.times_ms, len(names)
        if len(rest.offsets):
            order = np.argsort(np.concatenate((offsets, rest.offsets)))
            offsets, times, stamps, rows, key_index = (
                np.concatenate(parts)[order]
                for parts in (
                    (offsets, rest.offsets),
                    (times, rest.times_ms),
                    (stamps, rest.record_ms),
                    (rows, -1 - np.arange(len(rest.offsets))),
                    (key_index, n_names + rest.key_index),
                )
            )
        distinct, key_index = _in_order([*names, *rest.keys], key_index)
        return replace(
            rest,
            offsets=offsets,
            times_ms=times,
            record_ms=stamps,
            keys=distinct,
            key_index=key_index,
            payloads=TableRows(table, rows, rest.payloads, self._event),
            held_bytes=rest.held_bytes + len(table) * EVENT_BYTES + sum(map(len, table.records)),
        )

    def _table_reader(self) -> TableReader | None:
        """Return what reads the next batch: where half of the model versions of the last one have one shape, and were read at once."""
        found = Counter(self._ahead[name] if name in self._in_tables else None for name in self._last_names)
        known, n = found.most_common(1)[0] if found else (None, 0)
        if known is None or known.table is None or 2 * n < len(self._last_names) or known.table.is_spared():
            return None
        return known.table

    def _event(self, value: bytes) -> Event:
        """Return an event that was read as a row of a table."""
        event = self._read_raw(value) or self._read_by_field(value)
        assert isinstance(event, Event)
        return event

    def _decode_each(self, records: Sequence[Record]) -> DecodedBatch:
        """Read records one by one."""
        accepted, events, values, others = self._read(records)
        times = times_ms(list(map(_time_of, events)), self._time_unit)
        keys = Places()
        places = keys.codes(list(map(_key_of, events)))
        refused = self._refused(keys, places, times)
        if refused:
            others += [(accepted[i].offset, why) for i, why in refused.items()]
            left = [i for i in range(len(events)) if i not in refused]
            accepted, events = [accepted[i] for i in left], [events[i] for i in left]
            values, times, keys = [values[i] for i in left], times[left], Places()
            places = keys.codes(list(map(_key_of, events)))
        others.sort()
        names, key_index = _in_order([self._names[key] for key in keys], places)
        return DecodedBatch(
            offsets=np.fromiter(map(_offset_of, accepted), np.int64, len(accepted)),
            times_ms=times,
            record_ms=np.fromiter(map(_timestamp_of, accepted), np.int64, len(accepted)),
            keys=names,
            key_index=key_index,
            payloads=Payloads(zip(events, values, strict=True)),
            ticks=[(offset, other.tick) for offset, other in others if isinstance(other, Tick)],
            labels=[],
            rejections=[(offset, other) for offset, other in others if isinstance(other, Rejection)],
            held_bytes=_held_bytes(events, values),
        )

    def _read(
        self, records: Sequence[Record]
    ) -> tuple[Sequence[Record], list[Any], list[bytes], list[tuple[int, Tick | Rejection]]]:
        """Return the records that are events, the events, their bytes, and by offset what the other records are."""
        values = [record.value or b"" for record in records]
        for i in needs_care(values, self._max_event_bytes):
            values[i] = b""  # fails below
        ahead = self._expected()
        decoded = map(ahead.decode if ahead else self._decode_raw, values)
        events: list[Any] = []
        failed: list[int] = []
        while len(events) < len(values):
            try:
                events.extend(decoded)  # keeps what came before a failure, and goes on behind it
            except FAILURES:
                failed.append(len(events))
                events.append(None)
        if not ahead:
            failed += [i for i, event in enumerate(events) if event is not None and not is_object(event.features)]
        if not failed:
            return records, events, values, []
        others: list[tuple[int, Tick | Rejection]] = []
        for i in failed:
            events[i] = self._read_raw(values[i]) or self._read_by_field(records[i].value)
            if not isinstance(events[i], Event):
                others.append((records[i].offset, events[i]))
                events[i] = None
            values[i] = records[i].value or b""
        left = [i for i, event in enumerate(events) if event is not None]
        return [records[i] for i in left], [events[i] for i in left], [values[i] for i in left], others

    def _expected(self) -> _Known | None:
        """Return the reader of all model versions of the last batch; None where there is no such one."""
        known = set(map(self._ahead.get, self._last_names))
        return known.pop() if len(known) == 1 else None

    def _read_raw(self, value: bytes) -> Event | None:
        """Return an event of which only a feature can be of a wrong type."""
        try:
            event = self._decode_raw(value)
        except FAILURES:
            return None
        return event if is_object(event.features) else None

    def _read_by_field(self, value: bytes | None) -> Event | Tick | Rejection:
        """Read what the typed decode could not: an event with a wrong-typed optional field, a tick, or the exact reason."""
        fields = parse_fields(value, self._max_event_bytes)
        if isinstance(fields, Rejection):
            return fields
        tick = read_tick(fields)
        if tick is not None:
            return tick
        time_type = JSON_TYPES[self._time_unit]
        required = (("model", str), (self._time_field, time_type), ("features", dict[str, msgspec.Raw]))
        parts = [typed(fields, name, wanted) for name, wanted in required]
        parts.append(typed(fields, "version", str | int, null=None) if "version" in fields else None)
        for part in parts:
            if isinstance(part, Rejection):
                return part
        model, time, _, version = parts
        optional = {name: _optional(fields, name) for name in FIELD_TYPES}
        return Event(model=model, time=time, features=fields["features"], version=version, **optional)

    def _refused(self, keys: Places, places: Indices, times: Int) -> dict[int, Rejection]:
        """Return the events whose model or version is no name, or whose time is none; remember those that are names.

        places: among the different keys, of each event's.
        """
        no_time = Rejection(RejectionReason.INVALID_TIME, self._time_field)
        refused = dict.fromkeys(np.flatnonzero(times == INVALID_MS).tolist(), no_time)
        for place, (key, name) in enumerate(zip(keys, self._names_of(keys), strict=True)):
            if name is None:
                unnamed = np.flatnonzero(places == place).tolist()
                refused |= dict.fromkeys(unnamed, Rejection(RejectionReason.INVALID_NAME, _not_a_name(key)))
        return refused

    def _names_of(self, keys: Iterable[_Key]) -> list[tuple[str, str] | None]:
        """Return models and versions as texts, None where one is no name; remember those that are names."""
        if len(self._names) > _MAX_NAMES:
            self._names.clear()
        found = []
        for key in keys:
            name = self._names.get(key)
            if name is None and not _not_a_name(key):
                name = self._names[key] = _texts(key)
            found.append(name)
        return found

    def columns(self, layout: Layout, payloads: Sequence[Any], offsets: Int) -> ColumnBatch:
        """Turn accepted events into columns of `layout`; never raises."""
        batch = self.values(layout, payloads)
        about = self.about(layout, payloads, offsets)
        batch.envelope, batch.inspected, batch.unexpected = about
        return batch

    def values(self, layout: Layout, payloads: Sequence[Any]) -> ColumnBatch:
        """Turn the values of accepted events, of any models, into columns of `layout`; never raises."""
        known = self._known_shape(layout, payloads)
        reader = known.reader
        events = [event for event, _ in payloads]
        rows = [event.features for event in events]
        if not set(map(type, rows)) <= {reader.struct}:
            rows = [
                row if type(row) is reader.struct else reader.read(self._raw_features(payload))
                for row, payload in zip(rows, payloads, strict=True)
            ]
        batch = reader.columns(
            rows,
            events,
            times_ms=lambda: times_ms([event.time for event in events], self._time_unit),
            records=lambda: [value for _, value in payloads],
        )
        batch.tags = [[tag_of(event.tags, name) for event in events] for name in layout.tags]
        if batch.specials is not None:
            self._mark_not_finite(batch, layout, payloads)
        adapted = reader.adapted()
        if adapted is not reader:
            self._remember(layout, adapted, known.table)
        return batch

    def about(self, layout: Layout, payloads: Sequence[Any], offsets: Int) -> About:
        """Return what accepted events of one model version say beside their values; never raises."""
        known = self._known_shape(layout, payloads)
        events = [event for event, _ in payloads]
        if events and known.reader.can_decode:
            key = _texts(_key_of(events[-1]))
            self._ahead[key] = known
            self._in_tables.discard(key)  # made for nothing, where rows are turned into columns one model at a time
        inspected = np.flatnonzero(offsets % INSPECT_EVERY == 0).tolist()
        unexpected = Counter(name for i in inspected for name in self._unexpected(payloads[i], known.reader.names))
        return About(envelope_of(events), len(inspected), unexpected)

    def read(self, layout: Layout, keys: Iterable[tuple[str, str]], payloads: Sequence[Any], offsets: Int) -> Read:
        """Turn accepted events of these model versions, whose layouts have one shape, into columns; never raises."""
        known = self._known_shape(layout, payloads)
        if known.reader.can_decode:
            self._ahead.update(dict.fromkeys(keys, known))
            self._in_tables.update(keys)
        inspected = offsets % INSPECT_EVERY == 0
        to_inspect = inspected
        if isinstance(payloads, TableRows) and payloads.table.reader is known.table:
            columns, said = self._read_table(layout, payloads)
            to_inspect = inspected & payloads.may_have_more()
        else:
            columns, said = self.values(layout, payloads), said_by([event for event, _ in payloads])
        found = {i: self._unexpected(payloads[i], known.reader.names) for i in np.flatnonzero(to_inspect).tolist()}
        return Read(columns, said, inspected, {i: names for i, names in found.items() if names})

    def _read_table(self, layout: Layout, payloads: TableRows) -> tuple[ColumnBatch, Said]:
        """Return the columns of rows of a table, and what they say; those that are in none are read one by one."""
        table, alone = payloads.table_rows()
        columns, said = table.columns(), table.said()
        if len(alone):
            rest = [payloads[i] for i in alone.tolist()]
            columns = columns.with_rows(alone, self.values(layout, rest))
            said = said.with_rows(alone, said_by([event for event, _ in rest]))
        return columns, said

    def ids(self, payloads: Sequence[Any]) -> list[str | None]:
        """Return the id of each event; None where it has none, or none that is a text."""
        if isinstance(payloads, TableRows):
            return payloads.ids()
        return [_text_id(event) for event, _ in payloads]

    def rows(self, payloads: Sequence[Any]) -> list[dict[str, object]]:
        """Return events' features and outputs by name as JSON has them; `NoValue.WRONG_TYPE` where a value cannot be read."""
        rows = []
        for payload in payloads:
            row = _values(self._raw_features(payload))
            for name, field in OUTPUTS.items():
                row.pop(name, None)
                value = getattr(payload[0], field)
                if value is NoValue.WRONG_TYPE:
                    value = self._quoted(payload, field)
                if value is not msgspec.UNSET:
                    row[name] = value
            rows.append(row)
        return rows

    def _quoted(self, payload: tuple[Event, bytes], field: str) -> object:
        """Return an output that is a number but not finite, as the text that stands for it; else that it is of a wrong type."""
        whole = parse_fields(payload[1], self._max_event_bytes)
        raw = b"" if isinstance(whole, Rejection) else bytes(whole.get(field, b""))
        return _decode_value(raw) if raw in _NOT_FINITE else NoValue.WRONG_TYPE

    def _known_shape(self, layout: Layout, payloads: Sequence[Any]) -> _Known:
        """Return the reader of layouts of one shape; the first event that needs it shows the order of names."""
        known = self._known.get(layout.shape)
        if known is None:
            if len(self._known) >= _MAX_READERS:
                self._known.clear()
                self._ahead.clear()
                self._in_tables.clear()
            fields, order = self._fields_of(payloads[0]) if payloads else ((), ())
            reader = FeatureReader(layout, order)
            has_table = self._reads_tables and reader.can_decode
            table = TableReader(reader, fields, self._time_field, self._time_unit) if has_table else None
            known = self._remember(layout, reader, table)
        return known

    def _remember(self, layout: Layout, reader: FeatureReader, table: TableReader | None) -> _Known:
        known = self._known[layout.shape] = _Known(reader, self._decoder(reader.struct), table)
        return known

    def _fields_of(self, payload: tuple[Event, bytes]) -> tuple[Iterable[str], Iterable[str]]:
        """Return the names of an event's fields, and of its features, as it has them."""
        fields = parse_fields(payload[1], self._max_event_bytes)
        return () if isinstance(fields, Rejection) else fields, fields_of(self._raw_features(payload))

    def _raw_features(self, payload: tuple[Event, bytes]) -> msgspec.Raw:
        event, value = payload
        raw = event.features if isinstance(event.features, msgspec.Raw) else self._decode_raw(value).features
        assert isinstance(raw, msgspec.Raw)
        return raw

    def _mark_not_finite(self, batch: ColumnBatch, layout: Layout, payloads: Sequence[Any]) -> None:
        """Tell numbers that are not finite from texts: JSON has none, producers write them in quotes."""
        assert batch.specials is not None
        wrong = batch.specials == Special.WRONG_TYPE
        rows = np.flatnonzero(wrong.any(axis=0)).tolist()
        for at in [at for at in rows if b'NaN"' in payloads[at][1] or b'Infinity"' in payloads[at][1]]:
            fields = dict(fields_of(self._raw_features(payloads[at])))
            whole = parse_fields(payloads[at][1], self._max_event_bytes)
            if not isinstance(whole, Rejection):
                fields |= {name: whole[field] for name, field in OUTPUTS.items() if field in whole}
            for row in np.flatnonzero(wrong[:, at]).tolist():
                raw = fields.get(layout.numbers[row][1].name, b"")
                batch.specials[row, at] = _NOT_FINITE.get(bytes(raw), Special.WRONG_TYPE)

    def _unexpected(self, payload: tuple[Event, bytes], expected: frozenset[str]) -> set[str]:
        """Return the names of an event's features that are not expected."""
        return {name[:MAX_NAME_CHARS] for name in fields_of(self._raw_features(payload)).keys() - expected}


def _values(raw: msgspec.Raw) -> dict[str, Any]:
    """Return the values of an object that was parsed before."""
    try:
        return _decode_values(raw)
    except FAILURES:
        return {name: _value(value) for name, value in fields_of(raw).items()}


def _value(raw: msgspec.Raw) -> Any:
    try:
        return _decode_value(raw)
    except FAILURES:
        return NoValue.WRONG_TYPE


def _held_bytes(events: Sequence[Event], values: Sequence[bytes]) -> int:
    """Return about what events and their records take; whether features were read is the same for most of a batch."""
    is_read = bool(events) and not isinstance(events[0].features, msgspec.Raw)
    return len(events) * EVENT_BYTES + sum(map(len, values)) * (READ_FACTOR if is_read else 1)


def _text_id(event: Event) -> str | None:
    return event.id if type(event.id) is str else None


def _texts(key: _Key) -> tuple[str, str]:
    """Return a key's model and version; a version may be an integer, or left out."""
    model, version = key
    return model, DEFAULT_VERSION if version is None else str(version)


def _not_a_name(key: _Key) -> str:
    """Return the first field of a key that is no name, "" where both are."""
    return next((field for field, text in zip(("model", "version"), _texts(key), strict=True) if not is_name(text)), "")


def _offsets(records: Sequence[Record]) -> Int:
    """Return the offsets of records, which rise."""
    first, beyond = records[0].offset, records[-1].offset + 1
    if beyond - first == len(records):
        return np.arange(first, beyond)
    return np.fromiter(map(_offset_of, records), np.int64, len(records))


def _in_order(names: Sequence[tuple[str, str] | None], places: Int | Indices) -> tuple[list[tuple[str, str]], Int]:
    """Return the different names among some rows' in order of appearance, and the place of each row's. places: among `names`."""
    if len(names) == 1 and names[0] is not None:
        return [names[0]], np.zeros(len(places), np.int64)
    found, first = np.unique(places, return_index=True)
    different = Places()
    of_place = np.zeros(len(names), np.int64)
    for place in found[np.argsort(first)].tolist():
        of_place[place] = different[names[place]]
    return list(different), of_place[places]


def _optional(fields: Fields, name: str) -> Any:
    """Return an optional field: UNSET, None, its value, or `NoValue.WRONG_TYPE`."""
    if name not in fields:
        return msgspec.UNSET
    found = typed(fields, name, FIELD_TYPES[name], null=None)
    return NoValue.WRONG_TYPE if isinstance(found, Rejection) else found
