"""A profile: everything counted about a set of rows. A window's and a reference's are the same thing.

Merging is addition, minimum and maximum of integers and extremes: associative, commutative, exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cramjam
import msgspec
import numpy as np

from monitor.columns import ColumnBatch, Float, Int, Special
from monitor.errors import StateMismatch, UnknownCodec
from monitor.layout import CategoryFeature, Layout, NumberFeature, canonical
from monitor.sketches import bounded, varint
from monitor.sketches.moments import exact_sums_by_row, mean_std

CODEC_VERSION = 1
N_SEGMENTS = 1
"""Rows of the segment axis; 0 is all traffic."""


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
    """Categories that the reference does not have; fractional values of a number that was whole in the reference."""
    values: Int
    """Counts of the value cells, shape (n_values,)."""
    mean: float | None
    std: float | None
    minimum: float | None
    maximum: float | None


class _Wire(msgspec.Struct, array_like=True):
    """What is stored, packed by zstd behind the version byte."""

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
_decode = msgspec.msgpack.Decoder(_Wire).decode


class Profile:
    """Counts of rows under one layout.

    counts: (n_segments, n_cells) int64. rows: (n_segments,) int64.
    sums: per segment and number feature (Σq, Σq²), integers of any size.
    minimum, maximum: (n_segments, n_numbers) float64, ±inf where nothing was counted.
    unseen: per category feature, never-seen values by hash, the `bounded.DEFAULT_BOUND` smallest (all rows only).
    unexpected: rows by name of a feature outside the layout, out of `inspected` rows, likewise bounded.
    """

    __slots__ = ("counts", "inspected", "layout", "maximum", "minimum", "rows", "sums", "unexpected", "unseen")

    def __init__(self, layout: Layout) -> None:
        n_numbers = len(layout.numbers)
        self.layout = layout
        self.rows: Int = np.zeros(N_SEGMENTS, np.int64)
        self.counts: Int = np.zeros((N_SEGMENTS, layout.n_cells), np.int64)
        self.sums: list[tuple[int, int]] = [(0, 0)] * (N_SEGMENTS * n_numbers)
        self.minimum: Float = np.full((N_SEGMENTS, n_numbers), np.inf)
        self.maximum: Float = np.full((N_SEGMENTS, n_numbers), -np.inf)
        self.unseen: list[dict[int, int]] = [{} for _ in layout.categories]
        self.inspected = 0
        self.unexpected: dict[str, int] = {}

    @property
    def n(self) -> int:
        """All rows."""
        return int(self.rows[0])

    def update(self, batch: ColumnBatch) -> None:
        """Count a batch. Cost: about 15 ns per value."""
        self.rows[0] += batch.n
        if batch.inspected:
            self.inspected += batch.inspected
            self._add_unexpected(batch.unexpected or {})
        if not self.layout.features:
            return
        self.counts[0] += self.layout.count_numbers(batch)
        for cell, rows in self.layout.fractional(batch):
            self.counts[0, cell] += np.count_nonzero(rows)
        self._update_numbers(batch)
        if self.layout.categories:
            cells = self.layout.category_cells(batch)
            self.counts[0] += np.bincount(cells.ravel(), minlength=self.layout.n_cells)
            self._update_unseen(batch, cells)

    def _update_numbers(self, batch: ColumnBatch) -> None:
        if not self.layout.numbers or not batch.n:
            return
        centres, exponents = self.layout.grid
        added = exact_sums_by_row(batch.numbers_or(centres[:, np.newaxis]), centres, exponents)  # the centre adds zero
        self.sums = [(a + c, b + d) for (a, b), (c, d) in zip(self.sums, added, strict=True)]
        self.minimum[0] = np.minimum(self.minimum[0], batch.numbers_or(np.inf).min(axis=1) + 0.0)
        self.maximum[0] = np.maximum(self.maximum[0], batch.numbers_or(-np.inf).max(axis=1) + 0.0)

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
        self.rows += other.rows
        self.counts += other.counts
        self.sums = [(a + c, b + d) for (a, b), (c, d) in zip(self.sums, other.sums, strict=True)]
        np.minimum(self.minimum, other.minimum, out=self.minimum)
        np.maximum(self.maximum, other.maximum, out=self.maximum)
        self.unseen = [bounded.merged(pair) for pair in zip(self.unseen, other.unseen, strict=True)]
        self.inspected += other.inspected
        self._add_unexpected(other.unexpected)

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
        n = int(values.sum())
        if isinstance(feature, CategoryFeature):
            n += never_seen  # of a number they lie in value cells too
        mean = std = low = high = None
        if isinstance(feature, NumberFeature) and n:
            row = next(r for r, (p, _) in enumerate(self.layout.numbers) if p == position)
            first, second = self.sums[segment * len(self.layout.numbers) + row]
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
        """Return version byte + zstd of msgpack; equal content gives equal bytes."""
        wire = _Wire(
            layout=bytes.fromhex(self.layout.sha256),
            rows=varint.encode(self.rows),
            counts=varint.encode(self.counts.ravel()),
            sums=[(_int_bytes(a), _int_bytes(b)) for a, b in self.sums],
            minimum=self.minimum.astype("<f8").tobytes(),
            maximum=self.maximum.astype("<f8").tobytes(),
            unseen=self.unseen,
            inspected=self.inspected,
            unexpected=dict(sorted(self.unexpected.items())),
        )
        return bytes([CODEC_VERSION]) + bytes(cramjam.zstd.compress(_encode(wire), level=3))

    @classmethod
    def from_bytes(cls, data: bytes, layout: Layout) -> Profile:
        """Read what `to_bytes` wrote. Raises UnknownCodec for another version, StateMismatch for another layout."""
        if data[0] != CODEC_VERSION:
            raise UnknownCodec("a profile", data[0], [CODEC_VERSION])
        wire = _decode(bytes(cramjam.zstd.decompress(data[1:])))
        if wire.layout.hex() != layout.sha256:
            raise StateMismatch(f"a profile of layout {wire.layout.hex()[:12]} was read with {layout.sha256[:12]}")
        profile = cls(layout)
        profile.rows = varint.decode(wire.rows, N_SEGMENTS)
        profile.counts = varint.decode(wire.counts, N_SEGMENTS * layout.n_cells).reshape(N_SEGMENTS, -1)
        profile.sums = [(int.from_bytes(a, "little", signed=True), int.from_bytes(b, "little")) for a, b in wire.sums]
        shape = (N_SEGMENTS, len(layout.numbers))
        profile.minimum = np.frombuffer(wire.minimum, "<f8").astype(np.float64).reshape(shape)
        profile.maximum = np.frombuffer(wire.maximum, "<f8").astype(np.float64).reshape(shape)
        profile.unseen = wire.unseen
        profile.inspected = wire.inspected
        profile.unexpected = wire.unexpected
        return profile


def merge_all(profiles: Sequence[Profile], layout: Layout) -> Profile:
    """Return the merge of any number of profiles of one layout; of none, an empty one."""
    total = Profile(layout)
    for profile in profiles:
        total.merge(profile)
    return total


def _int_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
