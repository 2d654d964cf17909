"""Which partitions this worker owns: stages are loaded at an assignment and let go, for good, when the revocation returns."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn, Protocol

import confluent_kafka as ck
import structlog
from faust.types import TP

from monitor.config.settings import Config
from monitor.errors import ConfigError, StaleOwner, StateDamaged, StateMismatch, UnknownCodec
from monitor.ports import Outbox, PartitionStage, Record
from monitor.runtime.broker import Watch
from monitor.runtime.driver import Obstacle, PartitionDriver, Start, Surroundings, now_ms
from monitor.runtime.exits import EXIT_CONFIG, EXIT_OWNERSHIP, end_process
from monitor.runtime.extensions import CheckpointTable, MonitorApp
from monitor.runtime.guard import Guard
from monitor.runtime.pace import Pace
from monitor.runtime.refusals import Refused
from monitor.runtime.sending import LostOwnership
from monitor.runtime.telemetry import Telemetry
from monitor.stages.rows import UNREADABLE

MAX_MISSED = 20_000
"""Records of a changelog that are read between two checkpoints, while nothing else happens to the partition: some 20 MB."""
LAST_CHECKPOINT_S = 5.0
"""A revocation waits so long for checkpoints; the group waits for it, and correctness does not need them."""

log = structlog.get_logger()


class MakeStage(Protocol):
    """Makes a partition's stage from what the store holds of it. Raises StaleOwner, StateMismatch, UnknownCodec, StateDamaged."""

    def __call__(
        self, topic: str, partition: int, *, epoch: int, rows: Iterable[tuple[bytes, bytes]], now_ms: int
    ) -> PartitionStage:
        """Return the stage of `topic`/`partition`; `rows` are read once, before the call returns."""
        ...


class Owners:
    """The drivers of the partitions that are owned now.

    make_stage: called for every partition at each assignment. starts: by topic, where a partition without state begins.
    n_loaded: rows of state read since the start; the event loop does not turn while a partition's are read.
    """

    def __init__(
        self, app: MonitorApp, config: Config, make_stage: MakeStage, telemetry: Telemetry, starts: Mapping[str, Start]
    ) -> None:
        self._app = app
        self._make_stage = make_stage
        self._guard = Guard(config.kafka.session_timeout / 1000, on_stale=partial(end_process, code=EXIT_OWNERSHIP))
        self._telemetry = telemetry
        self._starts = starts
        self._partials, self._results = f"{config.app}.partials", f"{config.app}.results"
        self._drivers: dict[tuple[str, int], PartitionDriver] = {}
        self.n_loaded = 0
        self._around = Surroundings(
            app=app,
            watch=Watch(config.kafka, group=config.app),
            executor=ThreadPoolExecutor(max_workers=2, thread_name_prefix="watch"),
            check_guard=self._guard.check,
            is_current=self._is_current,
            on_durable=self._on_durable,
            on_sent=self._on_sent,
            on_obstacle=self._on_obstacle,
            pace=Pace(config.state.checkpoint / 1000),
        )

        app.read_log, app.first_at = self._read_log, self._first_at

    def __iter__(self) -> Iterator[PartitionDriver]:
        return iter(list(self._drivers.values()))

    def __len__(self) -> int:
        return len(self._drivers)

    def get(self, topic: str, partition: int, generation: int) -> PartitionDriver | None:
        """Return the driver of a partition, if it is of that generation of the group."""
        driver = self._drivers.get((topic, partition))
        return driver if driver is not None and driver.generation == generation else None

    def check_guard(self) -> None:
        """End the process when its partitions may have been given away without its notice."""
        self._guard.check()

    def _is_current(self, driver: PartitionDriver) -> bool:
        is_same = self._drivers.get((driver.topic, driver.partition)) is driver
        return is_same and self._app.owned_generation == driver.generation

    def _on_durable(self, driver: PartitionDriver, counts: Mapping[tuple[str, ...], int], seconds: float | None) -> None:
        self._telemetry.durable(driver.topic, driver.partition, counts)
        if seconds is not None:
            self._telemetry.checkpointed(seconds)

    def _on_sent(self, driver: PartitionDriver, box: Outbox) -> None:
        if driver.topic == self._partials:
            self._telemetry.windows.take(driver.partition, (m for m in box.first if m.topic == self._results))

    def _on_obstacle(self, driver: PartitionDriver, obstacle: Obstacle | None) -> None:
        """Say what is in the way, and leave records of the partition where they are until it is not."""
        tp, who = TP(driver.topic, driver.partition), f"{driver.topic}/{driver.partition}"
        readiness = self._app.readiness
        if obstacle is None:
            readiness.release_all(who)
            log.warning("partition_goes_on", topic=driver.topic, partition=driver.partition)
            self._app.consumer.resume_partitions({tp})
            return
        log.warning("partition_waits", topic=driver.topic, partition=driver.partition, reason=str(obstacle))
        condition, other = ("outputs", "disk") if isinstance(obstacle, Refused) else ("disk", "outputs")
        readiness.hold(condition, str(obstacle), who)
        readiness.release(other, who)
        self._app.consumer.hold_back(tp)
        if isinstance(obstacle, Refused):
            for topic in obstacle.topics:
                self._telemetry.count("monitor_refusals_total", labels=(topic,))

    # --- assignment

    def on_assigned(self, coordinator: Any) -> None:
        """Partitions are being assigned: from now on heartbeats count."""
        self._guard.watch(coordinator)
        self._guard.assigned()

    async def take_over(self, table: CheckpointTable, topic: str) -> None:
        """Load the stages of a topic's partitions, once the table is as new as the changelog.

        Does nothing when the partitions were revoked meanwhile: the next assignment calls again.
        """
        generation = self._app.recovered_generation
        if generation is None or self._app.owned_generation != generation:
            return
        for key in [key for key in self._drivers if key[0] == topic]:
            del self._drivers[key]
        partitions = sorted(tp.partition for tp in self._app.assignor.assigned_actives() if tp.topic == topic)
        if topic == self._partials:
            self._telemetry.windows.keep(partitions)
        stages = await self._load(table, topic, partitions, generation)
        if self._app.owned_generation != generation:
            return
        for partition, stage in stages.items():
            table.recovered(partition)
            self._telemetry.taken_over(topic, partition, stage.counters())
            start = self._starts.get(topic, "earliest")
            self._drivers[topic, partition] = PartitionDriver(
                self._around, table, topic, partition, stage, generation=generation, start=start
            )
        log.info("partitions_taken_over", topic=topic, partitions=partitions, generation=generation)

    async def _load(
        self, table: CheckpointTable, topic: str, partitions: list[int], generation: int
    ) -> dict[int, PartitionStage]:
        """Make the stages. Epoch = generation, above a base where the group was reset.

        Rows of an epoch as high were written by an owner of a later generation, or of a group that was deleted since. A heartbeat for
        this generation that is accepted after they were read tells: then the generation is the present one, and theirs is of the
        past, however high. Raises StaleOwner otherwise, LostOwnership when this generation ends meanwhile.
        """
        stages: dict[int, PartitionStage] = {}
        stale: dict[int, StaleOwner] = {}
        for partition in partitions:
            try:
                stages[partition] = self._make(table, topic, partition, generation)
            except StaleOwner as newer:
                stale[partition] = newer
        if stale:
            log.warning("epochs_as_high_found", topic=topic, partitions=sorted(stale), generation=generation)
            await self._await_heartbeat(generation, next(iter(stale.values())))
        for partition, error in stale.items():
            base = self._highest_epoch(table, topic, partition, error.found_epoch)
            stages[partition] = self._make(table, topic, partition, base + generation)
        return stages

    def _highest_epoch(self, table: CheckpointTable, topic: str, partition: int, found: int) -> int:
        """Return the highest epoch in a partition's rows, of which `found` is one: a stage tells only the first that it meets."""
        while True:
            try:
                self._make(table, topic, partition, found + 1)
            except StaleOwner as higher:
                found = higher.found_epoch
            else:
                return found

    async def _await_heartbeat(self, generation: int, stale: StaleOwner) -> None:
        read, waited_s = self._guard.now(), 0.0
        while not self._guard.is_confirmed_since(read, generation):
            if self._app.owned_generation != generation:
                raise LostOwnership  # the newer owner's rows are those of the generation after this one
            if waited_s > self._guard.session_s:
                raise stale
            await asyncio.sleep(0.1)
            waited_s += 0.1

    def _make(self, table: CheckpointTable, topic: str, partition: int, epoch: int) -> PartitionStage:
        """Make a stage. Raises StateDamaged for rows whose content is not what their codec says."""
        try:
            return self._make_stage(topic, partition, epoch=epoch, rows=self._counted(table.scan(partition)), now_ms=now_ms())
        except UNREADABLE as error:
            raise StateDamaged(
                f"the state of {topic}/{partition} cannot be read, though it is as the changelog has it ({type(error).__name__}): "
                "`monitor state verify` names the rows; restore the changelog, or start with another `app` name"
            ) from error

    def _counted(self, rows: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for row in rows:
            self.n_loaded += 1
            yield row

    def standing(self) -> dict[str, Hashable]:
        """Return where partitions stand that have something to do, for a watchdog."""
        return {f"{d.topic}/{d.partition}: {what}": place for d in self for what, place in d.standing().items()}

    async def start_offset(self, tp: TP) -> int | None:
        """Return where to read on; None when the partition was revoked meanwhile."""
        driver = self._drivers.get((tp.topic, tp.partition))
        if driver is None or not self._is_current(driver):
            return None
        try:
            return await driver.start_offset()
        except Exception as error:  # noqa: BLE001  (Faust would go on, or end with a trace only)
            self.failed("start", error, driver)
            return None

    async def _read_log(self, topic: str, partition: int, first: int, last: int) -> Sequence[Record]:
        """Return records of a log; none where they are too many, or the broker does not answer."""
        if last - first >= MAX_MISSED:
            return ()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._around.executor, self._around.watch.records, topic, partition, first, last)
        except ck.KafkaException as error:
            log.warning("log_unread", topic=topic, partition=partition, error=str(error))
            return ()

    async def _first_at(self, topic: str, partition: int, offset: int) -> int | None:
        """Return where the first record at or after an offset is, None when there is none. Raises KafkaException."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._around.executor, self._around.watch.first_at, topic, partition, offset)

    # --- letting go

    async def let_go(self) -> None:
        """Checkpoint for a few seconds at most, commit, and drop every stage."""
        drivers = list(self._drivers.values())
        try:
            async with asyncio.timeout(LAST_CHECKPOINT_S):
                await asyncio.gather(*(driver.last_checkpoint() for driver in drivers))
                if drivers and self._app.consumer is not None:
                    await self._app.consumer.commit()
        except (LostOwnership, TimeoutError):
            log.warning("revoked_without_checkpoint")
        except Exception as error:  # noqa: BLE001  (state in memory is discarded right below)
            log.warning("revoked_without_checkpoint", error=repr(error))
        if drivers:
            log.info("partitions_let_go", n=len(drivers), generation=self._app.owned_generation)
        for driver in drivers:
            self._app.readiness.release_all(f"{driver.topic}/{driver.partition}")
        self._drivers.clear()
        self._guard.released()
        self._telemetry.forget()

    # --- failures

    def failed(self, what: str, error: BaseException, driver: PartitionDriver | None = None) -> None:
        """End the process, unless the partition was lost meanwhile: then its state is discarded already."""
        if isinstance(error, LostOwnership) or (driver is not None and not driver.is_owner()):
            log.info("abandoned", what=what, topic=driver.topic if driver else None)
            return
        self.fatal(what, error, driver)

    @staticmethod
    def fatal(what: str, error: BaseException, driver: PartitionDriver | None = None) -> NoReturn:
        """Say what happened and end the process."""
        if isinstance(error, StateMismatch | StateDamaged | UnknownCodec | ConfigError):
            end_process(str(error), EXIT_CONFIG)
        log.error("unexpected", what=what, exc_info=error)
        where: dict[str, Any] = {"topic": driver.topic, "partition": driver.partition} if driver is not None else {}
        end_process(repr(error), what=what, **where)
