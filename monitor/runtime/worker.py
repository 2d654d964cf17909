"""One worker process: a Faust app whose agents hand batches to partition drivers."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import confluent_kafka as ck
import faust
import structlog

from monitor import compiled
from monitor.bootstrap import build_pipeline, label_topics
from monitor.config.settings import Config
from monitor.errors import ConfigError, StateMismatch
from monitor.pipeline import Pipeline
from monitor.ports import PartitionStage
from monitor.runtime import memory, topics
from monitor.runtime.app import build_app, check_environment
from monitor.runtime.broker import BrokerUnreachable, partition_counts, topic_ids
from monitor.runtime.compacted import LEAD_S, Follower, Listener, Take
from monitor.runtime.driver import TICK_S, PartitionDriver, Start
from monitor.runtime.exits import EXIT_SLOW_STOP, EXIT_UNREACHABLE, before_end, end_process, ending
from monitor.runtime.extensions import CheckpointTable, MonitorApp
from monitor.runtime.folder import claim, unwritable
from monitor.runtime.garbage import spare_events
from monitor.runtime.health import Health
from monitor.runtime.http import serve
from monitor.runtime.lives import Lives
from monitor.runtime.logs import forward_libraries
from monitor.runtime.owners import MakeStage, Owners
from monitor.runtime.pending import PendingStores
from monitor.runtime.policies import policies_topic, read_policies, take_policy
from monitor.runtime.references import read_references, references_topic, take_reference
from monitor.runtime.store import StoreFull, StoreMemory, has_space
from monitor.runtime.telemetry import Observed, Telemetry
from monitor.runtime.topic_watch import TopicWatch
from monitor.runtime.window_gauges import WindowGauges

__all__ = ["Worker", "check_environment"]

STOP_S = 20
"""A stop that takes longer is ended by force; the state allows it."""
IDLE_STOP_S = 3
"""The same of a worker that owns nothing: stock code can wait forever for the end of a start that it has stopped halfway."""
FULL_S = 5.0
"""For so long after it was met last, a full disk counts as full."""
TOPICS_S = 60.0
"""How often the topics are looked at again: a changed number of partitions, or a topic made anew, must not go unnoticed."""

log = structlog.get_logger()

T = TypeVar("T")


class Worker:
    """Builds the app and owns the drivers.

    index: of this worker on this machine; it has its own folder and port. make_stage: instead of the configured pipeline's stages.
    starts: by topic, where a partition without state begins; at the log's start if left out, never at the group's offset.
    """

    def __init__(
        self,
        config: Config,
        index: int,
        *,
        embedded: bool = False,
        make_stage: MakeStage | None = None,
        starts: Mapping[str, Start] | None = None,
    ) -> None:
        check_environment()
        self.config = config
        self._folder = folder = Path(config.state.dir).absolute() / f"worker-{index}"
        try:
            self._lock = claim(folder)
            self.lives = begin_life(folder)
        except StoreFull as full:
            end_process(str(full), EXIT_UNREACHABLE)
        try:
            self.counts = topics.check_topics(config, embedded=embedded)
        except BrokerUnreachable as error:
            end_process(str(error), EXIT_UNREACHABLE)
        self.topology = topics.topology(config, self.counts)
        self._topics = topics.of_state(config)
        self._memory = StoreMemory(memory.stores_limit(config.state.memory))
        self._memory_watch = memory.MemoryWatch(config.state.memory)
        self._trimmer = memory.Trimmer(config.state.memory)
        self._loop: asyncio.AbstractEventLoop
        self.telemetry = Telemetry(WindowGauges(config.metrics.distances, config.metrics.max_series))
        self.pipeline: Pipeline = build_pipeline(config)
        self.pipeline.waiting.limit = memory.waiting_limit(config.state.memory)
        self._partials = f"{config.app}.partials"
        self._ids = topic_ids(config.kafka, [*self.counts]) if not embedded else dict.fromkeys(self.counts)
        self._topic_watch = TopicWatch(config.kafka, {topic: self._ids.get(topic) for topic in self._topics})
        self._let_go_s = time.monotonic()
        self._confirmed_s: dict[str, float] = {}
        self._full_s = -FULL_S
        self._sources = [source.topic for source in config.sources]
        self._outcomes = f"{config.app}.outcomes" if label_topics(config.sources) else None
        self._pending = PendingStores(folder / "pending", self._memory)
        self.app = build_app(config, folder, [*self._sources, self._partials, *filter(None, [self._outcomes])])
        self.owners = Owners(self.app, config, make_stage or self._make_stage, self.telemetry, starts or {})
        self.tables = self._wire(self.app)
        self._references, self._policies = references_topic(config), policies_topic(config)
        self._followers = [self._follow(self._references, read_references, self.pipeline.references, self._add_reference)]
        if config.policies is None:
            self._followers.append(self._follow(self._policies, read_policies, self.pipeline.policies, self._add_policy))
        self.health = Health(self.app, self.owners, self._topic_watch, lambda: time.monotonic() - min(self._confirmed_s.values()))
        self.app.readiness.ask("disk", self._disk)
        self.health.tell(self.telemetry, self.lives.restarts)
        self.server = serve(config.http.bind, index, self.telemetry.registry, self.health.livez, self.health.readyz)

    # --- the app

    def _wire(self, app: MonitorApp) -> list[CheckpointTable]:
        """Connect the app with the drivers: tables, agents, timers, and what it asks at revocation and start."""
        app.on_assigned = self.owners.on_assigned
        app.before_revoke = self._let_go
        app.on_resumed = self._resumed
        app.start_offset = self.owners.start_offset
        app.fail = self.owners.fatal
        app.on_loop = self._turn_loop
        app.on_full_disk = self._on_full_disk
        tables = [self._add_stage(app, topics.ingest_table(topic), topic) for topic in self._sources]
        tables.append(self._add_stage(app, topics.MERGE_TABLE, self._partials))
        if self._outcomes is not None:
            tables.append(self._add_stage(app, topics.JOIN_TABLE, self._outcomes))
        app.timer(TICK_S)(self._tick)
        app.timer(1.0)(self._observe)
        app.timer(TOPICS_S)(self._check_topics)
        app.timer(memory.LOOK_S)(self._observe_memory)
        app.timer(memory.TRIM_S)(self._trim)
        return tables

    def _add_stage(self, app: MonitorApp, name: str, topic: str) -> CheckpointTable:
        table: CheckpointTable = app.Table(
            name,
            partitions=self.counts[topic],
            key_type=bytes,
            value_type=bytes,
            options={"memory": self._memory},
        )
        table.data.topic_id = self._ids.get(table.changelog_topic_name)
        table.on_recover(partial(self._recovered, table, topic))
        stream = app.topic(topic, key_serializer="raw", value_serializer="raw", partitions=self.counts[topic])
        app.agent(stream, name=f"{name}-agent")(self._read)
        return table

    async def _read(self, stream: Any) -> None:
        async for event in stream.noack().events():
            message = event.message
            await self._fresh(self._policies if message.topic == self._partials else self._references)
            driver = self.owners.get(message.topic, message.partition, message.generation_id)
            if driver is None:
                continue  # of a former assignment: it will be read again, and is not acknowledged
            try:
                await driver.feed(event)
                if driver.is_due:
                    self.app.add_future(self._tick_one(driver))
            except Exception as error:  # noqa: BLE001  (the boundary: whatever it is, the process ends and recovers)
                self.owners.failed("feed", error, driver)
            await asyncio.sleep(0)  # batches that wait follow each other without a turn of the loop, and requests would time out

    async def _recovered(self, table: CheckpointTable, topic: str) -> None:
        try:
            await self.owners.take_over(table, topic)
        except Exception as error:  # noqa: BLE001  (Faust would end with a trace only)
            self.owners.failed("take_over", error)
        self.telemetry.count("monitor_rebalances_total", 1 if topic == self._partials else 0)

    def _make_stage(
        self, topic: str, partition: int, *, epoch: int, rows: Iterable[tuple[bytes, bytes]], now_ms: int
    ) -> PartitionStage:
        """Make a stage of the configured pipeline."""
        facts: dict[str, Any] = {"epoch": epoch, "rows": rows, "topic_id": self._ids.get(topic), "now_ms": now_ms}
        if topic == self._partials:
            return self.pipeline.merge(partition, topology=self.topology, **facts)
        if topic == self._outcomes:
            topology = {source: self.counts[source] for source in self._sources}
            return self.pipeline.join(partition, topology=topology, pending=self._pending.open(partition), **facts)
        return self.pipeline.ingest(topic, partition, partitions=self.counts[topic], **facts)

    # --- references and policies

    def _follow(self, topic: str, read: Callable[[Config, int, T], dict[int, int]], into: T, add: Take) -> Follower:
        """Read a compacted topic to its end, and make what follows it from there; `add` is called on the event loop."""
        try:
            nexts = read(self.config, self.counts[topic], into)
        except ck.KafkaException as error:
            end_process(f"{topic} could not be read: {error}", EXIT_UNREACHABLE)
        self._confirmed_s[topic] = time.monotonic()

        def take(key: bytes, value: bytes | None) -> None:
            """Hand a record over: a stage must not look up what is being replaced."""
            self._call_soon(add, key, value)

        def confirmed(asked_s: float) -> None:
            self._call_soon(self._confirmed_s.__setitem__, topic, asked_s)

        return Follower(self.config, topic, self.counts[topic], nexts, Listener(take, confirmed, partial(Owners.fatal, topic)))

    def _add_reference(self, _: bytes, value: bytes | None) -> None:
        try:
            take_reference(value, self.pipeline.references, self.config)
        except ConfigError as error:
            Owners.fatal("references", error)

    def _add_policy(self, key: bytes, value: bytes | None) -> None:
        take_policy(key, value, self.pipeline.policies)
        log.info("policy", key=key.decode(errors="replace"), is_removed=value is None)

    def _call_soon(self, call: Callable[..., object], *args: Any) -> None:
        """Have the event loop call, from another thread; nobody needs it once the loop has ended, which a stop does not wait for."""
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    async def _fresh(self, topic: str) -> None:
        """Pause while it is not known whether a topic has something newer: what a pane or a window began with, it keeps."""
        is_said = False
        while (age_s := time.monotonic() - self._confirmed_s.get(topic, math.inf)) > LEAD_S / 2:
            if not is_said:
                log.warning("paused", topic=topic, seconds=round(age_s, 1))
                is_said = True
            await asyncio.sleep(0.2)

    # --- time

    async def _turn_loop(self) -> None:
        """Note that the event loop turns, and look at the guard whatever else waits; other threads are heard from here on."""
        self._loop = asyncio.get_running_loop()
        for follower in self._followers:
            follower.start()
        while not self.app.should_stop:
            self.health.n_turns += 1
            self.owners.check_guard()
            await asyncio.sleep(0.5)

    async def _tick(self) -> None:
        """Let every partition's time pass; one that is at work, on a topic that does not answer say, holds up no other."""
        for driver in self.owners:
            if not driver.is_busy:
                self.app.add_future(self._tick_one(driver))

    async def _tick_one(self, driver: PartitionDriver) -> None:
        try:
            await driver.tick()
        except Exception as error:  # noqa: BLE001  (the boundary)
            self.owners.failed("tick", error, driver)

    async def _check_topics(self) -> None:
        """End the process, for good, when a topic is not the one any more that the state is of."""
        before = {topic: self.counts[topic] for topic in self._topics if topic in self.counts}
        try:
            counts, ids = await asyncio.to_thread(self._topics_now)
        except (BrokerUnreachable, ck.KafkaException) as error:
            log.warning("topics_unknown", error=str(error))
            return
        if found := topics.changes(before, self._ids, counts, ids):
            Owners.fatal("topics", StateMismatch("\n".join(found)))

    def _topics_now(self) -> tuple[dict[str, int], dict[str, str | None]]:
        counts = partition_counts(self.config.kafka)
        if not any(self._ids.values()):
            return counts, {}  # a broker that does not tell them
        return counts, topic_ids(self.config.kafka, [topic for topic in self._topics if topic in counts])

    async def _let_go(self) -> None:
        if len(self.owners):
            self._let_go_s = time.monotonic()
        await self.owners.let_go()
        self._pending.close()

    def _resumed(self) -> None:
        self.telemetry.rebalanced(time.monotonic() - self._let_go_s)

    async def _observe(self) -> None:
        self.telemetry.observe(Observed(d.topic, d.partition, d.stage, d.lag) for d in self.owners)
        self.telemetry.gauge("monitor_reference_age_seconds", time.monotonic() - self._confirmed_s[self._references])
        self.telemetry.foreign_writes(sum(table.foreign_writes for table in self.tables))
        self.telemetry.stores_rebuilt(sum(table.data.rebuilt for table in self.tables))
        self.telemetry.gauge("monitor_store_memory_bytes", self._memory.used)

    async def _observe_memory(self) -> None:
        parts = {"stores": self._memory.used, "references": self.pipeline.references.held_bytes}
        for driver in self.owners:
            for part, held in driver.stage.memory().items():
                parts[part] = parts.get(part, 0) + held
        resident = memory.resident_bytes()
        for part, held in self._memory_watch.look(resident, parts).items():
            self.telemetry.gauge("monitor_memory_bytes", held, (part,))

    async def _trim(self) -> None:
        """Not on the event loop: it takes as long as there is memory."""
        if self._trimmer.is_due:
            await asyncio.to_thread(self._trimmer.trim)

    # --- obstacles

    def _on_full_disk(self, reason: str) -> None:
        """Recovery has met a full disk, and tries again every second."""
        log.warning("recovery_waits", reason=reason)
        self._full_s = time.monotonic()

    def _disk(self) -> str | None:
        """Return whether there is no room for state, as the probes say it."""
        if time.monotonic() - self._full_s < FULL_S or not has_space(self._folder):
            return f"no space left at {self._folder}"
        return None

    # --- running

    def run(self) -> NoReturn:
        """Run until SIGTERM or SIGINT; the exit code is that of the process."""
        forward_libraries()
        http = f"{self.config.http.bind.rpartition(':')[0]}:{self.server.server_port}"
        log.info("worker_starts", http=http, has_native=compiled.is_available)
        if why := compiled.why_not():
            log.warning("compiled_part_is_not_used", reason=why)
        worker = _Process(self.app, override_logging=False, redirect_stdouts=False, quiet=True)
        threading.Thread(target=_end_by_force, args=(worker,), daemon=True).start()
        self._topic_watch.start()
        self.health.watchdog(self.config.watchdog).start()
        spare_events()
        try:
            worker.execute_from_commandline()
        except SystemExit as done:
            if done.code:
                end_process("the app ended by an error of its own")
        ending(0)
        sys.exit(0)


class _Process(faust.Worker):  # type: ignore[misc]
    """Faust's own signal handling, without its debugger, and without its spinner between our lines."""

    def __init__(self, *services: Any, **settings: Any) -> None:
        super().__init__(*services, **settings)
        self.spinner = None

    def _schedule_shutdown(self, signal: Any) -> None:
        """Say that this worker is not ready any more, before anything else."""
        self.app.readiness.hold("stopping", f"{signal.name} was received")
        super()._schedule_shutdown(signal)

    def _on_sigusr2(self) -> None:
        """Do not stop in a debugger, as stock code does."""


def _end_by_force(worker: faust.Worker) -> None:
    while not worker.should_stop:
        time.sleep(0.2)
    if worker.app.readiness.reason("assignment") is not None:
        time.sleep(IDLE_STOP_S)
        end_process("it was stopped before the group had given it anything", 0)
    time.sleep(STOP_S)
    end_process(f"the stop took longer than {STOP_S} s", EXIT_SLOW_STOP)


def begin_life(folder: Path) -> Lives:
    """Count how earlier lives ended, and have the end of this one noted. Raises ConfigError."""
    try:
        lives = Lives(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    before_end(lives.ended)
    return lives
