"""The demo: real workers, an embedded broker, a year of real flights whose outcome is known when they land, three faults at known times."""

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
from pathlib import Path

import confluent_kafka as ck
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from rich.console import Console

from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.demo import flights as data
from monitor.demo.flights import MODEL, REFERENCE_END_MS
from monitor.demo.returned import Returned, is_exact, print_alert, print_month, print_summary, summary
from monitor.demo.sending import GIVE_UP_S, Sender
from monitor.runtime import references
from monitor.runtime.broker import reader
from monitor.runtime.embedded import PARTITIONS, EmbeddedBroker
from monitor.runtime.supervisor import die_with_parent

WORKERS = 2

CONFIG = f"""\
app: demo
kafka: {{{{bootstrap_servers: "{{bootstrap}}", session_timeout: 6s, heartbeat_interval: 1s}}}}
sources:
  - {{{{topic: predictions, clock: event}}}}
  - {{{{topic: labels, format: native-label, clock: event}}}}
models:
  {MODEL}:
    windows: [{{{{size: 1d}}}}]
    grace: 2h
    idle_after: 5s
    early: false   # labels meet their predictions by pane: a day's, not half an hour's, for two cores
    segments: [{data.SEGMENTED_BY}]
    labels: {{{{retention: 2d, report_at: [0s, 1d]}}}}
rules: {{{{segments.drift: {{{{enabled: false}}}}}}}}   # what carriers fly changes with the season
policies: "{{folder}}/policy.yaml"
partials_partitions: {PARTITIONS}
outcomes_partitions: {PARTITIONS}
state: {{{{dir: "{{folder}}/state", checkpoint: 500ms}}}}
http: {{{{bind: "127.0.0.1:{{port}}"}}}}
"""
POLICY = f"""\
name: accuracy
rules:   # two days in a row: bad weather passes
  - {{when: accuracy drop > 30 %, open_after: 2}}
  - {{when: accuracy drop > 30 %, open_after: 2, segment: "{data.SEGMENTED_BY}=*"}}
"""


def configure(folder: Path, bootstrap: str, port: int) -> Config:
    """Write the demo's configuration and policy into a folder, and read them."""
    path = folder / "monitor.yaml"
    path.write_text(CONFIG.format(bootstrap=bootstrap, folder=folder, port=port))
    (folder / "policy.yaml").write_text(POLICY)
    return load_config(path, {})


def run_demo(*, as_json: bool, keep: bool) -> int:
    """Run the demo; return the exit code: 0 when every event and label is accounted for and every fault was found."""
    started = time.monotonic()
    console = Console(file=sys.stderr if as_json else sys.stdout, highlight=False, quiet=as_json)
    folder = Path(tempfile.mkdtemp(prefix="monitor-demo-"))
    try:
        console.print("reading a year of flights and training the model on its first three months …")
        flights = data.load(data.download(Path(".cache") / "demo"))
        data.train(flights)
        first = int((flights.time_ms < REFERENCE_END_MS).sum())
        reference = data.reference(flights, first, folder, by=data.SEGMENTED_BY)
        console.print(f"reference: {reference.record.rows:,} flights of January to March, sha256 {reference.sha256[:12]}")
        with EmbeddedBroker() as broker:
            config = configure(folder, broker.bootstrap, _free_ports(WORKERS))
            references.publish(config, reference)
            with _workers(folder / "monitor.yaml", folder):
                returned = Returned()
                watching = _watch(config)
                sender = Sender(
                    config,
                    look=lambda timeout_s: _look(returned, watching, console, timeout_s),
                    reported_ms=lambda: max(returned.reports, default=0),
                )
                console.print(
                    f"{WORKERS} workers started; sending {len(flights.time_ms) - first:,} flights as they depart, and whether each was late "
                    "when it lands …",
                    soft_wrap=True,
                )
                console.print(
                    f"meanwhile: monitor tail results --from-beginning --config {folder}/monitor.yaml; http://{config.http.bind}/metrics",
                    soft_wrap=True,
                )
                sender.send(flights, first)
                _wait(int(flights.time_ms[-1]), returned, watching, console)
                for month, found in returned.months_over(at_end=True):
                    print_month(console, month, found)
                samples = _samples(config)
    finally:
        if keep:
            Console(stderr=True).print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    found = summary(returned, sender.produced, sender.labels, samples, time.monotonic() - started)
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        print_summary(console, found)
    return 0 if is_exact(found) and all(fault["found_after_windows"] for fault in found["faults"]) else 1


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


def _look(returned: Returned, watching: ck.Consumer, console: Console, timeout_s: float) -> None:
    """Take in what has come back, and print alerts and months as they come."""
    alerts = []
    for message in watching.consume(500, timeout_s):
        if message.error() is not None:
            continue
        kind = message.topic().rsplit(".", 1)[1]
        if kind == "results":
            returned.result(message.key(), message.value())
        elif kind == "dead-letter":
            headers = dict(message.headers() or ())
            returned.reject(headers["__monitor.errors.partition"], headers["__monitor.errors.offset"])
        elif (alert := returned.alert(message.value())) is not None:
            alerts.append(alert)
    for alert in sorted(alerts, key=lambda a: a["window"]["end_ms"]):
        print_alert(console, alert)
    for month, found in returned.months_over(at_end=False):
        print_month(console, month, found)


def _wait(last_ms: int, returned: Returned, watching: ck.Consumer, console: Console) -> None:
    """Wait until the last window of the year and its report have come back, and nothing more comes."""
    deadline = time.monotonic() + GIVE_UP_S
    quiet_since = time.monotonic()
    while time.monotonic() < deadline:
        before = returned.n_records
        _look(returned, watching, console, 0.5)
        if returned.n_records != before:
            quiet_since = time.monotonic()
        ends = [result["window"]["end_ms"] for result in returned.results.values()]
        is_reported = max(returned.reports, default=0) > last_ms
        if max(ends, default=0) > last_ms and is_reported and time.monotonic() - quiet_since > 2:
            return


def _samples(config: Config) -> list[Sample]:
    """Return what the workers tell Prometheus."""
    host, _, port = config.http.bind.rpartition(":")
    found: list[Sample] = []
    for i in range(WORKERS):
        try:
            with urllib.request.urlopen(f"http://{host}:{int(port) + i}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except urllib.error.URLError:
            continue
        found += [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return found
