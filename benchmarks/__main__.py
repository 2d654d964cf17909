"""Events per second on Apache Kafka, beside a consumer that does nothing but parse: `python -m benchmarks [--events N]`.

One worker process reads a full topic end to end (consume, decode, profile, checkpoint); the bare consumer is librdkafka with
`orjson.loads` of every value, on the same topic of the same broker, before and after. Ratios count; absolute rates are the machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
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
from monitor.segments import Key, Segmentation
from tests.kafka import KafkaCluster, free_port
from tests.shapes import number_feature_of

N_NUMBERS, N_CATEGORIES, PARTITIONS = 15, 5, 4
COLOURS = ["red", "green", "blue", "black"]
START_MS = 1_700_000_000_000

CONFIG = """\
app: {app}
kafka: {{bootstrap_servers: "{bootstrap}"}}
sources: [{{topic: events, clock: event}}]
models: {{credit: {{windows: [{windows}], grace: 2m}}}}
partials_partitions: 4
state: {{dir: "{folder}/{app}", checkpoint: 2s}}
http: {{bind: "127.0.0.1:{port}"}}
"""


def fill(bootstrap: str, topic: str, n: int, bad_share: float) -> float:
    """Fill a topic with n 20-feature events, some malformed; return the mean size in bytes."""
    dice = np.random.default_rng(1)
    bodies = []
    for i in range(10_000):
        features: dict[str, object] = {f"feature_{j:02d}": round(float(dice.normal()), 6) for j in range(N_NUMBERS)}
        features |= {f"feature_{j:02d}": COLOURS[dice.integers(4)] for j in range(N_NUMBERS, N_NUMBERS + N_CATEGORIES)}
        event = {
            "id": f"req-{i:012d}", "model": "credit", "version": "7", "time": START_MS + i * 30, "features": features,
            "prediction": "paid", "score": 0.8312, "latency_ms": 12.5,
        }  # fmt: skip
        body = orjson.dumps(event)
        bodies.append(body[:-20] if dice.random() < bad_share else body)
    producer = ck.Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 20, "batch.size": 1 << 20, "queue.buffering.max.messages": 1_000_000}
    )
    for i in range(n):
        while True:
            try:
                producer.produce(topic, bodies[i % len(bodies)], partition=i % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
        if i % 10_000 == 0:
            producer.poll(0)
    producer.flush(120)
    return statistics.mean(map(len, bodies))


def reference(split: tuple[Segmentation, ...]) -> Reference:
    dice = np.random.default_rng(2)
    numbers = dice.normal(size=(N_NUMBERS, 5_000))
    features = [number_feature_of(f"feature_{j:02d}", numbers[j]) for j in range(N_NUMBERS)]
    names = [f"feature_{j:02d}" for j in range(N_NUMBERS, N_NUMBERS + N_CATEGORIES)]
    categories = [CategoryFeature(name=name, values=tuple(COLOURS)) for name in names]
    layout = layout_of([*features, *categories], segmentations=split)
    profile = Profile(layout)
    profile.update(ColumnBatch(5_000, numbers, None, [dice.choice(COLOURS, 5_000).tolist() for _ in names]))
    return Reference.build("credit", "7", profile)


def bare(bootstrap: str, topic: str, n: int) -> float:
    """Return events per second of librdkafka + orjson.loads."""
    consumer = ck.Consumer({"bootstrap.servers": bootstrap, "group.id": "bare", "enable.auto.commit": False})
    consumer.assign([ck.TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    seen, started = 0, None
    while seen < n:
        messages = consumer.consume(5_000, 1.0)
        started = started or time.perf_counter()
        for message in messages:
            try:
                orjson.loads(message.value())
            except orjson.JSONDecodeError:
                continue
        seen += len(messages)
    consumer.close()
    return seen / (time.perf_counter() - (started or 0))


def segmentations() -> tuple[Segmentation, ...]:
    """Return two ways to split rows, 20 rows of a profile with `all` among them."""
    one, other = (Key(name=f"feature_{j:02d}") for j in (N_NUMBERS, N_NUMBERS + 1))
    crossed = [(a, b) for a in COLOURS for b in COLOURS][:13]
    return Segmentation((one,), tuple((colour,) for colour in COLOURS)), Segmentation((one, other), tuple(crossed))


class Case(NamedTuple):
    """What a worker reads, and how. split: what rows are split by."""

    topic: str
    windows: tuple[str, ...]
    split: tuple[Segmentation, ...] = ()


CASES = {
    "1h": Case("clean", ("1h",)),
    "1h + 24h/1h + 7d": Case("clean", ("1h", "24h/1h", "7d")),
    "1h, 1 % malformed": Case("mixed", ("1h",)),
    "1h, 20 segments": Case("clean", ("1h",), segmentations()),
}


class Run(NamedTuple):
    """One worker's run: wall-clock rate, and CPU time per event, which a busy machine disturbs less."""

    events_per_second: float
    cpu_us_per_event: float


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ours(cluster: KafkaCluster, case: Case, n: int, folder: Path) -> Run:
    """Run one worker over a topic, by its own metrics."""
    app, port = f"bench{time.time_ns()}", free_port()
    spec = ", ".join("{size: %s, step: %s}" % tuple(w.split("/")) if "/" in w else "{size: %s}" % w for w in case.windows)  # noqa: UP031
    path = folder / f"{app}.yaml"
    text = CONFIG.format(app=app, bootstrap=cluster.bootstrap, folder=folder, port=port, windows=spec)
    path.write_text(text.replace("topic: events", f"topic: {case.topic}"))
    config = load_config(path, {})
    topics.create_topics(config)
    references.publish(config, reference(case.split))
    command = [sys.executable, "-m", "monitor", "worker", "--config", str(path)]
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, preexec_fn=die_with_parent)
    try:
        points: list[tuple[float, float, float]] = []
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and (not points or points[-1][1] < n):
            time.sleep(0.05)
            done = _read(port)
            if done is not None and (not points or done > points[-1][1]):
                points.append((time.perf_counter(), done, cpu_seconds(process.pid)))
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(60)
    # Metrics move once a second; between two of those steps, both inside the run, the rate is right.
    inside = [point for point in points if 0 < point[1] < n]
    (t0, n0, c0), (t1, n1, c1) = inside[0], inside[-1]
    return Run((n1 - n0) / (t1 - t0), 1e6 * (c1 - c0) / (n1 - n0))


def _read(port: int) -> float | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return None
    wanted = ("monitor_events_total{", "monitor_rejections_total{")
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(wanted))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    n = arguments.events
    figures: dict[str, object] = {"events": n, "features": N_NUMBERS + N_CATEGORIES}
    with KafkaCluster() as cluster, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for topic, share in (("clean", 0.0), ("mixed", 0.01)):
            cluster.create(topic, PARTITIONS)
            figures[f"bytes_{topic}"] = round(fill(cluster.bootstrap, topic, n, share))
        parsing: list[float] = []
        runs: dict[str, list[Run]] = {name: [] for name in CASES}
        for _ in range(arguments.runs):  # in turn, so that a slow minute of the machine meets all of them
            parsing.append(bare(cluster.bootstrap, "clean", n))
            for case_name, case in CASES.items():
                runs[case_name].append(ours(cluster, case, n, folder))
    rates = {name: statistics.median(run.events_per_second for run in done) for name, done in runs.items()}
    costs = {name: statistics.median(run.cpu_us_per_event for run in done) for name, done in runs.items()}
    rate = statistics.median(parsing)
    figures["events_per_second"] = {"bare": round(rate)} | {name: round(value) for name, value in rates.items()}
    figures["cpu_us_per_event"] = {name: round(value, 2) for name, value in costs.items()}
    figures["ratios"] = {
        "worker / bare consumer with orjson.loads, events per second": round(rates["1h"] / rate, 3),
        "three window specifications / one, CPU per event": round(costs["1h + 24h/1h + 7d"] / costs["1h"], 3),
        "1 % malformed / none, events per second": round(rates["1h, 1 % malformed"] / rates["1h"], 3),
        "1 % malformed / none, CPU per event": round(costs["1h, 1 % malformed"] / costs["1h"], 3),
        "20 segments / none, CPU per event": round(costs["1h, 20 segments"] / costs["1h"], 3),
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
