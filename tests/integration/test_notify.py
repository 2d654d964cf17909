"""`monitor notify` between a real Kafka and a real Alertmanager, and killed at random."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka as ck
import pytest

from monitor.alerts import Alert
from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.runtime.supervisor import die_with_parent
from tests import alertmanager
from tests.integration.workers import read, wait_for, write_config
from tests.kafka import KafkaCluster, free_port
from tests.unit.notify.notices import alert, encoded
from tests.unit.notify.servers import Site, site

pytestmark = [
    pytest.mark.broker,
    pytest.mark.timeout(280),
    pytest.mark.skipif(alertmanager.PROGRAM is None, reason="prometheus-alertmanager is not installed"),
]

NOTIFY = """\
sources: [{{topic: EVENTS}}]
notify:
  bind: "127.0.0.1:{port}"
  owners: {{risk: {{models: ["credit*"]}}}}
  alertmanager: {{urls: ["{alertmanager}"], resend: 1s, silences: 1s}}
  allowed_urls: ["{site}/"]
  routes:
    alertmanager: {{receiver: alertmanager}}
    hook: {{receiver: webhook, url: "{site}/hook", secret_env: HOOK_SECRET, allow_http: true, allow_private: true}}
    dead: {{receiver: webhook, url: "{site}/dead", secret_env: HOOK_SECRET, allow_http: true, allow_private: true}}
    oncall: {{receiver: people, urls_env: ONCALL, match: {{severities: [critical], owners: [risk]}}}}
"""


class Stage:
    """Everything that a test needs: configuration, receivers, Alertmanager."""

    def __init__(self, path: Path, peer: alertmanager.Alertmanager, receivers: Site, port: int) -> None:
        self.path, self.peer, self.receivers, self.port = path, peer, receivers, port
        self.config: Config = load_config(path)
        self.environment = os.environ | {"HOOK_SECRET": "x" * 32, "ONCALL": f"json://127.0.0.1:{receivers.port}/people"}

    def send(self, *alerts: Alert) -> None:
        client = ck.Producer({"bootstrap.servers": self.config.kafka.bootstrap_servers, "acks": "all", "log_level": 0})
        for one in alerts:
            client.produce(f"{self.config.app}.alerts", encoded(one), key=f"credit|{one.data.feature}".encode())
        assert client.flush(20) == 0

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "monitor", "notify", "--config", str(self.path)]
        with (self.path.parent / "notify.log").open("ab") as out:
            return subprocess.Popen(command, stdout=out, stderr=out, env=self.environment, preexec_fn=die_with_parent)

    @contextmanager
    def notifying(self) -> Iterator[None]:
        process = self.start()
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(40) == 0

    def command(self, *words: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "monitor", *words, "--config", str(self.path)],
            capture_output=True, text=True, timeout=60, check=False, env=self.environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    def incident(self, incident_id: str) -> dict[str, Any]:
        return next(r for r in self.command("notify", "status") if r.get("incident_id") == incident_id)

    def got(self, path: str) -> list[bytes]:
        return [body for where, _, body in self.receivers.requests if where.startswith(path)]

    def ids(self, path: str = "/hook") -> list[str]:
        return [json.loads(body)["id"] for body in self.got(path)]

    def told(self, status: str) -> set[str]:
        """Return the incidents that Alertmanager told its own receiver of."""
        found = [a for body in self.got("/alertmanager") for a in json.loads(body)["alerts"]]
        return {a["annotations"]["incident_id"] for a in found if a["status"] == status}

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.fixture
def stage(kafka: KafkaCluster, app: str, tmp_path: Path) -> Iterator[Stage]:
    with site({"/dead": 503}) as receivers, alertmanager.running(tmp_path / "am", receivers.url("/alertmanager")) as peer:
        port = free_port()
        text = NOTIFY.format(port=port, alertmanager=peer.url, site=receivers.url(""))
        yield Stage(write_config(kafka, app, tmp_path, text), peer, receivers, port)


def hashed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def fires(name: str, **changes: Any) -> Alert:
    return alert(hashed(name), feature=name, **changes)


def ends(name: str, **changes: Any) -> Alert:
    return alert(hashed(f"{name}-"), "resolved", hashed(name), feature=name, **changes)


def test_fire_resend_silence_acknowledge_and_resolve(stage: Stage) -> None:
    stage.send(fires("a", severity="critical"), fires("b"))
    a, b, c = hashed("a"), hashed("b"), hashed("c")
    with stage.notifying():
        assert wait_for(lambda: stage.peer.incidents() == {a: "active", b: "active"}, 30)
        assert wait_for(lambda: sorted(stage.ids()) == sorted([a, b]), 10)
        assert wait_for(lambda: stage.told("firing") == {a, b}, 10)
        assert wait_for(lambda: len(stage.got("/people")) == 1, 10)
        time.sleep(6)  # 1.5 times what an alert outlasts unless it is sent again
        assert stage.peer.incidents() == {a: "active", b: "active"}

        silence = stage.peer.silence(feature="c")
        time.sleep(2.5)
        stage.send(fires("c", severity="critical"))
        assert wait_for(lambda: stage.peer.incidents().get(c) == "suppressed", 15)
        time.sleep(2)
        assert c not in stage.ids()
        assert stage.incident(c)["silenced"]["by"] == "eva"
        assert stage.metric('monitor_notification_incidents{route="hook",state="silenced"}') == 1

        assert stage.command("ack", a[:12], "--by", "eva", "--comment", "mine") == []
        assert wait_for(lambda: stage.metric('monitor_notification_incidents{route="oncall",state="acknowledged"}') == 1, 10)
        assert stage.incident(a)["acknowledged"]["by"] == "eva"

        stage.send(ends("b"))
        assert wait_for(lambda: b not in stage.peer.incidents(), 15)
        assert wait_for(lambda: stage.told("resolved") == {b}, 15)
        assert wait_for(lambda: hashed("b-") in stage.ids(), 10)

        stage.peer.expire(silence)
        assert wait_for(lambda: c in stage.ids(), 15)
        assert wait_for(lambda: len(stage.got("/people")) == 2, 10)
        assert wait_for(lambda: stage.told("firing") == {a, b, c}, 15)
        routes = {r["route"]: r["behind"] for r in stage.command("notify", "status") if "route" in r}
    assert routes == {"alertmanager": 0, "hook": 0, "dead": 4, "oncall": 0}
    assert sorted(stage.ids()) == sorted([a, b, c, hashed("b-")])


def test_a_silence_that_ends_while_nobody_runs_is_made_up_for(stage: Stage) -> None:
    silence = stage.peer.silence(feature="a")
    stage.send(fires("a"), fires("b"))
    with stage.notifying():
        assert wait_for(lambda: stage.ids() == [hashed("b")], 30)
        assert wait_for(lambda: stage.metric('monitor_notification_incidents{route="hook",state="silenced"}') == 1, 10)
        time.sleep(1.5)
    stage.peer.expire(silence)
    with stage.notifying():
        assert wait_for(lambda: stage.ids() == [hashed("b"), hashed("a")], 30)


def test_an_alert_that_is_refused_is_a_dead_letter_byte_for_byte(stage: Stage) -> None:
    stage.receivers.answers["/hook"] = 422
    stage.send(fires("a"))
    with stage.notifying():
        assert wait_for(lambda: read(stage.config, "dead-letter"), 30)
    assert [value for _, value in read(stage.config, "dead-letter")] == [encoded(fires("a"))]


@pytest.mark.parametrize("kills", [7])
def test_killed_at_random_nothing_is_lost_and_nothing_is_new_after_dedupe_by_id(stage: Stage, kills: int) -> None:
    """120 incidents, half of them resolved, some restated, every fifth record repeated; a receiver that fails now and then, and a dead one."""
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)

    def moody(handler: Any) -> None:
        time.sleep(0.02)
        handler.send_response(503 if dice.random() < 0.1 else 200)
        handler.end_headers()

    stage.receivers.answers["/hook"] = moody
    records: list[Alert] = []
    for i in range(120):
        records.append(fires(f"x{i}"))
        if i >= 20 and i % 2:
            records.append(ends(f"x{i - 20}"))
        if i % 7 == 0:
            records.append(
                alert(hashed(f"x{i}+"), "firing", hashed(f"x{i}"), feature=f"x{i}", supersedes=hashed(f"x{i}"), value=0.5)
            )
        if i % 5 == 0:
            records.append(dice.choice(records))
    records += [ends(f"x{i}") for i in range(101, 120, 2)]

    def produce() -> None:
        for record in records:
            stage.send(record)
            time.sleep(0.2)

    producer = threading.Thread(target=produce)
    producer.start()
    process = stage.start()
    for _ in range(kills):
        time.sleep(dice.uniform(1, 12))
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process = stage.start()
    producer.join()
    ids = {record.id for record in records}
    still_open = {hashed(f"x{i}") for i in range(0, 120, 2)}
    try:
        assert wait_for(lambda: set(stage.ids()) >= ids, 60), f"seed {seed}: {len(ids - set(stage.ids()))} alerts are missing"
        assert wait_for(lambda: set(stage.peer.incidents()) == still_open, 30), f"seed {seed}"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    bodies = {record.id: encoded(record) for record in records}
    assert all(bodies.get(json.loads(body)["id"]) == body for body in stage.got("/hook")), f"seed {seed}"
    assert set(stage.ids()) == ids, f"seed {seed}"
    first = {alert_id: i for i, alert_id in reversed(list(enumerate(stage.ids())))}
    resolved = [record for record in records if record.data.status == "resolved"]
    assert all(first[record.data.incident_id] < first[record.id] for record in resolved), f"seed {seed}"
    assert read(stage.config, "dead-letter") == []
    print(f"seed {seed}: {len(ids)} alerts, {len(stage.ids())} requests, {kills} kills")
