"""The local store of a table: a RocksDB per partition that is read through when it is opened, and made anew where it is damaged.

The changelog holds everything that the store does; so a store that cannot be trusted to the last byte is removed and read again from
there. RocksDB's own checksums see what a disk does to a file, provided that its iterators are asked how they ended: one that meets a bad
block just stops. What they cannot see, a value that was wrong when it was written or belongs to another row, is what the four bytes after
each value are for; they are of the local form only, the changelog does not have them.
"""

from __future__ import annotations

import os
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import rocksdict
import structlog
from faust.stores.rocksdb import Store
from faust.types import TP

from monitor.errors import ConfigError, StateMismatch

FORMAT = 1
"""Of the local form of rows. A store of another one is made anew."""
IDENTITY = b"__monitor\0identity"
"""Local key: what the store holds, `format|changelog|partition|id of the changelog topic`."""
WRITTEN = b"__monitor\0written"
"""Local key: when (epoch seconds) the local store was last known to be as new as the changelog."""
LONGEST_ABSENCE_S = 12 * 3_600
"""A local store that is older is made anew: the changelog may have forgotten its deletions (half of `delete.retention.ms`)."""
MAX_OPEN_FILES = 64
PREALLOCATED = 1 << 20
"""Disk that a store takes in advance for its log; by default 9 MB, and 4 MB for its manifest."""
WRITE_BUFFER = 8 << 20
"""Of one partition; all of them together are bounded by `StoreMemory`."""

_FULL = ("No space left on device", "Disk quota exceeded", "os error 28", "os error 122")
_CLOSED_TO_US = ("Read-only file system", "Permission denied", "os error 30", "os error 13")
_DAMAGED = (
    "Corruption",
    "No such file or directory",
    "does not exist",
    "Invalid argument",
    "Not implemented",
    "File exists",
    "Not a directory",
)

log = structlog.get_logger()


class StoreFull(Exception):
    """The disk of the local store is full; nothing of a batch was written."""


class StoreDamaged(Exception):
    """The local store does not hold what was written into it."""


class StoreMemory:
    """RocksDB's block cache and write buffers: one budget for every partition of a worker.

    limit: bytes of both together; write buffers, half of it at most, count as part of the cache. RocksDB divides it among shards and
    takes nothing from one that is in use at the moment, so a shard with several reservations of write buffers may be above its share.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._cache = rocksdict.Cache(limit)
        self._buffers = rocksdict.WriteBufferManager.new_write_buffer_manager_with_cache(limit // 2, False, self._cache)

    @property
    def used(self) -> int:
        """Bytes in use by all stores, write buffers included."""
        return int(self._cache.get_usage())

    @property
    def buffered(self) -> int:
        """Bytes in the write buffers of all stores."""
        return int(self._buffers.get_usage())

    def options(self, *, filter_bits: int = 0, block_bytes: int | None = None) -> Any:
        """Return the options of one store, which shares the budget with all others.

        filter_bits: for each row, so that absent ones are known. block_bytes: what is read at once; RocksDB's 4 KiB where it is not given.
        """
        blocks = rocksdict.BlockBasedOptions()
        if block_bytes is not None:
            blocks.set_block_size(block_bytes)
        blocks.set_block_cache(self._cache)
        blocks.set_cache_index_and_filter_blocks(True)  # else they are on top of the budget
        if filter_bits:
            blocks.set_bloom_filter(filter_bits, block_based=False)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(blocks)
        options.set_write_buffer_manager(self._buffers)
        options.set_write_buffer_size(min(WRITE_BUFFER, self.limit // 4))
        options.set_max_open_files(MAX_OPEN_FILES)
        options.set_max_total_wal_size(PREALLOCATED)  # of a store without column families it bounds nothing else
        options.set_manifest_preallocation_size(PREALLOCATED // 16)
        options.set_keep_log_file_num(2)
        options.set_max_log_file_size(1 << 20)
        return options


class LocalStore(Store):  # type: ignore[misc]
    """Faust's store with checks. `options["memory"]` is the worker's StoreMemory.

    topic_id: of the changelog, where the broker tells it. rebuilt: how many damaged stores were made anew.
    """

    topic_id: str | None = None
    rebuilt = 0

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._memory: StoreMemory = self.options["memory"]
        self._unwritten: dict[int, list[tuple[bytes, bytes | None]]] = {}

    # --- opening

    def is_open(self, partition: int) -> bool:
        """Whether the store of a partition is in use."""
        return partition in self._dbs

    def _open_for_partition(self, partition: int) -> Any:
        """Open a store, or a new one in place of a damaged one.

        Raises StoreFull; ConfigError where the folder cannot be written to; StateMismatch where the changelog is another one.
        """
        path = Path(self.partition_path(partition))
        try:
            return self._checked(path, partition)
        except StoreDamaged as damage:
            log.error("store_damaged", path=str(path), reason=str(damage))
        self.rebuilt += 1
        return self._anew(path, partition)

    def _checked(self, path: Path, partition: int) -> Any:
        database = self._opened(path)
        try:
            self._check(database, partition)
        except BaseException:
            database.close()
            raise
        return database

    def _opened(self, path: Path) -> Any:
        try:
            return rocksdict.Rdict(str(path), options=self._memory.options())
        except Exception as error:
            raise meaning(error, path) from error

    def _anew(self, path: Path, partition: int) -> Any:
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            path.unlink()
        database = self._opened(path)
        _attempt(database, [(IDENTITY, self._identity(partition))])
        return database

    def _identity(self, partition: int) -> bytes:
        return f"{FORMAT}|{self.table.changelog_topic_name}|{partition}|{self.topic_id or ''}".encode()

    def _check(self, database: Any, partition: int) -> None:
        """Read a store through. Raises StoreDamaged; StateMismatch when its changelog was made anew."""
        own, n_rows = (self.offset_key, WRITTEN, IDENTITY), 0
        held: dict[bytes, bytes] = {}
        for key, value in _read(database):
            if key in own:
                held[key] = value
            else:
                n_rows += 1
        if not held and not n_rows:
            _attempt(database, [(IDENTITY, self._identity(partition))])
            return
        expected, found = self._identity(partition), held.get(IDENTITY)
        if found is None or found.rpartition(b"|")[0] != expected.rpartition(b"|")[0]:
            raise StoreDamaged(f"it is not {expected.decode()}: {(found or b'nothing says what it is').decode(errors='replace')}")
        ours, theirs = (identity.rpartition(b"|")[2] for identity in (expected, found))
        if ours and theirs and ours != theirs:
            raise StateMismatch(
                f"topic {self.table.changelog_topic_name} was deleted and created again since {database.path()} was written: "
                "restore it; or start with another `app` name; or remove that folder to go on from what the topic has now"
            )
        if n_rows and self.offset_key not in held:
            raise StoreDamaged("nothing says how much of the changelog it holds")
        written = held.get(WRITTEN)
        if written is not None and abs(time.time() - float(written)) > LONGEST_ABSENCE_S:
            raise StoreDamaged("it is too old: the changelog may have forgotten deletions")

    def wipe(self, partition: int, reason: str) -> None:
        """Make a store anew that the changelog contradicts."""
        path = Path(self.partition_path(partition))
        log.error("store_damaged", path=str(path), reason=reason)
        self.rebuilt += 1
        self._close(partition)
        self._dbs[partition] = self._anew(path, partition)

    def _close(self, partition: int) -> None:
        self._unwritten.pop(partition, None)
        database = self._dbs.pop(partition, None)
        if database is not None:
            with suppress(Exception):  # a full disk; what is not on it is in the changelog
                database.close()

    def revoke_partitions(self, table: Any, tps: set[TP]) -> None:
        """Close the stores of revoked partitions. Stock code leaves that to the garbage collector."""
        for tp in tps:
            if tp.topic in table.changelog_topic.topics:
                self._close(tp.partition)

    async def _try_open_db_for_partition(self, partition: int, *args: Any, **settings: Any) -> Any:
        """Open nothing at an assignment: recovery does, where a full disk can be waited for and other errors are told."""

    # --- reading

    def rows(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows of a partition, every epoch. Raises StoreDamaged."""
        own = (self.offset_key, WRITTEN, IDENTITY)
        return ((key, value) for key, value in _read(self._db_for_partition(partition)) if key not in own)

    def persisted_offset(self, tp: TP) -> int | None:
        """Return the changelog offset up to which the store has everything; None on a full disk, too."""
        with suppress(StoreFull):
            value = self._db_for_partition(tp.partition).get(self.offset_key)
            return None if value is None else int(unsealed(self.offset_key, value))
        return None

    # --- writing

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        """Note up to which changelog offset the store has everything."""
        self.write(tp.partition, (), offset, is_current=False)

    def write(
        self, partition: int, rows: Iterable[tuple[bytes, bytes | None]], offset: int | None, *, is_current: bool = True
    ) -> None:
        """Write rows, and the changelog offset that they reach (None: the one in the store stays), at once or not at all.

        is_current: with that offset, the store is as new as the changelog. Raises StoreFull; `write_again` then does it later.
        """
        entries = list(rows)
        if offset is not None:
            entries.append((self.offset_key, str(offset).encode()))
            if is_current:
                entries.append((WRITTEN, _now()))
        self._db_for_partition(partition)
        self._unwritten[partition] = entries
        self.write_again(partition)

    def write_again(self, partition: int) -> None:
        """Write what the last `write` could not; opens the store again when there is space and it still refuses.

        Raises StoreFull; StoreDamaged, for what is not there any more is not to be written on.
        """
        entries = self._unwritten[partition]
        if partition in self._dbs:
            try:
                _attempt(self._dbs[partition], entries)
            except StoreFull as full:
                reason = str(full)
            else:
                del self._unwritten[partition]
                return
            if not has_space(Path(self.path)):
                raise StoreFull(reason)
            with suppress(Exception):  # it may not be able to say its last word
                self._dbs.pop(partition).close()
        self._dbs[partition] = self._checked(Path(self.partition_path(partition)), partition)
        _attempt(self._dbs[partition], entries)
        del self._unwritten[partition]

    def touch(self, partition: int) -> None:
        """Note that a store is as new as the changelog; on a full disk it just counts as older."""
        with suppress(StoreFull):
            _attempt(self._db_for_partition(partition), [(WRITTEN, _now())])


def has_space(folder: Path) -> bool:
    """Whether the disk of a folder has room for more than a few rows."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize >= 1 << 20


def _attempt(database: Any, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
    """Write all at once; a batch that fails cannot be written again, so each attempt makes its own."""
    batch = rocksdict.WriteBatch(raw_mode=True)
    for key, value in entries:
        if value is None:
            batch.delete(key)
        else:
            batch.put(key, _sealed(key, value))
    try:
        database.write(batch)
    except Exception as error:
        raise meaning(error, Path(database.path())) from error
    finally:
        del database  # see `_read`


def meaning(error: Exception, path: Path) -> Exception:
    """Return what an error of RocksDB's is to us: they all come as texts."""
    text = str(error)
    if any(part in text for part in _FULL):
        return StoreFull(text)
    if any(part in text for part in _CLOSED_TO_US):
        return ConfigError(f"state.dir: {path} cannot be written to: {text}")
    return StoreDamaged(text) if any(part in text for part in _DAMAGED) else error


def _read(database: Any) -> Iterator[tuple[bytes, bytes]]:
    """Yield everything that a store holds, without the checksums. Raises StoreDamaged."""
    entries = database.iter()
    try:
        entries.seek_to_first()
        while entries.valid():
            key = entries.key()
            yield key, unsealed(key, entries.value())
            entries.next()
        entries.status()
    except Exception as error:
        raise meaning(error, Path(database.path())) from error
    finally:
        del entries, database  # which keep the store's lock for as long as an exception that names this frame is known


def _sealed(key: bytes, value: bytes) -> bytes:
    return value + zlib.crc32(value, zlib.crc32(key)).to_bytes(4, "little")


def unsealed(key: bytes, stored: bytes) -> bytes:
    """Return a value without its checksum. Raises StoreDamaged when it does not fit."""
    value = stored[:-4]
    if len(stored) < 4 or _sealed(key, value) != stored:
        raise StoreDamaged(f"row {key[:80]!r} is not as it was written")
    return value


def _now() -> bytes:
    return str(int(time.time())).encode()
