"""Faults on Apache Kafka: workers are killed, paused, stopped and robbed of their disks while every event is written down.

The ledger holds what the broker acknowledged; the oracle counts it with plain loops, in code that shares nothing with the monitor.
`python -m tests.chaos kill|stop|term|wipe|all [--seconds N] [--seed N]` runs longer than the test does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import confluent_kafka as ck
import numpy as np

from monitor.columns import ColumnBatch
from monitor.config_file import load_config
from monitor.features import CategoryFeature
from monitor.layout import layout_of
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.runtime import references, topics
from monitor.runtime.broker import read_to_end
from monitor.runtime.supervisor import die_with_parent
from tests.kafka import KafkaCluster
from tests.shapes import number_feature_of

SIZE_MS, STEP_MS = 10_000, 5_000
SESSION_S = 6
MODELS = ("credit", "fraud", "churn")
COLOURS = ("red", "green", "blue")
PARTITIONS = 4
MALFORMED = (b"", b"{", b"[]", b"\xff", b'{"model":1,"time":1,"features":{}}', b'{"model":"credit","features":{}}')

CONFIG = """\
app: {app}
kafka: {{bootstrap_servers: "{bootstrap}", session_timeout: {session}s, heartbeat_interval: 1s}}
sources: [{{topic: {app}-events}}]
defaults: {{windows: [{{size: {size}ms}}, {{size: {double}ms, step: {step}ms}}], grace: 5s, idle_after: 3s}}
partials_partitions: 4
state: {{dir: "{folder}/state", checkpoint: 500ms}}
http: {{bind: "127.0.0.1:0"}}
"""


@dataclass
class Ledger:
    """Every event that the broker has acknowledged: model → times, values, colours."""

    events: dict[str, list[tuple[int, float, str]]] = field(default_factory=lambda: defaultdict(list))
    malformed: list[bytes] = field(default_factory=list)
    unacknowledged: int = 0

    def windows(self) -> dict[tuple[str, int, int], tuple[int, float, dict[str, int]]]:
        """(model, start, size) → rows, sum of x, rows by colour; by plain loops."""
        rows: Counter[tuple[str, int, int]] = Counter()
        sums: dict[tuple[str, int, int], float] = defaultdict(float)
        colours: dict[tuple[str, int, int], Counter[str]] = defaultdict(Counter)
        for model, events in self.events.items():
            for time_ms, x, colour in events:
                starts = [(time_ms - time_ms % SIZE_MS, SIZE_MS)]
                first = time_ms - time_ms % STEP_MS
                starts += [(s, 2 * SIZE_MS) for s in range(first - 2 * SIZE_MS + STEP_MS, first + 1, STEP_MS)]
                for start, size in starts:
                    key = (model, start, size)
                    rows[key] += 1
                    sums[key] += x
                    colours[key][colour] += 1
        return {key: (n, sums[key], dict(colours[key])) for key, n in rows.items()}


class Producing(threading.Thread):
    """Sends `rate` events a second; partition 3 never gets any, partition 2 half of the time; one record in 200 is malformed."""

    def __init__(self, bootstrap: str, topic: str, rate: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._producer = ck.Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "acks": "all", "log_level": 0})
        self._topic = topic
        self._rate = rate
        self._dice = random.Random(seed)
        self.ledger = Ledger()
        self.stopping = threading.Event()

    def run(self) -> None:
        started = time.monotonic()
        sent = 0
        while not self.stopping.is_set():
            elapsed = time.monotonic() - started
            partitions = (0, 1, 2) if elapsed % 30 < 15 else (0, 1)
            while sent < elapsed * self._rate:
                self._send(self._dice.choice(partitions))
                sent += 1
            self._producer.poll(0.01)
        self.ledger.unacknowledged = self._producer.flush(60)

    def _send(self, partition: int) -> None:
        dice = self._dice
        if dice.random() < 0.005:
            bad = dice.choice(MALFORMED)
            self._producer.produce(self._topic, bad, partition=partition)
            self.ledger.malformed.append(bad)
            return
        event = (time.time_ns() // 1_000_000 - dice.randrange(3_000), round(dice.gauss(0, 1), 3), dice.choice(COLOURS))
        model = dice.choice(MODELS)
        value = json.dumps({"model": model, "time": event[0], "features": {"x": event[1], "colour": event[2]}})

        def delivered(error: ck.KafkaError | None, _: ck.Message) -> None:
            if error is None:
                self.ledger.events[model].append(event)
            else:
                self.ledger.unacknowledged += 1

        self._producer.produce(self._topic, value, partition=partition, on_delivery=delivered)


class Workers:
    """Two worker processes, started again when they end, as the supervisor would."""

    def __init__(self, command: Sequence[str], config: Path, folder: Path, n: int = 2) -> None:
        self._command = [*command, "worker", "--config", str(config), "--index"]
        self._folder = folder
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.exits: list[tuple[int, int]] = []
        for i in range(n):
            self.start(i)

    def start(self, i: int) -> None:
        with (self._folder / f"worker-{i}.log").open("ab") as out:
            self.processes[i] = subprocess.Popen([*self._command, str(i)], stderr=out, stdout=out, preexec_fn=die_with_parent)

    def revive(self) -> None:
        for i, process in self.processes.items():
            if process.poll() is not None:
                self.exits.append((i, process.returncode))
                self.start(i)

    def disturb(self, i: int, fault: str, dice: random.Random) -> None:
        process = self.processes[i]
        if fault == "stop":
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(dice.uniform(SESSION_S + 1, SESSION_S + 4))
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(2)
        else:
            os.kill(process.pid, signal.SIGTERM if fault == "term" else signal.SIGKILL)
            process.wait(60)
            if fault == "wipe":
                shutil.rmtree(self._folder / "state" / f"worker-{i}", ignore_errors=True)
            self.start(i)

    def end(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass
class Report:
    """What a run found; `anomalies` is empty when all is well."""

    produced: int
    windows: int
    records: int
    repeated: int
    faults: Counter[str]
    exits: list[tuple[int, int]]
    anomalies: list[str]

    def __str__(self) -> str:
        faults = ", ".join(f"{n} {fault}" for fault, n in sorted(self.faults.items())) or "no fault"
        lines = [
            f"{faults}: {self.produced:,} events, {self.windows} windows, {self.records} records, {self.repeated} repeated",
            *self.anomalies[:20],
            f"{len(self.anomalies)} anomalies",
        ]
        return "\n".join(lines)


def reference(model: str) -> Reference:
    """A reference of 5,000 standard normal values and three colours."""
    dice = np.random.default_rng(7)
    values = dice.normal(size=5_000)
    layout = layout_of([number_feature_of("x", values), CategoryFeature(name="colour", values=COLOURS)])
    profile = Profile(layout)
    profile.update(ColumnBatch(5_000, values[None, :], None, [dice.choice(COLOURS, 5_000).tolist()]))
    return Reference.build(model, "1", profile)


def records(config_path: Path, kind: str) -> Iterator[tuple[bytes, bytes]]:
    config = load_config(config_path)
    for message in read_to_end(config.kafka, f"{config.app}.{kind}", partitions=config.partials_partitions):
        yield message.key() or b"", message.value() or b""


def run(
    kafka: KafkaCluster,
    app: str,
    faults: Sequence[str],
    *,
    seed: int = 1,
    rate: int = 2_200,
    command: Sequence[str] = (sys.executable, "-m", "monitor"),
    settle_s: float = 60,
    pause: tuple[float, float] = (1.5, 5.0),
) -> Report:
    """Produce, disturb, let it settle, and compare."""
    dice = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    config_path = folder / "monitor.yaml"
    config_path.write_text(
        CONFIG.format(
            app=app, bootstrap=kafka.bootstrap, session=SESSION_S, size=SIZE_MS, double=2 * SIZE_MS, step=STEP_MS, folder=folder
        )
    )
    config = load_config(config_path)
    topics.create_topics(config)
    for model in MODELS:
        references.publish(config, reference(model))
    producing = Producing(kafka.bootstrap, f"{app}-events", rate, seed)
    workers = Workers(command, config_path, folder)
    try:
        time.sleep(6)
        producing.start()
        time.sleep(4)
        for fault in faults:
            deadline = time.monotonic() + dice.uniform(*pause)
            while time.monotonic() < deadline:
                workers.revive()
                time.sleep(0.2)
            workers.disturb(dice.randrange(2), fault, dice)
        producing.stopping.set()
        producing.join(90)
        expected = producing.ledger.windows()
        deadline = time.monotonic() + settle_s
        while time.monotonic() < deadline:
            workers.revive()
            if set(expected) <= {_window(value) for _, value in records(config_path, "results")}:
                break
            time.sleep(2)
        report = compare(config_path, producing.ledger, Counter(faults), workers.exits)
    finally:
        producing.stopping.set()
        workers.end()
    if not report.anomalies:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"kept: {folder}", file=sys.stderr)
    return report


def _window(value: bytes) -> tuple[str, int, int]:
    record = json.loads(value)
    return record["model"], record["window"]["start_ms"], record["window"]["size_ms"]


def compare(config_path: Path, ledger: Ledger, faults: Counter[str], exits: list[tuple[int, int]]) -> Report:
    """Hold everything published against the ledger."""
    expected = ledger.windows()
    by_window: dict[tuple[str, int, int], set[bytes]] = defaultdict(set)
    n_records = 0
    for _, value in records(config_path, "results"):
        by_window[_window(value)].add(value)
        n_records += 1
    anomalies = [f"UNACKNOWLEDGED {ledger.unacknowledged}"] if ledger.unacknowledged else []
    anomalies += [f"CHANGED {key}" for key, values in by_window.items() if len(values) > 1]
    anomalies += [f"NEVER_CLOSED {key} {expected[key][0]} rows" for key in sorted(set(expected) - set(by_window))]
    for key, values in sorted(by_window.items()):
        record = json.loads(min(values))
        n, total, colours = expected.get(key, (0, 0.0, {}))
        if record["n"] != n:
            anomalies.append(f"{'LOST' if record['n'] < n else 'OVERCOUNTED'} {key} {record['n']} of {n}")
        elif n:
            cells = record["features"]["colour"]["cells"]
            counted = {v: c for v, c in zip(cells["values"], cells["counts"], strict=True) if c}
            x = record["features"]["x"]
            if counted != colours or sum(x["cells"]["counts"]) != n or abs(x["mean"] * n - total) > 1e-6:
                anomalies.append(f"WRONG_CELLS {key} {counted} {colours} {x['mean'] * n} {total}")
    alerts: dict[str, set[bytes]] = defaultdict(set)
    for _, value in records(config_path, "alerts"):
        alerts[json.loads(value)["id"]].add(value)
    anomalies += [f"ALERT_CHANGED {key}" for key, values in alerts.items() if len(values) > 1]
    letters = {value for _, value in records(config_path, "dead-letter")}
    anomalies += [f"DLQ_MISSING {bad!r}" for bad in set(ledger.malformed) - letters]
    produced = sum(map(len, ledger.events.values()))
    return Report(produced, len(expected), n_records, n_records - len(by_window), faults, exits, anomalies)


SCENARIOS = {
    "none": ["none"] * 0,
    "kill": ["kill"] * 20,
    "stop": ["stop"] * 12,
    "term": ["term"] * 10,
    "wipe": ["wipe"] * 10,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="?", default="all", choices=[*SCENARIOS, "all"])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    names = list(SCENARIOS) if arguments.scenario == "all" else [arguments.scenario]
    found = 0
    with KafkaCluster() as kafka:
        for name in names:
            print(f"{name}, seed {arguments.seed}", flush=True)
            report = run(kafka, f"c{name}{arguments.seed}", SCENARIOS[name], seed=arguments.seed)
            print(report, flush=True)
            found += len(report.anomalies)
    print(f"scenarios {', '.join(names)}: {found} anomalies")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
