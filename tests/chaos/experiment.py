"""One experiment: warm-up, faults, recovery and final read, on a broker that is running."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.runtime import references, topics
from monitor.runtime.exits import EXIT_CRASH
from tests.chaos import checker
from tests.chaos.ledger import Live, Producing, Series, Traffic, wall_ms
from tests.chaos.plan import PARTITIONS, Plan, reference
from tests.chaos.proxy import GroupProxy
from tests.chaos.report import Report
from tests.chaos.workers import Scraper, Workers
from tests.kafka import KafkaCluster

WARM_UP_S = 60
STEADY_S = 3.0
RECOVERY_S = 5.0
FINAL_READ_S = 200
"""Everything must be read and published so long after the last event."""
WORKER = (sys.executable, "-m", "monitor")


@dataclass(frozen=True)
class Setting:
    """What an experiment runs on. proxied: workers that reach the brokers through proxies. topic_settings: of the changelogs.

    ticks: whether the end is told by control records, or has to be found by silence. aborted: one transaction in so many.
    """

    plan: Plan = field(default_factory=Plan)
    traffic: Callable[[Plan], Traffic] = Live
    workers: int = 3
    proxied: tuple[int, ...] = ()
    topic_settings: tuple[tuple[str, str], ...] = ()
    ticks: bool = True
    aborted: int | None = None
    command: Sequence[str] = WORKER
    final_read_s: float = FINAL_READ_S


class Experiment:
    """What faults work with: `dice` and `kafka`, `workers`, the producer; `wait` and `progress`."""

    def __init__(self, kafka: KafkaCluster, app: str, setting: Setting, seed: int) -> None:
        self.kafka = kafka
        self.setting = setting
        self.dice = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.recoveries_s: list[float] = []
        """How long after a fault of a broker the first progress was seen."""
        self.stuck: list[str] = []
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        port = random.SystemRandom().randrange(20_000, 31_000)
        paths = {}
        for name, bootstrap in (("direct", kafka.bootstrap), ("proxied", f"127.0.0.1:{kafka.proxied[0][0]}")):
            paths[name] = self.folder / f"{name}.yaml"
            paths[name].write_text(setting.plan.config(app, bootstrap, self.folder, port))
        self.config: Config = load_config(paths["direct"])
        self.topic = self.config.sources[0].topic
        self.read = checker.reading(self.config)
        self.proxies = [GroupProxy(*ports) for ports in kafka.proxied] if setting.proxied else []
        topics.create_topics(self.config)
        self._set_changelogs()
        for model in setting.plan.models:
            references.publish(self.config, reference(model))
        self.producing = Producing(kafka.bootstrap, self.topic, setting.traffic(setting.plan), seed, setting.aborted)
        self.workers = Workers(
            setting.command, lambda index: paths["proxied" if index in setting.proxied else "direct"], self.folder
        )
        self.scraper = Scraper(self.workers, port)
        self._group = ck.Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": app, "log_level": 0})

    @property
    def changelogs(self) -> list[str]:
        """The topics that state is kept in."""
        return [topics.changelog(self.config.app, table) for table in (topics.ingest_table(self.topic), topics.MERGE_TABLE)]

    def _set_changelogs(self) -> None:
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in self.setting.topic_settings
        ]
        if entries:
            admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
            resources = [ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries) for name in self.changelogs]
            for future in admin.incremental_alter_configs(resources).values():
                future.result(20)

    # --- what faults use

    def wait(self, seconds: float) -> None:
        """Let time pass; the supervisor goes on working."""
        self.wait_for(lambda: False, seconds)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until it holds, at most so long; whether it does."""
        deadline = time.monotonic() + seconds
        while True:
            self.workers.revive()
            if condition():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)

    def progress(self) -> int:
        """Return how many source records the group has committed; -1 when the broker does not answer."""
        wanted = [ck.TopicPartition(self.topic, partition) for partition in range(PARTITIONS)]
        try:
            return sum(max(0, found.offset) for found in self._group.committed(wanted, timeout=5))
        except ck.KafkaException:
            return -1

    def await_progress(self, within_s: float, what: str) -> None:
        """Wait for a commit beyond the present ones, and note how long it took, or that there was none."""
        started, before = time.monotonic(), self.progress()
        if self.wait_for(lambda: self.progress() > max(before, 0), within_s):
            self.recoveries_s.append(time.monotonic() - started)
        else:
            self.stuck.append(f"no progress within {within_s:.0f} s after {what}")

    # --- phases

    def run(self, disturb: Callable[[Experiment], None]) -> Report:
        """Go through the phases; the folder is kept when something is found, or a worker crashed."""
        started = time.monotonic()
        try:
            self._warm_up()
            disturb(self)
            self._recover()
            report = self._read(time.monotonic() - started)
        finally:
            self.producing.stop()
            self.workers.end()
            for proxy in self.proxies:
                proxy.close()
            self._group.close()
        if report.anomalies or EXIT_CRASH in [code for _, code in self.workers.exits]:
            print(f"kept: {self.folder}", file=sys.stderr)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        return report

    def _warm_up(self) -> None:
        """Start everything, and wait until it works."""
        if self.setting.plan.clock == "event":
            self.producing.tick(self._start_ms() - 1)  # a partition that has said nothing holds windows back
        self.producing.start()
        for index in range(self.setting.workers):
            self.workers.start(index)
        self.scraper.start()
        if not self.wait_for(lambda: self.progress() > PARTITIONS, WARM_UP_S):
            self.stuck.append(f"no progress within {WARM_UP_S} s after the start")
        self.wait(STEADY_S)

    def _start_ms(self) -> int:
        """Return a time before all events."""
        traffic = self.producing.traffic
        return traffic.start_ms if isinstance(traffic, Series) else wall_ms() - 120_000

    def _recover(self) -> None:
        """Go on undisturbed; then end the traffic and, by control records, every window."""
        self.wait(RECOVERY_S)
        if isinstance(self.producing.traffic, Series):
            self.wait_for(lambda: self.producing.is_done, FINAL_READ_S)
        self.producing.stop()
        self.closing_ms = wall_ms()
        if self.setting.ticks:
            self.producing.tick(self.closing_ms + 600_000)

    def _read(self, seconds: float) -> Report:
        """Wait until everything is read and published; end the workers; compare."""
        expected = checker.expectation(self.read, self.topic, self.setting.plan)
        last = self.wait_for(lambda: self._is_read(expected.ends), self.setting.final_read_s)
        if not last:
            self.stuck.append(f"{self.progress():,} of {sum(expected.ends.values()):,} records committed at the end")
        self.wait_for(
            lambda: set(expected.windows) <= checker.published(self.read, self.config.app),
            self.setting.final_read_s if last else 5,
        )
        self.wait(2)
        self.scraper.stop()
        self.workers.end()
        observed = checker.Observed(
            config=self.config,
            read=self.read,
            expected=expected,
            ledger=self.producing.ledger,
            scraper=self.scraper,
            exits=self.workers.exits,
            was_killed=any(self.faults[fault] for fault in ("kill", "term", "wipe", "stopped", "interrupt")),
            closing_ms=self.closing_ms if self.setting.ticks and isinstance(self.producing.traffic, Live) else None,
            may_idle=not self.setting.ticks,
        )
        report = checker.check(observed)
        for text in self.stuck:
            report.add("STUCK", text)
        report.figures |= {
            "workers": self.setting.workers,
            "nodes": self.kafka.nodes,
            "faults": dict(sorted(self.faults.items())),
            "exits": dict(sorted(Counter(str(code) for _, code in self.workers.exits).items())),
            "longest_recovery_s": round(max(self.recoveries_s, default=0.0), 1),
            "seconds": round(seconds),
        }
        if self.setting.aborted:
            report.figures["aborted_transactions"] = self.producing.n_aborted
        if self.setting.topic_settings:
            sizes = report.figures["changelog_records"] = self._changelog_sizes()
            if sizes["left"] >= sizes["written"]:
                report.add("STUCK", "nothing was compacted")
        return report

    def _is_read(self, ends: dict[int, int]) -> bool:
        return self.progress() >= sum(ends.values())

    def _changelog_sizes(self) -> dict[str, int]:
        """Return how many records the changelogs had, and how many compaction has left."""
        written, left = 0, 0
        for name in self.changelogs:
            for partition in range(PARTITIONS):
                low, high = self._group.get_watermark_offsets(ck.TopicPartition(name, partition), timeout=10)
                written += high - low
            left += sum(1 for _ in self.read(name))
        return {"written": written, "left": left}


def run(kafka: KafkaCluster, app: str, setting: Setting, disturb: Callable[[Experiment], None], seed: int) -> Report:
    """Run one experiment."""
    return Experiment(kafka, app, setting, seed).run(disturb)


def with_command(setting: Setting, command: Iterable[str]) -> Setting:
    """Return a setting whose workers are started otherwise, with a planted defect for one."""
    return replace(setting, command=tuple(command))
