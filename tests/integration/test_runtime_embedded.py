"""A worker on the embedded broker, which has no admin calls, no topic ids and no compaction."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from monitor.config.file import load_config
from monitor.runtime import topics
from monitor.runtime.embedded import PARTITIONS, EmbeddedBroker
from monitor.runtime.supervisor import die_with_parent
from tests.integration.test_runtime_lives import EVENTS, counted, events, ticks
from tests.integration.workers import KAFKA, send, wait_for

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(120)]


def test_a_worker_counts_exactly_and_a_killed_one_goes_on_from_its_local_store(app: str, tmp_path: Path) -> None:
    with EmbeddedBroker() as broker:
        path = tmp_path / "monitor.yaml"
        path.write_text(
            KAFKA.format(app=app, bootstrap=broker.bootstrap, folder=tmp_path) + EVENTS.replace("EVENTS", f"{app}-events")
        )
        config = load_config(path)
        assert set(topics.check_topics(config, embedded=True).values()) == {PARTITIONS}
        command = [sys.executable, "-m", "monitor", "worker", "--config", str(path), "--embedded"]
        for batch in ([*events(2_000), *ticks(2)], [*events(2_000, first=108_000), *ticks(5)]):
            expected = counted(config) + 2_000
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)
            try:
                send(config, batch)
                assert wait_for(lambda n=expected: counted(config) >= n, 40)
            finally:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            assert counted(config) == expected
