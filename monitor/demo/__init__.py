"""The demo: real workers, an embedded broker, a year of real flights, two faults at known times."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import orjson
from rich.console import Console
from rich.table import Table

from monitor.config import Config
from monitor.config_file import load_config
from monitor.demo import flights as data
from monitor.demo.flights import DAY_MS, FAULTS, MODEL, REFERENCE_END_MS, Flights
from monitor.runtime import references
from monitor.runtime.broker import producer, reader
from monitor.runtime.embedded import PARTITIONS, EmbeddedBroker
from monitor.runtime.supervisor import die_with_parent

WORKERS = 2
MAX_AHEAD = 6_000
"""Records per partition that the workers may be behind: the embedded broker keeps 5 MiB of each."""
MALFORMED_EVERY = 10_000
LATE_EVERY = 6_000
LATE_BY_MS = 3 * DAY_MS
GIVE_UP_S = 150
GRACE_MS = 2 * 3_600_000

CONFIG = f"""\
app: demo
kafka: {{{{bootstrap_servers: "{{bootstrap}}", session_timeout: 6s, heartbeat_interval: 1s}}}}
sources: [{{{{topic: predictions, clock: event}}}}]
models:
  {MODEL}:
    windows: [{{{{size: 1d}}}}]
    grace: 2h
    idle_after: 5s
partials_partitions: {PARTITIONS}
state: {{{{dir: "{{folder}}/state", checkpoint: 500ms}}}}
http: {{{{bind: "127.0.0.1:{{port}}"}}}}
"""


@dataclass
class _Run:
    """What has been sent and what has come back."""

    produced: int = 0
    sent: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    results: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejected: set[tuple[bytes, bytes]] = field(default_factory=set)


def run_demo(*, as_json: bool, keep: bool) -> int:
    """Run the demo; return the exit code: 0 when every event is accounted for and every fault was found."""
    started = time.monotonic()
    console = Console(file=sys.stderr if as_json else sys.stdout, highlight=False, quiet=as_json)
    folder = Path(tempfile.mkdtemp(prefix="monitor-demo-"))
    try:
        console.print("reading a year of flights and training the model on its first three months …")
        flights = data.load(data.download(Path(".cache") / "demo"))
        data.train(flights)
        first = int((flights.time_ms < REFERENCE_END_MS).sum())
        reference = data.reference(flights, first, folder)
        console.print(f"reference: {reference.record.rows:,} flights of January to March, sha256 {reference.sha256[:12]}")
        with EmbeddedBroker() as broker:
            path = folder / "monitor.yaml"
            path.write_text(CONFIG.format(bootstrap=broker.bootstrap, folder=folder, port=_free_ports(WORKERS)))
            config = load_config(path, {})
            references.publish(config, reference)
            with _workers(path, folder):
                run = _Run()
                watching = _watch(config)
                console.print(f"{WORKERS} workers started; sending {len(flights.time_ms) - first:,} flights, day by day …")
                _send(config, flights, first, run, watching, console)
                _wait(int(flights.time_ms[-1]), run, watching, console)
                late = _metric(config, "late") + _metric(config, "late_after_final")
    finally:
        if keep:
            Console(stderr=True).print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    summary = _summary(run, late, time.monotonic() - started)
    if as_json:
        sys.stdout.write(json.dumps(summary) + "\n")
    else:
        _print(console, summary)
    is_exact = summary["produced"] == summary["counted"] + summary["late"] + summary["rejected"]
    return 0 if is_exact and all(fault["found_after_windows"] for fault in summary["faults"]) else 1


def _free_ports(n: int) -> int:
    """Return the first of n free ports in a row."""
    for _ in range(50):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = int(s.getsockname()[1])
        try:
            for i in range(n):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", port + i))
            return port
        except OSError:
            continue
    return port


@contextmanager
def _workers(config: Path, folder: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "monitor", "run", "--config", str(config), "--workers", str(WORKERS), "--embedded"]
    with (folder / "workers.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _watch(config: Config) -> ck.Consumer:
    """Return a consumer of results, alerts and dead letters, from their beginning."""
    consumer = reader(config.kafka)
    topics = [f"{config.app}.{kind}" for kind in ("results", "alerts", "dead-letter")]
    for topic in topics:
        consumer.list_topics(topic, timeout=10)
    consumer.assign([ck.TopicPartition(t, p, ck.OFFSET_BEGINNING) for t in topics for p in range(PARTITIONS)])
    return consumer


def _look(run: _Run, watching: ck.Consumer, console: Console, timeout_s: float) -> None:
    """Take in what has come back, and print alerts as they come."""
    alerts = []
    for message in watching.consume(500, timeout_s):
        if message.error() is not None:
            continue
        kind = message.topic().rsplit(".", 1)[1]
        if kind == "results":
            result = orjson.loads(message.value())
            if result.get("type") != "performance":
                run.results[message.key()] = result
        elif kind == "dead-letter":
            headers = dict(message.headers() or ())
            run.rejected.add((headers["__monitor.errors.partition"], headers["__monitor.errors.offset"]))
        else:
            alert = orjson.loads(message.value())
            if alert["id"] not in run.alerts:
                run.alerts[alert["id"]] = alert
                alerts.append(alert["data"])
    for alert in sorted(alerts, key=lambda a: a["window"]["end_ms"]):
        _print_alert(console, alert)


def _print_alert(console: Console, alert: dict[str, Any]) -> None:
    colour = {"notice": "cyan", "warning": "yellow", "critical": "red"}[alert["severity"]]
    colour = "green" if alert["status"] == "resolved" else colour
    console.print(
        f"[{colour}]{alert['window']['start'][:10]}  {alert['status']:8}  {alert['severity']:8}[/]  "
        f"{alert['feature'] or 'model':12} {alert['check']:22} {alert['value']:.3f}  (n={alert['n']})",
        soft_wrap=True,
    )


def _send(config: Config, flights: Flights, first: int, run: _Run, watching: ck.Consumer, console: Console) -> None:
    """Send the flights after the reference, never further ahead than the embedded broker can keep; then a tick per partition."""
    client = producer(config.kafka)
    progress = ck.Consumer(
        {"bootstrap.servers": config.kafka.bootstrap_servers, "group.id": config.app, "enable.auto.commit": False, "log_level": 0}
    )
    topic = config.sources[0].topic
    client.list_topics(topic, timeout=10)

    def put(partition: int, value: bytes) -> None:
        client.produce(topic, value, partition=partition)
        run.sent[partition] += 1

    last_end_ms = (int(flights.time_ms[-1]) // DAY_MS + 1) * DAY_MS
    for n, (time_ms, event) in enumerate(data.events(flights, first, len(flights.time_ms))):
        put(n % PARTITIONS, orjson.dumps(event))
        run.produced += 1
        if n % MALFORMED_EVERY == MALFORMED_EVERY - 1:
            put(n % PARTITIONS, b'{"model": "late-arrival", "time": ')
            run.produced += 1
        if n % LATE_EVERY == LATE_EVERY - 1:
            put(n % PARTITIONS, orjson.dumps(event | {"time": time_ms - LATE_BY_MS}))
            run.produced += 1
        if n % 1_000 == 0:
            client.poll(0)
            _look(run, watching, console, 0)
            _pace(progress, client, topic, run, watching, console)
    for partition in range(PARTITIONS):
        put(partition, orjson.dumps({"tick": last_end_ms + GRACE_MS}))
    client.flush(30)
    progress.close()


def _pace(progress: ck.Consumer, client: ck.Producer, topic: str, run: _Run, watching: ck.Consumer, console: Console) -> None:
    """Wait while the workers are too far behind."""
    if max(run.sent) < MAX_AHEAD:
        return
    deadline = time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline:
        client.poll(0)
        committed = progress.committed([ck.TopicPartition(topic, p) for p in range(PARTITIONS)], timeout=10)
        if max(run.sent[c.partition] - max(c.offset, 0) for c in committed) < MAX_AHEAD:
            return
        _look(run, watching, console, 0.05)
    raise TimeoutError(f"the workers have made no progress for {GIVE_UP_S} s")


def _wait(last_ms: int, run: _Run, watching: ck.Consumer, console: Console) -> None:
    """Wait until the last window of the year has come back, and nothing more comes."""
    deadline = time.monotonic() + GIVE_UP_S
    quiet_since = time.monotonic()
    while time.monotonic() < deadline:
        before = len(run.results) + len(run.alerts) + len(run.rejected)
        _look(run, watching, console, 0.5)
        if len(run.results) + len(run.alerts) + len(run.rejected) != before:
            quiet_since = time.monotonic()
        ends = [result["window"]["end_ms"] for result in run.results.values()]
        if ends and max(ends) > last_ms and time.monotonic() - quiet_since > 2:
            return


def _metric(config: Config, outcome: str) -> int:
    """Return the sum over workers of monitor_events_total of one outcome."""
    host, _, port = config.http.bind.rpartition(":")
    total = 0.0
    for i in range(WORKERS):
        try:
            with urllib.request.urlopen(f"http://{host}:{int(port) + i}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except urllib.error.URLError:
            continue
        total += sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith("monitor_events_total{") and f'outcome="{outcome}"' in line
        )
    return int(total)


def _summary(run: _Run, late: int, seconds: float) -> dict[str, Any]:
    fired = sorted(
        (a["data"] for a in run.alerts.values() if a["data"]["status"] == "firing"),
        key=lambda a: (a["window"]["end_ms"], a["check"], a["feature"] or ""),
    )
    faults = []
    for fault in FAULTS:
        ends = [
            a["window"]["end_ms"]
            for a in fired
            if fault.from_ms < a["window"]["end_ms"] <= fault.to_ms + DAY_MS
            and any(m["feature"] == fault.feature and m["is_open"] and m["severity"] != "notice" for m in a["members"])
        ]
        found = -(-(min(ends) - fault.from_ms) // DAY_MS) if ends else None
        faults.append({"feature": fault.feature, "from_ms": fault.from_ms, "found_after_windows": found, "what": fault.name})
    return {
        "produced": run.produced,
        "counted": sum(result["n"] for result in run.results.values()),
        "late": late,
        "rejected": len(run.rejected),
        "windows": len(run.results),
        "alerts": [
            {
                "feature": a["feature"],
                "check": a["check"],
                "severity": a["severity"],
                "window_end_ms": a["window"]["end_ms"],
                "segment": a["segment"],
            }
            for a in fired
        ],
        "faults": faults,
        "seconds": round(seconds, 1),
    }


def _print(console: Console, summary: dict[str, Any]) -> None:
    table = Table(title="faults", title_justify="left")
    for name in ("what broke", "since", "found after"):
        table.add_column(name)
    for fault in summary["faults"]:
        since = datetime.fromtimestamp(fault["from_ms"] / 1000, UTC).strftime("%Y-%m-%d")
        found = fault["found_after_windows"]
        table.add_row(fault["what"], since, f"{found} daily window{'s' * (found != 1)}" if found else "not found")
    console.print(table)
    accounted = summary["counted"] + summary["late"] + summary["rejected"]
    console.print(
        f"{summary['produced']:,} events produced = {summary['counted']:,} counted + {summary['late']:,} late "
        f"+ {summary['rejected']:,} rejected{'' if accounted == summary['produced'] else '  [red]— NOT EQUAL[/]'}"
    )
    console.print(f"{summary['windows']} windows, {len(summary['alerts'])} alerts, {summary['seconds']:.0f} s")
