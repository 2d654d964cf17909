"""The features of one layout: JSON objects → columns.

A struct made for the layout reads them at once, null and absent apart. Where a feature has a wrong type the object is read value by
value: that feature is marked, the others count.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from monitor.columns import Codes, ColumnBatch, Float, NoValue, Special
from monitor.json_objects import FAILURES, fields_of
from monitor.layout import CategoryFeature, Feature, Layout, NumberFeature, ValueType
from monitor.reference import LATENCY, PREDICTION, SCORE

OUTPUTS = {PREDICTION: "prediction", SCORE: "score", LATENCY: "latency_ms"}
"""Names in a layout that stand for a field of the event itself."""

_ESCAPED = re.compile(r'["\\\x00-\x1f]')

# JSON has no infinities, so that they can stand for what is no number; null becomes NaN by itself.
_ABSENT = math.inf
_WRONG_TYPE = -math.inf
_NUMBER: Any = float | None
_CATEGORY: dict[ValueType, Any] = {"string": str | None, "number": int | float | None, "boolean": bool | None}
_CATEGORY_TYPES: dict[ValueType, tuple[type, ...]] = {"string": (str,), "number": (int, float), "boolean": (bool,)}


class FeatureReader:
    """Reads the features of one layout.

    order: names as producers write them; the struct's fields follow it, which halves the time of reading (nothing else).
    names: the features that are read from an event's `features`.
    struct: type of a row; its field i holds the feature of place i.
    can_decode: whether a decoder of `struct` reads what `read` does; not where a name needs escapes in JSON.
    """

    def __init__(self, layout: Layout, order: Iterable[str] = ()) -> None:
        features = {feature.name: feature for feature in layout.features if feature.name not in OUTPUTS}
        ordered = [name for name in dict.fromkeys(order) if name in features]
        ordered += [name for name in features if name not in set(ordered)]
        place = {name: i for i, name in enumerate(ordered)}
        self.layout = layout
        self.names = frozenset(features)
        self.can_decode = not any(map(_ESCAPED.search, ordered))
        self._types = [(name, *_type_of(features[name])) for name in ordered]
        self.struct: Any = msgspec.defstruct(
            "Features",
            [(f"f{i}", wanted, default) for i, (_, wanted, default, _) in enumerate(self._types)],
            rename={f"f{i}": name for name, i in place.items()} if self.can_decode else None,
            gc=False,
        )
        self._decode = msgspec.json.Decoder(self.struct).decode
        self._numbers = [(row, place[f.name]) for row, (_, f) in enumerate(layout.numbers) if f.name in place]
        self._categories = {row: place[f.name] for row, (_, f) in enumerate(layout.categories) if f.name in place}

    def read(self, features: msgspec.Raw) -> Any:
        """Return a row of an object that was parsed before."""
        if self.can_decode:
            try:
                return self._decode(features)
            except FAILURES:
                pass
        return self._read_by_value(features)

    def _read_by_value(self, features: msgspec.Raw) -> Any:
        raw = fields_of(features)
        return self.struct(*(self._read_value(raw.get(name), *kind) for name, *kind in self._types))

    @staticmethod
    def _read_value(raw: msgspec.Raw | None, wanted: Any, absent: Any, wrong_type: Any) -> Any:
        if raw is None:
            return absent
        try:
            return msgspec.json.decode(raw, type=wanted)
        except FAILURES:
            return wrong_type

    def columns(self, rows: Sequence[Any], events: Sequence[Any]) -> ColumnBatch:
        """Return rows as columns; `events` have the outputs as attributes: a value, None, UNSET or `NoValue.WRONG_TYPE`."""
        n, width = len(rows), len(self._types)
        flat = list(chain.from_iterable(map(msgspec.structs.astuple, rows)))
        numbers = np.empty((len(self.layout.numbers), n), np.float64)
        pack = struct.Struct(f"{n}d").pack
        for row, place in self._numbers:
            column = flat[place::width]
            try:
                numbers[row] = np.frombuffer(pack(*column), np.float64)
            except struct.error:  # a null among them; numpy reads it as NaN, at thrice the time
                numbers[row] = np.array(column, np.float64)
        for row, (_, number) in enumerate(self.layout.numbers):
            if number.name in OUTPUTS:
                numbers[row] = [_output_number(value) for value in _outputs(events, number)]
        categories = [
            [_output_category(value, category.value_type) for value in _outputs(events, category)]
            if category.name in OUTPUTS
            else flat[self._categories[row] :: width]
            for row, (_, category) in enumerate(self.layout.categories)
        ]
        return ColumnBatch(n, numbers, _specials(numbers), categories)


def _type_of(feature: Feature) -> tuple[Any, Any, Any]:
    """Return a feature's JSON type, and what stands for absent and for another type."""
    if isinstance(feature, NumberFeature):
        return _NUMBER, _ABSENT, _WRONG_TYPE
    return _CATEGORY[feature.value_type], NoValue.ABSENT, NoValue.WRONG_TYPE


def _specials(numbers: Float) -> Codes | None:
    if np.isfinite(numbers).all():
        return None
    specials = np.zeros(numbers.shape, np.uint8)
    specials[np.isnan(numbers)] = Special.MISSING
    specials[numbers == _ABSENT] = Special.ABSENT
    specials[numbers == _WRONG_TYPE] = Special.WRONG_TYPE
    return specials


def _outputs(events: Sequence[Any], feature: NumberFeature | CategoryFeature) -> Iterable[Any]:
    return map(attrgetter(OUTPUTS[feature.name]), events)


def _output_number(value: Any) -> float:
    if value is msgspec.UNSET:
        return _ABSENT
    if value is None:
        return math.nan
    if isinstance(value, bool | str | NoValue):
        return _WRONG_TYPE
    try:
        return float(value)
    except OverflowError:
        return _WRONG_TYPE


def _output_category(value: Any, value_type: ValueType) -> object:
    if value is msgspec.UNSET:
        return NoValue.ABSENT
    if value is None:
        return None
    if isinstance(value, bool) and value_type != "boolean":
        return NoValue.WRONG_TYPE
    return value if isinstance(value, _CATEGORY_TYPES[value_type]) else NoValue.WRONG_TYPE
