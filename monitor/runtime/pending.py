"""Entries of the join on local disks: a RocksDB per partition of `outcomes`, which is made anew where it is damaged or lost.

Nothing of it is in a changelog: the join reads the outcomes topic again. Keys are hashes, so most look-ups, those of new ids, must end at
the filters in memory; blocks have RocksDB's own checksums.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import rocksdict
import structlog

from monitor.hash_key import DIGEST_BYTES
from monitor.runtime.store import StoreDamaged, StoreFull, StoreMemory, has_space, meaning

_STATE = b"state"
"""Key of what stands beside the entries; they have keys of 16 bytes."""
FILTER_BITS = 10
"""Of memory for each entry: one of a hundred new ids is looked for on the disk."""
BLOCK_BYTES = 1 << 10
"""Rows are looked up one by one, anywhere. A look-up of one that is there takes 3.4 µs; of blocks of 4 KiB packed by zstd 7.6 µs, and
11 % less disk."""

log = structlog.get_logger()


class PendingStore:
    """The entries of one partition (ports.Pending). Raises StoreFull, StoreDamaged; after the latter it is empty at the next start."""

    def __init__(self, path: Path, memory: StoreMemory) -> None:
        self._path = path
        self._memory = memory
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = self._opened()
            self._state: bytes | None = self._get(_STATE)
        except StoreDamaged as damage:
            log.error("store_damaged", path=str(path), reason=str(damage))
            self.clear()

    @property
    def state(self) -> bytes | None:
        """What was written beside the entries last."""
        return self._state

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the entry of each key, None where there is none."""
        found: list[bytes | None] = self._get(list(keys))
        return found

    def write(self, entries: Mapping[bytes, bytes | None], state: bytes) -> None:
        """Write entries and `state` at once; a store that was full is opened again when there is space."""
        try:
            self._write(entries, state)
        except StoreFull:
            if not has_space(self._path.parent):
                raise
            self.close()
            self._database = self._opened()
            self._write(entries, state)
        self._state = state

    def scan(self, after: bytes, n: int) -> list[tuple[bytes, bytes]]:
        """Return the first `n` entries whose keys are greater than `after`."""
        found: list[tuple[bytes, bytes]] = []
        entries = self._database.iter()
        try:
            entries.seek(after + b"\0")
            while entries.valid() and len(found) < n:
                key = entries.key()
                if len(key) == DIGEST_BYTES:
                    found.append((key, entries.value()))
                entries.next()
            entries.status()
        except Exception as error:
            raise self._told(error) from error
        finally:
            del entries
        return found

    def clear(self) -> None:
        """Remove everything."""
        self.close()
        shutil.rmtree(self._path, ignore_errors=True)
        self._database = self._opened()
        self._state = None

    def close(self) -> None:
        """Let go of the folder; nothing may be asked any more."""
        database = self.__dict__.pop("_database", None)
        if database is not None:
            with suppress(Exception):  # a full disk; what is not on it is read again
                database.close()

    def _opened(self) -> Any:
        options = self._memory.options(filter_bits=FILTER_BITS, block_bytes=BLOCK_BYTES)
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        try:
            return rocksdict.Rdict(str(self._path), options=options)
        except Exception as error:
            raise meaning(error, self._path) from error

    def _get(self, wanted: bytes | list[bytes]) -> Any:
        try:
            return self._database.get(wanted)
        except Exception as error:
            raise self._told(error) from error

    def _write(self, entries: Mapping[bytes, bytes | None], state: bytes) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in entries.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(_STATE, state)
        try:
            self._database.write(batch)
        except Exception as error:
            raise self._told(error) from error

    def _told(self, error: Exception) -> Exception:
        """Return what an error means; what is damaged is removed, for the next life to make anew."""
        told = meaning(error, self._path)
        if isinstance(told, StoreDamaged):
            self.close()
            shutil.rmtree(self._path, ignore_errors=True)
        return told


class PendingStores:
    """The stores of the partitions that a worker owns; each is opened once."""

    def __init__(self, folder: Path, memory: StoreMemory) -> None:
        self._folder = folder
        self._memory = memory
        self._open: dict[int, PendingStore] = {}

    def open(self, partition: int) -> PendingStore:
        """Return the store of a partition."""
        if partition not in self._open:
            self._open[partition] = PendingStore(self._folder / f"{partition}.db", self._memory)
        return self._open[partition]

    def close(self) -> None:
        """Close all of them: the partitions are given away."""
        for store in self._open.values():
            store.close()
        self._open.clear()
