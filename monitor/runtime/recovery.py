"""Recovery of the tables from their changelogs, the fourth of the places where Faust is replaced (see extensions.py).

A changelog is recovered when the records up to its end were taken in, or the log says that there are none: never because the consumer
stands there. Between the consumer and this place records are lost: it moves on when it hands a fetch over, and what comes while
partitions change hands, or are paused, is dropped after that.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import confluent_kafka as ck
import structlog
from aiokafka.errors import IllegalStateError
from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery
from faust.types import TP
from mode import Service

from monitor.runtime.changelog import newest_of
from monitor.runtime.extensions import FULL_S
from monitor.runtime.store import StoreFull

SILENCE_S = 1.0
"""Recovery looks around when no changelog record comes for so long."""

log = structlog.get_logger()


class SafeRecovery(Recovery):  # type: ignore[misc]
    """Reads changelogs by the batch, seeks before it resumes, clears no queue that is in use, and lets nothing fail unseen.

    n_taken: changelog records taken in since the start.
    """

    n_taken = 0
    _began = 0, 0.0
    _sought: int | None = None

    def _set_recovery_started(self) -> None:
        """Withdraw the signal of the recovery before. Stock code does so before each record, and can miss the signal that way."""
        super()._set_recovery_started()
        self.signal_recovery_end.clear()
        self._began = self.n_taken, time.monotonic()

    @property
    def _reads(self) -> int | None:
        """The generation whose changelogs are being read: from the seek to the end, while their partitions are ours."""
        is_it = self.in_recovery and self._sought == self._generation_id == self.app.owned_generation
        return self._sought if is_it else None

    @Service.task  # type: ignore[untyped-decorator]
    async def _slurp_changelogs(self) -> None:
        """Take changelogs in until their ends are reached.

        Stock code takes 0.2 ms a record, writes rows and offset apart, applies records of partitions that are not ours to the table
        that it saw last, and goes on after an error without the rows.
        """
        silences = 0
        while not self.should_stop:
            event = None
            with suppress(TimeoutError):
                event = await asyncio.wait_for(self.tables.changelog_queue.get(), SILENCE_S)
            silences = silences + 1 if event is None and self._reads is not None else 0
            try:
                if event is not None:
                    await self._take(event)
                elif silences > 1:
                    await self._look_for_the_rest()
            except Exception as error:  # noqa: BLE001  (whatever it is, the store lacks rows)
                self.app.fail("recovery", error)
            if self._reads is not None and not self.need_recovery():
                self._set_recovery_ended()
                self.signal_recovery_end.set()

    async def _take(self, event: Any) -> None:
        """Take a batch in, if it continues what was taken in before."""
        message = event.message
        tp, found, reads = message.tp, message.value, self._reads

        def is_wanted() -> bool:
            return reads is not None and reads == self._reads == message.generation_id and tp in self.active_tps

        if not is_wanted():
            return
        seen = self.active_offsets[tp]
        new = [record for record in found if record.offset > seen]
        if not new:
            return
        if found[0].offset > seen + 1 and not await self._is_empty(tp, seen + 1, found[0].offset):
            if is_wanted():
                await self._read_again(tp)
            return
        await self.tp_to_table[tp].take_changelog(tp.partition, newest_of(new), is_wanted)
        if is_wanted():
            self.active_offsets[tp] = new[-1].offset
        self.n_taken += len(new)

    async def _is_empty(self, tp: TP, first: int, end: int) -> bool:
        """Whether the log has no record from `first` on and below `end`; not knowing is no."""
        try:
            found = await self.app.first_at(tp.topic, tp.partition, first)
        except ck.KafkaException as error:
            log.warning("log_unread", topic=tp.topic, partition=tp.partition, error=str(error))
            return False
        return found is None or found >= end

    async def _look_for_the_rest(self) -> None:
        """Ask the log what there is of changelogs that have gone silent before their ends.

        Nothing: compaction has left offsets without records, and nothing more would come. Records that the consumer has handed over, a
        while ago: they were lost. Others are on their way.
        """
        reads = self._reads
        for tp, remaining in self.active_remaining().items():
            if remaining <= 0:
                continue
            seen, end = self.active_offsets[tp], self.active_highwaters[tp]
            try:
                first = await self.app.first_at(tp.topic, tp.partition, seen + 1)
                position = await self.app.consumer.position(tp)
            except (ck.KafkaException, IllegalStateError) as error:
                log.warning("log_unread", topic=tp.topic, partition=tp.partition, error=str(error))
                continue
            if reads is None or reads != self._reads:
                return
            if first is None or first > end:
                self.active_offsets[tp] = end
            elif position is not None and position > first:
                await self._read_again(tp)

    async def _read_again(self, tp: TP) -> None:
        """Go back to what was taken in last. What is under way meanwhile is taken once, or not at all."""
        log.warning("changelog_read_again", topic=tp.topic, partition=tp.partition, offset=self.active_offsets[tp])
        with suppress(IllegalStateError):  # it was revoked
            await self.app.consumer.seek_wait({tp: max(0, self.active_offsets[tp])})

    async def _build_offsets(self, consumer: Any, tps: set[TP], destination: Any, title: str) -> None:
        """Compare every store with its changelog, and wait for a full disk; stock code takes its word for where to read on."""
        self._sought = None
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

    async def _seek_offsets(self, consumer: Any, tps: set[TP], offsets: Any, title: str) -> None:
        """Seek; what is read from then on counts."""
        generation = self._generation_id
        await super()._seek_offsets(consumer, tps, offsets, title)
        self._sought = generation

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
        if app.owned_generation != generation_id:
            return  # rebalanced again: the next recovery takes over
        app.recovered_generation = generation_id
        for table in self.tables.values():
            await table.on_recovery_completed(self.actives_for_table[table], self.standbys_for_table[table])
        assignment = consumer.assignment()
        if app.owned_generation != generation_id:
            return
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
        """The service; made by whoever asks first."""
        recovery: Recovery | None = getattr(self, "_recovery", None)
        if recovery is None:
            recovery = self._recovery = SafeRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return recovery
