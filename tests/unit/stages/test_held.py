"""What a partition holds until its next checkpoint is bounded: with enough of it, it asks for one."""

from __future__ import annotations

import msgspec
import pytest

from monitor.formats.native import NativeFormat
from monitor.ports import StoredRecord
from monitor.reference import References
from monitor.stages.ingest import partition
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.settings import ModelSettings, Settings, SourceSettings
from monitor.windows import WindowSpec
from tests.unit.stages.test_folding import HOUR, MINUTE, START, references


def stage_of(known: References, **options: int) -> IngestPartition:
    source = SourceSettings("events", clock="event")
    settings = Settings("m", {}, ModelSettings((WindowSpec(HOUR, HOUR),)), {"events": source}, **options)
    stage = IngestPartition(settings, "events", 0, partitions=1, epoch=1, wire=NativeFormat(), references=known)
    stage.skip_to(0)
    return stage


def settle(stage: IngestPartition) -> None:
    checkpoint = stage.checkpoint()
    assert checkpoint is not None
    stage.committed(checkpoint)


def feed(stage: IngestPartition, *bodies: bytes) -> None:
    first = stage.next_offset
    stage.feed([StoredRecord(first + i, START, body) for i, body in enumerate(bodies)], START)


def prediction(i: int) -> bytes:
    said = {"id": f"r{i}", "model": "same-1", "version": "1", "time": START + MINUTE, "features": {"x": 1.0}, "prediction": "yes"}
    return msgspec.json.encode(said)


def test_many_dead_letters_ask_for_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "MAX_HELD", 3)
    stage = stage_of(References())
    feed(stage, prediction(0))
    settle(stage)
    feed(stage, b"{", b"{")
    assert not stage.wants_checkpoint
    feed(stage, b"{")
    assert stage.wants_checkpoint
    settle(stage)
    assert not stage.wants_checkpoint


def test_many_rows_for_the_join_ask_for_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "MAX_HELD", 1_000)
    stage = stage_of(references(), outcomes_partitions=2)
    feed(stage, prediction(0))
    settle(stage)
    feed(stage, *map(prediction, range(999)))
    assert not stage.wants_checkpoint
    feed(stage, *map(prediction, range(999, 7_000)))  # rows wait as columns before they are told
    assert stage.wants_checkpoint
    settle(stage)
    assert not stage.wants_checkpoint
