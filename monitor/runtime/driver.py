"""Drives one partition's stage: batches in, checkpoints, outbox out; from assignment to revocation and not a moment longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn

import confluent_kafka as ck
import structlog

from monitor.errors import MonitorError, OffsetGap, StateMismatch
from monitor.ports import Checkpoint, Message, Outbox, PartitionStage, Record, Stepwise
from monitor.runtime.broker import Watch
from monitor.runtime.extensions import CheckpointTable, MonitorApp
from monitor.runtime.pace import Pace
from monitor.runtime.refusals import Refused
from monitor.runtime.store import StoreFull

Start = Literal["earliest", "latest"]
Counts = Mapping[tuple[str, ...], int]

TICK_S = 0.2
"""How often time passes for a partition. What a batch lets it send need not wait for that, where so much has passed since it sent last."""
ASK_END_S = 1.0
"""How often the broker is asked for the end of a silent partition."""
ASK_LAG_S = 10.0
"""How often it is asked for the end of any partition."""

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 10.0
"""Between attempts to write where a disk is full or a topic refuses."""
STEP_S = 0.05
"""For so long a stage keeps the event loop, and to the end of a step."""
MAX_HELD = 8
"""Batches that a partition which waits takes in; they were on their way when it began to wait."""

Obstacle = StoreFull | Refused
"""What is waited for, as it passes or somebody removes it; anything else ends the process."""

log = structlog.get_logger()


_STARTED_NS = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def now_ms() -> int:
    """Return epoch milliseconds: the wall clock when the process started, and what has passed since.

    Silence is measured with it, and a step of the wall clock is no silence: an hour ahead would make an hour's events late.
    """
    return (_STARTED_NS + time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 1_000_000


class LostRecords(MonitorError):
    """Records that are on the log did not reach this process."""


class _Write(NamedTuple):
    """A checkpoint until it is durable, with the counts and the batches that it covers. is_published: only the local store lacks it."""

    checkpoint: Checkpoint | None
    counts: dict[tuple[str, ...], int]
    unacked: list[Any]
    started_s: float
    is_published: bool = False


@dataclass(slots=True)
class _Sending:
    """An outbox until it is sent: what of each part was not acknowledged yet."""

    box: Outbox
    parts: list[tuple[Message, ...]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all drivers of a worker share.

    on_durable: told a partition's counts each time they are durable. on_sent: told what the broker acknowledged.
    on_obstacle: told what a partition waits for, each time that it is still there, and None when it goes on.
    pace: how long between checkpoints.
    """

    app: MonitorApp
    watch: Watch
    executor: Executor
    check_guard: Callable[[], None]
    is_current: Callable[[PartitionDriver], bool]
    on_durable: Callable[[PartitionDriver, Counts, float | None], None]
    on_sent: Callable[[PartitionDriver, Outbox], None]
    on_obstacle: Callable[[PartitionDriver, Obstacle | None], None]
    pace: Pace


class PartitionDriver:
    """Owns a stage between one assignment and the revocation after it.

    start: where a partition without state begins. lag: records that the broker has and the stage has not, when last asked.
    waits_for: a full disk, or a topic that refuses. Nothing is folded meanwhile: what is read again after a crash does not grow, nor does
    memory; records stay where they are.
    """

    def __init__(
        self,
        around: Surroundings,
        table: CheckpointTable,
        topic: str,
        partition: int,
        stage: PartitionStage,
        *,
        generation: int,
        start: Start = "earliest",
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.stage = stage
        self.generation = generation
        self.lag = 0
        self._around = around
        self._table = table
        self._start = start
        self._checkpointed_s = self._asked_end_s = self._asked_lag_s = time.monotonic()
        self._asked_at = -1
        self._n_turns = 0
        self._unacked: list[Any] = []
        self.waits_for: Obstacle | None = None
        self._held: list[Any] = []
        self._write: _Write | None = None
        self._sending: _Sending | None = None
        self._backoff_s = FIRST_BACKOFF_S
        self._again_s = 0.0
        self._lock = asyncio.Lock()
        self._is_whole = True
        self._has_begun = False
        self._end: int | None = None

    def is_owner(self) -> bool:
        """Whether what this driver does still counts; ends the process when nobody has confirmed that for too long."""
        self._around.check_guard()
        return self._around.is_current(self)

    @property
    def is_busy(self) -> bool:
        """Whether something is under way: a tick would have to wait for it."""
        return self._lock.locked()

    @property
    def is_due(self) -> bool:
        """Whether something could be sent that should not wait for the next tick."""
        is_free = self._is_whole and self._write is None and self._sending is None and self.waits_for is None
        return is_free and time.monotonic() - self._checkpointed_s >= TICK_S and self.stage.wants_checkpoint

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[bool]:
        """Hold the lock; yield whether there is anything to do. After a turn that was broken off, the stage is never used again."""
        async with self._lock:
            is_open = self._is_whole and self.is_owner()
            self._is_whole = False
            self._n_turns += 1
            yield is_open
            self._is_whole = is_open

    async def _ask(self, question: Callable[..., Any], *args: Any) -> Any:
        """Ask the broker about the partition, in another thread."""
        return await self._ask_of(self.topic, question, *args)

    async def _ask_of(self, topic: str, question: Callable[..., Any], *args: Any) -> Any:
        """Ask about the same partition of another topic."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._around.executor, question, topic, self.partition, *args)

    # --- where to start

    async def start_offset(self) -> int:
        """Return where reading starts: after the state; without state at the log's start, or at its end if so configured.

        Raises StateMismatch when the log ends before the state does, or when there is no state though there was; LostRecords when it was
        not recovered.
        """
        low, high = await self._ask(self._around.watch.offsets)
        expected = self.stage.next_offset
        if expected < 0 and (committed := await self._ask(self._around.watch.committed)):
            await self._refuse_to_begin_anew(committed)
        if expected < 0:
            self.stage.skip_to(high if self._start == "latest" else low)
        elif expected > high:
            raise StateMismatch(
                f"{self.topic}/{self.partition} ends at offset {high}, its state has read up to {expected}: "
                "the topic was emptied or made anew; start with another `app` name, or restore it"
            )
        elif expected < low:
            self._pass_lost(expected, low)
        return self.stage.next_offset

    def _pass_lost(self, expected: int, low: int) -> None:
        """Go on where the log begins; what a join reads only once more, to make entries of ids anew, is no loss."""
        before = self.stage.counters().get(("lost",), 0)
        self.stage.skip_to(low, lost=True)
        if self.stage.counters().get(("lost",), 0) > before:
            log.error("records_lost", topic=self.topic, partition=self.partition, start=expected, upto=low)

    async def _refuse_to_begin_anew(self, committed: int) -> NoReturn:
        """There is no state, though the group has read: it is gone from the changelog, or this life's recovery has not seen it."""
        changelog = self._table.changelog_topic_name
        has_read = f"{self.topic}/{self.partition} has been read up to offset {committed}, but"
        low, high = await self._ask_of(changelog, self._around.watch.offsets)
        if high > low:
            raise LostRecords(
                f"{has_read} nothing was recovered from {changelog}, which has offsets {low} to {high - 1} of it: "
                f"{self._table.told_of_recovery(self.partition)}"
            )
        raise StateMismatch(
            f"{has_read} its state is gone from {changelog}: restore that topic; or start with another `app` name, "
            "or delete the consumer group, to begin anew"
        )

    # --- reading

    async def feed(self, event: Any) -> None:
        """Fold one batch, or hold it while there is an obstacle; acknowledged after the checkpoint that covers it."""
        while len(self._held) >= MAX_HELD and self.is_owner():
            await asyncio.sleep(0.1)
        async with self._turn() as is_open:
            if is_open:
                await self._begin()
            if is_open and self.waits_for is not None:
                self._held.append(event)
            elif is_open:
                await self._take(event)

    async def _begin(self) -> None:
        """Before anything is made of records: meta says what is configured now, so that rows ahead of it are of the same."""
        if self._has_begun or self.waits_for is not None:
            return
        self._has_begun = True
        try:
            if self._write is None:
                self._snapshot()
            await self._finish_write()
        except (StoreFull, Refused) as obstacle:
            self._wait_for(obstacle)

    async def _take(self, event: Any) -> None:
        await self._fold(event.value)
        event.value = event.message.value = ()  # what it holds is in the stage; it is only acknowledged later
        self._unacked.append(event)

    async def _fold(self, records: list[Record]) -> None:
        """Feed the stage; of offsets that are left out, ask the broker whether they hold records.

        Markers of transactions and compacted records leave gaps, and those are skipped. Records that exist and did not come are lost
        on the way to us: LostRecords.
        """
        present: list[int] | None = None
        while True:
            try:
                await self._feed(records)
            except OffsetGap as gap:
                if present is None:
                    present = await self._ask(self._around.watch.present, gap.expected, records[-1].offset)
                lost = [offset for offset in present if gap.expected <= offset < gap.got]
                if lost or gap.got not in present:
                    raise LostRecords(
                        f"{self.topic}/{self.partition}: expected offset {gap.expected}, got {gap.got}; the log has "
                        f"{lost[0] if lost else 'neither'}"
                    ) from gap
                self.stage.skip_to(gap.got)
            else:
                return

    async def _feed(self, records: list[Record]) -> None:
        """Give way between the steps of a stage that has them: while a hundred models' windows close, heartbeats must be answered."""
        if not isinstance(self.stage, Stepwise):
            self.stage.feed(records, now_ms())
            return
        turned_s = time.monotonic()
        for _ in self.stage.steps(records, now_ms()):
            if time.monotonic() - turned_s > STEP_S:
                await asyncio.sleep(0)
                turned_s = time.monotonic()

    # --- time

    async def tick(self) -> None:
        """Let time pass, checkpoint if it is time or something waits for it, and send what is durable."""
        async with self._turn() as is_open:
            if not is_open or time.monotonic() < self._again_s:
                return
            try:
                if self._write is None and self._sending is None:
                    await self._advance()
                    await self._ask_lag()
                    is_due = time.monotonic() - self._checkpointed_s >= self._around.pace.interval_s
                    if is_due or self.stage.wants_checkpoint:
                        self._snapshot()
                await self._finish_write()
                await self._send()
            except (StoreFull, Refused) as obstacle:
                self._wait_for(obstacle)
            else:
                await self._go_on()

    # --- obstacles

    def _wait_for(self, obstacle: Obstacle) -> None:
        """Fold nothing more, and try again in a while."""
        obstacle.__traceback__ = obstacle.__cause__ = obstacle.__context__ = None  # frames that keep a store open
        self.waits_for = obstacle
        self._again_s = time.monotonic() + self._backoff_s
        longest = FIRST_BACKOFF_S if isinstance(obstacle, StoreFull) else LONGEST_BACKOFF_S
        self._backoff_s = min(2 * self._backoff_s, longest)
        self._around.on_obstacle(self, obstacle)

    async def _go_on(self) -> None:
        """Nothing is in the way any more: fold what came meanwhile."""
        if self.waits_for is None:
            return
        for event in self._held:
            await self._take(event)
        self._held = []
        self.waits_for, self._backoff_s = None, FIRST_BACKOFF_S
        self._around.on_obstacle(self, None)

    async def _advance(self) -> None:
        now, at_end = now_ms(), False
        if self.stage.is_quiet(now) and time.monotonic() - self._asked_end_s >= ASK_END_S:
            at_end = await self._is_at_end()
            self._asked_end_s = time.monotonic()
        if self.is_owner():
            self.stage.advance(now, at_end=at_end, end=self._end)

    async def _is_at_end(self) -> bool:
        """Whether a read from the next offset to the broker's end finds nothing; markers of transactions there are skipped.

        A broker that does not answer is no reason to end: not knowing is not being at the end.
        """
        expected = self.stage.next_offset
        try:
            _, high = await self._ask(self._around.watch.offsets)
            if high <= expected:
                return True
            if await self._ask(self._around.watch.first_at, expected) is not None:
                return False
        except ck.KafkaException as error:
            log.warning("end_unknown", topic=self.topic, partition=self.partition, error=str(error))
            return False
        if self.is_owner():
            self.stage.skip_to(high)
        return True

    async def _ask_lag(self) -> None:
        """Measure the lag now and then; of a partition that has not moved since, ask whether a record waits at all.

        Markers of transactions at the end of the log are no records, and nobody will deliver them.
        """
        now_s = time.monotonic()
        if now_s - self._asked_lag_s < ASK_LAG_S:
            return
        self._asked_lag_s = now_s
        try:
            _, high = await self._ask(self._around.watch.offsets)
            expected, self._end = self.stage.next_offset, high
            lag = max(0, high - expected)
            if lag and expected == self._asked_at and await self._ask(self._around.watch.first_at, expected) is None:
                lag = 0
            self.lag, self._asked_at = lag, expected
        except ck.KafkaException as error:
            log.warning("end_unknown", topic=self.topic, partition=self.partition, error=str(error))

    def standing(self) -> dict[str, int]:
        """Return what is waited for and how far it is, for a watchdog; read from its thread, every value on its own."""
        found = {}
        if self.lag:
            found["records wait to be read"] = self.stage.next_offset
        if not self._is_whole:
            found["a turn is under way"] = self._n_turns
        return found

    # --- writing

    def _snapshot(self) -> None:
        unacked, self._unacked = self._unacked, []
        started_s, began_s = time.monotonic(), time.thread_time()
        checkpoint = self.stage.checkpoint()
        self._around.pace.spent(self, time.thread_time() - began_s)
        self._write = _Write(checkpoint, dict(self.stage.counters()), unacked, started_s)

    async def _finish_write(self) -> None:
        """Make the snapshot durable. Raises Refused, StoreFull: it is then still to be made so."""
        write = self._write
        if write is None:
            return
        if write.checkpoint is not None:
            if write.is_published:
                self._table.data.write_again(self.partition)
            else:
                try:
                    await self._table.write(self.partition, write.checkpoint, self.is_owner)
                except StoreFull:
                    self._write = write._replace(is_published=True)
                    raise
            self.stage.committed(write.checkpoint)
            self._around.on_durable(self, write.counts, time.monotonic() - write.started_s)
        self._write = None
        self._checkpointed_s = time.monotonic()
        for event in write.unacked:
            event.ack()

    async def _send(self) -> None:
        """Send what a durable checkpoint allows, box by box: everything of `first` is acknowledged before anything of `then` is sent.

        Raises Refused: of what is not acknowledged, the rest is sent next time.
        """
        while self._sending is not None or (box := self.stage.outbox(now_ms())):
            if self._sending is None:
                self._sending = _Sending(box, [box.first, box.then])
            parts = self._sending.parts
            while parts:
                try:
                    await self._around.app.send_all(parts[0], self.is_owner)
                except Refused as refused:
                    parts[0] = refused.unsent
                    raise
                del parts[0]
            box, self._sending = self._sending.box, None
            self.stage.emitted(box, now_ms())
            self._around.on_sent(self, box)

    async def last_checkpoint(self) -> None:
        """Make durable what there is, before the partition is given away; what waits for something is left to the next owner."""
        async with self._turn() as is_open:
            if is_open and self._write is None:
                self._snapshot()
                await self._finish_write()
