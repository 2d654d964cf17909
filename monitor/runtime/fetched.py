"""A fetch's bytes → records, the sixth of the places where the client is replaced (see extensions.py).

aiokafka 0.14 checks sums in C without the processor's own instruction, makes a frozen dataclass of twelve fields of every record, and hands it
over alone: together most of what a record costs it.
"""

from __future__ import annotations

import struct
from typing import Any

import crc32c
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import CorruptRecordException
from aiokafka.record import MemoryRecords

_LENGTH = struct.Struct(">i")
_LENGTH_AT, _OVERHEAD = 8, 12
_MAGIC_AT, _SUM, _SUM_AT, _SUMMED_FROM = 16, struct.Struct(">I"), 17, 21


class SummedRecords:
    """The record batches of a fetch, each with the sum that it says it has. `next_batch` raises CorruptRecordException where it has not."""

    def __init__(self, data: bytes) -> None:
        self._batches = MemoryRecords(data)
        self._data = memoryview(data)
        self._at = 0
        self._is_whole = True

    def has_next(self) -> bool:
        """Whether a whole batch follows; the last one of a fetch may be cut off, and nothing follows one without its sum."""
        return self._is_whole and bool(self._batches.has_next())

    def size_in_bytes(self) -> int:
        """Return what the fetch takes, a batch that is cut off included."""
        return len(self._data)

    def next_batch(self) -> Any:
        """Return the next batch."""
        begin = self._at
        self._at = end = begin + _OVERHEAD + _LENGTH.unpack_from(self._data, begin + _LENGTH_AT)[0]
        batch = self._batches.next_batch()
        if self._data[begin + _MAGIC_AT] < 2:
            self._is_whole = batch.validate_crc()  # formats before Kafka 0.11: of another polynomial
        else:
            self._is_whole = (
                crc32c.crc32c(self._data[begin + _SUMMED_FROM : end]) == _SUM.unpack_from(self._data, begin + _SUM_AT)[0]
            )
        if not self._is_whole:
            raise CorruptRecordException(
                f"the record batch of {end - begin} bytes at byte {begin} of a fetch does not have its sum"
            )
        return batch


class BareRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of a partition in a fetch as the parser of batches has them: key, value, offset, timestamp and its type."""

    def __init__(self, *args: Any) -> None:
        *others, _check_crcs, isolation_level = args
        super().__init__(*others, False, isolation_level)
        self.next_fetch_offset: int
        self.leaves_out_aborted = isolation_level == READ_COMMITTED
        self._left: list[Any] = []
        self._end = self.next_fetch_offset
        self.is_spent = False

    def take(self, most: int) -> list[Any]:
        """Return the next records, at most so many, those of aborted transactions too. They are not iterated over from then on."""
        self._records_iterator = None  # it refers to this object: the collector is seldom run, and a fetch would stay until it is
        taken = self._left
        while len(taken) < most and self._records.has_next():
            taken += self._parsed()
        taken, self._left = taken[:most], taken[most:]
        self.next_fetch_offset = taken[-1].offset + 1 if self._left else self._end
        self.is_spent = len(taken) < most
        return taken

    def _parsed(self) -> list[Any]:
        """Return the records of the next batch, from the offset on that was asked for."""
        batch = self._records.next_batch()
        records = [] if batch.is_control_batch else list(batch)
        if records and records[0].offset < self._end:
            records = [record for record in records if record.offset >= self._end]
        self.next_fetch_offset = self._end = batch.next_offset
        return records

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        return record


class WholeFetch(fetcher.FetchResult):  # type: ignore[misc]
    """What was fetched of a partition, handed over by whole batches."""

    _partition_records: BareRecords | None

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return what is left, at most so many records, and move the consumer's position."""
        found = self._partition_records
        if found is None or found.leaves_out_aborted or max_records is None:
            return list(super().getall(max_records))
        if not self.check_assignment(self._topic_partition):
            return []
        taken = found.take(max_records)
        self._update_position()
        if found.is_spent:
            self._partition_records = None
        return taken


def replace_fetched() -> None:
    """Have every consumer of this process read so."""
    fetcher.MemoryRecords, fetcher.PartitionRecords, fetcher.FetchResult = SummedRecords, BareRecords, WholeFetch
