"""A profile: everything counted about a set of rows. A window's and a reference's are the same thing.

Merging is addition, minimum and maximum of integers and extremes: associative, commutative, exact.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import cramjam
import msgspec
import numpy as np

from monitor.columns import ColumnBatch, Float, Int, Objects, Special
from monitor.errors import StateMismatch, UnknownCodec
from monitor.layout import Layout, NumberFeature, canonical
from monitor.sketches import bounded, varint
from monitor.sketches.moments import exact_sums_by_group, mean_std
from monitor.stream_facts import StreamFacts

CODEC_VERSION = 2
_KNOWN_VERSIONS = (1, 2)


class FeatureSummary(NamedTuple):
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
    values: Int
    """Counts of the value cells, shape (n_values,)."""
    mean: float | None
    std: float | None
    minimum: float | None
    maximum: float | None


class _Wire(msgspec.Struct, array_like=True):
    """What is stored of some segments, packed by zstd behind the version byte; what is of all rows stands with the first segment."""

    layout: bytes
    first: int
    rows: bytes
    counts: bytes
    sums: list[bytes]
    minimum: bytes
    maximum: bytes
    unseen: list[dict[int, int]]
    inspected: int
    unexpected: dict[str, int]
    stream: bytes


class _WireV1(msgspec.Struct, array_like=True):
    """Version 1: all rows only."""

    layout: bytes
    rows: bytes
    counts: bytes
    sums: list[tuple[bytes, bytes]]
    minimum: bytes
    maximum: bytes
    unseen: list[dict[int, int]]
    inspected: int
    unexpected: dict[str, int]

    def upgraded(self) -> _Wire:
        """Return the same content as of today."""
        sums = [part for pair in self.sums for part in pair]
        rest = (self.minimum, self.maximum, self.unseen, self.inspected, self.unexpected)
        return _Wire(self.layout, 0, self.rows, self.counts, sums, *rest, stream=b"")


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Wire).decode
_decode_v1 = msgspec.msgpack.Decoder(_WireV1).decode


class Profile:
    """Counts of rows under one layout, by segment; segment 0 is all rows.

    counts: (n_segments, n_cells) int64. rows: (n_segments,) int64.
    sums: (n_segments, n_numbers, 2) of Python integers, Σq and Σq² of sketches/moments.py.
    minimum, maximum: (n_segments, n_numbers) float64, ±inf where nothing was counted.
    unseen: per category feature, never-seen values by hash, the `bounded.DEFAULT_BOUND` smallest (all rows only).
    unexpected: rows by name of a feature outside the layout, out of `inspected` rows, likewise bounded (all rows only).
    stream: what is known of the rows as events, and of events that are no rows; empty for a reference's rows (all rows only).
    """

    __slots__ = ("counts", "inspected", "layout", "maximum", "minimum", "rows", "stream", "sums", "unexpected", "unseen")

    def __init__(self, layout: Layout) -> None:
        n_segments, n_numbers = len(layout.segments), len(layout.numbers)
        self.layout = layout
        self.rows: Int = np.zeros(n_segments, np.int64)
        self.counts: Int = np.zeros((n_segments, layout.n_cells), np.int64)
        self.sums: Objects = np.zeros((n_segments, n_numbers, 2), object)
        self.minimum: Float = np.full((n_segments, n_numbers), np.inf)
        self.maximum: Float = np.full((n_segments, n_numbers), -np.inf)
        self.unseen: list[dict[int, int]] = [{} for _ in layout.categories]
        self.inspected = 0
        self.unexpected: dict[str, int] = {}
        self.stream = StreamFacts()

    @property
    def n(self) -> int:
        """All rows."""
        return int(self.rows[0])

    def update(self, batch: ColumnBatch, blocks: Collection[int] | None = None) -> None:
        """Count a batch; only in some blocks of the layout where the others hold it already.

        Cost: about 15 ns per value, and as much again per segmentation.
        """
        if blocks is None:
            category_cells = self._count(batch)
        else:
            added = Profile(self.layout)
            category_cells = added._count(batch)
            for block in blocks:
                self._add_segments(added, self.layout.blocks[block])
        if blocks is None or 0 in blocks:
            self._update_unseen(batch, category_cells)
            self.inspected += batch.inspected
            self._add_unexpected(batch.unexpected or {})

    def _count(self, batch: ColumnBatch) -> Int:
        """Count what is counted by segment; return the cells of the categories."""
        layout = self.layout
        self.rows[0] += batch.n
        if not layout.segmentations:
            category_cells = layout.category_cells(batch)
            self.counts[0] += layout.count_numbers(batch)
            self.counts[0] += np.bincount(category_cells.ravel(), minlength=layout.n_cells)
            self._add_moments(batch)
            return category_cells
        cells = layout.cells(batch)
        self.counts[0] += np.bincount(cells.ravel(), minlength=layout.n_cells)
        for i, segment in enumerate(layout.segment_rows(batch, cells)):
            self.rows += np.bincount(segment, minlength=len(self.rows))
            np.add.at(self.counts.ravel(), (segment * layout.n_cells + cells).ravel(), 1)
            self._add_moments(batch, segment, with_all=i == 0)
        return cells[len(layout.numbers) :]

    def _add_moments(self, batch: ColumnBatch, segment: Int | None = None, *, with_all: bool = False) -> None:
        """Take sums and extremes of the numbers in, by segment of each row; with_all: those of all rows too."""
        if not self.layout.numbers or not batch.n:
            return
        order: Int | slice = slice(None)
        touched = starts = np.zeros(1, np.int64)
        if segment is not None:
            order = np.argsort(segment, kind="stable")
            touched, starts = np.unique(segment[order], return_index=True)
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

    def _update_unseen(self, batch: ColumnBatch, cells: Int) -> None:
        for i, (position, _) in enumerate(self.layout.categories):
            at = np.flatnonzero(cells[i] == self.layout.special_cell(position, Special.NEVER_SEEN))
            if not len(at):
                continue
            found: dict[int, int] = {}
            column = batch.categories[i]
            for row in at.tolist():
                key = bounded.key_hash(canonical(column[row]))
                found[key] = found.get(key, 0) + 1
            self.unseen[i] = bounded.merged((self.unseen[i], found))

    def _add_unexpected(self, names: dict[str, int]) -> None:
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
        self.unseen = [bounded.merged(pair) for pair in zip(self.unseen, other.unseen, strict=True)]
        self.inspected += other.inspected
        self._add_unexpected(other.unexpected)
        self.stream.merge(other.stream)

    def _add_segments(self, other: Profile, segments: slice) -> None:
        self.rows[segments] += other.rows[segments]
        self.counts[segments] += other.counts[segments]
        self.sums[segments] += other.sums[segments]
        self.minimum[segments] = np.minimum(self.minimum[segments], other.minimum[segments])
        self.maximum[segments] = np.maximum(self.maximum[segments], other.maximum[segments])

    def summary(self, name: str, segment: int = 0) -> FeatureSummary:
        """Return what was counted of one feature. Raises KeyError for a name outside the layout."""
        position = self.layout.index[name]
        feature = self.layout.features[position]
        start = self.layout.offsets[position]
        counts = self.counts[segment]

        def special(kind: Special) -> int:
            return int(counts[start + kind - 1])

        values = counts[self.layout.value_slice(position)]
        never_seen = special(Special.NEVER_SEEN)
        n = int(values.sum()) + never_seen
        mean = std = low = high = None
        if isinstance(feature, NumberFeature) and n:
            row = next(r for r, (p, _) in enumerate(self.layout.numbers) if p == position)
            first, second = self.sums[segment, row].tolist()
            mean, std = mean_std(n, first, second, feature.centre, feature.exponent)
            low, high = float(self.minimum[segment, row]), float(self.maximum[segment, row])
        return FeatureSummary(
            n=n,
            missing=special(Special.MISSING) + special(Special.ABSENT),
            absent=special(Special.ABSENT),
            nan=special(Special.NAN),
            infinite=special(Special.POS_INF) + special(Special.NEG_INF),
            wrong_type=special(Special.WRONG_TYPE),
            never_seen=never_seen,
            values=values,
            mean=mean,
            std=std,
            minimum=low,
            maximum=high,
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
            counts=varint.encode(self.counts[segments].ravel()),
            sums=[_int_bytes(value) for value in self.sums[segments].ravel().tolist()],
            minimum=self.minimum[segments].astype("<f8").tobytes(),
            maximum=self.maximum[segments].astype("<f8").tobytes(),
            unseen=self.unseen if is_first else [],
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
        wire = _unpack(data)
        if wire.layout.hex() != self.layout.sha256:
            raise StateMismatch(f"a profile of layout {wire.layout.hex()[:12]} was read with {self.layout.sha256[:12]}")
        n_cells, n_numbers = self.counts.shape[1], self.minimum.shape[1]
        n = sum(byte < 0x80 for byte in wire.rows)
        at = slice(wire.first, wire.first + n)
        self.rows[at] += varint.decode(wire.rows, n)
        self.counts[at] += varint.decode(wire.counts, n * n_cells).reshape(n, n_cells)
        sums = [int.from_bytes(value, "little", signed=True) for value in wire.sums]
        self.sums[at] += np.array(sums, object).reshape(n, n_numbers, 2)
        minimum, maximum = (np.frombuffer(part, "<f8").reshape(n, n_numbers) for part in (wire.minimum, wire.maximum))
        self.minimum[at] = np.minimum(self.minimum[at], minimum)
        self.maximum[at] = np.maximum(self.maximum[at], maximum)
        if wire.first == 0:
            self.unseen = [bounded.merged(pair) for pair in zip(self.unseen, wire.unseen, strict=True)]
            self.inspected += wire.inspected
            self._add_unexpected(wire.unexpected)
            self.stream.merge(StreamFacts.from_wire(wire.stream))


def _unpack(data: bytes) -> _Wire:
    version = data[0]
    if version not in _KNOWN_VERSIONS:
        raise UnknownCodec("a profile", version, _KNOWN_VERSIONS)
    packed = bytes(cramjam.zstd.decompress(data[1:]))
    return _decode(packed) if version == CODEC_VERSION else _decode_v1(packed).upgraded()


def merge_all(profiles: Sequence[Profile], layout: Layout) -> Profile:
    """Return the merge of any number of profiles of one layout; of none, an empty one."""
    total = Profile(layout)
    for profile in profiles:
        total.merge(profile)
    return total


def _int_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
