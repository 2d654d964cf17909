"""Runs that read a topic, each in a process of its own: our worker, and everything that it is compared with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.environments import SILENT
from benchmarks.traffic import PARTITIONS, START_MS, Traffic, fill, publish_references
from monitor.config.file import load_config
from monitor.runtime import topics
from monitor.runtime.supervisor import die_with_parent
from monitor.segments import Segmentation
from tests.kafka import ROOT, KafkaCluster, free_ports

PEERS, WITHOUT_NATIVE = ROOT / "benchmarks" / "peers", ROOT / "benchmarks" / "without_native"
LIMIT_S = 150
FIRST, LAST = 0.4, 0.97
"""Of a worker's run the part between these shares of the events is measured: what is imported or made on first use has been by then."""
SCRAPE_PAUSES, LONGEST_PAUSE_S = 100, 1.0
"""Between two looks at the metrics pass so many times what a look takes: with a thousand models it is long. A second at the most."""
WATERMARK = "monitor_watermark_timestamp_seconds"
COUNTS = ("monitor_events_total", "monitor_rejections_total")
CONFIG = """\
app: {app}
kafka: {{bootstrap_servers: "{bootstrap}"}}
sources: [{{topic: {topic}, clock: event}}]
max_models: 2000
defaults: {{windows: [{windows}], grace: 2m}}
partials_partitions: 4
state: {{dir: "{folder}/{app}", checkpoint: 2s}}
http: {{bind: "127.0.0.1:{port}"}}
"""


class Usage(NamedTuple):
    """How fast a run was: events a second, and CPU µs an event of all its processes, which a busy machine disturbs less."""

    events_per_second: float
    cpu_us_per_event: float


class Case(NamedTuple):
    """What workers read, and how. windows: size, or size/step. workers: of the group. is_native: with the compiled part."""

    traffic: Traffic
    windows: tuple[str, ...] = ("1h",)
    split: tuple[Segmentation, ...] = ()
    workers: int = 1
    is_native: bool = True


class Bench:
    """A broker, its topics, each filled when it is first asked for, and a folder."""

    def __init__(self, cluster: KafkaCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.event_bytes: dict[str, float] = {}

    def topic(self, traffic: Traffic) -> str:
        """Return the name of a topic that holds the traffic."""
        if traffic.topic not in self.event_bytes:
            self.event_bytes[traffic.topic] = fill(self.cluster, traffic)
        return traffic.topic

    def run(self, python: Path | str, script: str, traffic: Traffic, *arguments: str, n: int | None = None) -> Usage:
        """Run a program that reads a topic and reports by meter.py. Raises RuntimeError with what it said."""
        command = [python, PEERS / script, self.cluster.bootstrap, self.topic(traffic), str(n or traffic.n), *arguments]
        return self.measured([str(part) for part in command])

    def measured(self, command: Sequence[str]) -> Usage:
        """Run a command whose last line is what it measured."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            environment = os.environ | SILENT | {"PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False,
                preexec_fn=die_with_parent,
            )  # fmt: skip
        lines = [line[line.index("{") :] for line in done.stdout.splitlines() if '{"events' in line]
        if done.returncode or not lines:
            raise RuntimeError(f"{command} ended with {done.returncode}: {(done.stdout + done.stderr)[-3_000:]}")
        return Usage(**json.loads(lines[-1]))

    def worker(self, case: Case, begun: Callable[[int], None] = lambda _: None) -> Usage:
        """Run our workers over a topic, by their own metrics. begun: told a worker's pid once they are well at work."""
        app, ports = f"bench-{time.time_ns()}", free_ports(case.workers)  # worker i listens at the first one's port + i
        pairs = [(window, *window.split("/")) for window in case.windows]
        spec = ", ".join(f"{{size: {pair[1]}}}" if len(pair) == 2 else f"{{size: {pair[1]}, step: {pair[2]}}}" for pair in pairs)
        path = self.folder / f"{app}.yaml"
        text = CONFIG.format(
            app=app,
            bootstrap=self.cluster.bootstrap,
            topic=self.topic(case.traffic),
            windows=spec,
            folder=self.folder,
            port=ports[0],
        )
        path.write_text(text)
        config = load_config(path, {})
        topics.create_topics(config)
        publish_references(config, case.traffic, case.split)
        hidden = {} if case.is_native else {"PYTHONPATH": f"{WITHOUT_NATIVE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        with (self.folder / "worker.log").open("ab") as log:
            processes = [
                subprocess.Popen(
                    [sys.executable, "-m", "monitor", "worker", "--config", str(path), "--index", str(i)],
                    stderr=log, stdout=log, preexec_fn=die_with_parent, env=os.environ | hidden,
                )
                for i in range(case.workers)
            ]  # fmt: skip
        try:
            return watch(processes, ports, case.traffic, self.folder / "worker.log", begun)
        finally:
            for process in processes:
                if process.poll() is None:
                    os.kill(process.pid, signal.SIGTERM)
            for process in processes:
                process.wait(60)


def watch(
    processes: Sequence[subprocess.Popen[bytes]], ports: Sequence[int], traffic: Traffic, log: Path, begun: Callable[[int], None]
) -> Usage:
    """Follow workers until all events are counted and durable; the rate is that between two looks well inside the run.

    How far a partition is, is read from the event time that it has reached: counts move with checkpoints, seconds behind.
    """
    points: list[tuple[float, float, float]] = []
    deadline, counted, pause_s = time.monotonic() + LIMIT_S, 0.0, 0.0
    while counted < traffic.n:
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            raise RuntimeError(f"{counted} of {traffic.n} events, {LIMIT_S} s: {log.read_text()[-3_000:]}")
        time.sleep(max(0.05, pause_s))
        asked_s = time.perf_counter()
        pages = [page(port) for port in ports]
        pause_s = min(LONGEST_PAUSE_S, SCRAPE_PAUSES * (time.perf_counter() - asked_s))
        now, cpu = time.perf_counter(), sum(cpu_seconds(process.pid) for process in processes)
        reached = [value for lines in pages for value in values(lines, WATERMARK, f'source="{traffic.topic}"')]
        counted = sum(value for lines in pages for name in COUNTS for value in values(lines, name))
        at_work = all(values(lines, WATERMARK, f'source="{traffic.topic}"') for lines in pages)
        done = sum((1000 * value - START_MS) / traffic.step_ms for value in reached) / PARTITIONS
        if at_work and len(reached) == PARTITIONS and (not points or done > points[-1][1]):
            if done >= FIRST * traffic.n and not (points and points[-1][1] >= FIRST * traffic.n):
                begun(processes[0].pid)
            points.append((now, done, cpu))
    inside = [point for point in points if FIRST * traffic.n <= point[1] <= LAST * traffic.n]
    if len(inside) < 2:
        raise RuntimeError(f"{traffic.n} events are too few: the run was over before its rate could be read: {points}")
    (t0, n0, c0), (t1, n1, c1) = inside[0], inside[-1]
    return Usage((n1 - n0) / (t1 - t0), 1e6 * (c1 - c0) / (n1 - n0))


def page(port: int) -> list[str]:
    """Return the lines of a worker's metrics, none before it listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return [line for line in answer.read().decode().splitlines() if line.startswith("monitor_")]
    except OSError:
        return []


def values(lines: Sequence[str], name: str, label: str = "") -> list[float]:
    """Return the values of a metric's series that have a label."""
    return [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{") and label in line]


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
