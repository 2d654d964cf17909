"""The smallest stage: counts records per key; and a broker, a table and an app that do as they are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import KafkaTimeoutError

from monitor.errors import OffsetGap
from monitor.ports import Checkpoint, Message, Outbox, Record, StoredRecord
from monitor.runtime.driver import PartitionDriver, Surroundings
from monitor.runtime.pace import Pace
from monitor.runtime.readiness import Readiness
from monitor.runtime.refusals import Refused
from monitor.runtime.sending import LostOwnership
from monitor.runtime.store import StoreFull

META = b"meta"


class CountingStage:
    """Counts records per key; rows carry the last offset counted. Sends a total when it is told that the log has ended."""

    def __init__(self, rows: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.rows = {key: json.loads(value) for key, value in rows}
        self.hi = self.rows.pop(META, [-2, -2])[0]
        self.dirty: set[bytes] = set()
        self.meta_dirty = False
        self.skipped: list[tuple[int, bool]] = []
        self.is_silent = False
        self.ends: list[bool] = []
        self.total_due = False
        self.durable_total: int | None = None
        self.sent: list[int] = []
        self.refused: int | None = None

    @property
    def next_offset(self) -> int:
        return self.hi + 1 if self.hi >= -1 else -1

    def feed(self, records: Sequence[Record], now_ms: int) -> None:
        new = [r for r in records if r.offset > self.hi]
        expected = self.next_offset
        for record in new:
            if record.offset != expected and not any(skip[0] == record.offset for skip in self.skipped):
                self.refused = expected
                raise OffsetGap(expected, record.offset)
            expected = record.offset + 1
        for record in new:
            row = self.rows.setdefault(record.key or b"", [-1, 0])
            if record.offset > row[0]:
                row[:] = [record.offset, row[1] + 1]
                self.dirty.add(record.key or b"")
            self.hi, self.meta_dirty = record.offset, True

    def skip_to(self, offset: int, *, lost: bool = False) -> None:
        self.skipped.append((offset, lost))
        if self.refused in (None, self.next_offset):  # else it lies inside of the batch that is fed again
            self.hi = offset - 1
        self.refused = None
        self.meta_dirty = True

    def is_quiet(self, now_ms: int) -> bool:
        return self.is_silent

    def advance(self, now_ms: int, *, at_end: bool, end: int | None = None) -> None:
        self.ends.append(at_end)
        self.total_due = self.total_due or at_end

    @property
    def wants_checkpoint(self) -> bool:
        return self.total_due and self.meta_dirty

    def checkpoint(self) -> Checkpoint | None:
        if not (self.dirty or self.meta_dirty):
            return None
        rows = tuple((key, json.dumps(self.rows[key]).encode()) for key in sorted(self.dirty))
        self.dirty, self.meta_dirty = set(), False
        return Checkpoint(rows, (META, json.dumps([self.hi, 0]).encode()), self.hi)

    def committed(self, checkpoint: Checkpoint) -> None:
        if self.total_due:
            self.durable_total = sum(count for _, count in self.rows.values())

    def outbox(self, now_ms: int) -> Outbox:
        if self.durable_total is None or self.sent:
            return Outbox()
        total = str(self.durable_total).encode()
        return Outbox((Message("totals", b"part", total),), (Message("totals", b"mark", total),), self.durable_total)

    def emitted(self, outbox: Outbox, now_ms: int) -> None:
        assert isinstance(outbox.token, int)
        self.sent.append(outbox.token)

    def counters(self) -> Mapping[tuple[str, ...], int]:
        return {("events", key.decode(), "counted"): count for key, (_, count) in self.rows.items()}

    def memory(self) -> Mapping[str, int]:
        return {}

    def gauges(self) -> Mapping[tuple[str, ...], float]:
        return {("open_rows",): float(len(self.rows))}


@dataclass
class Log:
    """One partition as the broker has it, and the questions that were asked (monitor.runtime.broker.Watch)."""

    existing: list[int] = field(default_factory=list)
    low: int = 0
    high: int = 0
    asked: list[str] = field(default_factory=list)
    group: int | None = None
    changelog: tuple[int, int] = (0, 0)

    def committed(self, topic: str, partition: int) -> int | None:
        self.asked.append("committed")
        return self.group

    def offsets(self, topic: str, partition: int) -> tuple[int, int]:
        self.asked.append("offsets")
        return self.changelog if topic.endswith("-changelog") else (self.low, self.high)

    def first_at(self, topic: str, partition: int, offset: int) -> int | None:
        self.asked.append("first_at")
        return next((o for o in self.existing if o >= offset), None)

    def present(self, topic: str, partition: int, first: int, last: int) -> list[int]:
        self.asked.append("present")
        return [o for o in self.existing if first <= o <= last]


@dataclass
class Place:
    """Table and app in one: what was written and sent, in order; `lose_after` sends, ownership is gone."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    sent: list[tuple[bytes | None, bytes | None]] = field(default_factory=list)
    writes: int = 0
    is_owned: bool = True
    during_write: Callable[[], None] = lambda: None
    readiness: Readiness = field(default_factory=Readiness)
    obstacles: list[Exception | None] = field(default_factory=list)
    changelog_topic_name = "t-changelog"
    has_room: bool = True
    refuses: set[str] = field(default_factory=set)
    unwritten: dict[bytes, bytes] = field(default_factory=dict)

    def told_of_recovery(self, partition: int) -> str:
        return "it was to be read"

    async def write(self, partition: int, checkpoint: Checkpoint, is_owner: Callable[[], bool]) -> None:
        await asyncio.sleep(0)
        self.during_write()
        if not is_owner():
            raise LostOwnership
        self.writes += 1
        self.unwritten = {key: value for key, value in (*checkpoint.rows, checkpoint.meta) if value is not None}
        self.write_again(partition)

    @property
    def data(self) -> Place:
        return self

    def write_again(self, partition: int) -> None:
        if not self.has_room:
            raise StoreFull("No space left on device")
        self.rows |= self.unwritten

    async def send_all(self, messages: Sequence[Message], is_owner: Callable[[], bool]) -> list[Any]:
        for message in messages:
            if not is_owner():
                raise LostOwnership
            if message.topic not in self.refuses:
                self.sent.append((message.key, message.value))
        await asyncio.sleep(0)
        refused = [message for message in messages if message.topic in self.refuses]
        if refused:
            raise Refused({message.topic: KafkaTimeoutError() for message in refused}, refused)
        return []


class Event:
    """What Faust hands over for one batch."""

    def __init__(self, records: Sequence[StoredRecord]) -> None:
        self.value = records
        self.message = self
        self.is_acked = False

    def ack(self) -> None:
        self.is_acked = True


def batch(*offsets: int, key: bytes = b"k") -> Event:
    return Event([StoredRecord(offset, 0, b"", key) for offset in offsets])


def drive(stage: CountingStage, log: Log, place: Place, *, checkpoint_s: float = 0.0, **settings: Any) -> PartitionDriver:
    """Return a driver of `stage` that owns its partition for as long as `place` says."""
    around = Surroundings(
        app=place,  # type: ignore[arg-type]
        watch=log,  # type: ignore[arg-type]
        executor=ThreadPoolExecutor(1),
        check_guard=lambda: None,
        is_current=lambda _: place.is_owned,
        on_durable=lambda *_: None,
        on_sent=lambda *_: None,
        on_obstacle=lambda _, obstacle: place.obstacles.append(obstacle),
        pace=Pace(checkpoint_s),
    )
    return PartitionDriver(around, place, "t", 0, stage, generation=1, **settings)  # type: ignore[arg-type]
