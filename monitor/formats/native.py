"""The native JSON event (schemas/prediction.schema.json).

The envelope is decoded at once with `features` left raw; the features are decoded when they are folded, by a struct made for the
layout, null and absent apart. A wrong-typed feature costs that feature, not the event: such rows are decoded value by value. Of every
`INSPECT_EVERY`th offset the names are compared with the layout's, to see unexpected ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from monitor.columns import ColumnBatch, DecodedBatch, Int, NoValue, Special
from monitor.events import DEFAULT_VERSION, Rejection, RejectionReason, is_name
from monitor.layout import CategoryFeature, Feature, Layout, NumberFeature
from monitor.ports import Record
from monitor.reference import LATENCY, PREDICTION, SCORE

INSPECT_EVERY = 64
"""A row whose offset is divisible by this has its names inspected: a share that the log decides."""

TimeUnit = Literal["s", "ms", "us", "ns", "iso8601"]

_EARLIEST_MS = -2_208_988_800_000  # 1900-01-01
_LATEST_MS = 253_402_300_800_000  # 10000-01-01
_INVALID_MS = _LATEST_MS
_BRACE = ord("{")

_FAILURES = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError)
_any_values = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_names_only = _any_values


class Payload(msgspec.Struct, gc=False):
    """What is kept of an accepted event until it is folded; an output is UNSET, None, a value, or `NoValue.WRONG_TYPE`."""

    model: str
    time: Any
    features: msgspec.Raw
    version: str = DEFAULT_VERSION
    prediction: Any = msgspec.UNSET
    score: Any = msgspec.UNSET
    latency_ms: Any = msgspec.UNSET


class NativeFormat:
    """Reads native events.

    time_field, time_unit: where an event's time is and what it counts. max_event_bytes: longer records are rejected unparsed.
    """

    def __init__(self, time_field: str = "time", time_unit: TimeUnit = "ms", max_event_bytes: int = 1 << 20) -> None:
        self._time_field = time_field
        self._time_unit = time_unit
        self._max_event_bytes = max_event_bytes
        self._time_type: Any = {"s": int | float, "iso8601": str}.get(time_unit, int)
        envelope = msgspec.defstruct(
            "Envelope",
            [
                ("model", str),
                ("time", self._time_type),
                ("features", msgspec.Raw),
                ("version", str, DEFAULT_VERSION),
                ("prediction", str | int | float | bool | None, msgspec.UNSET),
                ("score", float | None, msgspec.UNSET),
                ("latency_ms", float | None, msgspec.UNSET),
            ],
            rename={"time": time_field},
            gc=False,
        )
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(envelope).decode

    def decode(self, records: Sequence[Record]) -> DecodedBatch:
        """Sort records into predictions, ticks and rejections; never raises."""
        offsets: list[int] = []
        stamps: list[int] = []
        payloads: list[Any] = []
        ticks: list[tuple[int, int]] = []
        rejections: list[tuple[int, Rejection]] = []
        decode, limit = self._decode, self._max_event_bytes
        for record in records:
            value: Any = record.value
            try:
                event = decode(value)
                if (value.isascii() or value.decode()) and len(value) <= limit and memoryview(event.features)[0] == _BRACE:
                    offsets.append(record.offset)
                    stamps.append(record.timestamp)
                    payloads.append(event)
                    continue
            except _FAILURES:
                pass
            found = self._decode_slowly(value)
            if isinstance(found, Rejection):
                rejections.append((record.offset, found))
            elif isinstance(found, int):
                ticks.append((record.offset, found))
            else:
                offsets.append(record.offset)
                stamps.append(record.timestamp)
                payloads.append(found)
        index: dict[tuple[str, str], int] = {}
        key_index = np.array([index.setdefault((p.model, p.version), len(index)) for p in payloads], np.int64)
        times = self._times_ms(payloads)
        bad = (times < _EARLIEST_MS) | (times >= _LATEST_MS)
        refused = {int(i): Rejection(RejectionReason.INVALID_TIME, self._time_field) for i in np.flatnonzero(bad)}
        for (model, version), key in index.items():
            if not (is_name(model) and is_name(version)):
                unnamed = Rejection(RejectionReason.INVALID_NAME, "version" if is_name(model) else "model")
                refused |= {int(i): unnamed for i in np.flatnonzero(key_index == key)}
        if refused:
            rejections = sorted(rejections + [(offsets[i], why) for i, why in refused.items()])
            kept = [i for i in range(len(offsets)) if i not in refused]
            offsets, stamps, payloads = ([items[i] for i in kept] for items in (offsets, stamps, payloads))
            times, key_index = times[kept], key_index[kept]
        return DecodedBatch(
            offsets=np.array(offsets, np.int64),
            times_ms=times,
            record_ms=np.array(stamps, np.int64),
            keys=list(index),
            key_index=key_index,
            payloads=payloads,
            ticks=ticks,
            labels=[],
            rejections=rejections,
        )

    def _decode_slowly(self, value: bytes | None) -> Any:
        """Decode field by field: an exact reason, or an event of which only an output is wrong-typed."""
        fields = parse_fields(value, self._max_event_bytes)
        if isinstance(fields, Rejection):
            return fields
        if "tick" in fields and "features" not in fields:
            return _typed(fields, "tick", int)
        wanted = (
            ("model", "model", str),
            ("time", self._time_field, self._time_type),
            ("features", "features", dict[str, msgspec.Raw]),
        )
        parts: dict[str, Any] = {}
        for name, field, wanted_type in wanted:
            parts[name] = _typed(fields, field, wanted_type)
            if isinstance(parts[name], Rejection):
                return parts[name]
        parts["features"] = fields["features"]
        version = _typed(fields, "version", str | int | None) if "version" in fields else None
        if isinstance(version, Rejection):
            return version
        parts["version"] = DEFAULT_VERSION if version is None else str(version)
        for name, wanted_type in (("prediction", str | int | float | bool), ("score", float), ("latency_ms", float)):
            if name in fields:
                output = _typed(fields, name, wanted_type | None)
                parts[name] = NoValue.WRONG_TYPE if isinstance(output, Rejection) else output
        return Payload(**parts)

    def _times_ms(self, payloads: Sequence[Any]) -> Int:
        """Return event times; one that cannot be told lies outside the accepted range."""
        times = [p.time for p in payloads]
        try:
            if self._time_unit == "ms":
                return np.array(times, np.int64)
            if self._time_unit in ("us", "ns"):
                return np.array(times, np.int64) // (1_000 if self._time_unit == "us" else 1_000_000)
        except OverflowError:
            pass
        return np.array([time_ms(time, self._time_unit) for time in times], np.int64)

    def columns(self, layout: Layout, payloads: Sequence[Any], offsets: Int) -> ColumnBatch:
        """Decode the features of accepted events into columns of `layout`; never raises."""
        plan = _plan(layout)
        rows: list[Any] = []
        for payload in payloads:
            try:
                rows.append(plan.decode(payload.features))
            except _FAILURES:
                rows.append(plan.decode_slowly(payload.features))
        n = len(rows)
        numbers = np.empty((len(layout.numbers), n), np.float64)
        if plan.number_rows:
            numbers[list(plan.number_rows)] = np.array([plan.numbers_of(row) for row in rows], np.float64).T
        for row, field in plan.number_outputs:
            numbers[row] = [_output_number(getattr(p, field)) for p in payloads]
        specials = None
        if not np.isfinite(numbers).all():
            specials = np.zeros(numbers.shape, np.uint8)
            specials[np.isnan(numbers)] = Special.MISSING
            specials[numbers == math.inf] = Special.ABSENT
            specials[numbers == -math.inf] = Special.WRONG_TYPE
        categories = [
            [_output_category(p.prediction, feature) for p in payloads] if get is None else list(map(get, rows))
            for feature, get in plan.categories
        ]
        inspected = np.flatnonzero(offsets % INSPECT_EVERY == 0).tolist()
        unexpected: dict[str, int] = {}
        for i in inspected:
            for name in _names_only(payloads[i].features):
                if name not in plan.names:
                    unexpected[name] = unexpected.get(name, 0) + 1
        return ColumnBatch(n, numbers, specials, categories, len(inspected), unexpected)


def parse_fields(value: bytes | None, max_event_bytes: int) -> dict[str, msgspec.Raw] | Rejection:
    """Return the fields of a JSON object, values still raw, or why there are none."""
    if not value:
        return Rejection(RejectionReason.EMPTY)
    if len(value) > max_event_bytes:
        return Rejection(RejectionReason.TOO_LARGE)
    try:
        value.decode()
    except UnicodeDecodeError:
        return Rejection(RejectionReason.BAD_ENCODING)
    value = value.removeprefix(b"\xef\xbb\xbf")
    try:
        return _any_values(value)
    except msgspec.ValidationError:
        return Rejection(RejectionReason.NOT_AN_OBJECT)
    except (msgspec.MsgspecError, RecursionError):
        return Rejection(RejectionReason.MALFORMED_JSON)


def _typed(fields: dict[str, msgspec.Raw], name: str, wanted: Any) -> Any:
    """Return a field's value, or the Rejection that it earns."""
    raw = fields.get(name)
    if raw is None or (bytes(raw) == b"null" and type(None) not in getattr(wanted, "__args__", ())):
        return Rejection(RejectionReason.MISSING_FIELD, name)
    try:
        return msgspec.json.decode(raw, type=wanted)
    except _FAILURES:
        return Rejection(RejectionReason.WRONG_TYPE, name)


def time_ms(time: Any, unit: TimeUnit) -> int:
    """Return an event time in epoch milliseconds, rounded down; out of the accepted range when it is none.

    >>> time_ms(1.5, "s"), time_ms("2025-01-01T00:00:00.5Z", "iso8601"), time_ms(1_700, "us")
    (1500, 1735689600500, 1)
    """
    try:
        if unit == "iso8601":
            moment = datetime.fromisoformat(time)
            return _INVALID_MS if moment.tzinfo is None else math.floor(moment.timestamp() * 1000)
        scaled = time * 1000 if unit == "s" else time // {"ms": 1, "us": 1_000, "ns": 1_000_000}[unit]
        return int(min(max(math.floor(scaled), _EARLIEST_MS - 1), _INVALID_MS))
    except (ValueError, OverflowError):
        return _INVALID_MS


class _Plan(NamedTuple):
    """How the features of one layout are decoded. Fields are called f0, f1, …, since names are any text."""

    names: frozenset[str]
    decode: Callable[[msgspec.Raw], Any]
    struct: Any
    types: dict[str, tuple[str, Any]]
    number_rows: tuple[int, ...]
    numbers_of: Callable[[Any], tuple[float | None, ...]]
    number_outputs: tuple[tuple[int, str], ...]
    categories: tuple[tuple[CategoryFeature, Callable[[Any], object] | None], ...]

    def decode_slowly(self, features: msgspec.Raw) -> Any:
        """Decode value by value: what has a wrong type is marked, the rest is kept."""
        row = self.struct()
        try:
            values = _any_values(features)
        except _FAILURES:
            values = {}
        for name, raw in values.items():
            if name not in self.types:
                continue
            field, wanted = self.types[name]
            try:
                setattr(row, field, msgspec.json.decode(raw, type=wanted))
            except _FAILURES:
                setattr(row, field, -math.inf if wanted == _NUMBER else NoValue.WRONG_TYPE)
        return row


_NUMBER = float | None
_CATEGORY: dict[str, Any] = {"string": str | None, "number": int | float | None, "boolean": bool | None}
_NUMBER_OUTPUTS = {SCORE: "score", LATENCY: "latency_ms", PREDICTION: "prediction"}


@lru_cache(maxsize=1_024)
def _plan(layout: Layout) -> _Plan:
    fields: list[tuple[str, Any, Any]] = []
    types: dict[str, tuple[str, Any]] = {}
    number_rows: list[int] = []
    number_outputs: list[tuple[int, str]] = []
    categories: list[tuple[CategoryFeature, Callable[[Any], object] | None]] = []

    def field(feature: Feature) -> str:
        is_number = isinstance(feature, NumberFeature)
        wanted = _NUMBER if isinstance(feature, NumberFeature) else _CATEGORY[feature.value_type]
        name = f"f{len(fields)}"
        fields.append((name, wanted, math.inf if is_number else NoValue.ABSENT))
        types[feature.name] = (name, wanted)
        return name

    number_names: list[str] = []
    for row, (_, number) in enumerate(layout.numbers):
        if number.name in _NUMBER_OUTPUTS:
            number_outputs.append((row, _NUMBER_OUTPUTS[number.name]))
        else:
            number_rows.append(row)
            number_names.append(field(number))
    for _, category in layout.categories:
        categories.append((category, None if category.name == PREDICTION else attrgetter(field(category))))
    struct = msgspec.defstruct("Features", fields, rename={f: name for name, (f, _) in types.items()}, gc=False)
    first: Callable[[Any], Any] = attrgetter(*number_names) if number_names else tuple
    numbers_of = (lambda row: (first(row),)) if len(number_names) == 1 else first
    return _Plan(
        names=frozenset(types),
        decode=msgspec.json.Decoder(struct).decode,
        struct=struct,
        types=types,
        number_rows=tuple(number_rows),
        numbers_of=numbers_of,
        number_outputs=tuple(number_outputs),
        categories=tuple(categories),
    )


def _output_number(value: Any) -> float:
    if value is msgspec.UNSET:
        return math.inf
    if value is None:
        return math.nan
    if isinstance(value, bool | str | NoValue):
        return -math.inf
    try:
        return float(value)
    except OverflowError:
        return -math.inf


_OUTPUT_TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "number": (int, float), "boolean": (bool,)}


def _output_category(value: Any, feature: CategoryFeature) -> object:
    if value is msgspec.UNSET:
        return NoValue.ABSENT
    if value is None or isinstance(value, NoValue):
        return value
    fits = isinstance(value, _OUTPUT_TYPES[feature.value_type])
    if feature.value_type == "number" and isinstance(value, bool):
        fits = False
    return value if fits else NoValue.WRONG_TYPE
