"""Recovery with Faust's own round of it, a real table and its store, and a consumer that loses what it is told to lose."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import confluent_kafka as ck
import pytest
from faust.types import TP

from monitor.config.settings import Config
from monitor.ports import StoredRecord
from monitor.runtime import recovery as module
from monitor.runtime.app import build_app
from monitor.runtime.extensions import CheckpointTable, MonitorApp
from monitor.runtime.store import StoreMemory

CHANGELOG = "a-t-changelog"
LOST, LATE = "lost", "late"


class Fetching:
    """A consumer of the changelogs, as Faust sees it: a fetch moves the position on, and only then hands a batch over.

    fates: of the fetches of a partition, in order: a batch is LOST on its way, or LATE, which is until the next question for a position;
    those that are not named arrive. batch: records a fetch.
    """

    def __init__(self, app: MonitorApp, logs: dict[TP, list[StoredRecord]], ends: dict[TP, int]) -> None:
        self.app, self.logs, self.ends = app, logs, ends
        self.batch = 100
        self.fates: dict[TP, list[str]] = defaultdict(list)
        self.positions: dict[TP, int] = {}
        self.active: set[TP] = set()
        self.late: list[Any] = []
        self.seeks: list[dict[TP, int]] = []
        self.asked: list[tuple[int, int]] = []
        self.is_silent = False
        self.n_refusals = 0
        self.is_flowing = False

    # --- what recovery asks of it

    async def highwaters(self, *tps: TP) -> dict[TP, int]:
        return {tp: self.ends[tp] for tp in tps}

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 0)

    async def seek_wait(self, offsets: dict[TP, int]) -> None:
        self.seeks.append(offsets)
        self.positions |= offsets

    async def position(self, tp: TP) -> int:
        late, self.late = self.late, []
        for event in late:
            self.app.tables.changelog_queue.force_put_nowait(event)
        return self.positions[tp]

    async def perform_seek(self) -> None:
        return

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        self.active -= set(tps)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        self.active |= set(tps)

    def resume_flow(self) -> None:
        self.is_flowing = True

    def assignment(self) -> set[TP]:
        return set(self.logs)

    def verify_recovery_event_path(self, *_: Any) -> None:
        return

    async def first_at(self, topic: str, partition: int, offset: int) -> int | None:
        self.asked.append((partition, offset))
        if self.n_refusals:
            self.n_refusals -= 1
            raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TRANSPORT))
        return next((r.offset for r in self.logs[TP(topic, partition)] if r.offset >= offset), None)

    # --- what the broker does

    async def fetch_on(self) -> None:
        """Fetch for ever, whatever is active."""
        while True:
            await asyncio.sleep(0.001)
            if self.is_flowing and not self.is_silent:
                for tp in sorted(self.active):
                    self._fetch(tp)

    def _fetch(self, tp: TP) -> None:
        found = [record for record in self.logs[tp] if record.offset >= self.positions[tp]][: self.batch]
        if len(found) < self.batch:
            self.positions[tp] = max(self.positions[tp], self.ends[tp])
        elif found:
            self.positions[tp] = found[-1].offset + 1
        if not found:
            return
        event = SimpleNamespace(message=SimpleNamespace(tp=tp, value=found, generation_id=self.app.consumer_generation_id))
        fate = self.fates[tp].pop(0) if self.fates[tp] else ""
        if fate == LATE:
            self.late.append(event)
        elif fate != LOST:
            self.app.tables.changelog_queue.force_put_nowait(event)


class Scene:
    """An app whose partitions are assigned and revoked, and what its callback found recovered: partition → rows, by generation."""

    def __init__(self, folder: Path, logs: dict[int, Sequence[StoredRecord]], ends: dict[int, int]) -> None:
        self.app = app = build_app(Config(app="a"), folder, ["s"])
        self.table: CheckpointTable = app.Table(
            "t", partitions=4, key_type=bytes, value_type=bytes, options={"memory": StoreMemory(1 << 24)}
        )
        self.app.tables._changelogs[CHANGELOG] = self.table
        of = {TP(CHANGELOG, p): list(records) for p, records in logs.items()}
        highs = {tp: ends.get(tp.partition, records[-1].offset + 1 if records else 0) for tp, records in of.items()}
        self.consumer = app.consumer = Fetching(app, of, highs)
        self.recovered: list[tuple[int | None, dict[int, dict[bytes, bytes]]]] = []
        self.table.on_recover(self._recovered)
        self.assigned: set[TP] = set()
        app.assignor = SimpleNamespace(assigned_actives=lambda: self.assigned, assigned_standbys=set)
        app._fetcher = SimpleNamespace(maybe_start=self.consumer.perform_seek)
        app.first_at = self.consumer.first_at
        app.on_resumed = app.on_rebalance_end = lambda: None
        app.fail = self._fail

    def _fail(self, what: str, error: BaseException) -> Any:
        raise error

    async def _recovered(self) -> None:
        rows = {tp.partition: dict(self.table.scan(tp.partition)) for tp in self.assigned}
        self.recovered.append((self.app.recovered_generation, rows))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[module.SafeRecovery]:
        recovery = self.app.tables.recovery
        await recovery.start()
        fetching = asyncio.create_task(self.consumer.fetch_on())
        try:
            yield recovery
        finally:
            fetching.cancel()
            await recovery.stop()

    async def assign(self, generation: int) -> None:
        """Do what Faust does at an assignment."""
        self.app.consumer_generation_id = self.app.owned_generation = generation
        self.assigned = set(self.consumer.logs)
        self.consumer.positions = dict.fromkeys(self.assigned, 0)
        await self.app.tables.recovery.on_rebalance(self.assigned, set(), self.assigned, generation)

    def revoke(self) -> None:
        """Do what Faust does at a revocation: nothing is active, what is queued is cleared."""
        self.app.owned_generation = None
        self.consumer.active.clear()
        self.consumer.is_flowing = False
        self.app.flow_control.suspend()
        self.app.flow_control.clear()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)


def records(*offsets: int) -> list[StoredRecord]:
    return [StoredRecord(offset, 0, b"%d" % offset, b"k%d" % offset) for offset in offsets]


def rows(*offsets: int) -> dict[bytes, bytes]:
    return {b"k%d" % offset: b"%d" % offset for offset in offsets}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.02)


@pytest.fixture
def scene(tmp_path: Path) -> Callable[..., Scene]:
    def make(logs: dict[int, Sequence[StoredRecord]], ends: dict[int, int] | None = None) -> Scene:
        return Scene(tmp_path, logs, ends or {})

    return make


Make = Callable[..., Scene]


async def recover(scene: Scene) -> dict[int, dict[bytes, bytes]]:
    async with scene.running():
        await scene.assign(5)
        await scene.until(lambda: scene.recovered)
    ((generation, found),) = scene.recovered
    assert generation == 5
    return found


def test_everything_up_to_the_ends_is_taken_in(scene: Make) -> None:
    world = scene({1: records(0, 1, 2), 3: records(0), 2: []})
    assert asyncio.run(recover(world)) == {1: rows(0, 1, 2), 3: rows(0), 2: {}}
    assert world.consumer.asked == []


def test_records_that_were_lost_between_the_consumer_and_the_store_are_read_again(scene: Make) -> None:
    """The consumer stands at the end: that proves nothing about what has arrived."""
    world = scene({1: records(0, 1, 2), 3: records(0, 1)})
    world.consumer.fates[TP(CHANGELOG, 3)] = [LOST, LOST]
    assert asyncio.run(recover(world)) == {1: rows(0, 1, 2), 3: rows(0, 1)}


def test_records_that_are_on_their_way_while_the_consumer_is_asked_are_taken_in(scene: Make) -> None:
    world = scene({3: records(0, 1)})
    world.consumer.fates[TP(CHANGELOG, 3)] = [LATE]
    assert asyncio.run(recover(world)) == {3: rows(0, 1)}


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_no_batch_leaves_a_hole(scene: Make, lost: int) -> None:
    world = scene({3: records(*range(6))})
    world.consumer.batch = 2
    world.consumer.fates[TP(CHANGELOG, 3)] = [LOST if n == lost else "" for n in range(3)]
    assert asyncio.run(recover(world)) == {3: rows(*range(6))}


def test_offsets_without_records_are_passed_where_the_log_has_none(scene: Make) -> None:
    """Compaction leaves gaps, and a changelog may end with one."""
    world = scene({3: records(2, 5, 6, 9)}, {3: 12})
    world.consumer.batch = 2
    assert asyncio.run(recover(world)) == {3: rows(2, 5, 6, 9)}
    assert world.consumer.seeks == [{TP(CHANGELOG, 3): 0}]


def test_a_log_that_cannot_be_asked_is_asked_again(scene: Make) -> None:
    world = scene({3: records(2, 5)}, {3: 9})
    world.consumer.n_refusals = 3
    assert asyncio.run(recover(world)) == {3: rows(2, 5)}
    assert len(world.consumer.asked) > 3


def test_the_recovery_of_a_former_assignment_completes_nothing(scene: Make) -> None:
    """Its records were dropped, since nobody owned the partition; the consumer had handed them over."""
    world = scene({3: records(0, 1)})
    world.consumer.fates[TP(CHANGELOG, 3)] = [LOST]

    async def rebalanced() -> None:
        async with world.running() as recovery:
            await world.assign(5)
            await world.until(lambda: world.consumer.positions[TP(CHANGELOG, 3)] == 2)
            world.revoke()
            await asyncio.sleep(0.2)
            assert not recovery.completed.is_set()
            assert recovery.n_remaining() > 0
            assert world.recovered == []
            await world.assign(6)
            await world.until(lambda: world.recovered)

    asyncio.run(rebalanced())
    assert world.recovered == [(6, {3: rows(0, 1)})]


def test_a_table_that_was_recovered_for_one_assignment_is_not_handed_over_in_the_next(scene: Make) -> None:
    """The group goes on while the last words of a recovery are spoken."""
    world = scene({3: records(0, 1)})

    async def overtaken() -> None:
        async def next_assignment() -> None:
            if world.app.owned_generation == 5:
                world.app.owned_generation = 6

        world.app.on_rebalance_complete = SimpleNamespace(send=next_assignment)
        async with world.running() as recovery:
            await world.assign(5)
            await world.until(lambda: world.app.owned_generation == 6)
            await asyncio.sleep(0.05)
            assert world.recovered == []
            assert not recovery.completed.is_set()
            await world.assign(6)
            await world.until(lambda: world.recovered)

    asyncio.run(overtaken())
    assert world.recovered == [(6, {3: rows(0, 1)})]
