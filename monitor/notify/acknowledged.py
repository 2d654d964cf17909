"""Acknowledgements: a compacted topic that `monitor ack` writes and every notifier follows."""

from __future__ import annotations

import threading
from collections.abc import Callable

import confluent_kafka as ck
import structlog

from monitor.acks import Ack
from monitor.config.settings import Config
from monitor.errors import ConfigError
from monitor.runtime.broker import producer, read_to_end, reader

log = structlog.get_logger()


def acks_topic(config: Config) -> str:
    """Return the name of the topic."""
    return f"{config.app}.acks"


class Acks:
    """Who looks after which incident; by incident id."""

    def __init__(self) -> None:
        self._by_incident: dict[str, Ack] = {}

    def get(self, incident_id: str) -> Ack | None:
        """Return the acknowledgement of an incident."""
        return self._by_incident.get(incident_id)

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """Take a record in."""
        incident_id = (key or b"").decode(errors="replace")
        if value is None:
            self._by_incident.pop(incident_id, None)
        elif (ack := Ack.from_bytes(value)) is None or ack.incident_id != incident_id:
            log.warning("ack_ignored", key=incident_id)
        else:
            self._by_incident[incident_id] = ack


def read_acks(config: Config, partitions: int, into: Acks) -> dict[int, int]:
    """Take every record of the topic in; return the next offset of each partition. Raises KafkaException."""
    nexts = dict.fromkeys(range(partitions), 0)
    for message in read_to_end(config.kafka, acks_topic(config), partitions=partitions):
        into.take(message.key(), message.value())
        nexts[message.partition() or 0] = (message.offset() or 0) + 1
    return nexts


class AckFollower(threading.Thread):
    """Follows the topic. failed: told what ended it."""

    def __init__(self, config: Config, nexts: dict[int, int], acks: Acks, failed: Callable[[BaseException], None]) -> None:
        super().__init__(name="acks", daemon=True)
        self._acks = acks
        self._failed = failed
        self._consumer = reader(config.kafka, **{"auto.offset.reset": "earliest"})
        self._consumer.assign([ck.TopicPartition(acks_topic(config), p, offset) for p, offset in nexts.items()])

    def run(self) -> None:
        """Follow the topic for ever."""
        try:
            while True:
                message = self._consumer.poll(1.0)
                if message is not None and message.error() is None:
                    self._acks.take(message.key(), message.value())
        except Exception as error:  # noqa: BLE001  (a thread that ends unseen would wake people for what somebody looks after)
            self._failed(error)


def publish_ack(config: Config, incident_id: str, ack: Ack | None) -> None:
    """Put an acknowledgement on the topic, or take it back, and await the acknowledgement of the brokers. Raises ConfigError."""
    failures: list[str] = []

    def delivered(error: ck.KafkaError | None, _: ck.Message) -> None:
        if error is not None:
            failures.append(error.str())

    client = producer(config.kafka, **{"message.timeout.ms": 15_000})
    client.produce(acks_topic(config), ack.to_bytes() if ack else None, key=incident_id.encode(), on_delivery=delivered)
    if client.flush(20) or failures:
        raise ConfigError(
            f"nothing was written to {acks_topic(config)}: {failures[0] if failures else 'no broker answered'}; "
            "`monitor topics create` makes the topic"
        )
