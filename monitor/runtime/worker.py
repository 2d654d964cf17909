"""One worker process: a Faust app whose agents hand batches to partition drivers."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import faust
import faust.streams
import structlog
from faust.types import TP

from monitor.bootstrap import PRODUCER_TIMEOUT_MS, build_pipeline
from monitor.config import Config
from monitor.errors import ConfigError, MonitorError, StaleOwner, StateMismatch
from monitor.pipeline import Pipeline
from monitor.ports import PartitionStage
from monitor.runtime import topics
from monitor.runtime.broker import Watch, password, topic_ids
from monitor.runtime.driver import PartitionDriver, now_ms
from monitor.runtime.extensions import (
    BatchTransport,
    CheckpointTable,
    LostOwnership,
    MonitorApp,
    SafeTableManager,
    batch_scheduler,
)
from monitor.runtime.guard import Guard
from monitor.runtime.http import serve
from monitor.runtime.references import ReferenceFollower, read_references
from monitor.runtime.telemetry import Telemetry

FAUST_VERSION = "0.15.3"
TICK_S = 0.2
EXIT_CRASH = 70
EXIT_CONFIG = 78
STOP_S = 20
"""A stop that takes longer is ended by force; the state allows it."""

log = structlog.get_logger()


def check_environment() -> None:
    """Raise ConfigError when what is installed is not what the overrides were written for."""
    problems = []
    if faust.__version__ != FAUST_VERSION:
        problems.append(f"faust-streaming {faust.__version__} is installed; this program needs {FAUST_VERSION} exactly")
    if getattr(faust.streams, "_CStreamIterator", None) is None:
        problems.append("faust-streaming is installed without its compiled parts (NO_CYTHON); install its wheel")
    if importlib.util.find_spec("cramjam") is None:
        problems.append("cramjam is not installed; compressed topics could not be read")
    if problems:
        raise ConfigError(problems)


def die(reason: str, **facts: Any) -> NoReturn:
    """End the process at once: state in memory is not to be trusted, state on disk and in the changelog is."""
    log.error("worker_ends", reason=reason, **facts)
    sys.stderr.flush()
    os._exit(EXIT_CRASH)


class Worker:
    """Builds the app and owns the drivers.

    index: of this worker on this machine; it has its own folder and port.
    """

    def __init__(self, config: Config, index: int, *, embedded: bool = False) -> None:
        check_environment()
        self.config = config
        self.counts = topics.check_topics(config, embedded=embedded)
        self.topology = topics.topology(config, self.counts)
        self.telemetry = Telemetry()
        self.guard = Guard(config.kafka.session_timeout / 1000, on_stale=die)
        self.drivers: dict[tuple[str, int], PartitionDriver] = {}
        self.pipeline: Pipeline = build_pipeline(config)
        references = f"{config.app}.references"
        nexts = read_references(config, self.counts[references], self.pipeline.references)
        self._follower = ReferenceFollower(config, self.counts[references], self.pipeline.references, nexts)
        self._partials = f"{config.app}.partials"
        self._ids = topic_ids(config.kafka, [*self.counts]) if not embedded else dict.fromkeys(self.counts)
        self._watch = Watch(config.kafka)
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="watch")
        self._loop_s = time.monotonic()
        self._is_ready = False
        self._crash: MonitorError | None = None
        self.app = self._build_app(index)
        self.server = serve(config.http.bind, index, self.telemetry.registry, self._livez, self._readyz)

    # --- the app

    def _build_app(self, index: int) -> MonitorApp:
        config = self.config
        sources = [source.topic for source in config.sources]
        batched = frozenset({*sources, self._partials})
        session_s = config.kafka.session_timeout / 1000
        folder = Path(config.state.dir).absolute() / f"worker-{index}"
        folder.mkdir(parents=True, exist_ok=True)
        app = MonitorApp(
            config.app,
            broker=[f"kafka://{server.strip()}" for server in config.kafka.bootstrap_servers.split(",")],
            broker_credentials=_credentials(config),
            store="rocksdb://",
            datadir=str(folder),
            Table=CheckpointTable,
            TableManager=SafeTableManager,
            ConsumerScheduler=batch_scheduler(batched),
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            worker_redirect_stdouts=False,
            stream_wait_empty=False,
            stream_buffer_maxsize=32,
            broker_max_poll_records=5_000,
            consumer_max_fetch_size=4 << 20,
            broker_commit_interval=1.0,
            broker_commit_every=1_000_000,
            broker_session_timeout=session_s,
            broker_heartbeat_interval=config.kafka.heartbeat_interval / 1000,
            broker_rebalance_timeout=max(session_s, 10.0),
            broker_request_timeout=max(30.0, session_s + 1),
            producer_request_timeout=PRODUCER_TIMEOUT_MS / 1000,
            producer_acks=-1,
            producer_linger=0.005,
            producer_max_batch_size=1 << 20,
            producer_max_request_size=topics.MAX_MESSAGE_BYTES,
            table_standby_replicas=0,
        )
        app.batch_topics = batched
        app.transport = BatchTransport(app.conf.broker_consumer, app)
        app.before_revoke = self._before_revoke
        app.start_offset = self._start_offset
        for topic in sources:
            self._add_stage(app, topics.ingest_table(topic), topic)
        self._add_stage(app, topics.MERGE_TABLE, self._partials)
        app.timer(TICK_S)(self._tick)
        app.timer(1.0)(self._observe)
        return app

    def _add_stage(self, app: MonitorApp, name: str, topic: str) -> None:
        budget = self.config.state.memory // max(1, sum(self.counts[t] for t in [*self.topology, self._partials]))
        options = {
            "block_cache_size": min(32 << 20, max(1 << 20, budget // 4)),
            "write_buffer_size": min(8 << 20, max(1 << 20, budget // 8)),
        }
        table = app.Table(
            name,
            partitions=self.counts[topic],
            key_type=bytes,
            value_type=bytes,
            options=options,
            recovery_buffer_size=1_000,
        )
        table.on_recover(partial(self._recovered, table, topic))
        stream = app.topic(topic, key_serializer="raw", value_serializer="raw", partitions=self.counts[topic])
        app.agent(stream, name=f"{name}-agent")(self._read)

    async def _read(self, stream: Any) -> None:
        async for event in stream.noack().events():
            message = event.message
            driver = self.drivers.get((message.topic, message.partition))
            if driver is None or message.generation_id != driver.generation:
                continue  # of a former assignment: it will be read again, and is not acknowledged
            try:
                await driver.feed(event)
            except Exception as error:  # noqa: BLE001  (the boundary: whatever it is, the process ends and recovers)
                self._failed("feed", driver, error)

    # --- assignment

    async def _recovered(self, table: CheckpointTable, topic: str) -> None:
        try:
            await self._take_over(table, topic)
        except Exception as error:  # noqa: BLE001  (Faust would swallow it)
            self._failed("take_over", None, error)

    async def _take_over(self, table: CheckpointTable, topic: str) -> None:
        self.guard.watch(self.app.consumer._thread._ensure_consumer()._coordinator)
        self.guard.assigned()
        for key in [key for key in self.drivers if key[0] == topic]:
            del self.drivers[key]
        for tp in self.app.assignor.assigned_actives():
            if tp.topic == topic:
                stage = await self._stage(table, topic, tp.partition)
                self.telemetry.taken_over(stage)
                self.drivers[topic, tp.partition] = PartitionDriver(
                    self.app,
                    table,
                    topic,
                    tp.partition,
                    stage,
                    watch=self._watch,
                    executor=self._executor,
                    guard=self.guard,
                    is_current=self._is_current,
                    checkpoint_s=self.config.state.checkpoint / 1000,
                )
        self.telemetry.count("monitor_rebalances_total")
        self._is_ready = True

    async def _stage(self, table: CheckpointTable, topic: str, partition: int) -> PartitionStage:
        """Load a partition's stage. A younger epoch in its rows means that the group was reset, or that this owner is stale."""
        epoch = self.app.consumer_generation_id
        try:
            return self._make(table, topic, partition, epoch)
        except StaleOwner as stale:
            answered = self.guard.responses
            deadline = time.monotonic() + self.config.kafka.session_timeout / 1000
            while self.guard.responses == answered:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
            return self._make(table, topic, partition, stale.found_epoch + epoch)

    def _make(self, table: CheckpointTable, topic: str, partition: int, epoch: int) -> PartitionStage:
        facts: dict[str, Any] = {
            "epoch": epoch,
            "rows": table.scan(partition),
            "topic_id": self._ids.get(topic),
            "now_ms": now_ms(),
        }
        if topic == self._partials:
            return self.pipeline.merge(partition, topology=self.topology, **facts)
        return self.pipeline.ingest(topic, partition, partitions=self.counts[topic], **facts)

    def _is_current(self, driver: PartitionDriver) -> bool:
        return (
            self.drivers.get((driver.topic, driver.partition)) is driver and self.app.consumer_generation_id == driver.generation
        )

    async def _start_offset(self, tp: TP) -> int:
        driver = self.drivers.get((tp.topic, tp.partition))
        if driver is None:
            raise StateMismatch(f"{tp.topic}/{tp.partition} was assigned, but no state of it was loaded")
        return await driver.start_offset()

    async def _before_revoke(self) -> None:
        """Checkpoint for a few seconds at most, then let everything go."""
        drivers = list(self.drivers.values())
        try:
            async with asyncio.timeout(5):
                await asyncio.gather(*(driver.last_checkpoint() for driver in drivers))
                if drivers and self.app.consumer is not None:
                    await self.app.consumer.commit()
        except (LostOwnership, TimeoutError):
            log.warning("revoked_without_checkpoint")
        except Exception as error:  # noqa: BLE001  (state in memory is discarded right below)
            log.warning("revoked_without_checkpoint", error=repr(error))
        self.drivers.clear()
        self.guard.released()
        self.telemetry.forget()
        self._is_ready = False

    # --- time

    async def _tick(self) -> None:
        self._loop_s = time.monotonic()
        for driver in list(self.drivers.values()):
            try:
                await driver.tick()
            except Exception as error:  # noqa: BLE001  (see _failed)
                self._failed("tick", driver, error)

    def _failed(self, what: str, driver: PartitionDriver | None, error: Exception) -> None:
        """End the process, unless the partition was lost meanwhile: then its state is discarded already."""
        if isinstance(error, LostOwnership) or (driver is not None and not driver.is_owner()):
            log.info("abandoned", what=what, topic=driver.topic if driver else None)
            return
        if isinstance(error, StateMismatch | ConfigError):
            log.error("worker_ends", reason=str(error))
            sys.stderr.flush()
            os._exit(EXIT_CONFIG)
        log.error("unexpected", what=what, exc_info=error)
        die(repr(error), what=what)

    async def _observe(self) -> None:
        self.telemetry.observe((d.topic, d.partition, d.stage) for d in self.drivers.values())
        self.telemetry.gauge("monitor_reference_age_seconds", time.monotonic() - self._follower.confirmed_s)

    def _livez(self) -> tuple[bool, str]:
        age = time.monotonic() - self._loop_s
        return age < 3 * STOP_S, f"event loop turned {age:.1f} s ago"

    def _readyz(self) -> tuple[bool, str]:
        return self._is_ready, f"{len(self.drivers)} partitions" if self._is_ready else "no partitions are assigned yet"

    # --- running

    def run(self) -> NoReturn:
        """Run until SIGTERM or SIGINT; the exit code is that of the process."""
        self._follower.start()
        worker = faust.Worker(self.app, loglevel="WARN", redirect_stdouts=False, quiet=True)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        threading.Thread(target=self._end_by_force, args=(worker,), daemon=True).start()
        worker.execute_from_commandline()
        sys.exit(0)

    def _end_by_force(self, worker: Any) -> None:
        while not worker.should_stop:
            time.sleep(0.2)
        time.sleep(STOP_S)
        die("the stop took too long")


def _credentials(config: Config) -> Any:
    """Return Faust's credentials for the same security settings that librdkafka gets."""
    kafka = config.kafka
    if kafka.security_protocol == "plaintext":
        return None
    context = None
    if kafka.security_protocol.endswith("ssl"):
        from aiokafka.helpers import create_ssl_context  # noqa: PLC0415  (only where TLS is used)

        context = create_ssl_context(cafile=str(kafka.ssl_ca_location) if kafka.ssl_ca_location else None)
    if kafka.security_protocol == "ssl":
        return faust.SSLCredentials(context)
    return faust.SASLCredentials(
        username=kafka.sasl_username, password=password(kafka), mechanism=kafka.sasl_mechanism, ssl_context=context
    )
