"""Messages to topics: packed by partition, acknowledged all, or refused by topics that may refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from aiokafka.errors import KafkaTimeoutError
from aiokafka.partitioner import DefaultPartitioner

from monitor.ports import Message
from monitor.runtime.refusals import Refusals

_choose = DefaultPartitioner()


class LostOwnership(Exception):
    """The partition was given away while a checkpoint or an outbox was under way."""


async def send_all(producer: Any, messages: Sequence[Message], is_owner: Callable[[], bool], refusals: Refusals) -> list[int]:
    """Send messages, packed by partition, and await every acknowledgement; return their offsets in the order given.

    Packed by hand: a future for each message, and the linger of a batch that might still grow, cost more than the message.
    Raises Refused when output topics take nothing, after everything for others was acknowledged; LostOwnership; or what the client
    raises for the first batch that is lost otherwise: of the others some may be on the topic.
    """
    places = await _places(producer, messages, refusals)
    packed: list[tuple[str, list[int]]] = []
    futures = []
    for (topic, partition), indices in places.items():
        for batch, packed_indices in _pack(producer, messages, indices):
            if not is_owner():
                raise LostOwnership
            if topic in refusals:
                continue
            with refusals.of(topic):
                futures.append(await _enqueue(producer, batch, topic, partition, is_owner))
                packed.append((topic, packed_indices))
    offsets = [-1] * len(messages)
    for found, (topic, packed_indices) in zip(await asyncio.gather(*futures, return_exceptions=True), packed, strict=True):
        with refusals.of(topic):
            for n, i in enumerate(packed_indices):
                offsets[i] = _acknowledged(found) + n
    refusals.check(messages, offsets)
    return offsets


async def _places(producer: Any, messages: Sequence[Message], refusals: Refusals) -> dict[tuple[str, int], list[int]]:
    """Return which messages go to each topic and partition, in order."""
    places: dict[tuple[str, int], list[int]] = {}
    for i, message in enumerate(messages):
        if message.topic in refusals:
            continue  # each would be waited for as long as the first
        with refusals.of(message.topic):
            partition = message.partition
            if partition is None:
                partition = _partition_of(message.key, await producer.partitions_for(message.topic))
            places.setdefault((message.topic, partition), []).append(i)
    return places


async def _enqueue(producer: Any, batch: Any, topic: str, partition: int, is_owner: Callable[[], bool]) -> Any:
    """Hand a batch to the client, which takes one of a partition at a time; return the future of its acknowledgement.

    A timeout here means that the client was busy for so long, with what others of this worker send, say: the batch is still ours.
    """
    while True:
        try:
            return await producer.send_batch(batch, topic, partition=partition)
        except KafkaTimeoutError:
            if not is_owner():
                raise LostOwnership from None


def _acknowledged(found: Any) -> int:
    """Return the offset of a batch's first message. Raises what became of the batch."""
    if isinstance(found, BaseException):
        raise found
    return int(found.offset)


def _partition_of(key: bytes | None, partitions: set[int]) -> int:
    """Return the partition that every Kafka client chooses for a key; any for None."""
    found: int = _choose(key, sorted(partitions), [])
    return found


def _pack(producer: Any, messages: Sequence[Message], indices: Sequence[int]) -> Iterator[tuple[Any, list[int]]]:
    """Yield closed batches, each with which of the messages it holds, in order."""
    batch, held = producer.create_batch(), list[int]()
    for i in indices:
        message = messages[i]
        record = {
            "timestamp": message.timestamp_ms, "key": message.key, "value": message.value, "headers": [*message.headers.items()]
        }  # fmt: skip
        if batch.append(**record) is None:  # full, and closed by that
            yield batch, held
            batch, held = producer.create_batch(), []
            batch.append(**record)  # a batch takes its first message, however large
        held.append(i)
    batch.close()
    yield batch, held
