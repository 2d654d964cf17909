"""Drives one partition's stage: batches in, checkpoints, outbox out; from assignment to revocation and not a moment longer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import structlog

from monitor.errors import OffsetGap, StateMismatch
from monitor.ports import Checkpoint, PartitionStage, Record
from monitor.runtime.broker import Watch
from monitor.runtime.extensions import CheckpointTable, MonitorApp
from monitor.runtime.guard import Guard

log = structlog.get_logger()


def now_ms() -> int:
    """Return the wall clock, epoch milliseconds."""
    return time.time_ns() // 1_000_000


class PartitionDriver:
    """Owns a stage between one assignment and the revocation after it.

    is_current: whether this very driver still stands for its partition in the present generation.
    """

    def __init__(
        self,
        app: MonitorApp,
        table: CheckpointTable,
        topic: str,
        partition: int,
        stage: PartitionStage,
        *,
        watch: Watch,
        executor: Executor,
        guard: Guard,
        is_current: Callable[[PartitionDriver], bool],
        checkpoint_s: float,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.stage = stage
        self.table = table
        self.generation = app.consumer_generation_id
        self.checkpoint_seconds = 0.0
        self.checkpoints = 0
        self.progress_s = time.monotonic()
        self._app = app
        self._watch = watch
        self._executor = executor
        self._guard = guard
        self._is_current = is_current
        self._checkpoint_s = checkpoint_s
        self._last_checkpoint_s = time.monotonic()
        self._unacked: list[Any] = []
        self._lock = asyncio.Lock()

    def is_owner(self) -> bool:
        """Whether what this driver does still counts; ends the process when nobody has confirmed that for too long."""
        self._guard.check()
        return self._is_current(self)

    async def start_offset(self) -> int:
        """Return where reading starts: after the state, or at the log's start when there is none.

        Raises StateMismatch when the log ends before the state does.
        """
        low, high = await self._ask(self._watch.offsets)
        if self.stage.next_offset < 0:
            self.stage.skip_to(low)
        elif self.stage.next_offset > high:
            raise StateMismatch(
                f"{self.topic}/{self.partition} ends at offset {high}, its state has read up to {self.stage.next_offset}: "
                "the topic was emptied or made anew; start with another `app` name, or restore it"
            )
        elif self.stage.next_offset < low:
            log.error("records_lost", topic=self.topic, partition=self.partition, start=self.stage.next_offset, upto=low)
            self.stage.skip_to(low, lost=True)
        return self.stage.next_offset

    async def _ask(self, question: Callable[..., Any], *args: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, question, self.topic, self.partition, *args)

    async def feed(self, event: Any) -> None:
        """Fold one batch; acknowledged after the checkpoint that covers it."""
        async with self._lock:
            if not self.is_owner():
                return
            records: list[Record] = event.value
            while True:
                try:
                    self.stage.feed(records, now_ms())
                    break
                except OffsetGap as gap:
                    await self._explain(gap)
            self.progress_s = time.monotonic()
            self._unacked.append(event)

    async def _explain(self, gap: OffsetGap) -> None:
        """Ask the broker whether a gap is real: markers of transactions and compacted records leave them. Lost ones are fatal."""
        first = await self._ask(self._watch.first_at, gap.expected)
        if first is None or first < gap.got:
            raise StateMismatch(
                f"{self.topic}/{self.partition}: expected offset {gap.expected}, got {gap.got}, but the log has {first}"
            )
        self.stage.skip_to(gap.got)

    async def tick(self) -> None:
        """Let time pass, checkpoint if it is time or something waits for it, and send what is durable."""
        async with self._lock:
            if not self.is_owner():
                return
            await self._advance()
            due = time.monotonic() - self._last_checkpoint_s >= self._checkpoint_s
            if due or self.stage.wants_checkpoint:
                await self._checkpoint()
            await self._send()

    async def _advance(self) -> None:
        now = now_ms()
        if not self.stage.is_quiet(now):
            self.stage.advance(now, at_end=False)
            return
        _, high = await self._ask(self._watch.offsets)
        if high > self.stage.next_offset >= 0:
            # Only markers of transactions may be left; what else there is will be delivered.
            first = await self._ask(self._watch.first_at, self.stage.next_offset)
            if first is None and self.is_owner():
                self.stage.skip_to(high)
                _, high = await self._ask(self._watch.offsets)
        if self.is_owner():
            self.stage.advance(now, at_end=high <= self.stage.next_offset and self.stage.is_quiet(now))

    async def _checkpoint(self) -> None:
        unacked, self._unacked = self._unacked, []
        started = time.monotonic()
        checkpoint: Checkpoint | None = self.stage.checkpoint()
        if checkpoint is not None:
            await self.table.write(self.partition, checkpoint, self.is_owner)
            self.stage.committed(checkpoint)
            self.checkpoint_seconds += time.monotonic() - started
            self.checkpoints += 1
        self._last_checkpoint_s = time.monotonic()
        for event in unacked:
            event.ack()

    async def _send(self) -> None:
        box = self.stage.outbox(now_ms())
        if not box:
            return
        await self._app.send_all(box.first, self.is_owner)
        await self._app.send_all(box.then, self.is_owner)
        self.stage.emitted(box, now_ms())

    async def last_checkpoint(self) -> None:
        """Make durable what there is, before the partition is given away."""
        async with self._lock:
            if self.is_owner():
                await self._checkpoint()
