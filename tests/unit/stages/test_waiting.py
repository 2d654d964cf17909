"""Rows that wait to be folded: counted in bytes, for all partitions of a worker together."""

from __future__ import annotations

import msgspec

from monitor.formats.native import NativeFormat
from monitor.ports import StoredRecord
from monitor.reference import References
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.ingest.waiting import Waiting
from tests.simulation import SOURCE, settings

LONG = "x" * 1_000


def partition_of(waiting: Waiting) -> IngestPartition:
    stage = IngestPartition(
        settings(), SOURCE, 0, partitions=1, epoch=1, wire=NativeFormat(), references=References(), waiting=waiting
    )
    stage.skip_to(0)
    return stage


def feed(stage: IngestPartition, n: int) -> None:
    body = msgspec.json.encode({"model": "credit", "time": 5, "features": {"x": LONG}})
    stage.feed([StoredRecord(stage.next_offset + i, 5, body) for i in range(n)], 0)


def test_a_partition_folds_its_rows_when_more_wait_than_may() -> None:
    waiting = Waiting(10_000)
    stage = partition_of(waiting)
    feed(stage, 5)
    assert 5_000 < waiting.held == stage.memory()["rows"] < 10_000
    feed(stage, 5)
    assert waiting.held == stage.memory()["rows"] == 0
    assert stage.counters()["events", "credit", "counted"] == 10


def test_what_waits_in_other_partitions_counts_too() -> None:
    waiting = Waiting(10_000)
    one, other = partition_of(waiting), partition_of(waiting)
    feed(one, 5)
    feed(other, 5)
    assert (one.memory()["rows"] > 5_000, other.memory()["rows"]) == (True, 0)
    feed(one, 1)
    assert one.memory()["rows"] > 6_000


def test_a_checkpoint_leaves_nothing_waiting() -> None:
    waiting = Waiting()
    stage = partition_of(waiting)
    feed(stage, 3)
    assert stage.checkpoint() is not None
    assert waiting.held == 0


def test_a_partition_that_was_given_away_is_not_counted() -> None:
    waiting = Waiting()
    stage = partition_of(waiting)
    feed(stage, 3)
    del stage
    assert waiting.held == 0
