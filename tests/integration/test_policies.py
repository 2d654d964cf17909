"""Policies on a topic of Apache Kafka: each window is judged by the one of its time, live equals replay, and a backtest gives the live alerts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from monitor.bootstrap import build_pipeline
from monitor.config.file import load_config
from monitor.config.policy_file import read_policy, to_record
from monitor.policy import DEFAULT_RULE_SET
from monitor.replay import Replay
from monitor.runtime import policies, references
from tests.integration.test_live import stripped
from tests.integration.workers import read, send_to, stored, wait_for, workers, write_config
from tests.kafka import KafkaCluster
from tests.unit.test_replay_windows import reference

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]
HOUR_MS = 3_600_000
START_MS = 1_735_689_600_000


def monitor(path: Path, *words: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "monitor", *words, "--config", str(path)], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def events(dice: np.random.Generator) -> list[tuple[int, bytes, int | None]]:
    """24 hours of 400 events, some shifted, two of them far out; then a tick per partition."""
    records: list[tuple[int, bytes, int | None]] = []
    for i in range(9_600):
        t = START_MS + i * 9_000
        hour = i // 400
        x = float(dice.normal() + (12.0 if hour in (14, 15) else 2.0 if hour in (3, 4, 6, 18) else 0.0))
        body = {"model": "m", "version": "1", "time": t, "features": {"x": x, "c": str(dice.choice(["a", "b"]))}}
        records.append((i % 4, json.dumps(body).encode(), t))
    end_ms = START_MS + 40 * HOUR_MS
    return records + [(p, b'{"tick": %d}' % end_ms, end_ms) for p in range(4)]


def test_a_policy_that_is_published_mid_stream_applies_from_its_event_time_and_a_backtest_gives_the_live_alerts(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    path = write_config(
        kafka, app, tmp_path,
        "sources: [{topic: EVENTS, clock: event}]\nmodels: {m: {windows: [{size: 1h}, {size: 4h, step: 1h}, {size: 24h}], grace: 10m}}\n",
    )  # fmt: skip
    config = load_config(path)
    topic = config.sources[0].topic
    dice = np.random.default_rng(8)
    ref = reference(dice.normal(size=3_000), ["a", "b"] * 1_500)
    references.publish(config, ref)
    change_ms = START_MS + 12 * HOUR_MS
    (tmp_path / "p.yaml").write_text(
        "name: credit\nrules:\n  - {when: psi > 0.1, breaches: 2 of 3}\n  - {when: 'mean(psi, 3) > 0.3', severity: critical}\n"
    )
    (tmp_path / "later.yaml").write_text("name: credit\nrules: [{when: psi > 4, severity: critical}]\n")
    records = events(dice)
    key, value, first = to_record(read_policy(tmp_path / "p.yaml"), None)
    policies.publish(config, key, value)
    policies.publish(config, b"broken|0", b'{"name": "broken", "rules": ["psy > 1"]}')
    with workers(path, 2):
        send_to(config, topic, records[:3_200])
        assert wait_for(lambda: read(config, "results"), 60)
        out, _ = monitor(path, "policy", "publish", str(tmp_path / "later.yaml"), "--effective-from", "2025-01-01T12:00:00Z")
        time.sleep(4)  # the workers follow the topic; the change lies four hours of event time ahead
        send_to(config, topic, records[3_200:])
        pipeline = build_pipeline(config, [ref])
        _, _, later = to_record(read_policy(tmp_path / "later.yaml"), "2025-01-01T12:00:00Z")
        for policy in (first, later):
            pipeline.policies.add(policy)
        engine = Replay(
            pipeline.settings, topic, wire=pipeline.formats[topic], judge=pipeline.judge, look=pipeline.look, references=[ref]
        )
        outcome = engine.run(stored(records))
        expected = {key for key, _ in outcome.results}
        assert wait_for(lambda: {key for key, _ in read(config, "results")} >= expected, 90)
        time.sleep(2)
    assert out.strip() == later.sha256
    live = {(k, json.dumps(stripped(v))) for k, v in read(config, "results")}
    assert live == {(k, json.dumps(stripped(v))) for k, v in outcome.results}
    for _, text in live:
        result = json.loads(text)
        sha256 = later.sha256 if result["window"]["start_ms"] >= change_ms else first.sha256
        assert result["policies"] == {"credit": sha256}
        assert result["policy"] != DEFAULT_RULE_SET.sha256
    alerts = {(a := json.loads(v))["id"]: a for _, v in read(config, "alerts")}
    assert {json.dumps(stripped(json.dumps(a).encode()), sort_keys=True) for a in alerts.values()} == {
        json.dumps(stripped(v), sort_keys=True) for _, v in outcome.alerts
    }
    assert len(alerts) > 4
    assert any(a["data"].get("early") for a in alerts.values())
    assert {a["data"]["policies"]["credit"] for a in alerts.values()} == {first.sha256, later.sha256}
    out, said = monitor(path, "backtest", "--policy", str(both(tmp_path)))
    judged = [json.loads(line) for line in out.splitlines()]
    assert {one["change"] for one in judged} == {"kept"}
    assert {one["alert"]["id"]: without_why(one["alert"]) for one in judged} == {id_: without_why(a) for id_, a in alerts.items()}
    assert "other rules were in force" not in said
    shown = [json.loads(line) for line in monitor(path, "policy", "show")[0].splitlines()]
    assert [(one["name"], one["effective_from_ms"], one["sha256"]) for one in shown] == [
        ("credit", 0, first.sha256),
        ("credit", change_ms, later.sha256),
    ]
    monitor(path, "policy", "remove", "credit")
    assert monitor(path, "policy", "show")[0] == ""


def both(folder: Path) -> Path:
    """Return a folder of the two versions of the policy."""
    made = folder / "both"
    made.mkdir()
    (made / "p.yaml").write_text((folder / "p.yaml").read_text())
    (made / "q.yaml").write_text("effective_from: 2025-01-01T12:00:00Z\n" + (folder / "later.yaml").read_text())
    return made


def without_why(alert: dict) -> dict:
    return alert | {"data": {name: value for name, value in alert["data"].items() if name not in ("why", "evidence")}}
