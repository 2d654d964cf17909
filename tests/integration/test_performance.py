"""On Apache Kafka: reports of performance, and their alerts, are those of a replay, through kills and lost disks."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from monitor.bootstrap import build_pipeline
from monitor.columns import ColumnBatch
from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.profiles import Profile
from monitor.reference import Reference, ReferencePerformance
from monitor.replay import Labels, Replay, ReplayOutcome
from monitor.runtime import references
from tests.chaos.workers import Workers
from tests.integration.test_join import CONFIG, logs_of, send_in_parts, traffic
from tests.integration.workers import read, wait_for, write_config
from tests.kafka import KafkaCluster
from tests.simulation import joins

pytestmark = [pytest.mark.broker, pytest.mark.chaos, pytest.mark.timeout(400)]

RULES = """\
rules:
  - {when: accuracy < 0.95, open_after: 2}
  - {when: accuracy < 0.6, segment: "*"}
"""


def known() -> list[Reference]:
    """References of 600 rows, so that the windows' events are compared too."""
    dice = random.Random(1)
    rows = 600
    scores = np.array([[dice.random() for _ in range(rows)]])
    batch = ColumnBatch(rows, scores, None, [dice.choices("01", k=rows)], tags=[dice.choices("uvw", k=rows)])
    profile = Profile(joins.LAYOUT)
    profile.update(batch)
    own = ReferencePerformance(task="binary", n=rows, values={"accuracy": 0.7}, classes=["0", "1"], positive_class="1")
    return [Reference.build(joins.MODEL, version, profile, performance=own) for version in ("1", "2")]


def replayed(config: Config, rows: list[tuple[int, str, int, bytes]]) -> ReplayOutcome:
    """Return what the same records make in memory."""
    pipeline = build_pipeline(config, known())
    events, labels = ([(p, r) for (kind, p), log in logs_of(rows).items() if kind == of for r in log] for of in "pl")
    topic, of_labels = (source.topic for source in config.sources)
    engine = Replay(
        pipeline.settings,
        topic,
        wire=pipeline.formats[topic],
        judge=pipeline.judge,
        references=known(),
        future_guard=False,
        labels=Labels(labels, pipeline.formats[of_labels], pipeline.judge_performance, of_labels, has_timestamps=False),
    )
    return engine.run(events)


def test_reports_and_their_alerts_are_those_of_a_replay_byte_for_byte_through_kills(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "quality.yaml").write_text(RULES)
    path = write_config(kafka, app, tmp_path, CONFIG + f"policies: {tmp_path / 'policies'}\n")
    config = load_config(path)
    for reference in known():
        references.publish(config, reference)
    rows = traffic(random.Random(12))
    outcome = replayed(config, rows)
    expected = {(key, value) for key, value in outcome.results if key.endswith(b"|performance")}
    alerts = {value for _, value in outcome.alerts if json.loads(value)["data"]["check"].startswith("performance.")}
    assert len(expected) > 300
    assert len(alerts) > 3

    running = Workers([sys.executable, "-m", "monitor"], lambda _: path, tmp_path)
    try:
        send_in_parts(config, rows, running, 6, (running.kill, running.wipe, running.kill))

        def published() -> set[tuple[bytes, bytes]]:
            running.revive()
            return {(key, value) for key, value in read(config, "results") if key.endswith(b"|performance")}

        wait_for(lambda: published() >= expected, 90)
        time.sleep(2)
        live = published()
    finally:
        running.end()
    assert live == expected, [path.read_text()[-3_000:] for path in tmp_path.glob("*.log")]
    told = {value for _, value in read(config, "alerts") if json.loads(value)["data"]["check"].startswith("performance.")}
    assert told == alerts
