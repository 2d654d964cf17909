"""The features of one layout: JSON objects → columns.

A struct made for the layout reads them at once, null and absent apart. Where a feature has a wrong type the object is read value by
value: that feature is marked, the others count. A feature that often has a wrong type is read as any type, and checked afterwards.
What richer kinds are counted by is made of their values in `views`.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Protocol

import msgspec
import numpy as np

from monitor.columns import ColumnBatch, Float, Int, NoValue
from monitor.features import Feature, NumberFeature, ValueType, source_of
from monitor.json_objects import FAILURES, fields_of
from monitor.layout import Layout
from monitor.reference import CONFIDENCE, LATENCY, PREDICTION, SCORE, class_of
from monitor.views import (
    ABSENT,
    WRONG_TYPE,
    WireType,
    category_view,
    checked,
    confidence,
    number_view,
    primary_features,
    specials_of,
    wire_type,
)

OUTPUTS = {PREDICTION: "prediction", SCORE: "score", LATENCY: "latency_ms"}
"""Names in a layout that stand for a field of the event itself."""

OFTEN = 32
"""Values of a wrong type after which a feature is read as any type: reading an event by value takes ten times as long."""

_ESCAPED = re.compile(r'["\\\x00-\x1f]')

_decode_number = msgspec.json.Decoder(float | None).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw] | None).decode
_decode_scores = msgspec.json.Decoder(dict[str, float | None] | None).decode
_types: dict[WireType, Any] = {
    "string": str | None,
    "number": int | float | None,
    "boolean": bool | None,
    "list": msgspec.Raw,  # counted afterwards; its elements are never made
}
_decode_value: dict[WireType, Callable[[msgspec.Raw], Any]] = {
    kind: msgspec.json.Decoder(wanted).decode for kind, wanted in _types.items() if kind != "list"
}
_decode_value["list"] = lambda raw: raw


class _Scored(msgspec.Struct, gc=False):
    scores: msgspec.Raw = msgspec.Raw()


_decode_scored = msgspec.json.Decoder(_Scored).decode


def is_output(name: str) -> bool:
    """Whether a name in a layout stands for something of the event that is not among its features."""
    return name in OUTPUTS or is_scored(name)


def is_scored(name: str) -> bool:
    """Whether a name in a layout stands for a score by class, or for what is made of these."""
    return name == CONFIDENCE or class_of(name) is not None


class FeatureReader:
    """Reads the features of one layout.

    order: names as producers write them; the struct's fields follow it, which halves the time of reading.
    lenient: features that the struct takes of any type; they are checked one by one. Neither changes what is read.
    names: the features that are read from an event's `features`.
    struct: type of a row; its field i holds the feature of place i.
    can_decode: whether a decoder of `struct` reads what `read` does; not where a name needs escapes in JSON.
    """

    def __init__(self, layout: Layout, order: Iterable[str] = (), lenient: frozenset[str] = frozenset()) -> None:
        self.sources = primary_features(layout)
        features = {name: feature for name, feature in self.sources.items() if not is_output(name)}
        self.order = [name for name in dict.fromkeys((*order, *features)) if name in features]
        self.layout = layout
        self.names = frozenset(features)
        self.lenient = lenient
        self.can_decode = not any(map(_ESCAPED.search, self.order))
        self._features = [features[name] for name in self.order]
        self._wrong = [0] * len(self.order)
        self.struct: Any = msgspec.defstruct(
            "Features",
            [
                (f"f{i}", Any if name in lenient else json_type(feature), _absent(feature))
                for i, (name, feature) in enumerate(zip(self.order, self._features, strict=True))
            ],
            rename={f"f{i}": name for i, name in enumerate(self.order)} if self.can_decode else None,
            gc=False,
        )
        self._decode = msgspec.json.Decoder(self.struct).decode
        self.place = {name: i for i, name in enumerate(self.order)}

    def read(self, features: msgspec.Raw) -> Any:
        """Return a row of an object that was parsed before."""
        if self.can_decode:
            try:
                return self._decode(features)
            except FAILURES:
                pass
        fields = fields_of(features)
        return self.struct(*(self._read_value(i, fields.get(name)) for i, name in enumerate(self.order)))

    def _read_value(self, place: int, raw: msgspec.Raw | None) -> Any:
        feature = self._features[place]
        if raw is None:
            return _absent(feature)
        try:
            return _decode_number(raw) if is_plain_number(feature) else _decode_value[wire_type(feature)](raw)
        except FAILURES:
            self._wrong[place] += 1
            return WRONG_TYPE if is_plain_number(feature) else NoValue.WRONG_TYPE

    def adapted(self) -> FeatureReader:
        """Return the reader to go on with: one that takes any type of the features that were often of a wrong one."""
        often = {name for name, n in zip(self.order, self._wrong, strict=True) if n >= OFTEN}
        if often <= self.lenient:
            return self
        return FeatureReader(self.layout, self.order, self.lenient | often)

    def columns(
        self,
        rows: Sequence[Any],
        events: Sequence[Any],
        *,
        times_ms: Callable[[], Int] = lambda: np.zeros(0, np.int64),
        records: Callable[[], Sequence[bytes]] = tuple,
    ) -> ColumnBatch:
        """Return rows as columns; `events` have the outputs as attributes: a value, None, UNSET or `NoValue.WRONG_TYPE`.

        times_ms: the events' times; asked for where the layout has a timestamp. records: their bytes; for scores by class.
        """
        return columns_of(self.layout, len(rows), _Batch(self, rows, events, records), times_ms)


class Sources(Protocol):
    """What some events hold, a source at a time. A name: as `source_of` has it."""

    def floats(self, name: str) -> Float:
        """Return a number as `views` marks what is none, shape (n,)."""
        ...

    def category(self, name: str, value_type: ValueType) -> Sequence[object]:
        """Return a category's values: of the type, None or `NoValue`."""
        ...

    def values(self, name: str) -> Sequence[Any]:
        """Return what views are made of: values of the source's type, None or `NoValue`; of a list its length."""
        ...


def columns_of(layout: Layout, n: int, sources: Sources, times_ms: Callable[[], Int]) -> ColumnBatch:
    """Return the columns of n events. times_ms: of the events; asked for where the layout has a timestamp."""
    numbers = np.empty((len(layout.numbers), n), np.float64)
    for row, (_, number) in enumerate(layout.numbers):
        name = source_of(number)
        numbers[row] = sources.floats(name) if number.view is None else number_view(number, sources.values(name), times_ms)
    categories = [
        sources.category(source_of(category), category.value_type)
        if category.view is None
        else category_view(category, sources.values(source_of(category)))
        for _, category in layout.categories
    ]
    return ColumnBatch(n, numbers, specials_of(numbers), categories)


class _Batch:
    """Rows that were read one by one, as `Sources`; what several columns need is made once."""

    def __init__(
        self, reader: FeatureReader, rows: Sequence[Any], events: Sequence[Any], records: Callable[[], Sequence[bytes]]
    ) -> None:
        self._reader = reader
        self._flat = list(chain.from_iterable(map(msgspec.structs.astuple, rows)))
        self._events = events
        self._records = records
        self._values: dict[str, Sequence[Any]] = {}

    def floats(self, name: str) -> Float:
        values, is_typed = self._column(name)
        return _floats(values) if is_typed else as_numbers(values)

    def category(self, name: str, value_type: ValueType) -> Sequence[object]:
        values, is_typed = self._column(name)
        return values if is_typed else [checked(value, value_type) for value in values]

    def _column(self, name: str) -> tuple[Sequence[Any], bool]:
        """Return a source's values, and whether their types are known."""
        if name in OUTPUTS:
            return [getattr(event, OUTPUTS[name]) for event in self._events], False
        if is_scored(name):
            return self._scores(name), False
        place = self._reader.place[name]
        return self._flat[place :: len(self._reader.order)], name not in self._reader.lenient

    def values(self, name: str) -> Sequence[Any]:
        if name not in self._values:
            values, is_typed = self._column(name)
            self._values[name] = viewable(self._reader.sources[name], values, is_typed=is_typed)
        return self._values[name]

    def _scores(self, name: str) -> list[Any]:
        return scores_in(name, self._by_class, lambda: [event.score for event in self._events])

    @cached_property
    def _by_class(self) -> list[Any]:
        """Per event its scores: class → number, None or `NoValue.WRONG_TYPE`; or None, UNSET or `NoValue.WRONG_TYPE` in their place."""
        return list(map(scores_of, self._records()))


def viewable(feature: Feature, values: Sequence[Any], *, is_typed: bool) -> Sequence[Any]:
    """Return what views of a source are made of. is_typed: whether the values are of its type for certain."""
    wanted = wire_type(feature)
    if wanted == "list":
        return list(map(_as_length, values))
    return values if is_typed else [checked(value, wanted) for value in values]


def scores_in(name: str, by_class: Sequence[Any], scores: Callable[[], Sequence[Any]]) -> list[Any]:
    """Return the score of a class, or the confidence, of every event. by_class: as `scores_of` has them; scores: the single ones."""
    label = class_of(name)
    if label is None:
        return [confidence(found, score) for found, score in zip(by_class, scores(), strict=True)]
    return [found.get(label, msgspec.UNSET) if isinstance(found, Mapping) else found for found in by_class]


def scores_of(record: bytes) -> Any:
    """Return the scores by class of an event that was read before."""
    try:
        raw = _decode_scored(record.removeprefix(b"\xef\xbb\xbf")).scores
    except FAILURES:
        return NoValue.WRONG_TYPE
    return scores_from(raw) if bytes(raw) else msgspec.UNSET


def scores_from(raw: msgspec.Raw) -> Any:
    """Return the scores by class of an event, given their JSON text."""
    try:
        return _decode_scores(raw)
    except FAILURES:
        pass
    try:
        return {label: _number_or_wrong(value) for label, value in fields_of(raw).items()}
    except FAILURES:
        return NoValue.WRONG_TYPE


def _number_or_wrong(raw: msgspec.Raw) -> Any:
    try:
        return _decode_number(raw)
    except FAILURES:
        return NoValue.WRONG_TYPE


def is_plain_number(feature: Feature) -> bool:
    """Whether a feature is a number, and no view of anything else."""
    return isinstance(feature, NumberFeature) and feature.source_kind is None


def json_type(feature: Feature) -> Any:
    """Return the type that the value of a feature's source must have in an event, for a decoder."""
    return float | None if is_plain_number(feature) else _types[wire_type(feature)]


def _absent(feature: Feature) -> Any:
    return ABSENT if is_plain_number(feature) else NoValue.ABSENT


def _floats(values: Sequence[float | None]) -> Float:
    """Return floats as an array, None as NaN."""
    try:
        return np.frombuffer(struct.pack(f"{len(values)}d", *values), np.float64)
    except struct.error:  # a None among them; numpy takes it, at thrice the time
        return np.array(values, np.float64)


def as_numbers(values: Sequence[Any]) -> Float:
    """Return values of any type as a column of numbers, shape (n,)."""
    return _floats(list(map(_as_number, values)))


def _as_number(value: Any) -> float:
    """Return what a column of numbers holds for a value of any type."""
    if type(value) is float:
        return value
    if value is None:
        return math.nan
    if value is msgspec.UNSET:
        return ABSENT
    try:
        return float(value) if type(value) is int else WRONG_TYPE
    except OverflowError:
        return WRONG_TYPE


def _as_length(value: Any) -> object:
    """Return the number of elements of a list, given as JSON or as Python has it."""
    if isinstance(value, msgspec.Raw):
        try:
            elements = _decode_list(value)
        except FAILURES:
            return NoValue.WRONG_TYPE
        return None if elements is None else len(elements)
    if value is None or isinstance(value, NoValue):
        return value
    return NoValue.ABSENT if value is msgspec.UNSET else NoValue.WRONG_TYPE
