from __future__ import annotations

import asyncio
from typing import Any

import pytest

from monitor.runtime.guard import Guard


class Ended(Exception):
    pass


class Clock:
    """A guard of a 10 s session whose clock stands where it is put."""

    def __init__(self) -> None:
        self.time = 100.0

        def end(reason: str) -> None:
            raise Ended(reason)

        self.guard = Guard(10.0, end)
        self.guard.now = lambda: self.time  # type: ignore[method-assign]


class Coordinator:
    """aiokafka's, as far as the guard sees it: answers after `takes` seconds."""

    def __init__(self, clock: Clock, *, answers: bool = True, takes: float = 0.0) -> None:
        self.generation = 7
        self.clock, self.answers, self.takes = clock, answers, takes

    async def _do_heartbeat(self) -> bool:
        self.clock.time += self.takes
        return self.answers


def beat(coordinator: Any) -> None:
    asyncio.run(coordinator._do_heartbeat())


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_process_ends_when_no_heartbeat_was_answered_for_three_quarters_of_the_session(clock: Clock) -> None:
    clock.guard.assigned()
    clock.time += 7.5
    clock.guard.check()
    clock.time += 0.1
    with pytest.raises(Ended, match=r"no heartbeat was answered for 7\.6 s"):
        clock.guard.check()


def test_an_answered_heartbeat_counts_from_when_it_was_sent(clock: Clock) -> None:
    coordinator = Coordinator(clock, takes=5)
    clock.guard.watch(coordinator)
    clock.guard.assigned()
    beat(coordinator)
    clock.time += 2.5
    clock.guard.check()
    clock.time += 0.1
    with pytest.raises(Ended):
        clock.guard.check()


def test_the_age_is_checked_before_an_answer_refreshes_it(clock: Clock) -> None:
    """A paused process that wakes up inside the session gets an answer; it has been away for too long all the same."""
    coordinator = Coordinator(clock, takes=8)
    clock.guard.watch(coordinator)
    clock.guard.assigned()
    with pytest.raises(Ended):
        beat(coordinator)


def test_a_heartbeat_without_a_good_answer_refreshes_nothing(clock: Clock) -> None:
    coordinator = Coordinator(clock, answers=False)
    clock.guard.watch(coordinator)
    clock.guard.assigned()
    clock.time += 7
    beat(coordinator)
    clock.time += 1
    with pytest.raises(Ended):
        clock.guard.check()


def test_who_owns_nothing_is_not_guarded(clock: Clock) -> None:
    clock.guard.assigned()
    clock.guard.released()
    clock.time += 1_000
    clock.guard.check()


def test_a_heartbeat_confirms_what_was_true_after_it_was_sent_and_for_its_generation_only(clock: Clock) -> None:
    coordinator = Coordinator(clock, takes=1)
    clock.guard.watch(coordinator)
    assert not clock.guard.is_confirmed_since(0, 7)
    beat(coordinator)  # sent at 100, answered at 101
    assert clock.guard.is_confirmed_since(99.9, 7)
    assert not clock.guard.is_confirmed_since(100.5, 7)
    assert not clock.guard.is_confirmed_since(99.9, 8)


def test_watching_twice_changes_nothing(clock: Clock) -> None:
    coordinator = Coordinator(clock)
    clock.guard.watch(coordinator)
    first = coordinator._do_heartbeat
    clock.guard.watch(coordinator)
    assert coordinator._do_heartbeat is first
