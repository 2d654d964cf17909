"""An outage of the only broker: workers end, are started again until it is back, and nothing is lost or counted twice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from monitor.config.file import load_config
from tests.integration.test_runtime_lives import EVENTS, counted, events, ticks
from tests.integration.workers import send, wait_for, workers, write_config
from tests.kafka import KafkaCluster

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


def test_a_broker_that_is_gone_for_longer_than_a_session_is_waited_for(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    """`kafka` only says whether a broker can be had: this test kills one of its own."""
    with KafkaCluster() as broker:
        path = write_config(broker, app, tmp_path, EVENTS)
        config = load_config(path)
        log = tmp_path / "workers.log"
        with workers(path) as supervisor:
            send(config, events(2_000))
            assert wait_for(lambda: "partitions_taken_over" in log.read_text(), 40)
            time.sleep(2)  # heartbeats are answered
            broker.kill(0, signal.SIGKILL)
            assert wait_for(lambda: "no heartbeat was answered for" in log.read_text(), 15)
            assert wait_for(lambda: '"code": 75' in log.read_text(), 25)
            broker.start(0)
            wait_for(broker.is_ready, 30)
            send(config, [*events(1_000), *ticks()])
            assert wait_for(lambda: counted(config) >= 3_000, 40)
            assert supervisor.poll() is None
        assert counted(config) == 3_000
