"""Ids that were counted already: an event with one of them is a duplicate, for as long as a window could count it a second time.

Kept are 64-bit hashes of model and id, in buckets of the partition's clock. Which bucket an id is in, and which ones a row is compared with,
depends on the clock at the row's own offset alone, so what is a duplicate is a function of the log, however it is fetched. A bucket is
stored as the hashes in the order of the log, cut into rows: a row is a function of its `hi`, and one that a crash left ahead of meta is cut
off at the number of hashes that meta knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np

from monitor.columns import Bool, Codes, DecodedBatch, Int
from monitor.errors import StateMismatch
from monitor.formats import Format
from monitor.hash_key import Hashes, HashKey
from monitor.stages.ingest.meta import IngestMeta
from monitor.stages.rows import OPEN, Stored, Versions, key_parts, row_key
from monitor.stages.settings import Settings
from monitor.windows import NEVER_MS

BUCKETS = 4
"""An id is remembered for that many whole buckets: for what it has to be, and at most a quarter longer."""
ROW_IDS = 2_048
"""Hashes in a row, 16 KiB: the last row of a bucket is written again with every checkpoint, the others once."""
FILTERED = 4_096
"""A shorter run is searched as fast without its bits."""

_KIND = "ids"
_WIRE = np.dtype("<u8")
_NONE = np.zeros(0, np.uint64)


class _Run:
    """Sorted hashes. A longer run has eight bits for each, by the hashes' own first bits: seven of eight that are not here stop there.

    Cost: 9 bytes a hash; 0.05 µs to look one up among millions, where a binary search alone takes 0.2.
    """

    __slots__ = ("_bits", "_shift", "hashes")

    def __init__(self, hashes: Hashes) -> None:
        self.hashes = hashes
        n_bits = len(hashes).bit_length() + 3
        self._shift = np.uint64(64 - n_bits)
        self._bits: Codes | None = None
        if len(hashes) >= FILTERED:
            is_set = np.zeros(1 << n_bits, bool)
            is_set[hashes >> self._shift] = True
            self._bits = np.packbits(is_set, bitorder="little")

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.hashes.nbytes + (self._bits.nbytes if self._bits is not None else 0)

    def has(self, ordered: Hashes) -> Bool:
        """Return which of some sorted hashes are here; shape (n,)."""
        found = np.zeros(len(ordered), bool)
        at = np.arange(len(ordered))
        if self._bits is not None:
            first = (ordered >> self._shift).astype(np.int64)
            at = np.flatnonzero(self._bits[first >> 3] >> (first & 7).astype(np.uint8) & 1)
        places = np.searchsorted(self.hashes, ordered[at])
        places[places == len(self.hashes)] = 0
        found[at] = self.hashes[places] == ordered[at]
        return found


class Bucket:
    """Hashes that came while the clock was in [start_ms, start_ms + size_ms), each once.

    runs: each at least four times as long as the one behind it. hi: offset of the last one. is_dirty: the store has not all of them.
    """

    def __init__(self, start_ms: int, size_ms: int, hashes: Hashes = _NONE, hi: int = -1) -> None:
        self.start_ms = start_ms
        self.end_ms = start_ms + size_ms
        self.runs: list[_Run] = [_Run(np.sort(hashes))] if len(hashes) else []
        self.n = len(hashes)
        self.hi = hi
        self.is_dirty = False
        self._n_stored = len(hashes) // ROW_IDS * ROW_IDS
        self._behind: list[Hashes] = [hashes[self._n_stored :]]
        """In the order of the log, from the first one on that is not in a full row of the store."""

    def has(self, ordered: Hashes) -> Bool:
        """Return which of some sorted hashes are here; shape (n,)."""
        found = np.zeros(len(ordered), bool)
        for run in self.runs:
            found |= run.has(ordered)
        return found

    def add(self, hashes: Hashes, hi: int) -> None:
        """Add hashes that are not here, in the order of the log."""
        run = np.sort(hashes)
        while self.runs and len(self.runs[-1]) < 4 * len(run):
            run = np.sort(np.concatenate((self.runs.pop().hashes, run)), kind="stable")  # merges what is sorted
        self.runs.append(_Run(run))
        self._behind.append(hashes)
        self.n += len(hashes)
        self.hi = hi
        self.is_dirty = True

    def close(self) -> None:
        """Nothing is added any more: one run is looked up faster than many."""
        if len(self.runs) > 1:
            self.runs = [_Run(np.sort(np.concatenate([run.hashes for run in self.runs]), kind="stable"))]

    def new_rows(self, bound_ms: int) -> Iterator[tuple[bytes, int, int, bytes]]:
        """Yield the rows (key, state, hi, payload) that the store has not as they are here."""
        behind = np.concatenate(self._behind)
        for at in range(0, len(behind), ROW_IDS):
            key = ids_key(bound_ms, self.start_ms, self.end_ms - self.start_ms, (self._n_stored + at) // ROW_IDS)
            yield key, OPEN, self.hi, behind[at : at + ROW_IDS].astype(_WIRE).tobytes()
        full = len(behind) // ROW_IDS * ROW_IDS
        self._n_stored += full
        self._behind = [behind[full:].copy()]
        self.is_dirty = False

    def keys(self, bound_ms: int) -> list[bytes]:
        """Return the keys of all its rows."""
        n_rows = -(-self.n // ROW_IDS)
        return [ids_key(bound_ms, self.start_ms, self.end_ms - self.start_ms, row) for row in range(n_rows)]


class SeenIds:
    """The ids of models that remember them for `bound_ms`."""

    def __init__(self, bound_ms: int) -> None:
        self.bound_ms = bound_ms
        self.size_ms = -(-bound_ms // BUCKETS)
        self.buckets: list[Bucket] = []

    def take(self, hashes: Hashes, marks: Int, is_counted: Bool) -> Bool:
        """Remember the ids of rows that are counted; return which rows repeat one that was, shape (n,).

        marks: offset and clock of each row, both rising, shape (2, n).
        """
        offsets, clock = marks
        starts = clock // self.size_ms * self.size_ms
        borders = [0, *(np.flatnonzero(starts[1:] != starts[:-1]) + 1).tolist(), len(starts)]
        repeats = np.zeros(len(hashes), bool)
        for begin, end in pairwise(borders):
            part = slice(begin, end)
            repeats[part] = self._take(hashes[part], offsets[part], int(starts[begin]), is_counted[part])
        return repeats

    def _take(self, hashes: Hashes, offsets: Int, start_ms: int, is_counted: Bool) -> Bool:
        """Do so for rows of one bucket."""
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        seen = np.zeros(len(order), bool)
        for bucket in self.buckets:
            if not self.is_over(bucket.end_ms, start_ms):
                seen |= bucket.has(ordered)
        places = np.arange(len(order))
        candidates = np.where(is_counted[order] & ~seen, places, len(order))
        is_first = np.concatenate(([True], ordered[1:] != ordered[:-1]))
        first = np.minimum.reduceat(candidates, np.flatnonzero(is_first))[np.cumsum(is_first) - 1]
        new = np.sort(order[places == first])
        if len(new):
            if not self.buckets or self.buckets[-1].start_ms < start_ms:
                if self.buckets:
                    self.buckets[-1].close()
                self.buckets.append(Bucket(start_ms, self.size_ms))
            self.buckets[-1].add(hashes[new], int(offsets[new[-1]]))
        repeats = np.empty(len(order), bool)
        repeats[order] = seen | (places > first)
        return repeats

    def has(self, hashes: Hashes, clock_ms: Int) -> Bool:
        """Return which ids are remembered, each at the clock beside it; shape (n,)."""
        order = np.argsort(hashes, kind="stable")
        found = np.zeros(len(hashes), bool)
        for bucket in self.buckets:
            lasts = bucket.end_ms > clock_ms // self.size_ms * self.size_ms - BUCKETS * self.size_ms
            found[order] |= bucket.has(hashes[order]) & lasts[order]
        return found

    def is_over(self, end_ms: int, clock_ms: int) -> bool:
        """Whether a bucket that ends at `end_ms` is forgotten once the clock is at `clock_ms`."""
        return end_ms <= clock_ms // self.size_ms * self.size_ms - BUCKETS * self.size_ms

    def collect(self, clock_ms: int) -> list[bytes]:
        """Forget buckets that no later row is compared with; return the keys of their rows."""
        gone = [bucket for bucket in self.buckets if self.is_over(bucket.end_ms, clock_ms)]
        self.buckets = self.buckets[len(gone) :]
        return [key for bucket in gone for key in bucket.keys(self.bound_ms)]

    def load(self, rows: Mapping[tuple[int, int], Mapping[int, Stored]], mark: tuple[int, int]) -> None:
        """Take over stored rows, by (start, size) of the bucket and place in it. mark: start of the newest bucket, and its hashes."""
        for (start_ms, size_ms), by_place in sorted(rows.items()):
            if start_ms > mark[0]:
                break  # ahead of meta: reading on makes it again
            hashes = np.frombuffer(b"".join(by_place[place].payload for place in sorted(by_place)), _WIRE).astype(np.uint64)
            n = mark[1] if start_ms == mark[0] else len(hashes)
            if n > len(hashes) or size_ms != self.size_ms:
                raise StateMismatch(f"{len(hashes)} ids are stored where {n} were written")
            self.buckets.append(Bucket(start_ms, size_ms, hashes[:n], max(stored.hi for stored in by_place.values())))

    @property
    def mark(self) -> tuple[int, int]:
        """Start of the newest bucket, and how many hashes it has."""
        return (self.buckets[-1].start_ms, self.buckets[-1].n) if self.buckets else (NEVER_MS, 0)


class Deduplication:
    """Which rows of a partition are duplicates. meta: the owner's; its marks and its counts of rows without an id are changed in place."""

    def __init__(self, settings: Settings, wire: Format, hash_key: HashKey, meta: IngestMeta) -> None:
        self._wire = wire
        self._hash_key = hash_key
        self._meta = meta
        self._asked = {model.remember_ids_ms for model in (settings.defaults, *settings.models.values())} - {0}
        bounds = self._asked | meta.ids.keys() if self._asked else self._asked
        self._seen = {bound: SeenIds(bound) for bound in sorted(bounds)}

    def __len__(self) -> int:
        return sum(bucket.n for seen in self._seen.values() for bucket in seen.buckets)

    def load(self, versions: Versions) -> None:
        """Take over the ids of earlier owners; give up those that are remembered no longer, or not at all.

        Of a bucket that was collected an older version may be left, with fewer hashes than meta says, or a paused owner wrote one again.
        """
        rows: dict[int, dict[tuple[int, int], dict[int, Stored]]] = {bound: {} for bound in self._seen}
        for key in [key for key in versions.best if key.startswith(f"{_KIND}|".encode())]:
            bound, start, size, place = map(int, key_parts(key)[1:])
            if bound in rows and not self._seen[bound].is_over(start + size, self._meta.max_ts):
                rows[bound].setdefault((start, size), {})[place] = versions.best[key]
            else:
                versions.drop(key)
        for bound, seen in self._seen.items():
            seen.load(rows[bound], self._meta.ids.get(bound, (NEVER_MS, 0)))
        self._seen = {bound: seen for bound, seen in self._seen.items() if bound in self._asked or seen.buckets}
        self._meta.ids = {bound: mark for bound, mark in self._meta.ids.items() if bound in self._seen}

    def find(self, batch: DecodedBatch, rows: Int, bounds: Int, clock_ms: Int, is_counted: Bool) -> Bool | None:
        """Return which of the rows at some positions of a batch are duplicates; None where no model asks. Shape (n,) each.

        bounds: how long the ids of each row's model are remembered, ms; 0: not at all. clock_ms: the partition's clock at each row, as
        the log alone moves it. is_counted: whether the row would be counted.
        """
        asked = np.flatnonzero(bounds)
        if not len(asked):
            return None
        key_index = batch.key_index[rows]
        duplicates = np.zeros(len(rows), bool)
        ids = self._wire.ids(batch.payloads.take(rows[asked]))
        at = np.array([i for i, text in zip(asked.tolist(), ids, strict=True) if text], np.int64)
        if len(at) < len(asked):
            self._count_without(batch, key_index[np.setdiff1d(asked, at)])
        if not len(at):
            return duplicates
        prefixes = [f"{model}|" for model, _ in batch.keys]
        texts = [prefixes[key] + text for key, text in zip(key_index[at].tolist(), filter(None, ids), strict=True)]
        hashes = self._hash_key.hashes(texts)
        for bound, seen in self._seen.items():
            mine = np.flatnonzero(bounds[at] == bound)
            if len(mine):
                of = at[mine]
                marks = np.stack((batch.offsets[rows[of]], clock_ms[of]))
                known = self._elsewhere(hashes[mine], marks[1], bound)
                duplicates[of] = seen.take(hashes[mine], marks, is_counted[of] & ~known) | known
                self._meta.ids[bound] = seen.mark
        return duplicates

    def _elsewhere(self, hashes: Hashes, clock_ms: Int, bound_ms: int) -> Bool:
        """Return which ids are remembered for another time than theirs, shape (n,): their model's was another one."""
        known = np.zeros(len(hashes), bool)
        for bound, seen in self._seen.items():
            if bound != bound_ms:
                known |= seen.has(hashes, clock_ms)
        return known

    def _count_without(self, batch: DecodedBatch, keys: Int) -> None:
        for key, n in zip(*(found.tolist() for found in np.unique(keys, return_counts=True)), strict=True):
            model = batch.keys[key][0]
            self._meta.without_id[model] = self._meta.without_id.get(model, 0) + n

    def collect(self) -> list[bytes]:
        """Forget ids that no later row is compared with; return the keys of their rows, to be deleted once meta is durable."""
        return [key for seen in self._seen.values() for key in seen.collect(self._meta.max_ts)]

    @property
    def is_dirty(self) -> bool:
        """Whether there are ids that the store has not."""
        return any(bucket.is_dirty for seen in self._seen.values() for bucket in seen.buckets)

    def new_rows(self) -> list[tuple[bytes, int, int, bytes]]:
        """Return rows (key, state, hi, payload) of what the store has not."""
        return [
            row
            for bound, seen in self._seen.items()
            for bucket in seen.buckets
            if bucket.is_dirty
            for row in bucket.new_rows(bound)
        ]


def ids_key(bound_ms: int, start_ms: int, size_ms: int, row: int) -> bytes:
    """Return the key of a row of a bucket."""
    return row_key(_KIND, bound_ms, start_ms, size_ms, row)
