"""A worker's reading: batches to their drivers, and what these let be sent at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from monitor.runtime.worker import Worker


class Driver:
    """Takes batches in, and is due from one of them on until it ticks."""

    def __init__(self, due_with: str) -> None:
        self.due_with, self.is_due = due_with, False
        self.seen: list[str] = []

    async def feed(self, event: Any) -> None:
        self.seen.append(event.value)
        self.is_due |= event.value == self.due_with

    async def tick(self) -> None:
        self.seen.append("tick")
        self.is_due = False


class Stream:
    """Hands batches over, one after the other, without a turn of the event loop in between."""

    def __init__(self, values: str) -> None:
        self._values = values

    def noack(self) -> Stream:
        return self

    async def events(self) -> AsyncIterator[Any]:
        for value in self._values:
            yield SimpleNamespace(value=value, message=SimpleNamespace(topic="t", partition=0, generation_id=1))


@pytest.mark.parametrize(("due_with", "seen"), [("b", ["a", "b", "tick", "c"]), ("none", ["a", "b", "c"])])
def test_a_driver_that_is_due_ticks_before_its_next_batch(due_with: str, seen: list[str]) -> None:
    driver, turns = Driver(due_with), []

    def add_future(turn: Coroutine[Any, Any, None]) -> None:
        turns.append(asyncio.get_running_loop().create_task(turn))

    async def fresh(topic: str) -> None:
        assert topic == "m.references"

    worker: Any = Worker.__new__(Worker)
    worker._partials, worker._policies, worker._references = "m.partials", "m.policies", "m.references"
    worker._fresh = fresh
    worker.owners = SimpleNamespace(get=lambda *_: driver)
    worker.app = SimpleNamespace(add_future=add_future)
    asyncio.run(worker._read(Stream("abc")))
    assert driver.seen == seen
