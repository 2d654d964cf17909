"""Outcomes of one model version as counts and exact sums, by segment: merging is addition, so any split and order gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cramjam
import numpy as np
import numpy.typing as npt

from monitor.columns import Float, Int, Objects, by_place
from monitor.errors import UnknownCodec
from monitor.performance.numbers import N_SUMS, far_rows, group_sums
from monitor.performance.rows import Placed, Rows, place_labelled, place_made
from monitor.performance.spec import PerformanceSpec
from monitor.sketches import varint

CODEC_VERSION = 1
_PLAIN, _PACKED = 0, 1
_PACK_ABOVE = 512
_PENDING = 1 << 14
_DENSE_FROM = 8
"""Sorting a key costs about as much as going over so many cells."""
_MAX_ROWS = 1 << 16  # weights are below 2^33: their sums over such a batch are exact in a double


class OutcomeCells:
    """Counts of every segment of a specification; most are 0, and only the others are kept.

    keys: rising segment · n_cells + cell, values: their counts, none of them 0; (k,) int64 each. Differences may be negative: a row is
    taken back by adding it with sign −1. Cost: about 1 µs a row and segment in batches of 1,000; 16 bytes per occupied cell.
    """

    __slots__ = ("_keys", "_pending", "_pending_size", "_sums", "_values", "spec")

    def __init__(self, spec: PerformanceSpec) -> None:
        self.spec = spec
        self._keys: Int = np.zeros(0, np.int64)
        self._values: Int = np.zeros(0, np.int64)
        self._pending: list[tuple[Int, Int]] = []
        self._pending_size = 0
        self._sums: dict[int, Objects] = {}
        """segment → (N_SUMS, 2) integers, of a regression"""

    def add_made(self, rows: Rows, sign: int = 1) -> None:
        """Count predictions, labelled or not; sign −1 takes them back."""
        for part in _parts(rows):
            self._add_placed(place_made(self.spec, part.rows), part.rows, sign)

    def add_labelled(self, rows: Rows, labels: npt.NDArray[np.integer] | Float, lag_ms: Int, sign: int = 1) -> None:
        """Count labels of predictions, besides `add_made` of the same rows.

        labels: (n,) codes or float64, as `PerformanceSpec.outcomes` has them. lag_ms: (n,) int64, label time − prediction time.
        """
        for part in _parts(rows):
            mine = np.asarray(labels)[part.start : part.end]
            lags = np.asarray(lag_ms, np.int64)[part.start : part.end]
            self._add_placed(place_labelled(self.spec, part.rows, mine, lags), part.rows, sign)
            if self.spec.task == "regression":
                self._add_numbers(part.rows, mine, sign)

    def add(self, other: OutcomeCells) -> None:
        """Add another one's counts, of the same specification."""
        if other.spec.reference != self.spec.reference:
            raise ValueError(f"outcomes of reference {other.spec.reference[:12]} and {self.spec.reference[:12]} do not add up")
        self._append(*other._settled())
        for segment, sums in other._sums.items():
            self._add_sums(segment, sums)

    @property
    def is_zero(self) -> bool:
        """Whether nothing is counted, or all of it was taken back."""
        return not len(self._settled()[0]) and not any(sums.any() for sums in self._sums.values())

    @property
    def held_bytes(self) -> int:
        """Memory that the counts take."""
        return 16 * (len(self._keys) + self._pending_size)

    def segments(self) -> list[int]:
        """Return the segments in which anything is counted, rising."""
        keys = self._settled()[0]
        return sorted({*np.unique(keys // self.spec.n_cells).tolist(), *(s for s, sums in self._sums.items() if sums.any())})

    def vector(self, segment: int) -> Int:
        """Return a segment's counts, (n_cells,) int64; `PerformanceSpec.blocks` names them."""
        keys, values = self._settled()
        start = segment * self.spec.n_cells
        low, high = np.searchsorted(keys, (start, start + self.spec.n_cells)).tolist()
        found = np.zeros(self.spec.n_cells, np.int64)
        found[keys[low:high] - start] = values[low:high]
        return found

    def block(self, name: str, segment: int = 0) -> Int:
        """Return one block of a segment's counts; empty where the specification has none of that name."""
        where = self.spec.blocks.get(name)
        return np.zeros(0, np.int64) if where is None else self.vector(segment)[where]

    def sums(self, segment: int = 0) -> Objects:
        """Return a regression's sums of a segment, (N_SUMS, 2) Python integers."""
        found = self._sums.get(segment)
        return np.zeros((N_SUMS, 2), object) if found is None else found

    def n_made(self, segment: int = 0) -> int:
        """Return how many predictions were made."""
        return int(self.block("made", segment).sum())

    def n_labelled(self, segment: int = 0) -> int:
        """Return how many of them have a label."""
        return int(self.block("lag", segment).sum())

    def to_bytes(self) -> bytes:
        """Return the same bytes for the same counts."""
        return self._encoded(*self._settled(), sorted(s for s, sums in self._sums.items() if sums.any()))

    def chunks(self, max_bytes: int) -> list[bytes]:
        """Return parts that add up to the whole, each about `max_bytes` at the most; one where that is enough."""
        whole = self.to_bytes()
        n = -(-len(whole) // max_bytes)
        if n <= 1:
            return [whole]
        keys, values = self._settled()
        size = -(-len(keys) // n)
        parts = [(keys[at : at + size], values[at : at + size]) for at in range(0, len(keys), size)]
        with_sums = sorted(s for s, sums in self._sums.items() if sums.any())
        return [self._encoded(*part, with_sums if not i else []) for i, part in enumerate(parts)]

    def _encoded(self, keys: Int, values: Int, segments: list[int]) -> bytes:
        body = varint.encode(np.array([len(keys), len(segments)]))
        body += varint.encode(np.diff(keys, prepend=0)) + varint.encode((values << 1) ^ (values >> 63))
        for segment in segments:
            body += varint.encode(np.array([segment]))
            for number in self._sums[segment].ravel().tolist():
                raw = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
                body += varint.encode(np.array([len(raw)])) + raw
        if len(body) <= _PACK_ABOVE:
            return bytes([CODEC_VERSION, _PLAIN]) + body
        return bytes([CODEC_VERSION, _PACKED]) + bytes(cramjam.zstd.compress(body, level=3))

    @classmethod
    def from_bytes(cls, spec: PerformanceSpec, data: bytes) -> OutcomeCells:
        """Read what `to_bytes` wrote for the same specification. Raises UnknownCodec, ValueError."""
        if not data or data[0] != CODEC_VERSION:
            raise UnknownCodec("outcome cells", data[0] if data else 0, (CODEC_VERSION,))
        try:
            body = data[2:] if data[1] == _PLAIN else bytes(cramjam.zstd.decompress(data[2:]))
        except cramjam.DecompressionError as error:
            raise ValueError(f"outcome cells: {error}") from error
        found = cls(spec)
        reader = _Reader(body)
        n, n_sums = reader.varints(2).tolist()
        steps = reader.varints(n)
        if not steps[1:].all():
            raise ValueError("outcome cells twice")
        found._keys = np.cumsum(steps)
        zigzag = reader.varints(n)
        found._values = (zigzag >> 1) ^ -(zigzag & 1)
        if n and int(found._keys[-1]) >= len(spec.segments) * spec.n_cells:
            raise ValueError("outcome cells beyond their specification")
        for _ in range(n_sums):
            segment = int(reader.varints(1)[0])
            numbers = [int.from_bytes(reader.raw(int(reader.varints(1)[0])), "little", signed=True) for _ in range(2 * N_SUMS)]
            found._sums[segment] = np.array(numbers, object).reshape(N_SUMS, 2)
        return found

    def _add_placed(self, placed: Placed, rows: Rows, sign: int) -> None:
        row, segment = rows.segments
        cells = placed.cells[:, row]
        keys = np.where(cells >= 0, cells + segment * self.spec.n_cells, -1).ravel()
        self._append(*_summed(keys, placed.weights[:, row].ravel(), len(self.spec.segments) * self.spec.n_cells, sign))

    def _add_numbers(self, rows: Rows, labels: npt.NDArray[np.integer] | Float, sign: int) -> None:
        labels = np.asarray(labels, np.float64)
        predicted = np.asarray(rows.predicted, np.float64)
        row, segment = rows.segments
        both = (np.isfinite(labels) & np.isfinite(predicted))[row]
        row, segment = row[both], segment[both]
        if not len(row):
            return
        order, names, starts = by_place(segment)
        row, segment = row[order], segment[order]
        mine = labels[row], predicted[row]
        sums = group_sums(self.spec, *mine, starts)
        far = far_rows(self.spec, mine[0], mine[0] - mine[1])
        for block, mask in (("far", far), ("nonzero", mine[0] != 0)):
            keys = np.where(mask, self.spec.blocks[block].start + segment * self.spec.n_cells, -1)
            self._append(*_summed(keys, np.ones(len(keys), np.int64), len(self.spec.segments) * self.spec.n_cells, sign))
        for name, one in zip(names.tolist(), sums, strict=True):
            self._add_sums(name, one * sign)

    def _add_sums(self, segment: int, sums: Objects) -> None:
        held = self._sums.get(segment)
        self._sums[segment] = sums if held is None else held + sums

    def _append(self, keys: Int, values: Int) -> None:
        if len(keys):
            self._pending.append((keys, values))
            self._pending_size += len(keys)
            if self._pending_size > max(_PENDING, len(self._keys)):
                self._settled()

    def _settled(self) -> tuple[Int, Int]:
        """Return all counts, with what was added since taken in."""
        if self._pending:
            parts = [(self._keys, self._values), *self._pending]
            self._pending, self._pending_size = [], 0
            n_keys = len(self.spec.segments) * self.spec.n_cells
            if sum(len(keys) for keys, _ in parts) * _DENSE_FROM < n_keys:
                keys, values = (np.concatenate(columns) for columns in zip(*parts, strict=True))
                self._keys, self._values = _sorted_sums(keys, values)
            else:
                total = np.zeros(n_keys, np.int64)
                for keys, values in parts:  # each key once in each part
                    total[keys] += values
                self._keys = np.flatnonzero(total != 0)
                self._values = total[self._keys]
        return self._keys, self._values


class _Part(NamedTuple):
    """Some rows in a row."""

    start: int
    end: int
    rows: Rows


def _parts(rows: Rows) -> Iterator[_Part]:
    if rows.n <= _MAX_ROWS:
        yield _Part(0, rows.n, rows)
        return
    row, segment = rows.segments
    for start in range(0, rows.n, _MAX_ROWS):
        end = min(start + _MAX_ROWS, rows.n)
        mine = (row >= start) & (row < end)
        part = Rows(rows.predicted[start:end], rows.scores[start:end], (row[mine] - start, segment[mine]))
        yield _Part(start, end, part)


def _summed(keys: Int, weights: Int, n_keys: int, sign: int) -> tuple[Int, Int]:
    """Return distinct keys, rising, and the sums of their weights; keys of −1 are left out."""
    kept = keys >= 0
    if not kept.all():
        keys, weights = keys[kept], weights[kept]
    if len(keys) * _DENSE_FROM < n_keys:
        found, sums = _sorted_sums(keys, weights)
    else:
        totals = np.bincount(keys, weights=weights, minlength=1)
        found = np.flatnonzero(totals != 0)  # of booleans it is three times as fast
        sums = totals[found].astype(np.int64)
    return found, sums * sign


def _sorted_sums(keys: Int, values: Int) -> tuple[Int, Int]:
    if not len(keys):
        return keys, values
    order = np.argsort(keys)
    keys = keys[order]
    first = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    sums = np.add.reduceat(values[order], first)
    kept = sums != 0
    return keys[first][kept], sums[kept]


class _Reader:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def varints(self, n: int) -> Int:
        if not n:
            return np.zeros(0, np.int64)
        ends = np.flatnonzero(np.frombuffer(self._body, np.uint8, offset=self._at) < 0x80) if n > 1 else None
        if ends is None:
            end = self._at
            while self._body[end] >= 0x80:
                end += 1
        elif len(ends) < n:
            raise ValueError("outcome cells end early")
        else:
            end = self._at + int(ends[n - 1])
        found = varint.decode(self._body[self._at : end + 1], n)
        self._at = end + 1
        return found

    def raw(self, n: int) -> bytes:
        found = self._body[self._at : self._at + n]
        if len(found) < n:
            raise ValueError("outcome cells end early")
        self._at += n
        return found
