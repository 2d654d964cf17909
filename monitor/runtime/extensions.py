"""The five places where Faust 0.15.3 is replaced, and why. tests/unit/runtime pins the upstream source of each.

1. Scheduler (batches.py): one Faust event carries a whole fetched batch of a partition; an event per record costs 95–110 µs.
2. Consumer: stock commits advance one batch per interval, revocation forgets what was acknowledged before it commits, and a partition
   without a commit is never sought, so that records dropped at a generation change are lost.
3. Table, and store (store.py): stock tables write the local store before the changelog, and count twice after a crash.
4. Recovery: stock recovery resumes sources before it seeks and clears queues after that: records are lost and committed. It reads
   4,800 changelog records a second.
5. App: the last checkpoint before a stop, while partitions are still owned.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import faust
import structlog
from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service

from monitor.errors import StateMismatch
from monitor.ports import Checkpoint, Message, Record
from monitor.runtime.changelog import follows, newest_of
from monitor.runtime.readiness import Readiness
from monitor.runtime.refusals import Refusals, Refused
from monitor.runtime.sending import LostOwnership, send_all
from monitor.runtime.store import LocalStore, StoreFull

SILENCE_S = 1.0
"""Recovery looks around when no changelog record comes for so long."""
FULL_S = 1.0
"""A full disk is tried again after so long."""

log = structlog.get_logger()


class BatchConsumer(driver.Consumer):  # type: ignore[misc]
    """Commits by batch, checkpoints before it lets go, and always seeks to where the state says."""

    app: MonitorApp

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Keep no book of gaps for batches: stock code expands each into a list, and the stage accounts for them itself."""
        if tp.topic not in self.app.source_topics:
            await super()._add_gap(tp, offset_from, offset_to)

    def _new_offset(self, tp: TP) -> int | None:
        """Return what may be committed: batches are acknowledged in order, after a checkpoint, so the last one counts.

        Stock code looks for consecutive offsets; of batches it knows the last offset only, and would commit one per interval.
        """
        if tp.topic not in self.app.source_topics:
            return super()._new_offset(tp)  # type: ignore[no-any-return]
        acked = self._acked.get(tp)
        if not acked:
            return None
        last: int = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return last + 1

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Checkpoint and commit while the partitions are still owned; correctness does not depend on it.

        Stock code drops the acknowledged offsets before its own last commit. Ownership ends here, before anything else happens.
        """
        await self.app.before_revoke()
        self.app.owned_generation = None
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Ownership begins: from here on heartbeats are watched."""
        self.app.on_assigned(self._thread._ensure_consumer()._coordinator)
        self.app.owned_generation = generation_id
        await super().on_partitions_assigned(assigned, generation_id)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every source partition to the state's next offset, whatever the group has committed.

        Stock code leaves a partition without a commit where it is, after records of it may have been dropped. A partition that was
        revoked meanwhile is left alone: the next assignment seeks again.
        """
        offsets = dict(await super().seek_to_committed())
        wanted = {}
        for tp in [TP(tp.topic, tp.partition) for tp in offsets if tp.topic in self.app.source_topics]:
            start = await self.app.start_offset(tp)
            if start is not None:
                wanted[tp] = start
        if wanted:
            await self.seek_wait(wanted)
        return offsets | wanted


class BatchTransport(driver.Transport):  # type: ignore[misc]
    """aiokafka with `BatchConsumer`."""

    Consumer = BatchConsumer


class CheckpointTable(faust.Table):  # type: ignore[misc]
    """A table as storage and changelog: changelog first, then one atomic local batch."""

    foreign_writes = 0

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._refused: dict[int, tuple[Checkpoint, list[int]]] = {}

    def _should_expire_keys(self) -> bool:
        """Expire nothing: stock code remembers every write on a heap that is never emptied."""
        return False

    def _new_store_by_url(self, url: Any) -> LocalStore:
        """Return the store that checks what it opens; `options["memory"]` is the budget that it shares."""
        return LocalStore(url, self.app, self, table_name=self.name, key_type=bytes, value_type=bytes, options=self.options)

    def persisted_offset(self, tp: TP) -> int | None:
        """Return what stock recovery begins with; it is told more by `compare`, which opens the store."""
        offset: int | None = self.data.persisted_offset(tp) if self.data.is_open(tp.partition) else None
        return offset

    async def take_changelog(self, partition: int, records: Sequence[Any], is_wanted: Callable[[], bool]) -> None:
        """Take recovered rows and the changelog offset that they reach in, at once; a full disk is waited for."""
        rows = [(record.key, record.value) for record in records]
        try:
            self.data.write(partition, rows, records[-1].offset, is_current=False)
        except StoreFull as full:
            reason = str(full)
        else:
            return
        while is_wanted():
            self.app.on_full_disk(reason)
            await asyncio.sleep(FULL_S)
            with suppress(StoreFull):
                self.data.write_again(partition)
                return

    def recovered(self, partition: int) -> None:
        """Note that the local store of a partition is as new as the changelog."""
        self.data.touch(partition)

    def compare(self, partition: int, low: int, high: int) -> int | None:
        """Return the offset that the local store has, after a look at the changelog's first offset and last.

        A store that is ahead of its changelog is made anew. Raises StateMismatch when the changelog lacks what would have to be read;
        StoreFull when the store cannot be opened.
        """
        self.data._db_for_partition(partition)
        tp = TP(self.changelog_topic_name, partition)
        offset: int | None = self.data.persisted_offset(tp)
        if offset is not None and offset > high:
            self.data.wipe(partition, f"it holds offset {offset} of a changelog that ends at {high}")
            offset = None
        if low > (0 if offset is None else offset + 1):
            raise StateMismatch(
                f"{tp.topic}/{partition} begins at offset {low}: state before that was deleted from it, though its cleanup.policy must "
                "be compact; restore it, or start with another `app` name to begin anew"
            )
        return offset

    async def write(self, partition: int, checkpoint: Checkpoint, is_owner: Callable[[], bool]) -> None:
        """Make a checkpoint durable: dead letters, outcomes and rows, then meta, each acknowledged, then the local store in one batch.

        Meta must never be ahead of its rows: the client can lose one batch and still send the next.
        Raises Refused when the dead-letter topic takes nothing: the same checkpoint may then be written again. Raises StoreFull when it
        is durable in the changelog and had no room locally: see `write_again`. Raises LostOwnership, or what a failed send raises; the
        state is then of no use any more.
        """
        app: MonitorApp = self.app
        topic = self.changelog_topic_name
        letters = checkpoint.before_meta
        of, sent = self._refused.pop(partition, (checkpoint, []))
        rows = [] if sent and of is checkpoint else [Message(topic, key, value, partition) for key, value in checkpoint.rows]
        try:
            found = (await app.send_all([*letters, *rows], is_owner))[len(letters) :]
        except Refused as refused:  # the letters, that is: the rows are there
            self._refused[partition] = checkpoint, refused.offsets[len(letters) :] if rows else sent
            raise
        sent = found if rows else sent
        sent += await app.send_all([Message(topic, *checkpoint.meta, partition)], is_owner)
        if not is_owner():
            raise LostOwnership
        await self._take_in(partition, checkpoint, sorted(sent), is_owner)

    async def _take_in(self, partition: int, checkpoint: Checkpoint, offsets: list[int], is_owner: Callable[[], bool]) -> None:
        """Take a checkpoint that is on the changelog, at these offsets, in.

        Where somebody else, a paused owner or a message that was long on its way, wrote in between, everything is taken as it
        stands there. If that cannot be read now, the offset stays, and the next checkpoint, or recovery, reads from it.
        """
        topic, rows = self.changelog_topic_name, [*checkpoint.rows, checkpoint.meta]
        local: int | None = self.data.persisted_offset(TP(topic, partition))
        reached: int | None = offsets[-1]
        if not follows(local, offsets):
            self.foreign_writes += 1
            missed = await self.app.read_log(topic, partition, 0 if local is None else local + 1, offsets[-1])
            if not is_owner():
                raise LostOwnership
            if missed and missed[-1].offset == reached:
                rows = [(record.key, record.value) for record in missed]
            else:
                reached = None
        self.data.write(partition, rows, reached)

    def scan(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield the local rows of a partition, every epoch."""
        rows: Iterator[tuple[bytes, bytes]] = self.data.rows(partition)
        return rows


class SafeRecovery(Recovery):  # type: ignore[misc]
    """Reads changelogs by the batch, seeks before it resumes, clears no queue that is in use, and lets nothing fail unseen.

    n_taken: changelog records taken in since the start.
    """

    n_taken = 0
    _began = 0, 0.0

    def _set_recovery_started(self) -> None:
        """Withdraw the signal of the recovery before. Stock code does so before each record, and can miss the signal that way."""
        super()._set_recovery_started()
        self.signal_recovery_end.clear()
        self._began = self.n_taken, time.monotonic()

    @Service.task  # type: ignore[untyped-decorator]
    async def _slurp_changelogs(self) -> None:
        """Take changelogs in until their ends are reached.

        Stock code takes 0.2 ms a record, writes rows and offset apart, applies records of partitions that are not ours to the table
        that it saw last, and goes on after an error without the rows.
        """
        silences = 0
        while not self.should_stop:
            try:
                event = await asyncio.wait_for(self.tables.changelog_queue.get(), SILENCE_S)
            except TimeoutError:
                silences += 1
                if self.in_recovery and silences > 1:
                    await self._pass_empty_ends()
            else:
                silences = 0
                try:
                    await self._take(event)
                except Exception as error:  # noqa: BLE001  (whatever it is, the store lacks rows)
                    self.app.fail("recovery", error)
            if self.in_recovery and not self.need_recovery():
                self._set_recovery_ended()
                self.signal_recovery_end.set()

    async def _take(self, event: Any) -> None:
        message = event.message
        tp = message.tp

        def is_wanted() -> bool:
            return tp in self.active_tps and message.generation_id == self.app.owned_generation

        if not is_wanted():
            return
        seen = self.active_offsets.get(tp)
        new = [record for record in message.value if seen is None or record.offset > seen]
        if new:
            await self.tp_to_table[tp].take_changelog(tp.partition, newest_of(new), is_wanted)
            if is_wanted():
                self.active_offsets[tp] = new[-1].offset
            self.n_taken += len(new)

    async def _build_offsets(self, consumer: Any, tps: set[TP], destination: Any, title: str) -> None:
        """Compare every store with its changelog, and wait for a full disk; stock code takes its word for where to read on."""
        lows, full = await consumer.earliest_offsets(*tps), ""
        try:
            for tp in tps:
                low, high = lows.get(tp) or 0, self.active_highwaters[tp]
                destination[tp] = self.tp_to_table[tp].compare(tp.partition, low, high)
        except StoreFull as error:
            full = str(error)
        except Exception as error:  # noqa: BLE001  (Faust would end with a trace only)
            self.app.fail("recovery", error)
        if full:
            self.app.on_full_disk(full)
            await asyncio.sleep(FULL_S)
            self.signal_recovery_start.set()
            raise RebalanceAgain  # recovery begins anew
        await super()._build_offsets(consumer, tps, destination, title)

    async def _pass_empty_ends(self) -> None:
        """Count a changelog as read whose last offsets hold no record: nothing more would come, and recovery would wait for ever."""
        for tp, remaining in self.active_remaining().items():
            if remaining > 0:
                highwater = self.active_highwaters[tp]
                position = await self.app.consumer.position(tp)
                if position is not None and position > highwater:
                    self.active_offsets[tp] = highwater

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        """Load the stages, seek, and only then let records flow.

        Stock code resumes the sources first, seeks one round trip per partition later, and then clears the queues that have been
        filled meanwhile; and it does not look at what its callbacks raise.
        """
        app = self.app
        consumer = app.consumer
        n, since_s = self._began
        if self.n_taken > n:
            log.info("state_recovered", records=self.n_taken - n, seconds=round(time.monotonic() - since_s, 3))
        await app.on_rebalance_complete.send()
        self._set_recovery_ended()
        for table in self.tables.values():
            await table.on_recovery_completed(self.actives_for_table[table], self.standbys_for_table[table])
        assignment = consumer.assignment()
        if app.owned_generation != generation_id:
            return  # rebalanced again: the next recovery takes over
        sources = {tp for tp in assignment if not self._is_changelog_tp(tp)}
        if assignment:
            await self._wait(consumer.perform_seek(), timeout=app.conf.broker_request_timeout)
        if app.owned_generation != generation_id:
            return
        self.completed.set()
        if not app.flow_control.is_active():
            app.flow_control.resume()
        consumer.resume_partitions(sources)
        consumer.resume_flow()
        await app._fetcher.maybe_start()
        self.tables.on_actives_ready()
        if not app.assignor.assigned_standbys():
            self.tables.on_standbys_ready()
        app.on_rebalance_end()
        app.on_resumed()

    def n_remaining(self) -> int:
        """Return how many changelog records are still to be taken in; may be asked from any thread."""
        offsets = dict(self.active_offsets)
        return sum(max(0, end - (offsets.get(tp) or 0)) for tp, end in dict(self.active_highwaters).items())


class SafeTableManager(TableManager):  # type: ignore[misc]
    """Brings `SafeRecovery` in."""

    @property
    def begun_recovery(self) -> SafeRecovery | None:
        """The service if the event loop has made it: asking `recovery` from another thread would make it there, with no loop."""
        return getattr(self, "_recovery", None)

    @property
    def recovery(self) -> Recovery:
        recovery: Recovery | None = getattr(self, "_recovery", None)
        if recovery is None:
            recovery = self._recovery = SafeRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return recovery


class MonitorApp(faust.App):  # type: ignore[misc]
    """A Faust app that asks its worker where to start, and gives it the chance to checkpoint before it lets go.

    owned_generation: of the consumer group while partitions are owned, None between a revocation and the next assignment.
    read_log: returns the records of a topic's partition from one offset to another, none where they cannot be read now.
    readiness: what this worker waits for, for tables and drivers to hold and release.
    """

    source_topics: frozenset[str] = frozenset()
    output_topics: frozenset[str] = frozenset()
    owned_generation: int | None = None
    readiness: Readiness
    on_assigned: Callable[[Any], None]
    before_revoke: Callable[[], Awaitable[None]]
    start_offset: Callable[[TP], Awaitable[int | None]]
    read_log: Callable[[str, int, int, int], Awaitable[Sequence[Record]]]
    fail: Callable[[str, BaseException], NoReturn]
    on_loop: Callable[[], Awaitable[None]]
    on_full_disk: Callable[[str], None]
    on_resumed: Callable[[], None]

    async def on_start(self) -> None:
        """Start what runs as long as the event loop does, recovery included (timers wait for its end)."""
        await super().on_start()
        self.add_future(self.on_loop())

    async def on_stop(self) -> None:
        """Checkpoint while everything is still connected, then stop."""
        await self.before_revoke()
        self.owned_generation = None
        await super().on_stop()

    async def send_all(self, messages: Sequence[Message], is_owner: Callable[[], bool]) -> list[int]:
        """Send messages, packed by partition, and await every acknowledgement; return their offsets in the order given.

        Raises as `sending.send_all` does.
        """
        if not messages:
            return []
        producer = (await self.maybe_start_producer())._ensure_producer()
        return await send_all(producer, messages, is_owner, Refusals(self.output_topics))
