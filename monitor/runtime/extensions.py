"""The six places where Faust 0.15.3 and its client are replaced, and why. tests/unit/runtime pins the upstream source of each.

1. Scheduler (batches.py): one Faust event carries a whole fetched batch of a partition; an event per record costs 95–110 µs.
2. Consumer: stock commits advance one batch per interval, revocation forgets what was acknowledged before it commits, and a partition
   without a commit is never sought, so that records dropped at a generation change are lost. Stock fetches are held for 1.5 s.
3. Table, and store (store.py): stock tables write the local store before the changelog, and count twice after a crash.
4. Recovery (recovery.py): stock recovery resumes sources before it seeks and clears queues after that: records are lost and committed.
   It takes the consumer's word for what it has read, at 4,800 changelog records a second.
5. App: the last checkpoint before a stop, while partitions are still owned.
6. Records (fetched.py): aiokafka spends two thirds of its time for a record on its sum, on an object of twelve fields and on handing it over alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from monitor.errors import StateMismatch
from monitor.ports import Checkpoint, Message, Record
from monitor.runtime.changelog import follows
from monitor.runtime.fetched import replace_fetched
from monitor.runtime.readiness import Readiness
from monitor.runtime.refusals import Refusals, Refused
from monitor.runtime.sending import LostOwnership, send_all
from monitor.runtime.store import LocalStore, StoreFull

FULL_S = 1.0
"""A full disk is tried again after so long."""
FETCH_WAIT_MS = 100
"""For so long a broker holds a fetch of partitions that have nothing new."""


class _Only:
    """Sets, as they are when they are asked, that mean what they hold, nothing too."""

    def __init__(self, *members: Container[TP]) -> None:
        self._members = members

    def __contains__(self, tp: object) -> bool:
        return any(tp in members for members in self._members)


class ShortPolls(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread of the consumer, which asks the broker for records more often."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        """Let no fetch wait for long.

        aiokafka has one under way per broker, for the partitions of which it has nothing left: while windows close it may be one for silent
        partitions alone, and records of the others, of which the last is taken meanwhile, come behind it. Stock code has it wait for 1.5 s.
        """
        replace_fetched()
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class BatchConsumer(driver.Consumer):  # type: ignore[misc]
    """Commits by batch, checkpoints before it lets go, and always seeks to where the state says."""

    app: MonitorApp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._held_back = set[TP]()
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ShortPolls:
        """Return the thread that reads."""
        return ShortPolls(self, loop=self.loop, beacon=self.beacon)

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

    async def _getmany(self, active_partitions: set[TP], timeout: float) -> Any:
        """Fetch what is active when it comes.

        A fetch that is under way outlasts a rebalance, and aiokafka takes no active partition at all to mean every one: what it then
        returns is dropped, and the consumer has moved past it.
        """
        return await super()._getmany(_Only(active_partitions), timeout)

    def hold_back(self, tp: TP) -> None:
        """Fetch no more of a partition until it is resumed; what is on its way comes."""
        self._held_back.add(tp)
        self.pause_partitions({tp})

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Fetch again."""
        super().resume_partitions(tps)
        self._held_back.difference_update(tps)

    async def _wait_next_records(self, timeout: float) -> Any:
        """Deliver what was fetched of a partition that is held back since.

        Stock code drops what it has of a paused partition: it pauses to seek, and what was dropped is fetched again.
        """
        records, active_partitions = await super()._wait_next_records(timeout)
        return records, _Only(active_partitions, self._held_back)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Checkpoint and commit while the partitions are still owned; correctness does not depend on it.

        Stock code drops the acknowledged offsets before its own last commit. Ownership ends here, before anything else happens.
        """
        await self.app.before_revoke()
        self.app.owned_generation = None
        self._held_back.clear()
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

    def told_of_recovery(self, partition: int) -> str:
        """Return what recovery knows of the changelog of a partition, for a message."""
        tp, recovery = TP(self.changelog_topic_name, partition), self.app.tables.recovery
        what = "it was to be read" if tp in recovery.active_tps else "it was not to be read"
        upto, end = recovery.active_offsets.get(tp), recovery.active_highwaters.get(tp)
        others = sorted(f"{each.topic}/{each.partition} {n}" for each, n in recovery.active_highwaters.items())
        held = self.persisted_offset(tp)
        return f"{what}, and is up to offset {upto} of {end}, the local store up to {held}; ends known: {', '.join(others)}"

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


class MonitorApp(faust.App):  # type: ignore[misc]
    """A Faust app that asks its worker where to start, and gives it the chance to checkpoint before it lets go.

    owned_generation: of the consumer group while partitions are owned, None between a revocation and the next assignment.
    recovered_generation: whose assignment the tables were recovered for last.
    read_log: returns the records of a topic's partition from one offset to another, none where they cannot be read now.
    first_at: returns where the first record of a topic's partition is at or after an offset, None when there is none; raises
    KafkaException where that cannot be told now.
    readiness: what this worker waits for, for tables and drivers to hold and release.
    """

    source_topics: frozenset[str] = frozenset()
    output_topics: frozenset[str] = frozenset()
    owned_generation: int | None = None
    recovered_generation: int | None = None
    readiness: Readiness
    on_assigned: Callable[[Any], None]
    before_revoke: Callable[[], Awaitable[None]]
    start_offset: Callable[[TP], Awaitable[int | None]]
    read_log: Callable[[str, int, int, int], Awaitable[Sequence[Record]]]
    first_at: Callable[[str, int, int], Awaitable[int | None]]
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
