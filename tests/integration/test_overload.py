"""A worker that cannot keep up lags, says so, by its metrics and a real Prometheus with the rules of deploy/, stays within its memory, and loses nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka as ck
import pytest

from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.runtime.memory import resident_bytes
from tests import prometheus
from tests.integration.test_runtime_lives import EVENTS, Worker, worker
from tests.integration.workers import event, wait_for, write_config
from tests.kafka import ROOT, KafkaCluster

pytestmark = [
    pytest.mark.broker,
    pytest.mark.timeout(240),
    pytest.mark.skipif(prometheus.PROGRAM is None, reason="prometheus is not installed"),
]

ALERT = "MonitorCannotKeepUp"
SHORTER = {"[10m]": "[25s]", "> 300": "> 3", "for: 10m": "for: 5s"}
"""The same rule for a test that has no twenty minutes."""
RATE, SENT_AT_ONCE = 25_000, 2_500
"""Events a second, many times what a fiftieth of a processor reads."""
PERIOD_S, AT_WORK = 0.5, 0.02
MEMORY = 512 << 20


def rules() -> str:
    """Return deploy/alerts.yml with that rule's times shorter."""
    before, rule = (ROOT / "deploy/alerts.yml").read_text().split(f"- alert: {ALERT}\n")
    rule, after = rule.split("- alert:", 1)
    for long, short in SHORTER.items():
        assert long in rule
        rule = rule.replace(long, short)
    return f"{before}- alert: {ALERT}\n{rule}- alert:{after}"


@contextmanager
def slowed(found: Worker) -> Iterator[None]:
    """Let it have a fiftieth of a processor: it is stopped most of the time."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.wait(PERIOD_S * AT_WORK):
            os.kill(found.process.pid, signal.SIGSTOP)
            is_over.wait(PERIOD_S * (1 - AT_WORK))
            os.kill(found.process.pid, signal.SIGCONT)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


class Producer(threading.Thread):
    """Sends events of now, all the time. n: that were sent."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.n = 0
        self.is_over = threading.Event()
        self._topic = config.sources[0].topic
        self._client = ck.Producer({"bootstrap.servers": config.kafka.bootstrap_servers, "linger.ms": 20, "log_level": 0})

    def run(self) -> None:
        """Until it is over; then all are on the log."""
        began_s = time.monotonic()
        while not self.is_over.is_set():
            for i in range(SENT_AT_ONCE):
                self._client.produce(self._topic, event(time.time_ns() // 1_000_000, x=i), partition=i % 4)
            self.n += SENT_AT_ONCE
            self._client.poll(0)
            self.is_over.wait(max(0.0, self.n / RATE - (time.monotonic() - began_s)))
        assert self._client.flush(30) == 0


def test_what_is_too_much_is_told_and_waits_and_all_of_it_is_counted(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    path = write_config(kafka, app, tmp_path, EVENTS)
    with worker(path) as found:
        target = str(found.events("worker_starts")[0]["http"])
        producer, most = Producer(load_config(path)), 0

        def says() -> list[str]:
            """Return the sources that the alert names."""
            nonlocal most
            most = max(most, resident_bytes(found.process.pid))
            return [alert["labels"]["source"] for alert in told.firing() if alert["labels"]["alertname"] == ALERT]

        with prometheus.running(tmp_path / "prometheus", target, rules()) as told:
            producer.start()
            try:
                with slowed(found):
                    assert wait_for(says, 90) == [f"{app}-events"], told.ask("query?query=monitor_lag_records")
            finally:
                producer.is_over.set()
                producer.join()
            found.wait_counted(producer.n)
            assert most < MEMORY
            assert wait_for(lambda: not says() and not found.metric("monitor_lag_records{"), 60)
        assert found.metric("monitor_worker_restarts_total{") == 0
        assert found.end() == 0
