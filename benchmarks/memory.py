"""Resident memory of one worker at 100 models × 200 features, on Apache Kafka: `python -m benchmarks.memory [--minutes N]`.

The worker reads events of every model in turn, in event-time hours that follow each other, so that panes are opened, closed, sent and
collected all the time. Printed as JSON: resident memory (most, and its slope after the first third of the run by least squares), files and
threads, what the local stores use, against `state.memory`.
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
from typing import NamedTuple

import confluent_kafka as ck
import numpy as np
import orjson

from monitor.columns import ColumnBatch
from monitor.config_file import load_config
from monitor.features import CategoryFeature
from monitor.layout import layout_of
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.runtime import references, topics
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
    resident = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return Sample(
        time.monotonic() - since, resident, len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))
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


def metrics(port: int, *names: str) -> list[float]:
    """Return the sums of metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return [sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)) for name in names]


def run(bootstrap: str, path: Path, port: int, options: argparse.Namespace) -> dict[str, object]:
    """Send events for some minutes, and look at the worker once a second."""
    rows = bodies(options.features)
    producer = ck.Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 200_000})
    with (path.parent / "worker.log").open("ab") as log:
        command = [sys.executable, "-m", "monitor", "worker", "--config", str(path)]
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)
    samples: list[Sample] = []
    sent, started, stores = 0, time.monotonic(), 0.0
    try:
        while time.monotonic() - started < 60 * options.minutes:
            for _ in range(options.rate):
                time_ms = START_MS + sent * HOUR_MS // (options.models * options.rows)
                head = b'{"model":"m%03d","version":"1","time":%d,"features":' % (sent % options.models, time_ms)
                producer.produce("events", head + rows[sent % len(rows)] + b"}", partition=(sent // options.models) % PARTITIONS)
                sent += 1
            producer.flush(30)
            if process.poll() is not None:
                said = (path.parent / "worker.log").read_text().splitlines()[-20:]
                raise RuntimeError("\n".join([f"the worker ended with {process.returncode}", *said]))
            samples.append(look(process.pid, started))
            time.sleep(max(0.0, len(samples) - (time.monotonic() - started)))
        events, windows, stores = metrics(port, "monitor_events_total{", "monitor_windows_total{", "monitor_store_memory_bytes ")
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
        "events_sent": sent,
        "events_counted": int(events),
        "windows": int(windows),
        "limit_mib": options.limit,
        "resident_most_mib": round(most / MIB, 1),
        "resident_last_mib": round(samples[-1].resident / MIB, 1),
        "resident_mib_every_30_s": [round(s.resident / MIB) for s in samples[::30]],
        "slope_mib_per_hour": round(slope / MIB, 1),
        "stores_mib": round(stores / MIB, 1),
        "files": [later[0].files, samples[-1].files],
        "threads": [later[0].threads, samples[-1].threads],
        "is_within_limit": most <= options.limit * MIB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--features", type=int, default=200)
    parser.add_argument("--rows", type=int, default=150, help="events of a model in each hour of event time")
    parser.add_argument("--rate", type=int, default=500, help="events a second")
    parser.add_argument("--limit", type=int, default=512, help="state.memory, MiB")
    options = parser.parse_args()
    with KafkaCluster() as cluster, tempfile.TemporaryDirectory() as name:
        path, port = Path(name) / "monitor.yaml", free_port()
        path.write_text(CONFIG.format(bootstrap=cluster.bootstrap, folder=name, port=port, limit=f"{options.limit}MiB"))
        cluster.create("events", PARTITIONS)
        topics.create_topics(load_config(path, {}))
        publish_references(path, options.models, options.features)
        print(json.dumps(run(cluster.bootstrap, path, port, options), indent=1))


if __name__ == "__main__":
    main()
