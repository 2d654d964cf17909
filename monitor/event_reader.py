"""One record's bytes → an event, a tick or a rejection: a typed decode, and field by field what that does not take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from monitor.columns import NoValue, Special
from monitor.event_envelope import FIELD_TYPES
from monitor.event_time import JSON_TYPES, TimeUnit
from monitor.events import Rejection, Tick
from monitor.feature_reader import OUTPUTS
from monitor.json_objects import FAILURES, Fields, fields_of, is_object, needs_care, parse_fields, parse_record, typed
from monitor.ports import Record

Payload = tuple["Event", bytes]
"""An event, and its record's bytes."""

_NOT_FINITE = {b'"NaN"': Special.NAN, b'"Infinity"': Special.POS_INF, b'"-Infinity"': Special.NEG_INF}
"""How protobuf's JSON, Jackson and pydantic write what JSON has no number for."""

_decode_values = msgspec.json.Decoder(dict[str, Any]).decode
_decode_value = msgspec.json.Decoder().decode


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


class EventReader:
    """Reads native events.

    time_field, time_unit: where an event's time is, and what it counts. max_event_bytes: longer records are rejected unparsed.
    """

    def __init__(self, time_field: str, time_unit: TimeUnit, max_event_bytes: int) -> None:
        self._time_field = time_field
        self._time_unit = time_unit
        self._max_event_bytes = max_event_bytes
        self._decode_raw = self.decoder(msgspec.Raw)

    def decoder(self, features: Any) -> Callable[[bytes], Event]:
        """Return what reads an event with features of a type. Raises `FAILURES`."""
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

    def read_all(
        self, records: Sequence[Record], decode: Callable[[bytes], Event] | None
    ) -> tuple[Sequence[Record], list[Any], list[bytes], list[tuple[int, Tick | Rejection]]]:
        """Return the records that are events, the events, their bytes, and by offset what the other records are.

        decode: of `decoder`, where features are to be read in the same pass; None: they are left raw.
        """
        values = [record.value or b"" for record in records]
        for i in needs_care(values, self._max_event_bytes):
            values[i] = b""  # fails below
        decoded = map(decode or self._decode_raw, values)
        events: list[Any] = []
        failed: list[int] = []
        while len(events) < len(values):
            try:
                events.extend(decoded)  # keeps what came before a failure, and goes on behind it
            except FAILURES:
                failed.append(len(events))
                events.append(None)
        if decode is None:
            failed += [i for i, event in enumerate(events) if event is not None and not is_object(event.features)]
        if not failed:
            return records, events, values, []
        others: list[tuple[int, Tick | Rejection]] = []
        for i in failed:
            events[i] = self._typed(values[i]) or self._by_field(records[i].value)
            if not isinstance(events[i], Event):
                others.append((records[i].offset, events[i]))
                events[i] = None
            values[i] = records[i].value or b""
        left = [i for i, event in enumerate(events) if event is not None]
        return [records[i] for i in left], [events[i] for i in left], [values[i] for i in left], others

    def read(self, value: bytes) -> Event:
        """Return the event of a record that is known to be one."""
        event = self._typed(value) or self._by_field(value)
        assert isinstance(event, Event)
        return event

    def _typed(self, value: bytes) -> Event | None:
        """Return an event of which only a feature can be of a wrong type."""
        try:
            event = self._decode_raw(value)
        except FAILURES:
            return None
        return event if is_object(event.features) else None

    def _by_field(self, value: bytes | None) -> Event | Tick | Rejection:
        """Read what the typed decode could not: an event with a wrong-typed optional field, a tick, or the exact reason."""
        fields = parse_record(value, self._max_event_bytes)
        if isinstance(fields, Rejection | Tick):
            return fields
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

    def names(self, payload: Payload) -> tuple[Iterable[str], Iterable[str]]:
        """Return the names of an event's fields, and of its features, as it has them."""
        fields = parse_fields(payload[1], self._max_event_bytes)
        return () if isinstance(fields, Rejection) else fields, fields_of(self.features(payload))

    def features(self, payload: Payload) -> msgspec.Raw:
        """Return the JSON text of an event's features."""
        event, value = payload
        raw = event.features if isinstance(event.features, msgspec.Raw) else self._decode_raw(value).features
        assert isinstance(raw, msgspec.Raw)
        return raw

    def row(self, payload: Payload) -> dict[str, object]:
        """Return an event's features and outputs by name as JSON has them; `NoValue.WRONG_TYPE` where a value cannot be read."""
        row = _values(self.features(payload))
        for name, field in OUTPUTS.items():
            row.pop(name, None)
            value = getattr(payload[0], field)
            if value is NoValue.WRONG_TYPE:
                value = self._quoted(payload, field)
            if value is not msgspec.UNSET:
                row[name] = value
        return row

    def not_finite(self, payload: Payload, names: Iterable[str]) -> list[Special]:
        """Return what the values of names in a layout are, which are of a wrong type: JSON has no NaN, producers write it in quotes."""
        fields = dict(fields_of(self.features(payload)))
        whole = parse_fields(payload[1], self._max_event_bytes)
        if not isinstance(whole, Rejection):
            fields |= {name: whole[field] for name, field in OUTPUTS.items() if field in whole}
        return [_NOT_FINITE.get(bytes(fields.get(name, b"")), Special.WRONG_TYPE) for name in names]

    def _quoted(self, payload: Payload, field: str) -> object:
        """Return an output that is a number but not finite, as the text that stands for it; else that it is of a wrong type."""
        whole = parse_fields(payload[1], self._max_event_bytes)
        raw = b"" if isinstance(whole, Rejection) else bytes(whole.get(field, b""))
        return _decode_value(raw) if raw in _NOT_FINITE else NoValue.WRONG_TYPE


def text_id(event: Event) -> str | None:
    """Return an event's id; None where it has none, or none that is a text."""
    return event.id if type(event.id) is str else None


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


def _optional(fields: Fields, name: str) -> Any:
    """Return an optional field: UNSET, None, its value, or `NoValue.WRONG_TYPE`."""
    if name not in fields:
        return msgspec.UNSET
    found = typed(fields, name, FIELD_TYPES[name], null=None)
    return NoValue.WRONG_TYPE if isinstance(found, Rejection) else found
