"""Compacted topics: how far they were read, and what a worker does with their records."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import confluent_kafka as ck
import numpy as np
import pytest

from monitor.config.policy_file import read_policy, to_record
from monitor.config.settings import Config
from monitor.policy import Policies
from monitor.reference import References
from monitor.runtime import compacted as module
from monitor.runtime.compacted import LEAD_S, Listener
from monitor.runtime.policies import take_policy
from monitor.runtime.references import take_reference
from monitor.runtime.worker import Worker
from tests.unit.test_replay_windows import reference


class Consumer:
    """A consumer whose ends and messages are given."""

    def __init__(self, *ends: int | Exception) -> None:
        self.ends = ends

    def assign(self, partitions: list[Any]) -> None:
        self.starts = [p.offset for p in partitions]

    def get_watermark_offsets(self, tp: Any, timeout: float) -> tuple[int, int]:
        end = self.ends[tp.partition]
        if isinstance(end, Exception):
            raise end
        return 0, end


def message(offset: int, value: bytes | None = None, *, is_end: bool = False) -> Any:
    error = ck.KafkaError(ck.KafkaError._PARTITION_EOF) if is_end else None
    return SimpleNamespace(partition=lambda: 0, offset=lambda: offset, error=lambda: error, key=lambda: b"k", value=lambda: value)


class Follower:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ends: int | Exception, nexts: dict[int, int] | None = None) -> None:
        self.consumer = Consumer(*ends)
        monkeypatch.setattr(module, "reader", lambda *_, **__: self.consumer)
        self.taken: list[tuple[bytes, bytes | None]] = []
        self.confirmed: list[float] = []
        self.failures: list[BaseException] = []
        listener = Listener(lambda *record: self.taken.append(record), self.confirmed.append, self.failures.append)
        self.thread = module.Follower(Config(), "m.policies", len(ends), nexts or {}, listener)


def test_the_end_is_confirmed_when_everything_up_to_it_was_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Follower(monkeypatch, 2)
    found.thread._confirm(7.0)
    assert found.confirmed == []
    found.thread._read(message(0, b"a"))
    found.thread._read(message(1, b"b"))
    found.thread._confirm(8.0)
    assert (found.taken, found.confirmed) == ([(b"k", b"a"), (b"k", b"b")], [8.0])


def test_offsets_that_compaction_took_at_the_end_count_as_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Follower(monkeypatch, 5)
    found.thread._read(message(3, b"a"))
    found.thread._confirm(7.0)
    found.thread._read(message(5, is_end=True))
    found.thread._confirm(8.0)
    assert found.confirmed == [8.0]


def test_every_partition_must_be_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Follower(monkeypatch, 0, 3, nexts={1: 2})
    found.thread._confirm(7.0)
    assert (found.confirmed, found.consumer.starts) == ([], [0, 2])


def test_a_broker_that_does_not_answer_confirms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Follower(monkeypatch, ck.KafkaException(ck.KafkaError(ck.KafkaError._TIMED_OUT)))
    found.thread._confirm(7.0)
    assert found.confirmed == []


def test_what_ends_the_thread_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Follower(monkeypatch, 0)
    found.thread.run()  # this consumer cannot poll
    assert isinstance(found.failures[0], AttributeError)


def test_a_record_that_is_no_reference_is_left_out() -> None:
    known = References()
    take_reference(b"{nonsense", known, Config())
    take_reference(None, known, Config())
    take_reference(reference(np.arange(50.0), ["a"] * 50).to_bytes(), known, Config())
    assert len(known) == 1


def test_a_policy_is_taken_in_replaced_and_taken_out_and_a_broken_one_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("rules: [psi > 0.3]")
    key, value, policy = to_record(read_policy(path), None)
    known = Policies()
    take_policy(key, value, known)
    assert known.of_name("p") == [policy]
    take_policy(key, b'{"name": "p", "rules": ["psy > 1"]}', known)
    assert known.of_name("p") == [policy]
    take_policy(key, value.replace(b"0.3", b"0.4"), known)
    assert [rule.above for found in known.of_name("p") for _, rule in found.rules] == [0.4]
    take_policy(key, None, known)
    assert len(known) == 0


@pytest.mark.parametrize(("age_s", "waits"), [(LEAD_S / 2 - 5, False), (LEAD_S / 2 + 5, True)])
def test_reading_pauses_while_there_may_be_something_newer(age_s: float, waits: bool) -> None:
    worker = Worker.__new__(Worker)
    worker._confirmed_s = {"m.references": time.monotonic() - age_s}

    async def run() -> float:
        started = time.monotonic()
        asyncio.get_running_loop().call_later(0.3, lambda: worker._confirmed_s.update({"m.references": time.monotonic()}))
        await worker._fresh("m.references")
        return time.monotonic() - started

    assert (asyncio.run(run()) > 0.25) is waits
