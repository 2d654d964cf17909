"""Numbers of one column in a temporary file: exact order statistics and counts of a file of any size, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monitor.columns import Float, Int

SORT_BYTES = 256 << 20
"""A column up to this size is sorted in memory; a larger one is searched in passes over its file."""

CHUNK = 1 << 20
_DIGIT_BITS = 16
_DIGITS = 1 << _DIGIT_BITS
_SIGN = np.uint64(1 << 63)


class Spool:
    """n finite float64 in a file, in any order; −0.0 counts as 0.0."""

    def __init__(self, path: Path, sort_bytes: int = SORT_BYTES) -> None:
        self._path = path
        self._size = path.stat().st_size if path.exists() else 0
        self._sort_bytes = sort_bytes
        self.n = self._size // 8

    @cached_property
    def _sorted(self) -> Float | None:
        if self._size > self._sort_bytes:
            return None
        values = np.fromfile(self._path, np.float64)
        values += 0.0
        values.sort()
        return values

    def chunks(self) -> Iterator[Float]:
        """Yield all values in pieces; in what order is not said."""
        if self._sorted is not None:
            yield self._sorted
            return
        with self._path.open("rb") as file:
            while len(chunk := np.fromfile(file, np.float64, CHUNK)):
                chunk += 0.0
                yield chunk

    def at(self, ranks: Sequence[int]) -> Float:
        """Return the exact values at 0-based ranks of the sorted column, shape (len(ranks),).

        Beyond `SORT_BYTES`: a radix search over the order-preserving integers, four passes of 16 bits for all ranks together.
        """
        if self._sorted is not None:
            return self._sorted[np.asarray(ranks, np.int64)]
        prefixes = np.zeros(len(ranks), np.uint64)
        rests = np.asarray(ranks, np.int64).copy()
        for depth in range(64 // _DIGIT_BITS):
            heads = np.unique(prefixes)
            for head, counts in zip(heads, self._digit_counts(heads, depth), strict=True):
                of = prefixes == head
                upto = np.cumsum(counts)
                digits = np.searchsorted(upto, rests[of], side="right")
                rests[of] -= upto[digits] - counts[digits]
                prefixes[of] = (head << np.uint64(_DIGIT_BITS)) | digits.astype(np.uint64)
        return np.where(prefixes & _SIGN, prefixes ^ _SIGN, ~prefixes).view(np.float64)

    def _digit_counts(self, heads: npt.NDArray[np.uint64], depth: int) -> Int:
        """Count, of the values whose first `depth` digits are a head, the next digit; shape (len(heads), 2^16)."""
        counts = np.zeros(len(heads) * _DIGITS, np.int64)
        shift = np.uint64(64 - _DIGIT_BITS * (depth + 1))
        for chunk in self.chunks():
            bits = chunk.view(np.uint64)
            keys = np.where(bits & _SIGN, ~bits, bits | _SIGN) >> shift
            if depth:
                prefix = keys >> np.uint64(_DIGIT_BITS)
                place = np.searchsorted(heads, prefix)
                place[place == len(heads)] = 0
                mine = heads[place] == prefix
                keys, place = keys[mine], place[mine]
            else:
                place = np.zeros(len(keys), np.int64)
            counts += np.bincount(place * _DIGITS + (keys & np.uint64(_DIGITS - 1)).astype(np.int64), minlength=len(counts))
        return counts.reshape(len(heads), _DIGITS)

    def counts_of(self, values: Float) -> Int:
        """Return how often each of some distinct, increasing values occurs."""
        if self._sorted is not None:
            return np.searchsorted(self._sorted, values, "right") - np.searchsorted(self._sorted, values, "left")
        counts = np.zeros(len(values), np.int64)
        for chunk in self.chunks():
            place = np.searchsorted(values, chunk)
            place[place == len(values)] = 0
            counts += np.bincount(place[values[place] == chunk], minlength=len(values))
        return counts

    def successors(self, values: Float) -> Float:
        """Return the smallest value above each of some distinct, increasing values of the column; inf where there is none."""
        if self._sorted is not None:
            place = np.searchsorted(self._sorted, values, "right")
            return np.where(place < self.n, self._sorted[np.minimum(place, self.n - 1)], np.inf)
        if not len(values):
            return values
        above = np.append(values[1:], np.inf)
        for chunk in self.chunks():
            place = np.searchsorted(values, chunk) - 1
            is_beside = (place >= 0) & (chunk < above[place])
            np.minimum.at(above, place[is_beside], chunk[is_beside])
        return above
