"""The demo's producer: departures and landings by their time, never further ahead than the embedded broker can keep."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter

import confluent_kafka as ck
import orjson

from monitor.bootstrap import label_topics, prediction_topics
from monitor.config.settings import Config
from monitor.demo import flights as data
from monitor.demo.flights import DAY_MS, REFERENCE_END_MS, Flights
from monitor.runtime.broker import producer
from monitor.runtime.embedded import PARTITIONS

MAX_AHEAD = 6_000
"""Records per partition that the workers may be behind: the embedded broker keeps 5 MiB of each."""
MAX_UNREPORTED_MS = 30 * DAY_MS
"""How far reports of performance may be behind: outcomes, which are not read as fast as they are told, have to fit the broker too."""
MALFORMED_EVERY = 10_000
LATE_EVERY = 6_000
LATE_BY_MS = 3 * DAY_MS
GIVE_UP_S = 150
GRACE_MS = 2 * 3_600_000

Sent = tuple[str, int, bytes]
"""Topic, partition, value."""


@dataclass
class Sender:
    """Sends the flights after the reference.

    look: called while it waits, with seconds to spend. reported_ms: end of the newest window whose performance has come back.
    produced, labels: how many were sent.
    """

    config: Config
    look: Callable[[float], None]
    reported_ms: Callable[[], int]
    produced: int = 0
    labels: int = 0
    _sent: dict[str, list[int]] = field(default_factory=dict)

    def send(self, flights: Flights, first: int) -> None:
        """Send everything, then a tick per partition that closes the last window; its planes have landed by then."""
        predictions, labels = prediction_topics(self.config)[0], label_topics(self.config.sources)[0]
        self._client = producer(self.config.kafka)
        self._progress = ck.Consumer(
            {
                "bootstrap.servers": self.config.kafka.bootstrap_servers,
                "group.id": self.config.app,
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        for topic in (predictions, labels):
            self._client.list_topics(topic, timeout=10)
            self._sent[topic] = [0] * PARTITIONS
        departures, landings = _departures(predictions, flights, first), _landings(labels, flights)
        for n, (time_ms, (topic, partition, value)) in enumerate(heapq.merge(departures, landings, key=itemgetter(0))):
            self._put(topic, partition, value)
            self.produced += topic == predictions
            self.labels += topic == labels
            if n % 1_000 == 0:
                self._client.poll(0)
                self.look(0)
                self._pace(time_ms)
        end_ms = (int(flights.time_ms[-1]) // DAY_MS + 1) * DAY_MS
        for topic in (predictions, labels):
            for partition in range(PARTITIONS):
                self._put(topic, partition, orjson.dumps({"tick": end_ms + GRACE_MS}))
        self._client.flush(30)
        self._progress.close()

    def _put(self, topic: str, partition: int, value: bytes) -> None:
        self._client.produce(topic, value, partition=partition)
        self._sent[topic][partition] += 1

    def _pace(self, time_ms: int) -> None:
        """Wait while the workers are too far behind: with reading, or with reports, which outcomes are joined for."""
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline:
            self._client.poll(0)
            partitions = [ck.TopicPartition(topic, p) for topic, sent in self._sent.items() for p in range(PARTITIONS) if sent[p]]
            committed = self._progress.committed(partitions, timeout=10)
            is_read = all(self._sent[c.topic][c.partition] - max(c.offset, 0) < MAX_AHEAD for c in committed)
            if is_read and time_ms - max(self.reported_ms(), REFERENCE_END_MS) < MAX_UNREPORTED_MS:
                return
            self.look(0.05)
        raise TimeoutError(f"the workers have made no progress for {GIVE_UP_S} s")


def _departures(topic: str, flights: Flights, first: int) -> Iterator[tuple[int, Sent]]:
    """Yield (time, record) of the flights from `first` on; now and then a record that no JSON parser takes, and one that is days late."""
    for n, (time_ms, event) in enumerate(data.events(flights, first, len(flights.time_ms))):
        partition = n % PARTITIONS
        yield time_ms, (topic, partition, orjson.dumps(event))
        if n % MALFORMED_EVERY == MALFORMED_EVERY - 1:
            yield time_ms, (topic, partition, b'{"model": "late-arrival", "time": ')
        if n % LATE_EVERY == LATE_EVERY - 1:
            yield time_ms, (topic, partition, orjson.dumps(event | {"time": time_ms - LATE_BY_MS}))


def _landings(topic: str, flights: Flights) -> Iterator[tuple[int, Sent]]:
    """Yield (time, record) of what became known when planes landed."""
    for n, (time_ms, event) in enumerate(data.labels(flights)):
        yield time_ms, (topic, n % PARTITIONS, orjson.dumps(event))
