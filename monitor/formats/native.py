"""The native JSON event (schemas/prediction.schema.json).

One typed decode per record reads the envelope. Its `features` are read in the same pass when the batch before was of model versions
whose layouts are known and read alike, and otherwise left raw until they are folded: which of the two never shows in the columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from monitor.columns import About, ColumnBatch, DecodedBatch, Indices, Int, NoValue, Places, Read, Special
from monitor.event_envelope import envelope_of, said_by
from monitor.event_time import INVALID_MS, JSON_TYPES, TimeUnit, times_ms
from monitor.events import DEFAULT_VERSION, Rejection, RejectionReason, Tick, is_name
from monitor.feature_reader import OUTPUTS, FeatureReader
from monitor.json_objects import FAILURES, Fields, fields_of, is_object, needs_care, parse_fields, read_tick, typed
from monitor.layout import Layout
from monitor.ports import Record

INSPECT_EVERY = 64
"""A row whose offset is divisible by this has its names compared with the layout's: a share that the log decides."""

EVENT_BYTES, READ_FACTOR = 300, 3
"""What an event takes beside its record, and features that were read, of which JSON has some 15 bytes each."""

MAX_NAME_CHARS = 128
"""Of an unexpected feature's name, that much is kept."""

_MAX_READERS = 1_024
_MAX_NAMES = 10_000

_SCALAR = str | int | float | bool
_OPTIONAL_TYPES: dict[str, Any] = (
    {"prediction": _SCALAR, "score": float, "latency_ms": float}
    | dict.fromkeys(("id", "schema", "producer", "status", "sample_rate"), _SCALAR)
    | {"tags": dict[str, Any]}
)
"""What an optional field is read as: a field of the envelope as any scalar, so that a number for a text does not cost the slow path."""

_NOT_FINITE = {b'"NaN"': Special.NAN, b'"Infinity"': Special.POS_INF, b'"-Infinity"': Special.NEG_INF}
"""How protobuf's JSON, Jackson and pydantic write what JSON has no number for."""

_decode_values = msgspec.json.Decoder(dict[str, Any]).decode
_decode_value = msgspec.json.Decoder().decode

_Key = tuple[str, str | int | None]
_key_of, _time_of = attrgetter("model", "version"), attrgetter("time")
_offset_of, _timestamp_of = attrgetter("offset"), attrgetter("timestamp")


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
    """The reader of layouts of one shape, and the decoder of events that reads its features in the same pass."""

    reader: FeatureReader
    decode: Callable[[bytes], Event]


class NativeFormat:
    """Reads native events.

    time_field, time_unit: where an event's time is, and what it counts. max_event_bytes: longer records are rejected unparsed.
    A payload is (Event, the record's bytes).
    """

    def __init__(self, time_field: str = "time", time_unit: TimeUnit = "ms", max_event_bytes: int = 1 << 20) -> None:
        self._time_field = time_field
        self._time_unit = time_unit
        self._max_event_bytes = max_event_bytes
        self._decode_raw = self._decoder(msgspec.Raw)
        self._known: dict[str, _Known] = {}
        self._ahead: dict[tuple[str, str], _Known] = {}
        self._last_names: list[tuple[str, str]] = []
        self._names: dict[_Key, tuple[str, str]] = {}

    def _decoder(self, features: Any) -> Callable[[bytes], Event]:
        envelope: Any = msgspec.defstruct(
            "Envelope",
            [
                ("time", JSON_TYPES[self._time_unit]),
                ("features", features),
                *((name, wanted | None, msgspec.UNSET) for name, wanted in _OPTIONAL_TYPES.items()),
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
        names, key_index = _index([self._names[key] for key in keys], places)
        self._last_names = names
        return DecodedBatch(
            offsets=np.fromiter(map(_offset_of, accepted), np.int64, len(accepted)),
            times_ms=times,
            record_ms=np.fromiter(map(_timestamp_of, accepted), np.int64, len(accepted)),
            keys=names,
            key_index=key_index,
            payloads=list(zip(events, values, strict=True)),
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
        optional = {name: _optional(fields, name) for name in _OPTIONAL_TYPES}
        return Event(model=model, time=time, features=fields["features"], version=version, **optional)

    def _refused(self, keys: Places, places: Indices, times: Int) -> dict[int, Rejection]:
        """Return the events whose model or version is no name, or whose time is none; remember those that are names.

        places: among the different keys, of each event's.
        """
        no_time = Rejection(RejectionReason.INVALID_TIME, self._time_field)
        refused = dict.fromkeys(np.flatnonzero(times == INVALID_MS).tolist(), no_time)
        if len(self._names) > _MAX_NAMES:
            self._names.clear()
        for key in [key for key in keys if key not in self._names]:
            pointer = _not_a_name(key)
            if pointer is None:
                self._names[key] = _texts(key)
            else:
                unnamed = np.flatnonzero(places == keys[key]).tolist()
                refused |= dict.fromkeys(unnamed, Rejection(RejectionReason.INVALID_NAME, pointer))
        return refused

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
        batch.tags = [_tag(name, events) for name in layout.tags]
        if batch.specials is not None:
            self._mark_not_finite(batch, layout, payloads)
        adapted = reader.adapted()
        if adapted is not reader:
            self._remember(layout, adapted)
        return batch

    def about(self, layout: Layout, payloads: Sequence[Any], offsets: Int) -> About:
        """Return what accepted events of one model version say beside their values; never raises."""
        known = self._known_shape(layout, payloads)
        events = [event for event, _ in payloads]
        if events and known.reader.can_decode:
            self._ahead[_texts(_key_of(events[-1]))] = known
        inspected = np.flatnonzero(offsets % INSPECT_EVERY == 0).tolist()
        unexpected = Counter(name for i in inspected for name in self._unexpected(payloads[i], known.reader.names))
        return About(envelope_of(events), len(inspected), unexpected)

    def read(self, layout: Layout, keys: Iterable[tuple[str, str]], payloads: Sequence[Any], offsets: Int) -> Read:
        """Turn accepted events of these model versions, whose layouts have one shape, into columns; never raises."""
        columns = self.values(layout, payloads)
        known = self._known_shape(layout, payloads)
        if known.reader.can_decode:
            self._ahead.update(dict.fromkeys(keys, known))
        inspected = offsets % INSPECT_EVERY == 0
        found = {i: self._unexpected(payloads[i], known.reader.names) for i in np.flatnonzero(inspected).tolist()}
        unexpected = {i: names for i, names in found.items() if names}
        return Read(columns, said_by([event for event, _ in payloads]), inspected, unexpected)

    def ids(self, payloads: Sequence[Any]) -> list[str | None]:
        """Return the id of each event; None where it has none, or none that is a text."""
        return [event.id if type(event.id) is str else None for event, _ in payloads]

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
            order = fields_of(self._raw_features(payloads[0])) if payloads else ()
            known = self._remember(layout, FeatureReader(layout, order))
        return known

    def _remember(self, layout: Layout, reader: FeatureReader) -> _Known:
        known = self._known[layout.shape] = _Known(reader, self._decoder(reader.struct))
        return known

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


def _texts(key: _Key) -> tuple[str, str]:
    """Return a key's model and version; a version may be an integer, or left out."""
    model, version = key
    return model, DEFAULT_VERSION if version is None else str(version)


def _not_a_name(key: _Key) -> str | None:
    """Return the first field of a key that is no name."""
    return next((field for field, text in zip(("model", "version"), _texts(key), strict=True) if not is_name(text)), None)


def _index(names: Sequence[tuple[str, str]], places: Indices) -> tuple[list[tuple[str, str]], Int]:
    """Return the different models and versions in order of appearance, and the place of each event's. places: among `names`, likewise."""
    different = Places()
    of_key = different.codes(names)
    return list(different), of_key[places].astype(np.int64)


def _optional(fields: Fields, name: str) -> Any:
    """Return an optional field: UNSET, None, its value, or `NoValue.WRONG_TYPE`."""
    if name not in fields:
        return msgspec.UNSET
    found = typed(fields, name, _OPTIONAL_TYPES[name], null=None)
    return NoValue.WRONG_TYPE if isinstance(found, Rejection) else found


def _tag(name: str, events: Sequence[Any]) -> list[str | None]:
    """Return a tag of every event, None where there is none or it is no text."""
    values = [event.tags.get(name) if type(event.tags) is dict else None for event in events]
    return [value if type(value) is str else None for value in values]
