"""Resident memory of one worker at 100 models × 200 features, on Apache Kafka: `python -m benchmarks.memory [--minutes N]`.

The worker reads events of every model in turn, in event-time hours that follow each other, so that panes are opened, closed, sent and
collected all the time; at the start it finds a backlog. Printed as JSON: resident memory (most, and its slope after the first third of the
run by least squares) and what takes it, files and threads, against `state.memory`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import confluent_kafka as ck
import numpy as np
import orjson

from monitor.columns import ColumnBatch
from monitor.config.file import load_config
from monitor.features import CategoryFeature
from monitor.layout import layout_of
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.runtime import references, topics
from monitor.runtime.memory import resident_bytes
from monitor.runtime.supervisor import die_with_parent
from tests.kafka import KafkaCluster, free_port
from tests.shapes import number_feature_of

COLOURS = ["red", "green", "blue", "black"]
START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
PARTITIONS = 4
MIB = 1 << 20

CONFIG = """\
app: memory
kafka: {{bootstrap_servers: "{bootstrap}", session_timeout: 10s, heartbeat_interval: 1s}}
sources: [{{topic: events, clock: event}}]
defaults: {{windows: [{{size: 1h}}], grace: 2m}}
partials_partitions: 4
state: {{dir: "{folder}/state", memory: {limit}, checkpoint: 2s}}
http: {{bind: "127.0.0.1:{port}"}}
"""


class Sample(NamedTuple):
    """A look at the worker. seconds: since the first event was sent."""

    seconds: float
    resident: int
    files: int
    threads: int


def look(pid: int, since: float) -> Sample:
    process = Path(f"/proc/{pid}")
    return Sample(
        time.monotonic() - since,
        resident_bytes(pid),
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
    )


def publish_references(config_path: Path, models: int, features: int) -> None:
    """Publish the same reference, three numbers to a category, for every model."""
    dice = np.random.default_rng(1)
    n_numbers = features * 3 // 4
    numbers = dice.normal(size=(n_numbers, 2_000))
    made = [number_feature_of(f"f{j:03d}", numbers[j]) for j in range(n_numbers)]
    names = [f"f{j:03d}" for j in range(n_numbers, features)]
    layout = layout_of([*made, *(CategoryFeature(name=name, values=tuple(COLOURS)) for name in names)])
    profile = Profile(layout)
    profile.update(ColumnBatch(2_000, numbers, None, [dice.choice(COLOURS, 2_000).tolist() for _ in names]))
    config = load_config(config_path, {})
    for model in range(models):
        references.publish(config, Reference.build(f"m{model:03d}", "1", profile))


def bodies(features: int) -> list[bytes]:
    """Return the features of 200 different events, as they stand in a record."""
    dice = np.random.default_rng(2)
    n_numbers = features * 3 // 4
    found = []
    for _ in range(200):
        row: dict[str, object] = {f"f{j:03d}": round(float(dice.normal()), 4) for j in range(n_numbers)}
        found.append(orjson.dumps(row | {f"f{j:03d}": COLOURS[dice.integers(4)] for j in range(n_numbers, features)}))
    return found


def metrics(port: int) -> dict[str, float]:
    """Return every series of the worker."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}


def imported() -> int:
    """Return what a process takes that has imported a worker and does nothing."""
    program = "import monitor.runtime.worker as _; from monitor.runtime.memory import resident_bytes; print(resident_bytes())"
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120).stdout)


def total(found: dict[str, float], name: str) -> int:
    """Return the sum of a metric's series."""
    return int(sum(value for series, value in found.items() if series.partition("{")[0] == name))


def parts_of(found: dict[str, float]) -> dict[str, float]:
    """Return `monitor_memory_bytes` by part, MiB."""
    series = {key.split('"')[1]: value for key, value in found.items() if key.startswith("monitor_memory_bytes{")}
    return {part: round(value / MIB, 1) for part, value in sorted(series.items(), key=lambda item: -item[1])}


class Sender:
    """Sends events of all models in turn."""

    def __init__(self, bootstrap: str, options: argparse.Namespace) -> None:
        self.sent = 0
        self._options = options
        self._rows = bodies(options.features)
        self._producer = ck.Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 200_000})

    def send(self, n: int) -> None:
        """Send so many."""
        models, rows = self._options.models, self._rows
        for _ in range(n):
            time_ms = START_MS + self.sent * HOUR_MS // (models * self._options.rows)
            head = b'{"model":"m%03d","version":"1","time":%d,"features":' % (self.sent % models, time_ms)
            body = head + rows[self.sent % len(rows)] + b"}"
            self._producer.produce("events", body, partition=(self.sent // models) % PARTITIONS)
            self.sent += 1
        self._producer.flush(30)


def run(bootstrap: str, path: Path, port: int, options: argparse.Namespace) -> dict[str, object]:
    """Send events for some minutes, and look at the worker once a second."""
    sender = Sender(bootstrap, options)
    sender.send(options.backlog)
    with (path.parent / "worker.log").open("ab") as log:
        command = [sys.executable, "-m", "monitor", "worker", "--config", str(path)]
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)
    samples: list[Sample] = []
    started = time.monotonic()
    try:
        while time.monotonic() - started < 60 * options.minutes:
            sender.send(options.rate)
            if process.poll() is not None:
                said = (path.parent / "worker.log").read_text().splitlines()[-20:]
                raise RuntimeError("\n".join([f"the worker ended with {process.returncode}", *said]))
            samples.append(look(process.pid, started))
            time.sleep(max(0.0, len(samples) - (time.monotonic() - started)))
        found = metrics(port)
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
            process.wait(60)
    later = samples[len(samples) // 3 :]
    slope = np.polyfit([s.seconds for s in later], [s.resident for s in later], 1)[0] * 3_600
    most = max(s.resident for s in samples)
    return {
        "models": options.models,
        "features": options.features,
        "minutes": options.minutes,
        "events_sent": sender.sent,
        "events_counted": total(found, "monitor_events_total"),
        "windows": total(found, "monitor_windows_total"),
        "limit_mib": options.limit,
        "resident_most_mib": round(most / MIB, 1),
        "resident_last_mib": round(samples[-1].resident / MIB, 1),
        "resident_mib_every_30_s": [round(s.resident / MIB) for s in samples[::30]],
        "slope_mib_per_hour": round(slope / MIB, 1),
        "parts_last_mib": parts_of(found),
        "imported_mib": round(imported() / MIB, 1),
        "files": [later[0].files, samples[-1].files],
        "threads": [later[0].threads, samples[-1].threads],
        "is_within_limit": most <= options.limit * MIB,
    }


def measured(cluster: KafkaCluster, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Run one worker beside its sender."""
    path, port = folder / "monitor.yaml", free_port()
    path.write_text(CONFIG.format(bootstrap=cluster.bootstrap, folder=folder, port=port, limit=f"{options.limit}MiB"))
    cluster.create("events", PARTITIONS)
    topics.create_topics(load_config(path, {}))
    publish_references(path, options.models, options.features)
    return run(cluster.bootstrap, path, port, options)


def measure(cluster: KafkaCluster, folder: Path) -> dict[str, Any]:
    """Return what the table of docs/performance.md says: the most, at the end, and the limit, MiB."""
    options = parser().parse_args(["--minutes", "3"])
    found = measured(cluster, folder, options)
    kept = ("minutes", "events_counted", "windows", "limit_mib", "resident_most_mib", "resident_last_mib")
    return {"rows": {f"{options.models} models × {options.features} features": {name: found[name] for name in kept}}}


def parser() -> argparse.ArgumentParser:
    """Return what can be asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--features", type=int, default=200)
    parser.add_argument("--rows", type=int, default=150, help="events of a model in each hour of event time")
    parser.add_argument("--rate", type=int, default=500, help="events a second")
    parser.add_argument("--backlog", type=int, default=20_000, help="events that the worker finds when it starts")
    parser.add_argument("--limit", type=int, default=512, help="state.memory, MiB")
    return parser


def main() -> None:
    """Measure once, and print it."""
    options = parser().parse_args()
    with KafkaCluster() as cluster, tempfile.TemporaryDirectory() as name:
        print(json.dumps(measured(cluster, Path(name), options), indent=1))


if __name__ == "__main__":
    main()
