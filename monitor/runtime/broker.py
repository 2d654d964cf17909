"""Questions to the brokers, over confluent-kafka: settings of a client, ends of partitions, topics, records at an offset.

aiokafka's own queries wait behind its long-poll fetch on the same connection; these have connections of their own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient

from monitor.config.settings import Kafka
from monitor.errors import ConfigError
from monitor.ports import StoredRecord

TIMEOUT_S = 10.0


def client_settings(kafka: Kafka) -> dict[str, Any]:
    """Return librdkafka settings of a configuration; passwords in clear, never to be logged."""
    settings: dict[str, Any] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "security.protocol": kafka.security_protocol,
        "log_level": 2,
        "socket.connection.setup.timeout.ms": 5_000,
    }
    if kafka.security_protocol.startswith("sasl"):
        settings |= {
            "sasl.mechanisms": kafka.sasl_mechanism,
            "sasl.username": kafka.sasl_username or "",
            "sasl.password": password(kafka),
        }
    if kafka.ssl_ca_location:
        settings["ssl.ca.location"] = str(kafka.ssl_ca_location)
    return settings


def password(kafka: Kafka) -> str:
    """Return the SASL password, from its file if there is one."""
    if kafka.sasl_password_file:
        return kafka.sasl_password_file.read_text().strip()
    return kafka.sasl_password.get_secret_value() if kafka.sasl_password else ""


def silent(error: ck.KafkaError) -> None:
    """Drop librdkafka's own error events: every call here reports its failure itself."""


def reader(kafka: Kafka, **settings: Any) -> ck.Consumer:
    """Return a consumer for assigned reading: no group membership, no commits, uncommitted records included."""
    return ck.Consumer(
        client_settings(kafka)
        | {
            "group.id": "unused",
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "error_cb": silent,
        }
        | settings
    )


_LEADER_MOVES = (
    ck.KafkaError.NOT_LEADER_FOR_PARTITION,
    ck.KafkaError.LEADER_NOT_AVAILABLE,
    ck.KafkaError._UNKNOWN_PARTITION,
)
"""Answers of a broker that knows a topic and not yet, or no longer, who leads it: a new topic, a broker that went or comes back."""


class BrokerUnreachable(ConfigError):
    """No broker answers: wrong settings, or an outage."""


def partition_counts(kafka: Kafka, topics: list[str] | None = None) -> dict[str, int]:
    """Return partitions by topic of all topics (or of `topics`, which a permissive broker may create by this).

    Raises BrokerUnreachable.
    """
    admin = AdminClient(client_settings(kafka) | {"error_cb": silent})
    try:
        if topics is None:
            return {name: len(t.partitions) for name, t in admin.list_topics(timeout=TIMEOUT_S).topics.items()}
        found = {}
        for topic in topics:
            metadata = admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
            found[topic] = len(metadata.partitions)
        return found
    except ck.KafkaException as error:
        raise BrokerUnreachable(
            f"no broker answers at {kafka.bootstrap_servers} within {TIMEOUT_S:g} s: "
            f"{error.args[0].str()}; check kafka.bootstrap_servers and kafka.security.protocol"
        ) from error


def topic_ids(kafka: Kafka, topics: list[str]) -> dict[str, str | None]:
    """Return the UUID of each topic, None where the broker does not tell (the embedded one)."""
    admin = AdminClient(client_settings(kafka) | {"error_cb": silent})
    found: dict[str, str | None] = dict.fromkeys(topics)
    try:
        for topic, future in admin.describe_topics(ck.TopicCollection(topics), request_timeout=5).items():
            found[topic] = str(future.result(5).topic_id)
    except (ck.KafkaException, TimeoutError):
        return dict.fromkeys(topics)
    return found


class Watch:
    """Ends of partitions, records at offsets, and what a group has committed. Its methods block; call them from an executor.

    group: whose commits are asked for; it is not joined.
    """

    def __init__(self, kafka: Kafka, group: str) -> None:
        self._consumer = reader(kafka, **{"group.id": group})
        self._lock = threading.Lock()

    def committed(self, topic: str, partition: int) -> int | None:
        """Return the offset that the group has committed, None when it has none."""
        with self._lock:
            (found,) = self._consumer.committed([ck.TopicPartition(topic, partition)], timeout=TIMEOUT_S)
        return int(found.offset) if found.offset >= 0 else None

    def offsets(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the first offset of a partition and the one after its last."""
        with self._lock:
            return _offsets(self._consumer, topic, partition)

    def first_at(self, topic: str, partition: int, offset: int) -> int | None:
        """Return the offset of the first record at or after `offset`, None when there is none up to the end."""
        with self._lock:
            return next((int(m.offset() or 0) for m in self._read(topic, partition, offset)), None)

    def present(self, topic: str, partition: int, first: int, last: int) -> list[int]:
        """Return the offsets from `first` to `last` that hold records."""
        return [record.offset for record in self.records(topic, partition, first, last)]

    def records(self, topic: str, partition: int, first: int, last: int) -> list[StoredRecord]:
        """Return the records at offsets from `first` to `last`, in order. Raises KafkaException."""
        found = []
        with self._lock:
            for message in self._read(topic, partition, first):
                offset = int(message.offset() or 0)
                if offset <= last:
                    found.append(StoredRecord(offset, message.timestamp()[1], message.value(), message.key()))
                if offset >= last:
                    break
        return found

    def _read(self, topic: str, partition: int, offset: int) -> Iterator[ck.Message]:
        """Yield records up to the end. Raises KafkaException."""
        self._consumer.assign([ck.TopicPartition(topic, partition, offset)])
        try:
            while (message := self._consumer.poll(TIMEOUT_S)) is not None:
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == ck.KafkaError._PARTITION_EOF:
                    return
                else:
                    raise ck.KafkaException(error)
            raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT))
        finally:
            self._consumer.unassign()


def read_to_end(kafka: Kafka, topic: str, *, partitions: int) -> Iterator[ck.Message]:
    """Yield every record of a topic up to where its partitions end now. Raises KafkaException."""
    consumer = reader(kafka)
    try:
        ends = {}
        for partition in range(partitions):
            low, high = _offsets(consumer, topic, partition)
            if high > low:
                ends[partition] = high
        consumer.assign([ck.TopicPartition(topic, p, ck.OFFSET_BEGINNING) for p in ends])
        while ends:
            message = consumer.poll(TIMEOUT_S)
            if message is None:
                raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT))
            if message.error() is not None:
                if message.error().code() != ck.KafkaError._PARTITION_EOF:
                    raise ck.KafkaException(message.error())
                ends.pop(message.partition(), None)
                continue
            yield message
    finally:
        consumer.close()


def _offsets(consumer: ck.Consumer, topic: str, partition: int) -> tuple[int, int]:
    """Return the first offset of a partition and the one after its last; waits for a leader that moves. Raises KafkaException."""
    give_up_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(ck.TopicPartition(topic, partition), timeout=TIMEOUT_S)
        except ck.KafkaException as error:
            if error.args[0].code() not in _LEADER_MOVES or time.monotonic() > give_up_s:
                raise
            time.sleep(0.1)
        else:
            return int(low), int(high)


def producer(kafka: Kafka, **settings: Any) -> ck.Producer:
    """Return an idempotent producer with acknowledgements of all replicas."""
    defaults: Mapping[str, Any] = {"acks": "all", "linger.ms": 5, "error_cb": silent}
    return ck.Producer(client_settings(kafka) | dict(defaults) | settings)
