"""Real workers on a real broker, for tests that look at one behaviour at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka as ck

from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.ports import StoredRecord
from monitor.runtime import topics
from monitor.runtime.broker import read_to_end
from monitor.runtime.supervisor import die_with_parent
from tests.kafka import KafkaCluster

KAFKA = """\
app: {app}
kafka: {{bootstrap_servers: "{bootstrap}", session_timeout: 6s, heartbeat_interval: 1s}}
partials_partitions: 4
state: {{dir: "{folder}/state", checkpoint: 500ms}}
http: {{bind: "127.0.0.1:0"}}
"""


def write_config(kafka: KafkaCluster, app: str, folder: Path, rest: str) -> Path:
    """Write a configuration whose first source is `{app}-events`, and make its topics."""
    path = folder / "monitor.yaml"
    path.write_text(KAFKA.format(app=app, bootstrap=kafka.bootstrap, folder=folder) + rest.replace("EVENTS", f"{app}-events"))
    topics.create_topics(load_config(path))
    return path


@contextmanager
def workers(path: Path, n: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """Run `monitor run` for as long as the context lasts."""
    command = [sys.executable, "-m", "monitor", "run", "--config", str(path), "--workers", str(n)]
    with (path.parent / "workers.log").open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=die_with_parent)
    try:
        yield process
    finally:
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def read(config: Config, kind: str, partitions: int | None = None) -> list[tuple[bytes, bytes]]:
    """Return every (key, value) of one of the application's topics; partitions: its own, where it has not as many as `partials`."""
    return [
        (m.key() or b"", m.value() or b"")
        for m in read_to_end(config.kafka, f"{config.app}.{kind}", partitions=partitions or config.partials_partitions)
    ]


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    """Return the first true value of `condition`, or what it is after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.3)
    return found


def send(config: Config, records: Sequence[tuple[int, bytes, int | None]]) -> None:
    """Send (partition, value, record timestamp) to the first source and await the acknowledgements."""
    send_to(config, config.sources[0].topic, records)


def send_to(config: Config, topic: str, records: Iterable[tuple[int, bytes, int | None]]) -> None:
    """Send (partition, value, record timestamp), in this order even where a topic's leader is not known yet, and await that they are there."""
    client = ck.Producer(
        {"bootstrap.servers": config.kafka.bootstrap_servers, "enable.idempotence": True, "log_level": 0, "linger.ms": 5}
    )
    for partition, value, stamp in records:
        client.produce(topic, value, partition=partition, **({} if stamp is None else {"timestamp": stamp}))
        client.poll(0)
    assert client.flush(30) == 0


def stored(records: Iterable[tuple[int, bytes, int | None]]) -> list[tuple[int, StoredRecord]]:
    """Return (partition, record) of what `send_to` sends to an empty topic, for a replay."""
    offsets: Counter[int] = Counter()
    found = []
    for partition, value, stamp in records:
        found.append((partition, StoredRecord(offsets[partition], stamp or 0, value)))
        offsets[partition] += 1
    return found


def event(time_ms: int, model: str = "m", **features: object) -> bytes:
    """Return a native event."""
    return json.dumps({"model": model, "time": time_ms, "features": features}).encode()
