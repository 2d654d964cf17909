"""The five places where Faust 0.15.3 is replaced, and why. tests/unit/runtime pins the upstream source of each.

1. Scheduler: one Faust event carries a whole fetched batch of a partition; an event per record costs 95–110 µs.
2. Consumer: stock commits advance one batch per interval, revocation forgets what was acknowledged before it commits, and a partition
   without a commit is never sought, so that records dropped at a generation change are lost.
3. Table: stock tables write the local store before the changelog, and count twice after a crash.
4. Recovery: stock recovery resumes sources before it seeks and clears queues after that: records are lost and committed.
5. App: the last checkpoint before a stop, while partitions are still owned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import faust
import rocksdict
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver
from faust.transport.utils import DefaultSchedulingStrategy
from faust.types import TP

from monitor.ports import Checkpoint, Message, Record


class Batch:
    """What Faust takes for one record: all records of a partition in one fetch. `offset` is the last one's."""

    __slots__ = (
        "checksum", "headers", "key", "offset", "partition", "serialized_key_size", "serialized_value_size", "timestamp",
        "timestamp_type", "topic", "value",
    )  # fmt: skip

    def __init__(self, records: Sequence[Any]) -> None:
        last = records[-1]
        self.topic = last.topic
        self.partition = last.partition
        self.offset = last.offset
        self.timestamp = last.timestamp
        self.timestamp_type = last.timestamp_type
        self.headers: tuple[()] = ()
        self.key = None
        self.value: Sequence[Record] = records
        self.checksum = None
        self.serialized_key_size = 0
        self.serialized_value_size = 0


def batch_scheduler(topics: frozenset[str]) -> type[DefaultSchedulingStrategy]:
    """Return a scheduling strategy that delivers `topics` in batches and everything else (changelogs) record by record."""

    class BatchScheduler(DefaultSchedulingStrategy):  # type: ignore[misc]
        def iterate(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, Any]]:
            rest = {}
            for tp, found in records.items():
                if not found:
                    continue
                if tp.topic in topics:
                    yield tp, Batch(found)
                else:
                    rest[tp] = found
            if rest:
                yield from super().iterate(rest)

    return BatchScheduler


class BatchConsumer(driver.Consumer):  # type: ignore[misc]
    """Commits by batch, checkpoints before it lets go, and always seeks to where the state says."""

    app: MonitorApp

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if tp.topic not in self.app.batch_topics:
            await super()._add_gap(tp, offset_from, offset_to)

    def _new_offset(self, tp: TP) -> int | None:
        """Batches are acknowledged in order, after a checkpoint: the last one is what may be committed."""
        if tp.topic not in self.app.batch_topics:
            return super()._new_offset(tp)  # type: ignore[no-any-return]
        acked = self._acked.get(tp)
        if not acked:
            return None
        last: int = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return last + 1

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Checkpoint and commit while the partitions are still owned; correctness does not depend on it."""
        await self.app.before_revoke()
        await super().on_partitions_revoked(revoked)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every source partition to the state's next offset, whatever the group has committed."""
        offsets = dict(await super().seek_to_committed())
        starts = {TP(tp.topic, tp.partition): None for tp in offsets if tp.topic in self.app.batch_topics}
        wanted = {tp: await self.app.start_offset(tp) for tp in starts}
        if wanted:
            await self.seek_wait(wanted)
        return offsets | wanted


class BatchTransport(driver.Transport):  # type: ignore[misc]
    """aiokafka with `BatchConsumer`."""

    Consumer = BatchConsumer


class LostOwnership(Exception):
    """The partition was given away while a checkpoint or an outbox was under way."""


class CheckpointTable(faust.Table):  # type: ignore[misc]
    """A table as storage and changelog: changelog first, then one atomic local batch."""

    foreign_writes = 0

    def _should_expire_keys(self) -> bool:
        return False

    async def write(self, partition: int, checkpoint: Checkpoint, is_owner: Callable[[], bool]) -> None:
        """Make a checkpoint durable. Raises LostOwnership, or what a failed send raises; the state is then of no use any more."""
        app: MonitorApp = self.app
        topic = self.changelog_topic_name
        await app.send_all(checkpoint.dead_letters, is_owner)
        rows = [Message(topic, key, value, partition) for key, value in checkpoint.rows]
        sent = await app.send_all(rows, is_owner)
        sent += await app.send_all([Message(topic, *checkpoint.meta, partition)], is_owner)
        if not is_owner():
            raise LostOwnership
        database = self.data._db_for_partition(partition)
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in (*checkpoint.rows, checkpoint.meta):
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        offsets = sorted(metadata.offset for metadata in sent)
        local = database.get(self.data.offset_key)
        follows = local is None or offsets[0] == int(local) + 1
        if follows and offsets[-1] - offsets[0] + 1 == len(offsets):
            batch.put(self.data.offset_key, str(offsets[-1]).encode())
        else:
            self.foreign_writes += 1  # somebody else wrote in between: the next recovery reads again from the old offset
        database.write(batch)

    def scan(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield the local rows of a partition, every epoch."""
        for key, value in self.data._db_for_partition(partition).items():
            if key != self.data.offset_key:
                yield key, value


class SafeRecovery(Recovery):  # type: ignore[misc]
    """Seeks before it resumes, clears no queue that is in use, and lets no callback fail unseen."""

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        app = self.app
        consumer = app.consumer
        await app.on_rebalance_complete.send()
        self._set_recovery_ended()
        for table in self.tables.values():
            await table.on_recovery_completed(self.actives_for_table[table], self.standbys_for_table[table])
        assignment = consumer.assignment()
        if app.consumer_generation_id != generation_id:
            return  # rebalanced again: the next recovery takes over
        sources = {tp for tp in assignment if not self._is_changelog_tp(tp)}
        if assignment:
            await self._wait(consumer.perform_seek(), timeout=app.conf.broker_request_timeout)
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


class SafeTableManager(TableManager):  # type: ignore[misc]
    """Brings `SafeRecovery` in."""

    @property
    def recovery(self) -> Recovery:
        recovery: Recovery | None = getattr(self, "_recovery", None)
        if recovery is None:
            recovery = self._recovery = SafeRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return recovery


class MonitorApp(faust.App):  # type: ignore[misc]
    """A Faust app that asks its worker where to start, and gives it the chance to checkpoint before it lets go."""

    batch_topics: frozenset[str] = frozenset()
    before_revoke: Callable[[], Awaitable[None]]
    start_offset: Callable[[TP], Awaitable[int]]

    async def on_stop(self) -> None:
        await self.before_revoke()
        await super().on_stop()

    async def send_all(self, messages: Sequence[Message], is_owner: Callable[[], bool]) -> list[Any]:
        """Send messages and await every acknowledgement; return the records' metadata in order."""
        if not messages:
            return []
        producer = await self.maybe_start_producer()
        futures = []
        for message in messages:
            if not is_owner():
                raise LostOwnership
            futures.append(
                await producer.send(
                    message.topic,
                    message.key,
                    message.value,
                    message.partition,
                    None if message.timestamp_ms is None else message.timestamp_ms / 1000,
                    dict(message.headers) or None,
                )
            )
        return list(await asyncio.gather(*futures))
