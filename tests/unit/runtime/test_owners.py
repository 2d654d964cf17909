from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka.errors import KafkaTimeoutError
from faust.types import TP

from monitor.config.settings import Config
from monitor.errors import ConfigError, StaleOwner, StateDamaged, StateMismatch, UnknownCodec
from monitor.runtime import owners as module
from monitor.runtime.owners import Owners
from monitor.runtime.readiness import Readiness
from monitor.runtime.refusals import Refused
from monitor.runtime.sending import LostOwnership
from monitor.runtime.store import StoreFull
from monitor.runtime.telemetry import Telemetry
from tests.unit.runtime.counting import CountingStage


class App:
    """What the owners see of the Faust app."""

    consumer = None

    def __init__(self, *partitions: int) -> None:
        self.owned_generation: int | None = 3
        self.recovered_generation: int | None = 3
        self.readiness = Readiness()
        self.assignor = SimpleNamespace(assigned_actives=lambda: {TP("s", p) for p in partitions} | {TP("other", 9)})


class Table:
    def __init__(self) -> None:
        self.noted: list[int] = []

    def scan(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        yield b"partition", b"%d" % partition

    def recovered(self, partition: int) -> None:
        self.noted.append(partition)


class Ended(Exception):
    def __init__(self, reason: str, code: int = 70, **facts: Any) -> None:
        super().__init__(reason, code)
        self.code = code


class Made:
    """Makes stages; rows of the partitions in `found` hold these epochs."""

    def __init__(self, found: dict[int, list[int]] | None = None) -> None:
        self.found = found or {}
        self.epochs: dict[int, int] = {}

    def __call__(
        self, topic: str, partition: int, *, epoch: int, rows: Iterable[tuple[bytes, bytes]], now_ms: int
    ) -> CountingStage:
        for found in self.found.get(partition, []):
            if found >= epoch:
                raise StaleOwner(epoch, found)
        self.epochs[partition] = epoch
        return CountingStage()


@pytest.fixture(autouse=True)
def _no_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*args: Any, **facts: Any) -> None:
        raise Ended(*args, **facts)

    monkeypatch.setattr(module, "end_process", end)


def owners_of(app: App, made: Made) -> Owners:
    config = Config.model_validate({"kafka": {"bootstrap_servers": "127.0.0.1:1"}})
    return Owners(app, config, made, Telemetry(), {})  # type: ignore[arg-type]


def take_over(owners: Owners, table: Table) -> None:
    asyncio.run(owners.take_over(table, "s"))  # type: ignore[arg-type]


def test_each_assigned_partition_of_the_topic_gets_a_stage_with_the_generation_as_its_epoch() -> None:
    made, table = Made(), Table()
    owners = owners_of(App(2, 0), made)
    take_over(owners, table)
    assert made.epochs == {0: 3, 2: 3}
    assert table.noted == [0, 2]
    assert [(d.topic, d.partition, d.generation) for d in owners] == [("s", 0, 3), ("s", 2, 3)]
    assert owners.get("s", 2, 3) is not None
    assert owners.get("s", 2, 4) is None


def test_nothing_is_made_between_a_revocation_and_the_next_assignment() -> None:
    app, made = App(0), Made()
    owners = owners_of(app, made)
    app.owned_generation = None
    take_over(owners, Table())
    assert (made.epochs, len(owners)) == ({}, 0)


def test_nothing_is_made_in_an_assignment_from_what_was_recovered_for_the_one_before() -> None:
    app, made = App(0), Made()
    owners = owners_of(app, made)
    app.owned_generation = 4
    take_over(owners, Table())
    assert (made.epochs, len(owners)) == ({}, 0)


def test_a_driver_counts_as_owner_until_its_generation_ends() -> None:
    app = App(0)
    owners = owners_of(app, Made())
    take_over(owners, Table())
    (driver,) = owners
    assert driver.is_owner()
    app.owned_generation = None
    assert not driver.is_owner()
    app.owned_generation = 4
    assert not driver.is_owner()


def test_a_driver_that_was_replaced_is_no_owner() -> None:
    owners = owners_of(App(0), Made())
    take_over(owners, Table())
    (first,) = owners
    take_over(owners, Table())
    (second,) = owners
    assert (first.is_owner(), second.is_owner()) == (False, True)


def test_letting_go_leaves_no_driver() -> None:
    owners = owners_of(App(0, 1), Made())
    take_over(owners, Table())
    drivers = list(owners)
    asyncio.run(owners.let_go())
    assert len(owners) == 0
    assert not any(driver.is_owner() for driver in drivers)


class TestNewerEpochs:
    def test_they_are_of_the_past_when_the_coordinator_confirms_this_generation_afterwards(self) -> None:
        made = Made({1: [57, 60], 2: [58]})
        owners = owners_of(App(0, 1, 2), made)
        owners._guard._confirmed = (3, owners._guard.now() + 1_000)
        take_over(owners, Table())
        assert made.epochs == {0: 3, 1: 63, 2: 61}

    def test_every_owner_after_a_reset_has_a_higher_epoch_than_all_before(self) -> None:
        app, made = App(0), Made({0: [57]})
        epochs = []
        for generation in (1, 2, 3, 4):
            owners = owners_of(app, made)
            app.owned_generation = app.recovered_generation = generation
            owners._guard._confirmed = (generation, owners._guard.now() + 1_000)
            take_over(owners, Table())
            epochs.append(made.epochs[0])
            if generation != 3:  # this one ends before it has written anything
                made.found[0].append(epochs[-1])
        assert epochs == [58, 60, 63, 64] and epochs == sorted(set(epochs))

    def test_so_has_one_that_is_of_the_very_generation_that_wrote_last(self) -> None:
        owners = owners_of(App(0, 1), made := Made({0: [3], 1: [2, 3]}))
        owners._guard._confirmed = (3, owners._guard.now() + 1_000)
        take_over(owners, Table())
        assert made.epochs == {0: 6, 1: 6}

    def test_the_owner_is_stale_when_it_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        owners = owners_of(App(0), Made({0: [57]}))
        owners._guard.session_s = 0.2
        owners._guard._confirmed = (3, owners._guard.now())  # before the rows were read
        with pytest.raises(StaleOwner):
            take_over(owners, Table())
        assert len(owners) == 0

    def test_it_is_no_failure_when_its_own_generation_ends_while_it_waits(self) -> None:
        app = App(0)
        owners = owners_of(app, Made({0: [57]}))

        async def run() -> None:
            taking = asyncio.create_task(owners.take_over(Table(), "s"))  # type: ignore[arg-type]
            await asyncio.sleep(0.15)
            app.owned_generation = None
            with pytest.raises(LostOwnership) as lost:
                await asyncio.wait_for(taking, 5)
            owners.failed("take_over", lost.value)

        asyncio.run(run())
        assert len(owners) == 0


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (StateMismatch("other topic"), 78),
            (ConfigError("no"), 78),
            (UnknownCodec("row", 9, [1]), 78),
            (StateDamaged("row"), 78),
            (StaleOwner(1, 2), 70),
            (OSError("disk"), 70),
        ],
    )
    def test_what_a_new_start_cannot_mend_ends_with_78_and_everything_else_with_70(self, error: Exception, code: int) -> None:
        with pytest.raises(Ended) as ended:
            owners_of(App(0), Made()).failed("feed", error)
        assert ended.value.code == code

    def test_what_happens_to_a_partition_that_is_lost_already_is_no_failure(self) -> None:
        app = App(0)
        owners = owners_of(app, Made())
        take_over(owners, Table())
        (driver,) = owners
        owners.failed("tick", LostOwnership())
        app.owned_generation = None
        owners.failed("tick", OSError("disk"), driver)


class TestObstacles:
    def test_a_partition_that_waits_is_not_fetched_and_is_told_with_its_reason_until_it_goes_on(self) -> None:
        app, telemetry = App(0, 1), Telemetry()
        paused: list[tuple[str, set[TP]]] = []
        app.consumer = SimpleNamespace(  # type: ignore[assignment]
            hold_back=lambda tp: paused.append(("pause", {tp})),
            resume_partitions=lambda tps: paused.append(("resume", tps)),
        )
        config = Config.model_validate({"kafka": {"bootstrap_servers": "127.0.0.1:1"}})
        owners = Owners(app, config, Made(), telemetry, {})  # type: ignore[arg-type]
        take_over(owners, Table())
        first, second = owners
        for driver, obstacle in ((first, StoreFull("full")), (second, Refused({"monitor.alerts": KafkaTimeoutError()}, []))):
            owners._on_obstacle(driver, obstacle)
        assert app.readiness.reasons() == {"disk": "full", "outputs": "monitor.alerts: KafkaTimeoutError (?)"}
        assert telemetry.registry.get_sample_value("monitor_refusals_total", {"topic": "monitor.alerts"}) == 1
        owners._on_obstacle(first, None)
        assert app.readiness.reasons().keys() == {"outputs"}
        assert paused == [("pause", {TP("s", 0)}), ("pause", {TP("s", 1)}), ("resume", {TP("s", 0)})]
        asyncio.run(owners.let_go())
        assert app.readiness.reasons() == {}


@pytest.mark.parametrize("error", [struct.error("cut"), ValueError("varint"), msgspec.DecodeError("odd")])
def test_rows_whose_content_cannot_be_read_are_refused_with_an_instruction(error: Exception) -> None:
    """Their checksum was right: the changelog has them as they are, and a new start would change nothing."""

    def make(*_: Any, **__: Any) -> CountingStage:
        raise error

    with pytest.raises(StateDamaged, match=r"state of s/0 cannot be read.*`monitor state verify` names the rows"):
        take_over(owners_of(App(0), make), Table())  # type: ignore[arg-type]
