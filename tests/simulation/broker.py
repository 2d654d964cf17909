"""A broker and local disks in memory: logs with holes, changelogs that are compacted, and the stores that are recovered from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from monitor.ports import Checkpoint, StoredRecord
from monitor.runtime.changelog import follows

TOMBSTONES_MS = 400
"""`delete.retention.ms`: compaction may take a tombstone that is older."""


@dataclass
class Log:
    """One partition's log. None is an offset without a record: the marker of a transaction, or what compaction took."""

    records: list[StoredRecord | None] = field(default_factory=list)

    @property
    def high(self) -> int:
        return len(self.records)

    def append(self, value: bytes | None, key: bytes | None = None, timestamp: int = 0, timestamp_type: int = 0) -> StoredRecord:
        record = StoredRecord(self.high, timestamp, value, key, timestamp_type)
        self.records.append(record)
        return record

    def mark(self) -> None:
        """End a transaction: its marker takes an offset."""
        self.records.append(None)

    def read(self, start: int, n: int) -> list[StoredRecord]:
        """Return at most `n` records at or after `start`, holes left out."""
        return [record for _, record in zip(range(n), self._from(start), strict=False)]

    def _from(self, start: int) -> Iterator[StoredRecord]:
        return (record for record in self.records[start:] if record is not None)

    def first_at(self, offset: int) -> int | None:
        return next((record.offset for record in self._from(offset)), None)

    def present(self, first: int, last: int) -> list[int]:
        return [record.offset for record in self.records[first : last + 1] if record is not None]


class Entry(NamedTuple):
    """A record of a changelog."""

    offset: int
    key: bytes
    value: bytes | None
    at_ms: int


@dataclass
class Changelog:
    """A compacted log of rows. written: everything that was ever appended, for invariants."""

    entries: list[Entry] = field(default_factory=list)
    written: list[Entry] = field(default_factory=list)

    @property
    def high(self) -> int:
        return len(self.written)

    def append(self, key: bytes, value: bytes | None, now_ms: int) -> int:
        entry = Entry(self.high, key, value, now_ms)
        self.entries.append(entry)
        self.written.append(entry)
        return entry.offset

    def between(self, after: int | None, upto: int) -> list[Entry]:
        """Return what is left of the offsets above `after` (None: all) and below `upto`."""
        start = -1 if after is None else after
        return [entry for entry in self.entries if start < entry.offset < upto]

    def compact(self, upto: int, now_ms: int) -> None:
        """Clean the log below an offset: the last record of each key stays, an old tombstone does not."""
        last = {entry.key: entry.offset for entry in self.entries if entry.offset < upto}
        self.entries = [e for e in self.entries if e.offset >= upto or (last[e.key] == e.offset and not _is_over(e, now_ms))]


def _is_over(entry: Entry, now_ms: int) -> bool:
    return entry.value is None and entry.at_ms + TOMBSTONES_MS <= now_ms


@dataclass
class Store:
    """A partition's rows on a worker's disk, and the changelog offset that they reach. Every method is one atomic write."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    offset: int | None = None
    written_ms: int | None = None

    def copy(self) -> Store:
        return Store(dict(self.rows), self.offset, self.written_ms)

    def forget_if_old(self, now_ms: int) -> None:
        """Empty a store that was away for so long that the changelog may have forgotten its deletions."""
        if self.written_ms is not None and now_ms - self.written_ms > TOMBSTONES_MS // 2:
            self.rows, self.offset, self.written_ms = {}, None, None

    def recover(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._put(entry.key, entry.value)
        self.offset = entries[-1].offset

    def commit(self, checkpoint: Checkpoint, offsets: Sequence[int], changelog: Changelog, now_ms: int) -> None:
        """Take a checkpoint that is on the changelog; where somebody else wrote in between, take what is there, in its order."""
        if follows(self.offset, sorted(offsets)):
            for key, value in (*checkpoint.rows, checkpoint.meta):
                self._put(key, value)
            self.offset = max(offsets)
        elif (missed := changelog.between(self.offset, max(offsets) + 1)) and missed[-1].offset == max(offsets):
            self.recover(missed)
        else:  # what was written is superseded, and compacted, already
            for key, value in (*checkpoint.rows, checkpoint.meta):
                self._put(key, value)
        self.written_ms = now_ms

    def _put(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = value

    def differences(self, changelog: Changelog) -> list[bytes]:
        """Return keys that are not as the changelog had them at this store's offset, but for those that it changed later on."""
        reached = -1 if self.offset is None else self.offset
        expected: dict[bytes, bytes] = {}
        for entry in changelog.written[: reached + 1]:
            expected.pop(entry.key, None)
            if entry.value is not None:
                expected[entry.key] = entry.value
        later = {entry.key for entry in changelog.written[reached + 1 :]}
        return [k for k in expected.keys() | self.rows.keys() if k not in later and expected.get(k) != self.rows.get(k)]
