"""The local store and the changelog, with a real RocksDB and a changelog that hands out offsets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from faust.types import TP

from monitor.config.settings import Config
from monitor.ports import Checkpoint, Message, StoredRecord
from monitor.runtime import store
from monitor.runtime.app import build_app
from monitor.runtime.extensions import CheckpointTable
from monitor.runtime.refusals import Refused
from monitor.runtime.sending import LostOwnership
from monitor.runtime.store import StoreMemory

META = (b"meta", b"m1")
CHANGELOG = "a-t-changelog"


class Changelog:
    """Stands in for `send_all`: what was sent, a batch at a time, and the next offset."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self.batches: list[list[Message]] = []
        self.fails_at: int | None = None

    async def send_all(self, messages: Sequence[Message], is_owner: Callable[[], bool]) -> list[int]:
        if not is_owner():
            raise LostOwnership
        if len(self.batches) == self.fails_at:
            raise ConnectionError
        self.batches.append(list(messages))
        self.offset += len(messages)
        return list(range(self.offset - len(messages), self.offset))


@pytest.fixture
def table(tmp_path: Path) -> CheckpointTable:
    app = build_app(Config(app="a"), tmp_path, ["s"])

    async def read_log(*_: Any) -> tuple[()]:
        return ()

    app.read_log = read_log
    found: CheckpointTable = app.Table(
        "t", partitions=4, key_type=bytes, value_type=bytes, options={"memory": StoreMemory(1 << 24)}
    )
    return found


def write(table: CheckpointTable, log: Changelog, *rows: tuple[bytes, bytes | None], **rest: Any) -> None:
    table.app.send_all = log.send_all
    asyncio.run(table.write(1, Checkpoint(rows, META, 5, **rest), lambda: True))


def offset(table: CheckpointTable) -> int | None:
    return table.data.persisted_offset(TP(CHANGELOG, 1))


def test_outcomes_are_too(table: CheckpointTable) -> None:
    log, told = Changelog(), Message("outcomes", None, b"range", 3)
    write(table, log, (b"r1", b"1"), outcomes=(told,))
    assert log.batches == [[told, Message(CHANGELOG, b"r1", b"1", 1)], [Message(CHANGELOG, *META, 1)]]


def test_dead_letters_and_rows_are_acknowledged_before_meta_is_sent(table: CheckpointTable) -> None:
    log = Changelog()
    letter = Message("dlq", b"k", b"bad")
    write(table, log, (b"r1", b"1"), (b"r2", None), dead_letters=(letter,))
    assert log.batches == [
        [letter, Message(CHANGELOG, b"r1", b"1", 1), Message(CHANGELOG, b"r2", None, 1)],
        [Message(CHANGELOG, *META, 1)],
    ]


def test_the_store_has_rows_meta_and_changelog_offset_and_only_rows_are_scanned(table: CheckpointTable) -> None:
    write(table, Changelog(), (b"r1", b"1"), (b"r2", b"2"))
    write(table, Changelog(3), (b"r1", None), (b"r3", b"3"))
    assert dict(table.scan(1)) == {b"r2": b"2", b"r3": b"3", b"meta": b"m1"}
    assert list(table.scan(2)) == []
    assert offset(table) == 5
    assert table.foreign_writes == 0


@pytest.mark.parametrize("acked", [0, 1])
def test_when_a_send_fails_the_store_is_not_touched(table: CheckpointTable, acked: int) -> None:
    log = Changelog()
    log.fails_at = acked
    with pytest.raises(ConnectionError):
        write(table, log, (b"r1", b"1"))
    assert list(table.scan(1)) == []


def test_an_owner_that_lost_the_partition_while_sending_does_not_touch_the_store(table: CheckpointTable) -> None:
    table.app.send_all = Changelog().send_all
    answers = iter([True, True, False])
    with pytest.raises(LostOwnership):
        asyncio.run(table.write(1, Checkpoint(((b"r", b"1"),), META, 5), lambda: next(answers)))
    assert list(table.scan(1)) == []


class TestForeignRecords:
    """Rule 12: a paused owner, or a message that was long on its way, has written between two checkpoints of ours."""

    LOG = (
        StoredRecord(2, 0, b"theirs", b"r1+1"),
        StoredRecord(3, 0, None, b"r2"),
        StoredRecord(4, 0, b"2", b"r1"),
        StoredRecord(5, 0, b"m1", b"meta"),
    )

    def table_after(self, table: CheckpointTable, found: Sequence[StoredRecord], asked: list[tuple[Any, ...]]) -> CheckpointTable:
        async def read_log(*question: Any) -> Sequence[StoredRecord]:
            asked.append(question)
            return found

        table.app.read_log = read_log
        write(table, Changelog(), (b"r1", b"1"))
        table.data.write(1, [(b"r2", b"2")], None)
        write(table, Changelog(4), (b"r1", b"2"))
        return table

    def test_they_are_read_and_applied_so_that_the_local_offset_goes_on(self, table: CheckpointTable) -> None:
        asked: list[tuple[Any, ...]] = []
        self.table_after(table, self.LOG, asked)
        assert asked == [(CHANGELOG, 1, 2, 5)]
        assert dict(table.scan(1)) == {b"r1+1": b"theirs", b"r1": b"2", b"meta": b"m1"}
        assert (offset(table), table.foreign_writes) == (5, 1)
        write(table, Changelog(6), (b"r1", b"3"))
        assert (offset(table), table.foreign_writes, len(asked)) == (7, 1, 1)

    def test_while_they_cannot_be_read_the_offset_stays_and_the_next_checkpoint_reads_from_it(
        self, table: CheckpointTable
    ) -> None:
        asked: list[tuple[Any, ...]] = []
        self.table_after(table, (), asked)
        assert (offset(table), table.foreign_writes) == (1, 1)
        assert dict(table.scan(1))[b"r1"] == b"2"
        write(table, Changelog(6), (b"r1", b"3"))
        assert (offset(table), asked[-1]) == (1, (CHANGELOG, 1, 2, 7))

    def test_a_log_that_ends_before_our_own_records_is_not_taken(self, table: CheckpointTable) -> None:
        self.table_after(table, self.LOG[:2], [])
        assert (offset(table), dict(table.scan(1))[b"r1"]) == (1, b"2")

    def test_an_owner_that_lost_the_partition_while_reading_them_does_not_touch_the_store(self, table: CheckpointTable) -> None:
        self.table_after(table, self.LOG, [])
        before = dict(table.scan(1))
        table.app.send_all = Changelog(9).send_all
        answers = iter([True] * 3 + [False])
        with pytest.raises(LostOwnership):
            asyncio.run(table.write(1, Checkpoint(((b"r", b"1"),), META, 5), lambda: next(answers)))
        assert dict(table.scan(1)) == before


def test_rows_are_in_the_changelog_once_however_often_the_dead_letters_are_refused(table: CheckpointTable) -> None:
    """Else the local offset would stand still, as after another owner's writes."""

    class Picky(Changelog):
        refusals = 2

        async def send_all(self, messages: Sequence[Message], is_owner: Callable[[], bool]) -> list[int]:
            rows = [message for message in messages if message.topic != "dlq"]
            sent = await super().send_all(rows, is_owner) if rows else []
            letters = [message for message in messages if message.topic == "dlq"]
            if letters and self.refusals:
                self.refusals -= 1
                raise Refused({"dlq": KafkaTimeoutError()}, letters, [-1] * len(letters) + sent)
            return [0] * len(letters) + sent

    log, letter = Picky(), Message("dlq", b"k", b"bad")
    checkpoint = Checkpoint(((b"r1", b"1"), (b"r2", b"2")), META, 5, (letter,))
    table.app.send_all = log.send_all

    async def run() -> None:
        for _ in range(2):
            with pytest.raises(Refused):
                await table.write(1, checkpoint, lambda: True)
        await table.write(1, checkpoint, lambda: True)

    asyncio.run(run())
    rows = [Message(CHANGELOG, b"r1", b"1", 1), Message(CHANGELOG, b"r2", b"2", 1)]
    assert log.batches == [rows, [Message(CHANGELOG, *META, 1)]]
    assert table.foreign_writes == 0
    assert dict(table.scan(1)) == {b"r1": b"1", b"r2": b"2", b"meta": b"m1"}


def reopened(table: CheckpointTable) -> None:
    table.data._close(1)


def test_a_store_that_was_away_for_too_long_is_emptied(table: CheckpointTable, monkeypatch: pytest.MonkeyPatch) -> None:
    write(table, Changelog(), (b"r1", b"1"))
    assert offset(table) == 1
    reopened(table)
    now = time.time()
    monkeypatch.setattr(store.time, "time", lambda: now + store.LONGEST_ABSENCE_S + 2)
    assert offset(table) is None
    assert list(table.scan(1)) == []


def test_a_store_that_has_just_recovered_is_not_old(table: CheckpointTable, monkeypatch: pytest.MonkeyPatch) -> None:
    write(table, Changelog(), (b"r1", b"1"))
    now = time.time() + store.LONGEST_ABSENCE_S
    monkeypatch.setattr(store.time, "time", lambda: now)
    table.recovered(1)
    reopened(table)
    monkeypatch.setattr(store.time, "time", lambda: now + 2)
    assert offset(table) == 1


def take(table: CheckpointTable, *records: tuple[int, bytes, bytes | None]) -> None:
    found = [SimpleNamespace(key=k, value=v, offset=o) for o, k, v in records]
    asyncio.run(table.take_changelog(1, found, lambda: True))


def test_recovered_rows_and_the_offset_that_they_reach_are_written_at_once(table: CheckpointTable) -> None:
    write(table, Changelog(), (b"r1", b"1"), (b"r2", b"2"))
    take(table, (3, b"r1", None), (4, b"r3", b"3"), (6, b"r3", b""))
    assert dict(table.scan(1)) == {b"r2": b"2", b"r3": b"", b"meta": b"m1"}
    assert offset(table) == 6


def test_nothing_expires(table: CheckpointTable) -> None:
    assert table._should_expire_keys() is False


def test_what_recovery_knows_of_a_changelog_is_told(table: CheckpointTable, monkeypatch: pytest.MonkeyPatch) -> None:
    take(table, (3, b"a", b"1"))
    of, other = TP(table.changelog_topic_name, 1), TP("other", 1)
    recovery = SimpleNamespace(active_tps={of}, active_offsets={of: 3}, active_highwaters={of: 68, other: 7})
    monkeypatch.setattr(table.app, "tables", SimpleNamespace(recovery=recovery))
    told = f"it was to be read, and is up to offset 3 of 68, the local store up to 3; ends known: {of.topic}/1 68, other/1 7"
    assert table.told_of_recovery(1) == told
    recovery.active_tps.clear()
    assert table.told_of_recovery(1).startswith("it was not to be read")
