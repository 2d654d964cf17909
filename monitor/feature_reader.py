"""The features of one layout: JSON objects → columns.

A struct made for the layout reads them at once, null and absent apart. Where a feature has a wrong type the object is read value by
value: that feature is marked, the others count. A feature that often has a wrong type is read as any type, and checked afterwards.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from monitor.columns import Codes, ColumnBatch, Float, NoValue, Special
from monitor.json_objects import FAILURES, fields_of
from monitor.layout import Feature, Layout, NumberFeature, ValueType
from monitor.reference import LATENCY, PREDICTION, SCORE

OUTPUTS = {PREDICTION: "prediction", SCORE: "score", LATENCY: "latency_ms"}
"""Names in a layout that stand for a field of the event itself."""

OFTEN = 32
"""Values of a wrong type after which a feature is read as any type: reading an event by value takes ten times as long."""

_ESCAPED = re.compile(r'["\\\x00-\x1f]')

# JSON has no infinities, so that they can stand for what is no number; null becomes NaN by itself.
_ABSENT = math.inf
_WRONG_TYPE = -math.inf

_decode_number = msgspec.json.Decoder(float | None).decode
_category_types: dict[ValueType, Any] = {"string": str | None, "number": int | float | None, "boolean": bool | None}
_decode_category = {kind: msgspec.json.Decoder(wanted).decode for kind, wanted in _category_types.items()}
_python_types: dict[ValueType, tuple[type, ...]] = {"string": (str,), "number": (int, float), "boolean": (bool,)}


class FeatureReader:
    """Reads the features of one layout.

    order: names as producers write them; the struct's fields follow it, which halves the time of reading.
    lenient: features that the struct takes of any type; they are checked one by one. Neither changes what is read.
    names: the features that are read from an event's `features`.
    struct: type of a row; its field i holds the feature of place i.
    can_decode: whether a decoder of `struct` reads what `read` does; not where a name needs escapes in JSON.
    """

    def __init__(self, layout: Layout, order: Iterable[str] = (), lenient: frozenset[str] = frozenset()) -> None:
        features = {feature.name: feature for feature in layout.features if feature.name not in OUTPUTS}
        self.order = [name for name in dict.fromkeys((*order, *features)) if name in features]
        self.layout = layout
        self.names = frozenset(features)
        self.lenient = lenient
        self.can_decode = not any(map(_ESCAPED.search, self.order))
        self._features = [features[name] for name in self.order]
        self._wrong = [0] * len(self.order)
        self.struct: Any = msgspec.defstruct(
            "Features",
            [(f"f{i}", Any if f.name in lenient else _type_of(f), _absent(f)) for i, f in enumerate(self._features)],
            rename={f"f{i}": name for i, name in enumerate(self.order)} if self.can_decode else None,
            gc=False,
        )
        self._decode = msgspec.json.Decoder(self.struct).decode
        self._place = {name: i for i, name in enumerate(self.order)}

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
            if isinstance(feature, NumberFeature):
                return _decode_number(raw)
            return _decode_category[feature.value_type](raw)
        except FAILURES:
            self._wrong[place] += 1
            return _WRONG_TYPE if isinstance(feature, NumberFeature) else NoValue.WRONG_TYPE

    def adapted(self) -> FeatureReader:
        """Return the reader to go on with: one that takes any type of the features that were often of a wrong one."""
        often = {name for name, n in zip(self.order, self._wrong, strict=True) if n >= OFTEN}
        if often <= self.lenient:
            return self
        return FeatureReader(self.layout, self.order, self.lenient | often)

    def columns(self, rows: Sequence[Any], events: Sequence[Any]) -> ColumnBatch:
        """Return rows as columns; `events` have the outputs as attributes: a value, None, UNSET or `NoValue.WRONG_TYPE`."""
        flat = list(chain.from_iterable(map(msgspec.structs.astuple, rows)))

        def column(name: str) -> tuple[list[Any], bool]:
            """A feature's values, and whether their types are known."""
            if name in OUTPUTS:
                return [getattr(event, OUTPUTS[name]) for event in events], False
            return flat[self._place[name] :: len(self.order)], name not in self.lenient

        numbers = np.empty((len(self.layout.numbers), len(rows)), np.float64)
        for row, (_, number) in enumerate(self.layout.numbers):
            values, is_typed = column(number.name)
            numbers[row] = _floats(values if is_typed else list(map(_as_number, values)))
        categories = []
        for _, category in self.layout.categories:
            values, is_typed = column(category.name)
            categories.append(values if is_typed else [_as_category(value, category.value_type) for value in values])
        return ColumnBatch(len(rows), numbers, _specials(numbers), categories)


def _type_of(feature: Feature) -> Any:
    return float | None if isinstance(feature, NumberFeature) else _category_types[feature.value_type]


def _absent(feature: Feature) -> Any:
    return _ABSENT if isinstance(feature, NumberFeature) else NoValue.ABSENT


def _floats(values: Sequence[float | None]) -> Float:
    """Return floats as an array, None as NaN."""
    try:
        return np.frombuffer(struct.pack(f"{len(values)}d", *values), np.float64)
    except struct.error:  # a None among them; numpy takes it, at thrice the time
        return np.array(values, np.float64)


def _specials(numbers: Float) -> Codes | None:
    if np.isfinite(numbers).all():
        return None
    specials = np.zeros(numbers.shape, np.uint8)
    specials[np.isnan(numbers)] = Special.MISSING
    specials[numbers == _ABSENT] = Special.ABSENT
    specials[numbers == _WRONG_TYPE] = Special.WRONG_TYPE
    return specials


def _as_number(value: Any) -> float:
    """Return what a column of numbers holds for a value of any type."""
    if type(value) is float:
        return value
    if value is None:
        return math.nan
    if value is msgspec.UNSET:
        return _ABSENT
    try:
        return float(value) if type(value) is int else _WRONG_TYPE
    except OverflowError:
        return _WRONG_TYPE


def _as_category(value: Any, value_type: ValueType) -> object:
    """Return what a column of categories holds for a value of any type."""
    if value is None or type(value) in _python_types[value_type] or isinstance(value, NoValue):
        return value
    return NoValue.ABSENT if value is msgspec.UNSET else NoValue.WRONG_TYPE
