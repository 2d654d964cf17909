"""The collector of a worker runs seldom, and still runs."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from monitor.runtime.garbage import THRESHOLDS, spare_events


@pytest.fixture
def sparing() -> Iterator[None]:
    before = gc.get_threshold()
    spare_events()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class Node:
    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("sparing")
def test_a_fetch_of_records_passes_without_a_collection() -> None:
    before = [generation["collections"] for generation in gc.get_stats()]
    records = [[i] for i in range(4 * 5_000)]
    assert len(records) == 20_000
    assert [generation["collections"] for generation in gc.get_stats()] == before


@pytest.mark.usefixtures("sparing")
def test_cycles_are_collected_before_they_are_many() -> None:
    first = Node()
    gone = weakref.ref(first)
    del first
    for _ in range(2 * THRESHOLDS[0]):
        Node()
    assert gone() is None


@pytest.mark.usefixtures("sparing")
def test_what_was_there_before_is_left_out() -> None:
    assert gc.get_freeze_count() > 10_000
