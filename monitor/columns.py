"""Rows of one model version as columns: what a wire format hands to a profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.events import Outcome, Rejection

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]
Objects = npt.NDArray[np.object_]
Bool = npt.NDArray[np.bool_]


class Special(IntEnum):
    """What a value is when it is not a value; also the order of a feature's special cells (less `VALUE`)."""

    VALUE = 0
    MISSING = 1
    """null"""
    ABSENT = 2
    """The event does not have the feature."""
    NAN = 3
    POS_INF = 4
    NEG_INF = 5
    WRONG_TYPE = 6
    NEVER_SEEN = 7
    """A category that the reference does not have; only ever a cell, never in a column."""


class NoValue(Enum):
    """What a column of categories holds where there is no value.

    Not `Special`, whose members equal integers: 2 is a category, and `2 == Special.ABSENT`.
    """

    ABSENT = "absent"
    WRONG_TYPE = "wrong_type"

    __hash__ = object.__hash__  # every row is looked up; Enum's own hash is Python


class Names(NamedTuple):
    """A column of names: the different ones, and for each row the place of its own among them. None: a row without one."""

    distinct: Sequence[str | None]
    codes: Int | None
    """(n,); None where all rows have the first"""


@dataclass(slots=True)
class Envelope:
    """What `n` events say beside model, time and features; nothing of it is required.

    ids: of the events that have one, UTF-8. sample_rates: likewise, each in (0, 1], shape (k,) float64.
    schemas, producers, statuses: of every event; None where no event has one.
    wrong_type: rows by name of a field that was there and could not be used.
    """

    ids: Sequence[bytes]
    sample_rates: Float
    wrong_type: dict[str, int]
    schemas: Names | None = None
    producers: Names | None = None
    statuses: Names | None = None


class About(NamedTuple):
    """What rows of one model version say beside their values; as in `ColumnBatch`."""

    envelope: Envelope | None
    inspected: int = 0
    unexpected: Mapping[str, int] = {}


NOTHING_SAID = About(None)


@dataclass(slots=True)
class ColumnBatch:
    """`n` rows, columns in the order of `Layout.numbers` and `Layout.categories`.

    numbers: (n_numbers, n) float64, C order; where `specials` is not VALUE the content is ignored.
    specials: (n_numbers, n) uint8 of `Special`, or None when every number is a finite value.
    categories: per feature n of str | int | float | bool, None (null) or `NoValue`.
    unexpected: rows by name of a feature that the layout does not have, among the `inspected` rows only.
    tags: per tag of `Layout.tags` n of str, or anything else where there is none.
    envelope: None where rows are no events (a reference's).
    """

    n: int
    numbers: Float
    specials: Codes | None
    categories: Sequence[Sequence[object]]
    inspected: int = 0
    unexpected: Mapping[str, int] | None = None
    tags: Sequence[Sequence[object]] = ()
    envelope: Envelope | None = None

    def numbers_or(self, fill: Float | float) -> Float:
        """Return `numbers` with `fill` (broadcast) where there is no finite value."""
        if self.specials is None:
            return self.numbers
        return np.where(self.specials == Special.VALUE, self.numbers, fill)

    def part(self, begin: int, end: int, about: About) -> ColumnBatch:
        """Return rows [begin, end), and what they say beside their values."""
        numbers = np.ascontiguousarray(self.numbers[:, begin:end])
        specials = None if self.specials is None else np.ascontiguousarray(self.specials[:, begin:end])
        categories = [column[begin:end] for column in self.categories]
        tags = [column[begin:end] for column in self.tags]
        specials = specials if specials is not None and specials.any() else None
        return ColumnBatch(end - begin, numbers, specials, categories, about.inspected, about.unexpected, tags, about.envelope)


@dataclass(slots=True)
class LabelRow:
    """What really happened to the prediction `id` of `model`, known at `time_ms`."""

    offset: int
    model: str
    id: str
    value: Outcome
    time_ms: int


@dataclass(slots=True)
class DecodedBatch:
    """Records of one fetch, sorted out; every array and list in offset order."""

    offsets: Int
    """(n,) predictions only"""
    times_ms: Int
    """(n,) event time, epoch ms"""
    record_ms: Int
    """(n,) record timestamp"""
    keys: list[tuple[str, str]]
    """distinct (model, version)"""
    key_index: Int
    """(n,) index into keys"""
    payloads: list[object]
    """opaque per event, for `columns`"""
    ticks: list[tuple[int, int]]
    """(offset, ms)"""
    labels: list[tuple[int, str]]
    """(offset, model)"""
    rejections: list[tuple[int, Rejection]]
    """(offset, why)"""
    label_rows: list[LabelRow] = field(default_factory=list)
    """what `labels` names"""
    held_bytes: int = 0
    """memory that the payloads take, about"""


class _Places(dict[Any, int]):
    """Value → its place in the order of appearance."""

    def __missing__(self, value: Any) -> int:
        self[value] = place = len(self)
        return place


def names_of(values: Sequence[Any]) -> Names:
    """Return a column of hashable values as names, whatever they are.

    >>> names_of(["a", None, "a"]).distinct, names_of(["a", "a"]).codes
    (['a', None], None)
    """
    places = _Places()
    codes = np.fromiter(map(places.__getitem__, values), np.int64, len(values))
    return Names(list(places), None if len(places) == 1 else codes)


def specials_of(numbers: Float) -> Codes | None:
    """Classify non-finite numbers; None when all are finite. NaN counts as NAN, not as missing.

    >>> specials_of(np.array([[1.0, np.nan, -np.inf]])).tolist()
    [[0, 3, 5]]
    """
    finite = np.isfinite(numbers)
    if finite.all():
        return None
    specials = np.zeros(numbers.shape, np.uint8)
    specials[np.isnan(numbers)] = Special.NAN
    specials[numbers == np.inf] = Special.POS_INF
    specials[numbers == -np.inf] = Special.NEG_INF
    return specials
