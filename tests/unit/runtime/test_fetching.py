"""aiokafka's own fetcher, and what it is asked for while partitions change hands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import Fetcher
from faust.types import TP

from monitor.runtime.batches import BatchScheduler
from monitor.runtime.extensions import BatchConsumer
from monitor.runtime.fetched import WholeFetch

PAUSED, ACTIVE = TP("a-t-changelog", 1), TP("a-t-changelog", 2)


@pytest.fixture(autouse=True)
def _stock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not it was replaced in this process."""
    (stock,) = WholeFetch.__bases__
    monkeypatch.setattr(fetcher, "FetchResult", stock)


class Fetched(list[int]):
    """Two records of a fetch."""

    next_fetch_offset = 2


class Thread:
    """The consumer's thread: records of both partitions have come, and a position for each."""

    def __init__(self) -> None:
        self.positions = {PAUSED: 2, ACTIVE: 2}
        self.consumed: set[TP] = set()
        found = {tp: self._found(tp) for tp in self.positions}
        subscriptions = SimpleNamespace(reassignment_in_progress=False, is_assigned=lambda _: True)
        self.fetcher = SimpleNamespace(_records=found, _subscriptions=subscriptions, _notify=lambda _: None)
        self.fetcher._wait_consume_future = None

    def _found(self, tp: TP) -> Any:
        state = SimpleNamespace(paused=False, position=2, consumed_to=lambda _: self.consumed.add(tp))
        assignment = SimpleNamespace(active=True, state_value=lambda _: state)
        return fetcher.FetchResult(tp, assignment=assignment, partition_records=Fetched([0, 1]), backoff=0)

    async def getmany(self, active: Any, timeout: float) -> Any:
        return await Fetcher.fetched_records(self.fetcher, active, 0)


def fetch(active: set[TP]) -> tuple[dict[TP, list[int]], set[TP]]:
    """Return what a fetch gives that began before, and which positions it has moved."""
    consumer = BatchConsumer.__new__(BatchConsumer)
    consumer._thread = thread = Thread()
    return asyncio.run(consumer._getmany(active, 1.0)), thread.consumed


def test_a_fetch_takes_nothing_when_all_partitions_were_paused_meanwhile() -> None:
    """It would be dropped, and the consumer would have moved past it: after the seek, that is a record lost."""
    assert fetch(set()) == ({}, set())


def test_a_fetch_takes_what_is_active_when_it_comes() -> None:
    assert fetch({ACTIVE}) == ({ACTIVE: [0, 1]}, {ACTIVE})


def test_the_fetcher_takes_an_empty_set_to_mean_every_partition() -> None:
    """If this changes, `BatchConsumer._getmany` is of no use any more."""
    thread = Thread()
    assert asyncio.run(thread.getmany(set(), 1.0)) == {PAUSED: [0, 1], ACTIVE: [0, 1]}
    assert thread.consumed == {PAUSED, ACTIVE}


class Fetching(BatchConsumer):
    """A consumer whose fetch ends after something has happened to its partitions."""

    def __init__(self, meanwhile: Callable[[BatchConsumer], None]) -> None:
        self._held_back, self._active_partitions = set(), {ACTIVE, PAUSED}
        self._paused_partitions, self._buffered_partitions = set(), set()
        self._meanwhile = meanwhile
        self.flow_active, self.not_waiting_next_records = True, asyncio.Event()
        self.app = SimpleNamespace(client_only=False, consumer_generation_id=1)
        self.scheduler, self._stopped, self._crashed = BatchScheduler(), asyncio.Event(), asyncio.Event()

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        self._meanwhile(self)
        return {
            tp: [SimpleNamespace(**dict.fromkeys(FACTS), topic=tp.topic, partition=tp.partition, offset=7)]
            for tp in (ACTIVE, PAUSED)
        }

    def highwater(self, tp: TP) -> int:
        return 8

    def _to_message(self, tp: TP, record: Any) -> Any:
        return record


FACTS = ("timestamp", "timestamp_type")


def delivered(meanwhile: Callable[[BatchConsumer], None]) -> set[TP]:
    async def all_of() -> set[TP]:
        consumer = Fetching(meanwhile)
        consumer.app.monitor = SimpleNamespace(track_tp_end_offset=lambda *_: None)
        return {tp async for tp, _ in consumer.getmany(1.0)}

    return asyncio.run(all_of())


def test_what_was_fetched_before_a_partition_was_held_back_comes() -> None:
    """Its position has moved past it, and nothing seeks."""
    assert delivered(lambda consumer: consumer.hold_back(PAUSED)) == {ACTIVE, PAUSED}


def test_what_was_fetched_before_a_partition_was_paused_does_not() -> None:
    """Stock code pauses to seek: what comes now would come again, in between of what came before."""
    assert delivered(lambda consumer: consumer.pause_partitions({PAUSED})) == {ACTIVE}


def test_a_partition_that_goes_on_is_like_every_other_one() -> None:
    def meanwhile(consumer: BatchConsumer) -> None:
        consumer.hold_back(PAUSED)
        consumer.resume_partitions({PAUSED})
        consumer.pause_partitions({PAUSED})

    assert delivered(meanwhile) == {ACTIVE}
