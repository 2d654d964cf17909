"""A profile: everything counted about a set of rows. A window's and a reference's are the same thing.

Merging is addition, minimum and maximum of integers and extremes: associative, commutative, exact.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import cramjam
import msgspec
import numpy as np
import numpy.typing as npt

from monitor.columns import About, ColumnBatch, Float, Int, Objects, Special, by_place
from monitor.errors import StateMismatch, UnknownCodec
from monitor.features import CategoryFeature
from monitor.layout import Layout
from monitor.outside import Found, Frequent, Outside, OutsideWire
from monitor.parts import Part
from monitor.sketches import bounded, varint
from monitor.sketches.moments import exact_sums_by_group, mean_std
from monitor.stream_facts import StreamFacts

CODEC_VERSION = 2
"""1 kept hashes of never-seen values, and nothing else of values outside a dictionary; and had one segment."""
MAX_FREQUENT = 10
"""Never-seen values that a summary names."""
_WIDTHS = (np.uint16, np.uint32, np.int64)
"""Of counts while they are counted: most panes have few rows for their many cells."""


class FeatureSummary(msgspec.Struct, frozen=True, gc=False):
    """What a profile says of one feature; counts are of rows."""

    n: int
    """Rows with a value (numbers: finite; categories: known, other or never seen)."""
    missing: int
    """null or absent"""
    absent: int
    nan: int
    infinite: int
    wrong_type: int
    never_seen: int
    """Categories that the reference does not have; fractional values of a number that was whole in the reference."""
    values: Int
    """Counts of the value cells, shape (n_values,)."""
    mean: float | None
    std: float | None
    minimum: float | None
    maximum: float | None
    distinct: int | None = None
    """Different values of a category: cells in use, and an estimate of those outside the dictionary; None where it is not known."""
    frequent: tuple[Frequent, ...] = ()
    """Never-seen values that came most, at most `MAX_FREQUENT`."""


class _Wire(msgspec.Struct, array_like=True):
    """What is stored of some segments, packed by zstd behind the version byte; what is of all rows stands with the first segment."""

    layout: bytes
    first: int
    rows: bytes
    counts: bytes
    sums: list[bytes]
    minimum: bytes
    maximum: bytes
    outside: list[OutsideWire]
    inspected: int
    unexpected: dict[str, int]
    stream: bytes


class _Wire1(msgspec.Struct, array_like=True):
    """Version 1."""

    layout: bytes
    rows: bytes
    counts: bytes
    sums: list[tuple[bytes, bytes]]
    minimum: bytes
    maximum: bytes
    unseen: list[dict[int, int]]
    inspected: int
    unexpected: dict[str, int]


_encode = msgspec.msgpack.Encoder().encode
_decoders: dict[int, Callable[[bytes], _Wire | _Wire1]] = {
    1: msgspec.msgpack.Decoder(_Wire1).decode,
    2: msgspec.msgpack.Decoder(_Wire).decode,
}


class Profile:
    """Counts of rows under one layout, by segment; segment 0 is all rows.

    counts: (n_segments, n_cells) int64; until it is asked for, as many bytes a cell as the largest needs. rows: (n_segments,) int64.
    sums: (n_segments, n_numbers, 2) of Python integers, Σq and Σq² of sketches/moments.py.
    minimum, maximum: (n_segments, n_numbers) float64, ±inf where nothing was counted.
    outside: per category feature, its values outside the dictionary (all rows only).
    unexpected: rows by name of a feature outside the layout, out of `inspected` rows, likewise bounded (all rows only).
    stream: what is known of the rows as events, and of events that are no rows; empty for a reference's rows (all rows only).
    """

    __slots__ = ("_counts", "inspected", "layout", "maximum", "minimum", "outside", "rows", "stream", "sums", "unexpected")

    def __init__(self, layout: Layout) -> None:
        n_segments, n_numbers = len(layout.segments), len(layout.numbers)
        self.layout = layout
        self.rows: Int = np.zeros(n_segments, np.int64)
        self._counts: npt.NDArray[Any] = np.zeros((n_segments, layout.n_cells), _WIDTHS[0])
        self.sums: Objects = np.zeros((n_segments, n_numbers, 2), object)
        self.minimum: Float = np.full((n_segments, n_numbers), np.inf)
        self.maximum: Float = np.full((n_segments, n_numbers), -np.inf)
        self.outside = [Outside(keeps_texts=feature.keep_values) for _, feature in layout.categories]
        self.inspected = 0
        self.unexpected: dict[str, int] = {}
        self.stream = StreamFacts()

    @property
    def n(self) -> int:
        """All rows."""
        return int(self.rows[0])

    @property
    def held_bytes(self) -> int:
        """Memory that it takes, about: integers of sums are objects of 40 bytes."""
        return self._counts.nbytes + 40 * self.sums.size + 2 * self.minimum.nbytes

    @property
    def counts(self) -> Int:
        """Rows by segment and cell, to be read and written; int64 from then on."""
        if self._counts.dtype != np.int64:
            self._counts = self._counts.astype(np.int64)
        return self._counts

    def counts_of(self, segment: int) -> Int:
        """Return a copy of one segment's counts, (n_cells,) int64."""
        return np.array(self._counts[segment], np.int64)

    def room_for(self, n: int) -> npt.NDArray[Any]:
        """Return the counts of all rows, shape (n_cells,), to be added to in place, each of them with room for n rows more.

        They may be others after any other method.
        """
        self._make_room(self.n + n)
        counts: npt.NDArray[Any] = self._counts[0]
        return counts

    def _make_room(self, n: int) -> None:
        """Widen the counts so that each holds so many rows."""
        if self._counts.dtype != np.int64 and n > np.iinfo(self._counts.dtype).max:
            self._counts = self._counts.astype(next(width for width in _WIDTHS if n <= np.iinfo(width).max))

    def update(self, batch: ColumnBatch, blocks: Collection[int] | None = None) -> None:
        """Count a batch; only in some blocks of the layout where the others hold it already.

        Cost: about 15 ns per value, and as much again per segmentation.
        """
        cells, found = self.layout.place_categories(batch)
        if blocks is None:
            self._count(batch, cells)
        else:
            added = Profile(self.layout)
            added._count(batch, cells)
            for block in blocks:
                self._add_segments(added, self.layout.blocks[block])
        if blocks is None or 0 in blocks:
            self._take_outside(found)
            self._take_about(batch.inspected, batch.unexpected or {})

    def add_part(self, part: Part, about: About) -> None:
        """Count rows that were sorted out together with those of others; the layout has no segments."""
        self.rows[0] += part.n
        if len(part.cells):
            self._make_room(int(self.rows[0]))
            np.add.at(self._counts[0], part.cells, self._counts.dtype.type(1))
        for cell, n in part.fractional:
            self._counts[0, cell] += n
        self.sums[0] += part.sums
        np.minimum(self.minimum[0], part.minimum, out=self.minimum[0])
        np.maximum(self.maximum[0], part.maximum, out=self.maximum[0])
        self._take_outside(part.outside)
        self._take_about(about.inspected, about.unexpected)

    def _count(self, batch: ColumnBatch, category_cells: Int) -> None:
        """Count what is counted by segment."""
        layout = self.layout
        self.rows[0] += batch.n
        found = np.bincount(category_cells.ravel(), minlength=layout.n_cells)
        fractional = list(layout.fractional(batch))
        for cell, rows in fractional:
            found[cell] += np.count_nonzero(rows)
        if not layout.segmentations:
            found += layout.count_numbers(batch)
            self._add_counts(0, found)
            self._add_moments(batch)
            return
        number_cells = layout.number_cells(batch)
        found += np.bincount(number_cells.ravel(), minlength=layout.n_cells)
        self._add_counts(0, found)
        cells = np.concatenate((number_cells, category_cells))
        self._make_room(int(self._counts[1:].max(initial=0)) + batch.n)
        one = self._counts.dtype.type(1)  # of another type it would be cast for each row: 37 ns instead of 3
        for i, segment in enumerate(layout.segment_rows(batch, category_cells)):
            self.rows += np.bincount(segment, minlength=len(self.rows))
            np.add.at(self._counts.ravel(), (segment * layout.n_cells + cells).ravel(), one)
            for cell, rows in fractional:
                np.add.at(self._counts[:, cell], segment[rows], one)
            self._add_moments(batch, segment, with_all=i == 0)

    def _take_outside(self, found: Sequence[Found | None]) -> None:
        for outside, values in zip(self.outside, found, strict=True):
            if values is not None:
                outside.add(values)

    def _take_about(self, inspected: int, unexpected: Mapping[str, int]) -> None:
        self.inspected += inspected
        if unexpected:
            self._add_unexpected(unexpected)

    def _add_counts(self, segments: slice | int, counts: npt.NDArray[Any]) -> None:
        """Add counts, whatever their own width."""
        self._make_room(int(self._counts[segments].max(initial=0)) + int(counts.max(initial=0)))
        at = self._counts[segments]
        np.add(at, counts, out=at, casting="unsafe")

    def _add_moments(self, batch: ColumnBatch, segment: Int | None = None, *, with_all: bool = False) -> None:
        """Take sums and extremes of the numbers in, by segment of each row; with_all: those of all rows too."""
        if not self.layout.numbers or not batch.n:
            return
        order: Int | slice = slice(None)
        touched = starts = np.zeros(1, np.int64)
        if segment is not None:
            order, touched, starts = by_place(segment)
        centres, exponents = self.layout.grid
        values = batch.numbers_or(centres[:, np.newaxis])[:, order]  # the centre adds zero
        sums = exact_sums_by_group(values, centres, exponents, starts)
        low = np.minimum.reduceat(batch.numbers_or(np.inf)[:, order], starts, axis=1).T + 0.0
        high = np.maximum.reduceat(batch.numbers_or(-np.inf)[:, order], starts, axis=1).T + 0.0
        if with_all:
            touched = np.append(touched, 0)
            sums = np.concatenate((sums, sums.sum(axis=0, keepdims=True)))
            low, high = np.vstack((low, low.min(axis=0))), np.vstack((high, high.max(axis=0)))
        self.sums[touched] += sums
        self.minimum[touched] = np.minimum(self.minimum[touched], low)
        self.maximum[touched] = np.maximum(self.maximum[touched], high)

    def _add_unexpected(self, names: Mapping[str, int]) -> None:
        for name, count in names.items():
            self.unexpected[name] = self.unexpected.get(name, 0) + count
        if len(self.unexpected) > bounded.DEFAULT_BOUND:
            kept = sorted(self.unexpected, key=bounded.key_hash)[: bounded.DEFAULT_BOUND]
            self.unexpected = {name: self.unexpected[name] for name in kept}

    def merge(self, other: Profile) -> None:
        """Add another profile of the same layout. Raises StateMismatch for a different one."""
        if other.layout is not self.layout and other.layout.sha256 != self.layout.sha256:
            raise StateMismatch(f"cannot merge profiles of layouts {self.layout.sha256[:12]} and {other.layout.sha256[:12]}")
        self._add_segments(other, slice(None))
        for mine, theirs in zip(self.outside, other.outside, strict=True):
            mine.merge(theirs)
        self.inspected += other.inspected
        self._add_unexpected(other.unexpected)
        self.stream.merge(other.stream)

    def _add_segments(self, other: Profile, segments: slice) -> None:
        self.rows[segments] += other.rows[segments]
        self._add_counts(segments, other._counts[segments])
        self.sums[segments] += other.sums[segments]
        self.minimum[segments] = np.minimum(self.minimum[segments], other.minimum[segments])
        self.maximum[segments] = np.maximum(self.maximum[segments], other.maximum[segments])

    def summary(self, name: str, segment: int = 0) -> FeatureSummary:
        """Return what was counted of one feature. Raises KeyError for a name outside the layout."""
        position, counts = self.layout.index[name], self._counts[segment]
        values = counts[self.layout.value_slice(position)].astype(np.int64)
        return self._summary(position, segment, counts[self.layout.specials[position]].tolist(), values, int(values.sum()))

    def summaries(self, segment: int = 0) -> list[FeatureSummary]:
        """Return `summary` of every feature, in the layout's order."""
        counts = self.counts_of(segment)
        specials, n = counts[self.layout.specials].tolist(), self.layout.values.rows(counts).tolist()
        return [
            self._summary(i, segment, specials[i], counts[self.layout.value_slice(i)], n[i])
            for i in range(len(self.layout.features))
        ]

    def _summary(self, position: int, segment: int, specials: list[int], values: Int, in_cells: int) -> FeatureSummary:
        """Return it of the feature at a position, given what its cells hold; in_cells: rows in its value cells."""
        feature, row = self.layout.features[position], self.layout.rows[position]
        missing, absent, nan, positive, negative, wrong_type, never_seen = specials
        n, mean, std, low, high, distinct = in_cells, None, None, None, None, None
        frequent: tuple[Frequent, ...] = ()
        if isinstance(feature, CategoryFeature):
            n += never_seen  # of a number they lie in value cells too
            if segment == 0:
                outside = self.outside[row]
                distinct, frequent = _distinct(values[:-1], outside), tuple(outside.most_frequent(MAX_FREQUENT))
        elif n:
            first, second = self.sums[segment, row].tolist()
            mean, std = mean_std(n, first, second, feature.centre, feature.exponent)
            low, high = float(self.minimum[segment, row]), float(self.maximum[segment, row])
        return FeatureSummary(
            n=n,
            missing=missing + absent,
            absent=absent,
            nan=nan,
            infinite=positive + negative,
            wrong_type=wrong_type,
            never_seen=never_seen,
            values=values,
            mean=mean,
            std=std,
            minimum=low,
            maximum=high,
            distinct=distinct,
            frequent=frequent,
        )

    def to_bytes(self) -> bytes:
        """Return all of it in one piece; equal content gives equal bytes."""
        return self._pack(slice(0, len(self.rows)))

    def block_bytes(self, block: int) -> bytes:
        """Return the bytes of a block of the layout: below `layout.BLOCK_BYTES`, what is kept of all rows only aside."""
        return self._pack(self.layout.blocks[block])

    def _pack(self, segments: slice) -> bytes:
        is_first = segments.start == 0
        wire = _Wire(
            layout=bytes.fromhex(self.layout.sha256),
            first=segments.start,
            rows=varint.encode(self.rows[segments]),
            counts=varint.encode(self._counts[segments].ravel()),
            sums=[_int_bytes(value) for value in self.sums[segments].ravel().tolist()],
            minimum=self.minimum[segments].astype("<f8").tobytes(),
            maximum=self.maximum[segments].astype("<f8").tobytes(),
            outside=[outside.to_wire() for outside in self.outside] if is_first else [],
            inspected=self.inspected if is_first else 0,
            unexpected=dict(sorted(self.unexpected.items())) if is_first else {},
            stream=self.stream.to_wire() if is_first else b"",
        )
        return bytes([CODEC_VERSION]) + bytes(cramjam.zstd.compress(_encode(wire), level=3))

    @classmethod
    def from_bytes(cls, data: bytes, layout: Layout) -> Profile:
        """Read what `to_bytes` wrote, or one block of it: nothing is counted in the other segments then.

        Raises UnknownCodec for another version, StateMismatch for another layout.
        """
        profile = cls(layout)
        profile.add_block(data)
        return profile

    def add_block(self, data: bytes) -> None:
        """Add what `to_bytes` or `block_bytes` wrote of a profile of the same layout. Raises as `from_bytes` does."""
        wire = self._unpack(data)
        if wire.layout.hex() != self.layout.sha256:
            raise StateMismatch(f"a profile of layout {wire.layout.hex()[:12]} was read with {self.layout.sha256[:12]}")
        n_cells, n_numbers = self._counts.shape[1], self.minimum.shape[1]
        n = sum(byte < 0x80 for byte in wire.rows)
        at = slice(wire.first, wire.first + n)
        self.rows[at] += varint.decode(wire.rows, n)
        self._add_counts(at, varint.decode(wire.counts, n * n_cells).reshape(n, n_cells))
        sums = [int.from_bytes(value, "little", signed=True) for value in wire.sums]
        self.sums[at] += np.array(sums, object).reshape(n, n_numbers, 2)
        minimum, maximum = (np.frombuffer(part, "<f8").reshape(n, n_numbers) for part in (wire.minimum, wire.maximum))
        self.minimum[at] = np.minimum(self.minimum[at], minimum)
        self.maximum[at] = np.maximum(self.maximum[at], maximum)
        if wire.first == 0:
            for mine, stored in zip(self.outside, wire.outside, strict=True):
                mine.merge(Outside.from_wire(stored))
            self.inspected += wire.inspected
            self._add_unexpected(wire.unexpected)
            self.stream.merge(StreamFacts.from_wire(wire.stream))

    def _unpack(self, data: bytes) -> _Wire:
        if data[0] not in _decoders:
            raise UnknownCodec("a profile", data[0], list(_decoders))
        wire: _Wire | _Wire1 = _decoders[data[0]](bytes(cramjam.zstd.decompress(data[1:])))
        if isinstance(wire, _Wire):
            return wire
        counts = varint.decode(wire.counts, self.layout.n_cells)
        outside = [self._outside_of_version_1(i, kept, counts) for i, kept in enumerate(wire.unseen)]
        sums = [part for pair in wire.sums for part in pair]
        rest = (wire.minimum, wire.maximum, outside, wire.inspected, wire.unexpected)
        return _Wire(wire.layout, 0, wire.rows, wire.counts, sums, *rest, stream=b"")

    def _outside_of_version_1(self, category: int, kept: dict[int, int], counts: Int) -> OutsideWire:
        position, _ = self.layout.categories[category]
        n_other = int(counts[self.layout.value_slice(position).stop - 1])
        n_new = int(counts[self.layout.special_cell(position, Special.NEVER_SEEN)])
        return Outside.from_kept(kept, n_new, n_other).to_wire()


def merge_all(profiles: Sequence[Profile], layout: Layout) -> Profile:
    """Return the merge of any number of profiles of one layout; of none, an empty one."""
    total = Profile(layout)
    for profile in profiles:
        total.merge(profile)
    return total


def _distinct(dictionary: Int, outside: Outside) -> int | None:
    beyond = outside.distinct()
    return None if beyond is None else int(np.count_nonzero(dictionary)) + beyond


def _int_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
