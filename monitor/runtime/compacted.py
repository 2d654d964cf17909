"""A compacted topic of the application: read to its end before a worker starts, followed after that, and published to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import confluent_kafka as ck
import structlog

from monitor.config.settings import Config
from monitor.errors import ConfigError
from monitor.runtime.broker import TIMEOUT_S, producer, read_to_end, reader
from monitor.stages.settings import REFERENCE_LEAD_MS

LEAD_S = REFERENCE_LEAD_MS / 1_000
"""How far ahead of the events a record should be published: a worker that has not read the topic's end for half of it pauses."""
ASK_END_S = 2.0

log = structlog.get_logger()

Take = Callable[[bytes, bytes | None], None]
"""(key, value) of a record; None deletes what had the key."""


def read_newest(config: Config, topic: str, partitions: int, take: Take) -> dict[int, int]:
    """Hand over the newest record of each key; return the next offset of each partition that has records."""
    newest: dict[bytes, bytes | None] = {}
    nexts: dict[int, int] = {}
    for message in read_to_end(config.kafka, topic, partitions=partitions):
        newest[message.key() or b""] = message.value()
        nexts[message.partition() or 0] = (message.offset() or 0) + 1
    for key, value in newest.items():
        take(key, value)
    return nexts


@dataclass(frozen=True, slots=True)
class Listener:
    """What a follower tells, from its own thread.

    take: each new record, in order. confirmed: moments (monotonic) at which the topic's end was asked for, everything up to it
    having been handed over. failed: what ended the thread.
    """

    take: Take
    confirmed: Callable[[float], None]
    failed: Callable[[BaseException], None]


class Follower(threading.Thread):
    """Follows a topic from the next offset of each partition."""

    def __init__(self, config: Config, topic: str, partitions: int, nexts: dict[int, int], listener: Listener) -> None:
        super().__init__(name=topic, daemon=True)
        self._topic = topic
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
        except Exception as error:  # noqa: BLE001  (a thread that ends unseen would leave the worker with what is old)
            self._listener.failed(error)

    def _read(self, message: ck.Message | None) -> None:
        if message is None:
            return
        partition, offset = message.partition() or 0, message.offset() or 0
        if message.error() is None:
            self._listener.take(message.key() or b"", message.value())
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
            log.warning("end_unknown", topic=self._topic, error=str(error))
            return
        self._listener.confirmed(asked_s)


def publish_record(config: Config, topic: str, key: bytes, value: bytes | None, what: str) -> None:
    """Put a record on a topic and await the acknowledgement. what: it is, for the message. Raises ConfigError."""
    failures: list[str] = []

    def delivered(error: ck.KafkaError | None, _: ck.Message) -> None:
        if error is not None:
            failures.append(error.str())

    client = producer(config.kafka, **{"message.timeout.ms": 15_000, "message.max.bytes": 4 << 20})
    client.produce(topic, value, key=key, on_delivery=delivered)
    if client.flush(20) or failures:
        raise ConfigError(f"the {what} was not published to {topic}: {failures[0] if failures else 'no broker answered'}")
