"""One Faust event per fetched batch of a partition, in place of one per record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from faust.transport.utils import DefaultSchedulingStrategy
from faust.types import TP

from monitor.ports import Record


class Batch:
    """What Faust takes for one record: all records of a partition in one fetch. `offset` is the last one's."""

    __slots__ = (
        "checksum", "headers", "key", "offset", "partition", "serialized_key_size", "serialized_value_size", "timestamp",
        "timestamp_type", "topic", "value",
    )  # fmt: skip

    def __init__(self, tp: TP, records: Sequence[Record]) -> None:
        last = records[-1]
        self.topic = tp.topic
        self.partition = tp.partition
        self.offset = last.offset
        self.timestamp = last.timestamp
        self.timestamp_type = last.timestamp_type
        self.headers: tuple[()] = ()
        self.key = None
        self.value = records
        self.checksum = None
        self.serialized_key_size = 0
        self.serialized_value_size = 0


class BatchScheduler(DefaultSchedulingStrategy):  # type: ignore[misc]
    """Delivers a fetch as one record per partition. Stock code takes turns between partitions, record by record."""

    def iterate(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, Any]]:
        """Yield (partition, batch); the next fetch begins only when all of them are on their way."""
        for tp, found in records.items():
            if found:
                yield tp, Batch(tp, found)
