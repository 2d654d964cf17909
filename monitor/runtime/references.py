"""The references topic: read to its end before a worker starts, and followed after that; and publishing to it."""

from __future__ import annotations

import threading
import time

import confluent_kafka as ck
import structlog

from monitor.config import Config
from monitor.errors import ConfigError, InputError
from monitor.reference import Reference, References
from monitor.runtime.broker import producer, read_to_end, reader

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
        _take(value, into)
    return nexts


def _take(value: bytes | None, into: References) -> None:
    if value is None:
        return
    try:
        into.add(Reference.from_bytes(value))
    except InputError as error:
        log.error("reference_ignored", reason=str(error))


class ReferenceFollower(threading.Thread):
    """Keeps `into` up to date. `confirmed_s` is when (monotonic) the topic was last known to be read to its end."""

    def __init__(self, config: Config, partitions: int, into: References, nexts: dict[int, int]) -> None:
        super().__init__(name="references", daemon=True)
        self._topic = references_topic(config)
        self._into = into
        self._consumer = reader(config.kafka)
        self._consumer.assign([ck.TopicPartition(self._topic, p, nexts.get(p, ck.OFFSET_BEGINNING)) for p in range(partitions)])
        self.confirmed_s = time.monotonic()

    def run(self) -> None:
        """Follow the topic for ever."""
        while True:
            message = self._consumer.poll(1.0)
            if message is None:
                self.confirmed_s = time.monotonic()
            elif message.error() is None:
                _take(message.value(), self._into)
            elif message.error().code() == ck.KafkaError._PARTITION_EOF:
                self.confirmed_s = time.monotonic()


def publish(config: Config, reference: Reference) -> None:
    """Put a reference on the topic and await the acknowledgement. Raises ConfigError."""
    failures: list[str] = []

    def delivered(error: ck.KafkaError | None, _: ck.Message) -> None:
        if error is not None:
            failures.append(error.str())

    client = producer(config.kafka, **{"message.timeout.ms": 15_000, "message.max.bytes": 4 << 20})
    client.produce(references_topic(config), reference.to_bytes(), key=reference.key, on_delivery=delivered)
    if client.flush(20) or failures:
        raise ConfigError(
            f"the reference was not published to {references_topic(config)}: {failures[0] if failures else 'no broker answered'}"
        )
