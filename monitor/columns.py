"""Rows of one model version as columns: what a wire format hands to a profile."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from operator import attrgetter
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from monitor.events import Outcome, Rejection
from monitor.ports import Record

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int32]
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


class Coded(Sequence[object]):
    """A column as its different values, and for each row the place of its own among them: a few bytes a row where values repeat.

    values: may hold some that no row has. codes: shape (n,), of any type of integers.

    >>> column = Coded(["a", "b"], np.array([1, 0, 1]))
    >>> column[1], column[1:], len(column)
    ('a', ['a', 'b'], 3)
    """

    __slots__ = ("codes", "values")

    def __init__(self, values: Sequence[object], codes: npt.NDArray[np.integer]) -> None:
        self.values = values
        self.codes = codes

    def __len__(self) -> int:
        return len(self.codes)

    def rows(self, begin: int, end: int) -> Coded:
        """Return rows [begin, end) as they are here."""
        return Coded(self.values, self.codes[begin:end])

    @overload
    def __getitem__(self, at: int) -> object: ...

    @overload
    def __getitem__(self, at: slice) -> list[object]: ...

    def __getitem__(self, at: int | slice) -> object:
        """Return the value of a row, or those of some rows as a list."""
        if isinstance(at, slice):
            return [self.values[code] for code in self.codes[at].tolist()]
        return self.values[int(self.codes[at])]


class Names(NamedTuple):
    """A column of names: the different ones, and for each row the place of its own among them. None: a row without one."""

    distinct: Sequence[str | None]
    codes: Int | None
    """(n,); None where all rows have the first"""


@dataclass(slots=True)
class HashedIds:
    """Ids as a sample of them counts them (sketches/id_sample.py).

    n: how many. hashes: of those that it may keep, by event; shape (k,).
    """

    n: int
    hashes: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return self.n


@dataclass(slots=True)
class Envelope:
    """What `n` events say beside model, time and features; nothing of it is required.

    ids: of the events that have one, UTF-8, or their hashes.
    sample_rates: likewise, each in (0, 1], shape (k,) float64.
    schemas, producers, statuses: of every event; None where no event has one.
    wrong_type: rows by name of a field that was there and could not be used.
    """

    ids: Sequence[bytes] | HashedIds
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


More = tuple[Sequence[Any], ...]
"""Schemas, producers, statuses and sample rates of events, by event."""


class Said(NamedTuple):
    """What events say of themselves, by event and as they say it; but an id that is a text is UTF-8.

    has_ids: whether every event has such an id.
    more: None where no event has any of it.
    """

    ids: Sequence[Any]
    has_ids: bool
    more: More | None = None

    def with_rows(self, at: Int, other: Said) -> Said:
        """Return the same with what some events say in place of what stood there."""
        more = self.more
        if other.more is not None or more is not None:
            mine = more if more is not None else tuple([UNSET] * len(self.ids) for _ in other.more or ())
            theirs = other.more if other.more is not None else tuple([UNSET] * len(other.ids) for _ in mine)
            more = tuple(_replaced(values, at, new) for values, new in zip(mine, theirs, strict=True))
        ids = _replaced(self.ids, at, other.ids)
        return Said(ids, all(type(one) is bytes for one in ids), more)


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

    def with_rows(self, at: Int, other: ColumnBatch) -> ColumnBatch:
        """Return the same values with some rows' in place of what stood there."""
        specials = self.specials
        if specials is not None or other.specials is not None:
            specials = np.zeros(self.numbers.shape, np.uint8) if specials is None else specials.copy()
            specials[:, at] = 0 if other.specials is None else other.specials
        numbers = self.numbers.copy()
        numbers[:, at] = other.numbers
        categories = [_replaced(column, at, new) for column, new in zip(self.categories, other.categories, strict=True)]
        tags = [_replaced(column, at, new) for column, new in zip(self.tags, other.tags, strict=True)]
        return ColumnBatch(self.n, numbers, specials, categories, tags=tags)

    def part(self, begin: int, end: int, about: About) -> ColumnBatch:
        """Return rows [begin, end), and what they say beside their values."""
        numbers = np.ascontiguousarray(self.numbers[:, begin:end])
        specials = None if self.specials is None else np.ascontiguousarray(self.specials[:, begin:end])
        categories = [_rows(column, begin, end) for column in self.categories]
        tags = [_rows(column, begin, end) for column in self.tags]
        specials = specials if specials is not None and specials.any() else None
        return ColumnBatch(end - begin, numbers, specials, categories, about.inspected, about.unexpected, tags, about.envelope)


def _rows(column: Sequence[object], begin: int, end: int) -> Sequence[object]:
    return column.rows(begin, end) if isinstance(column, Coded) else column[begin:end]


def _replaced(column: Sequence[Any], at: Int, new: Sequence[Any]) -> Sequence[Any]:
    """Return a column with some values in place of what stood there."""
    if isinstance(column, Coded):
        codes = column.codes.astype(np.int64)
        codes[at] = len(column.values) + np.arange(len(at))
        return Coded([*column.values, *new], codes)
    values = list(column)
    for i, value in zip(at.tolist(), new, strict=True):
        values[i] = value
    return values


class Read(NamedTuple):
    """Rows of several models, read at once; what each row says beside its values is told by row.

    said: None where the format tells nothing. inspected: rows whose names were compared with the layout's, shape (n,).
    unexpected: by such a row, features that the layout does not have, where there are any. ids: as texts, where they are to be kept.
    """

    columns: ColumnBatch
    said: Said | None
    inspected: Bool
    unexpected: Mapping[int, Collection[str]]
    ids: Sequence[str | None] | None = None


@dataclass(slots=True)
class LabelRow:
    """What really happened to the prediction `id` of `model`, known at `time_ms`."""

    offset: int
    model: str
    id: str
    value: Outcome
    time_ms: int


class PayloadRows(Sequence[Any]):
    """What a format reads columns from, by row."""

    @abstractmethod
    def take(self, at: Int) -> PayloadRows:
        """Return those of some rows."""


class Payloads(list[Any], PayloadRows):
    """Payloads one by one."""

    def take(self, at: Int) -> Payloads:
        """Return those of some rows."""
        return Payloads([self[i] for i in at.tolist()])


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
    payloads: PayloadRows
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


class Places(dict[Any, int]):
    """Value → its place in the order of appearance."""

    def __missing__(self, value: Any) -> int:
        self[value] = place = len(self)
        return place

    def codes(self, column: Sequence[Any]) -> Indices:
        """Return the place of each value of a column; new ones get one."""
        if isinstance(column, Coded):
            found = present(column.codes)
            of_code: Indices = np.zeros(int(found.max(initial=-1)) + 1, np.int32)
            of_code[found] = self.codes([column.values[code] for code in found.tolist()])
            return np.take(of_code, column.codes)
        return np.fromiter(map(self.__getitem__, column), np.int32, len(column))


def offsets_of(records: Sequence[Record]) -> Int:
    """Return the offsets of records, which rise; mostly without asking each of them."""
    if records and records[-1].offset - records[0].offset == len(records) - 1:
        return np.arange(records[0].offset, records[-1].offset + 1)
    return np.fromiter((record.offset for record in records), np.int64, len(records))


_timestamp_of = attrgetter("timestamp")


def stamps_of(records: Sequence[Record]) -> Int:
    """Return the timestamps of records, epoch milliseconds."""
    return np.fromiter(map(_timestamp_of, records), np.int64, len(records))


def present(places: npt.NDArray[np.integer]) -> Int:
    """Return the different places among some, rising: of small whole numbers, without sorting.

    >>> present(np.array([3, 1, 3])).tolist()
    [1, 3]
    """
    return np.flatnonzero(np.bincount(places))


def by_first_row(places: Int | Indices) -> Int | Indices:
    """Return the different places among some, in the order of the first row of each: of small whole numbers, without sorting.

    >>> by_first_row(np.array([3, 1, 3])).tolist()
    [3, 1]
    """
    rows = np.arange(len(places))
    first = np.empty(int(places.max(initial=-1)) + 1, np.int64)
    first[places[::-1]] = rows[::-1]  # the last one written is the first one
    found: Int | Indices = places[first[places] == rows]
    return found


def order_of(places: Int) -> Int:
    """Return the stable order of small whole numbers ≥ 0, shape (n,): below 65,536 by a radix sort, which takes a fifth of the time.

    >>> order_of(np.array([2, 0, 2, 1])).tolist()
    [1, 3, 0, 2]
    """
    is_small = int(places.max(initial=0)) < 1 << 16
    return np.argsort(places.astype(np.uint16) if is_small else places, kind="stable")


def by_place(places: Int) -> tuple[Int, Int, Int]:
    """Return the order of `order_of`, the different places, rising, and where each begins in that order.

    >>> [found.tolist() for found in by_place(np.array([2, 0, 2]))]
    [[1, 0, 2], [0, 2], [0, 1]]
    """
    counts = np.bincount(places)
    found = np.flatnonzero(counts)
    return order_of(places), found, np.cumsum(counts[found]) - counts[found]


def names_of(values: Sequence[Any]) -> Names:
    """Return a column of hashable values as names, whatever they are.

    >>> names_of(["a", None, "a"]).distinct, names_of(["a", "a"]).codes
    (['a', None], None)
    """
    places = Places()
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
