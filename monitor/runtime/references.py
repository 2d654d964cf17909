"""The references topic: read to its end before a worker starts, and followed after that; and publishing to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import confluent_kafka as ck
import structlog

from monitor.bootstrap import missing_segments
from monitor.config import Config
from monitor.errors import ConfigError, InputError
from monitor.reference import Reference, References
from monitor.runtime.broker import TIMEOUT_S, producer, read_to_end, reader
from monitor.stages.settings import REFERENCE_LEAD_MS

LEAD_S = REFERENCE_LEAD_MS / 1_000
"""How far ahead of the events a reference should be published: a worker that has not read the topic's end for half of it pauses."""
ASK_END_S = 2.0

log = structlog.get_logger()


def references_topic(config: Config) -> str:
    """Return the name of the topic."""
    return f"{config.app}.references"


def read_references(config: Config, partitions: int, into: References) -> dict[int, int]:
    """Take every reference on the topic in; return the next offset of each partition that has records."""
    newest: dict[bytes, bytes | None] = {}
    nexts: dict[int, int] = {}
    for message in read_to_end(config.kafka, references_topic(config), partitions=partitions):
        newest[message.key() or b""] = message.value()
        nexts[message.partition() or 0] = (message.offset() or 0) + 1
    for value in newest.values():
        take_reference(value, into, config)
    return nexts


def take_reference(value: bytes | None, into: References, config: Config) -> None:
    """Take one record in; one that is no reference is logged and left out. Raises ConfigError for one of another hash key."""
    if value is None:
        return
    try:
        reference = Reference.from_bytes(value)
        into.add(reference)
    except InputError as error:
        log.error("reference_ignored", reason=str(error))
        return
    difference = missing_segments(config, reference)
    if difference is not None:
        log.warning("segments_differ", reason=difference)


@dataclass(frozen=True, slots=True)
class Listener:
    """What a follower tells, from its own thread.

    take: each new record's value, in order. confirmed: moments (monotonic) at which the topic's end was asked for, everything up to it
    having been handed over. failed: what ended the thread.
    """

    take: Callable[[bytes | None], None]
    confirmed: Callable[[float], None]
    failed: Callable[[BaseException], None]


class ReferenceFollower(threading.Thread):
    """Follows the topic from the next offset of each partition."""

    def __init__(self, config: Config, partitions: int, nexts: dict[int, int], listener: Listener) -> None:
        super().__init__(name="references", daemon=True)
        self._topic = references_topic(config)
        self._nexts = {p: nexts.get(p, 0) for p in range(partitions)}
        self._listener = listener
        self._consumer = reader(config.kafka, **{"auto.offset.reset": "earliest"})
        self._consumer.assign([ck.TopicPartition(self._topic, p, offset) for p, offset in self._nexts.items()])

    def run(self) -> None:
        """Follow the topic for ever."""
        try:
            asked_s = 0.0
            while True:
                self._read(self._consumer.poll(0.5))
                if time.monotonic() - asked_s >= ASK_END_S:
                    asked_s = time.monotonic()
                    self._confirm(asked_s)
        except Exception as error:  # noqa: BLE001  (a thread that ends unseen would leave the worker with old references)
            self._listener.failed(error)

    def _read(self, message: ck.Message | None) -> None:
        if message is None:
            return
        partition, offset = message.partition() or 0, message.offset() or 0
        if message.error() is None:
            self._listener.take(message.value())
            self._nexts[partition] = offset + 1
        elif message.error().code() == ck.KafkaError._PARTITION_EOF:
            self._nexts[partition] = max(self._nexts[partition], offset)  # compaction may have taken the last offsets

    def _confirm(self, asked_s: float) -> None:
        """Compare with the ends that the broker states; an answer that does not come confirms nothing."""
        try:
            for partition, expected in self._nexts.items():
                _, high = self._consumer.get_watermark_offsets(ck.TopicPartition(self._topic, partition), timeout=TIMEOUT_S)
                if expected < high:
                    return
        except ck.KafkaException as error:
            log.warning("references_end_unknown", error=str(error))
            return
        self._listener.confirmed(asked_s)


def publish(config: Config, reference: Reference) -> None:
    """Put a reference on the topic and await the acknowledgement. Raises ConfigError."""
    failures: list[str] = []

    def delivered(error: ck.KafkaError | None, _: ck.Message) -> None:
        if error is not None:
            failures.append(error.str())

    client = producer(config.kafka, **{"message.timeout.ms": 15_000, "message.max.bytes": 4 << 20})
    client.produce(references_topic(config), reference.to_packed(), key=reference.key, on_delivery=delivered)
    if client.flush(20) or failures:
        raise ConfigError(
            f"the reference was not published to {references_topic(config)}: {failures[0] if failures else 'no broker answered'}"
        )
