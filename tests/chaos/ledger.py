"""The producer's side: what is sent, and a ledger of what the broker acknowledged."""

from __future__ import annotations

import json
import random
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import confluent_kafka as ck

from tests.chaos.plan import COLOURS, PARTITIONS, UNKNOWN_COLOUR, Plan

MALFORMED = (b"", b"{", b"[]", b"\xff", b'{"model":1,"time":1,"features":{}}', b'{"model":"credit","features":{}}')
HOUR_MS, YEAR_MS = 3_600_000, 31_557_600_000
TRANSACTION = 200
PATIENCE_S = 180
"""So long the last records may take to be acknowledged."""


def wall_ms() -> int:
    """Return the clock on the wall, epoch milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass
class Ledger:
    """What was acknowledged: partition → offset → CRC of the value; and how many records were given up, none in a sound run."""

    acknowledged: dict[int, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    given_up: int = 0

    def delivered(self, error: ck.KafkaError | None, message: ck.Message) -> None:
        """Note what became of a record (a delivery callback)."""
        if error is not None:
            self.given_up += 1
            return
        self.acknowledged[message.partition() or 0][message.offset() or 0] = zlib.crc32(message.value() or b"")

    def __len__(self) -> int:
        return sum(map(len, self.acknowledged.values()))


class Item(NamedTuple):
    """One record to be sent."""

    partition: int
    value: bytes


def event(model: str, time_ms: int, x: float | None, colour: str) -> bytes:
    """Return a native event; x None: a null."""
    return json.dumps({"model": model, "time": time_ms, "features": {"x": x, "colour": colour}}).encode()


def impossible_time(dice: random.Random, now_ms: int) -> int:
    """Return a time that no window must believe: an hour to a century ahead, nanoseconds for milliseconds, negative, the year 9999."""
    kinds = (
        now_ms + dice.randrange(HOUR_MS, YEAR_MS),
        now_ms + dice.randrange(YEAR_MS, 100 * YEAR_MS),
        now_ms * 1_000_000,
        -dice.randrange(1, now_ms),
        -now_ms * 1_000,
        253_402_300_799_999 - dice.randrange(YEAR_MS),
    )
    return dice.choice(kinds)


class Traffic(ABC):
    """What is sent, in order. rate: records a second; the plan's models."""

    rate: int

    @abstractmethod
    def items(self, dice: random.Random) -> Iterator[Item | None]:
        """Yield records; None: one less now (a lull). The traffic ends when this does, or when it is told to."""


@dataclass
class Live(Traffic):
    """Events of now with some disorder, as long as it is asked for.

    In some windows half of x is missing, in others a fifth of the colours is unknown, and in some the rate is lower: what the rules fire on.
    disorder_ms: how old an event may be. late, impossible, malformed: shares of events that are far too old, of impossible times, of
    records that are no events. partitions: that get any; half_time: gets some half of the time.
    """

    plan: Plan
    rate: int = 2_000
    disorder_ms: int = 3_000
    late: float = 0.002
    impossible: float = 0.001
    malformed: float = 0.005
    partitions: tuple[int, ...] = (0, 1, 2)
    half_time: int | None = None
    clock: Callable[[], int] = wall_ms

    def items(self, dice: random.Random) -> Iterator[Item | None]:
        size, n = self.plan.windows[0][0], 0
        while True:
            n += 1
            now = self.clock()
            block = now // size
            if block % 5 in (1, 2) and dice.random() < 0.4:
                yield None
                continue
            partition = dice.choice(self.partitions)
            if self.half_time is not None and now % 30_000 < 15_000 and dice.random() < 1 / (len(self.partitions) + 1):
                partition = self.half_time
            luck = dice.random() if n > 500 else 1.0
            if luck < self.malformed:
                yield Item(partition, dice.choice(MALFORMED))
                continue
            time_ms = now - dice.randrange(self.disorder_ms)
            if luck < self.malformed + self.impossible:
                time_ms = impossible_time(dice, now)
            elif luck < self.malformed + self.impossible + self.late:
                time_ms -= dice.randrange(15_000, 60_000)
            shifted = block % 6
            x = None if shifted in (2, 3) and dice.random() < 0.5 else round(dice.gauss(0, 1), 3)
            is_unknown = shifted in (3, 5) and dice.random() < 0.2
            colour = UNKNOWN_COLOUR if is_unknown else dice.choice(COLOURS)
            yield Item(partition, event(dice.choice(self.plan.models), time_ms, x, colour))


@dataclass
class Series(Traffic):
    """`elements` events of each model, the n-th at n · spacing after `start_ms`, shuffled in groups; ends by itself."""

    plan: Plan
    elements: int
    start_ms: int
    spacing_ms: int = 1
    shuffled: int = 1
    rate: int = 10_000

    def items(self, dice: random.Random) -> Iterator[Item | None]:
        whole = ((i, model) for i in range(self.elements) for model in self.plan.models)
        while group := list(islice(whole, self.shuffled * len(self.plan.models))):
            dice.shuffle(group)
            for i, model in group:
                is_missing = i // 500 % 3 == 1 and dice.random() < 0.5
                x = None if is_missing else round(dice.gauss(0, 1), 3)
                yield Item(dice.randrange(PARTITIONS), event(model, self.start_ms + i * self.spacing_ms, x, dice.choice(COLOURS)))


class Producing(threading.Thread):
    """Sends traffic until it ends or `stop` is called, and keeps the ledger.

    aborted: one transaction in so many is aborted; None: no transactions.
    """

    def __init__(self, bootstrap: str, topic: str, traffic: Traffic, seed: int, aborted: int | None = None) -> None:
        super().__init__(daemon=True)
        settings = {
            "bootstrap.servers": bootstrap,
            "linger.ms": 20,
            "acks": "all",
            "enable.idempotence": True,  # a retry must not stand on the log twice
            "message.timeout.ms": 900_000,
            "queue.buffering.max.messages": 2_000_000,
            "queue.buffering.max.kbytes": 1 << 20,
            "reconnect.backoff.max.ms": 1_000,
            "log_level": 0,
        }
        self._aborted = aborted
        self._producer = ck.Producer(settings | ({"transactional.id": topic, "message.timeout.ms": 60_000} if aborted else {}))
        self._brokers = bootstrap
        self._topic = topic
        self.traffic = traffic
        self._dice = random.Random(seed)
        self._stopping = threading.Event()
        self.ledger = Ledger()
        self.sent = 0
        self.n_aborted = 0

    def run(self) -> None:
        send = self._send_transactions if self._aborted else self._send_all
        send(self.traffic.items(self._dice))
        self.ledger.given_up += self._producer.flush(PATIENCE_S)

    def stop(self) -> None:
        """End the traffic, and wait for what is on its way."""
        self._stopping.set()
        if self.ident is not None:
            self.join(PATIENCE_S + 30)

    @property
    def is_done(self) -> bool:
        """Whether the traffic has come to its own end."""
        return self.ident is not None and not self.is_alive()

    def tick(self, time_ms: int) -> None:
        """Send a control record to every partition that moves its clock to `time_ms`, and await the acknowledgements."""
        client = ck.Producer({"bootstrap.servers": self._brokers, "acks": "all", "log_level": 0})
        for partition in range(PARTITIONS):
            value = json.dumps({"tick": time_ms}).encode()
            client.produce(self._topic, value, partition=partition, on_delivery=self.ledger.delivered)
        self.ledger.given_up += client.flush(60)

    def _paced(self, items: Iterator[Item | None]) -> Iterator[Item]:
        """Yield at the traffic's rate; what was held up comes at once."""
        started = time.monotonic()
        for due, item in enumerate(items):
            while due >= (time.monotonic() - started) * self.traffic.rate:
                self._producer.poll(0.005)
            if self._stopping.is_set():
                return
            if item is not None:
                self.sent += 1
                yield item

    def _send(self, item: Item) -> None:
        self._producer.produce(self._topic, item.value, partition=item.partition, on_delivery=self.ledger.delivered)

    def _send_all(self, items: Iterator[Item | None]) -> None:
        for item in self._paced(items):
            self._send(item)

    def _send_transactions(self, items: Iterator[Item | None]) -> None:
        self._producer.init_transactions(30)
        paced = self._paced(items)
        number = 0
        while group := list(islice(paced, TRANSACTION)):
            self._producer.begin_transaction()
            for item in group:
                self._send(item)
            self._producer.flush(30)  # what is aborted is on the log all the same
            number += 1
            if number % (self._aborted or 1) == 0:
                self._producer.abort_transaction(30)
                self.n_aborted += 1
            else:
                self._producer.commit_transaction(30)
