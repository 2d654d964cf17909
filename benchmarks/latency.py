"""From the record that moves the watermark past a window's end to its results and alerts on their topics, by the broker's own timestamps.

One model of 100 features × 50 segments on four partitions. An hour's rows come first; a little later a tick to each
partition ends the hour. All topics stamp records as they are appended. Every fourth window a feature begins, or ceases, to be shifted.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import confluent_kafka as ck
import numpy as np
import orjson

from benchmarks.readers import COUNTS, page, values
from benchmarks.traffic import COLOURS, HOUR_MS, PARTITIONS, START_MS, Traffic, publish_references, segmentations
from monitor.config.file import load_config
from monitor.runtime import topics
from monitor.runtime.supervisor import die_with_parent
from tests.kafka import KafkaCluster, free_port

FEATURES, SEGMENTS, ROWS, WINDOWS = 100, 50, 1_000, 40
GRACE_MS, LIMIT_S, PAUSE_S = 120_000, 90, 0.7
CONFIG = """\
app: latency
kafka: {{bootstrap_servers: "{bootstrap}"}}
sources: [{{topic: latency-events, clock: event}}]
defaults: {{windows: [{{size: 1h}}], grace: 2m}}
partials_partitions: 4
state: {{dir: "{folder}/latency", checkpoint: 2s}}
http: {{bind: "127.0.0.1:{port}"}}
"""


class Written(NamedTuple):
    """A record on the topic of results or alerts: its window's end, and when the broker had it."""

    topic: str
    end_ms: int
    at_ms: int


def rows(traffic: Traffic, window: int, dice: np.random.Generator) -> Iterator[bytes]:
    """Yield an hour's events; feature by feature is shifted by 2 σ for four windows, then for four none is."""
    shifted = window // 8 % len(traffic.numbers) if window % 8 >= 4 else None
    for i in range(ROWS):
        numbers = dice.normal(size=len(traffic.numbers))
        if shifted is not None:
            numbers[shifted] += 2
        features: dict[str, object] = dict(zip(traffic.numbers, numbers.round(6).tolist(), strict=True))
        features |= {
            name: COLOURS[code]
            for name, code in zip(traffic.categories, dice.integers(4, size=len(traffic.categories)).tolist(), strict=True)
        }
        time_ms = START_MS + window * HOUR_MS + i * HOUR_MS // ROWS
        yield orjson.dumps({"id": f"{window}-{i}", "model": "credit-0000", "version": "7", "time": time_ms, "features": features})


class Topics:
    """Sends events and ticks; reads what the worker publishes."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = ck.Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "acks": "all"})
        self._consumer = ck.Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False, "fetch.wait.max.ms": 20}
        )
        self._consumer.assign(
            [ck.TopicPartition(f"latency.{kind}", p, 0) for kind in ("results", "alerts") for p in range(PARTITIONS)]
        )

    def send(self, values_: Iterator[bytes]) -> None:
        for i, value in enumerate(values_):
            self._producer.produce("latency-events", value, partition=i % PARTITIONS)
        self._producer.flush(30)

    def end(self, end_ms: int) -> int:
        """Move every partition's watermark to an hour's end; return when the broker had the last of the ticks."""
        stamps: list[int] = []
        tick = orjson.dumps({"tick": end_ms + GRACE_MS})
        for p in range(PARTITIONS):
            self._producer.produce(
                "latency-events", tick, partition=p, on_delivery=lambda _, message: stamps.append(message.timestamp()[1])
            )
        self._producer.flush(30)
        return max(stamps)

    def read(self, seconds: float) -> list[Written]:
        found = []
        for message in self._consumer.consume(500, seconds):
            if message.error() is None and message.value() is not None:
                record = orjson.loads(message.value())
                window = record["window"] if "window" in record else record["data"]["window"]
                found.append(Written(str(message.topic()), window["end_ms"], message.timestamp()[1]))
        return found


def measure(cluster: KafkaCluster, folder: Path) -> dict[str, Any]:
    """Return how long the last result of a window, and each alert, took to be on its topic."""
    traffic, port = Traffic(0, features=FEATURES), free_port()
    path = folder / "latency.yaml"
    path.write_text(CONFIG.format(bootstrap=cluster.bootstrap, folder=folder, port=port))
    stamped = {"message_timestamp_type": "LogAppendTime", "max_message_bytes": str(topics.MAX_MESSAGE_BYTES)}
    for name in ("latency-events", "latency.results", "latency.alerts"):
        cluster.create(name, PARTITIONS, **stamped)
    config = load_config(path, {})
    topics.create_topics(config)
    publish_references(config, traffic, segmentations(traffic, SEGMENTS))
    with (folder / "worker.log").open("ab") as log:
        command = [sys.executable, "-m", "monitor", "worker", "--config", str(path)]
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)
    try:
        ended, written = course(Topics(cluster.bootstrap), traffic, port)
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(60)
    results: dict[int, int] = {}
    for record in written:
        if record.topic.endswith(".results"):
            results[record.end_ms] = max(results.get(record.end_ms, 0), record.at_ms)
    kinds = {
        "all results of a window": [at_ms - ended[end_ms] for end_ms, at_ms in results.items()],
        "an alert": [r.at_ms - ended[r.end_ms] for r in written if r.topic.endswith(".alerts")],
    }
    about = {"features": FEATURES, "segments": SEGMENTS, "rows_per_window": ROWS, "windows": len(ended)}
    return about | {"rows": {name: spread(found) for name, found in kinds.items() if found}}


def course(broker: Topics, traffic: Traffic, port: int) -> tuple[dict[int, int], list[Written]]:
    """Return when each window was ended, and everything that was published."""
    dice, ended, written = np.random.default_rng(6), dict[int, int](), list[Written]()
    for window in range(WINDOWS):
        broker.send(rows(traffic, window, dice))
        if window == 0:
            wait_for_first(port)
        time.sleep(PAUSE_S)
        end_ms = START_MS + (window + 1) * HOUR_MS
        ended[end_ms] = broker.end(end_ms)
        deadline = time.monotonic() + LIMIT_S
        while not any(record.end_ms == end_ms for record in written):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"window {window} has no result after {LIMIT_S} s; {json.dumps(sorted({r.end_ms for r in written})[-3:])}"
                )
            written += broker.read(0.2)
    return ended, written + broker.read(2.0)


def wait_for_first(port: int) -> None:
    """Wait until the worker has counted the first hour's rows."""
    deadline = time.monotonic() + LIMIT_S
    while sum(values(page(port), COUNTS[0])) < ROWS:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the worker has not counted {ROWS} rows after {LIMIT_S} s")
        time.sleep(0.1)


def spread(found: list[int]) -> dict[str, float]:
    """Return the number, median, 99th percentile and maximum of milliseconds."""
    return {
        "n": len(found),
        "median_ms": float(np.median(found)),
        "p99_ms": float(np.percentile(found, 99, method="higher")),
        "max_ms": float(max(found)),
    }
