"""On Apache Kafka: windows are restated with late events, ids count once, through kills; and a replay publishes the same revisions."""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from monitor.bootstrap import build_pipeline
from monitor.config.file import load_config
from monitor.replay import Replay
from monitor.runtime import references
from tests.chaos.workers import Workers
from tests.integration.test_live import HOUR, START, stripped
from tests.integration.workers import read, send, stored, wait_for, write_config
from tests.kafka import KafkaCluster
from tests.unit.test_replay_windows import reference

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

N_EVENTS = 12_000
N_PARTITIONS = 4
STEP_MS = 20_000
CONFIG = """\
sources: [{topic: EVENTS, clock: event}]
models:
  m:
    windows: [{size: 1h}, {size: 4h, step: 1h}]
    grace: 10m
    late: revise
    revise_for: 8h
    revise_every: 2h
    deduplicate: true
rules: {health.missing: {above: 0.5}}
"""


def traffic(dice: random.Random) -> list[tuple[int, bytes, int | None]]:
    """Events of three partitions: every 20th comes up to ten hours late, every tenth is sent twice; ticks begin and end all four.

    A partition without any record is idle: whether the others wait for its first one would be a race.
    """
    records: list[tuple[int, bytes, int | None]] = [
        (partition, b'{"tick": %d}' % (START - 24 * HOUR), START) for partition in range(N_PARTITIONS)
    ]
    for i in range(N_EVENTS):
        now = START + i * STEP_MS
        late_by = dice.randrange(10 * HOUR) if i % 20 == 0 else dice.randrange(600_000)
        body: dict[str, object] = {"x": dice.gauss(0, 1) + (3.0 if 5_000 < i < 6_000 else 0.0), "c": dice.choice("ab")}
        event = {"model": "m", "time": now - late_by, "id": f"id-{i}", "features": body}
        records.append((i % 3, json.dumps(event).encode(), now + 600_000))
        if i % 10 == 0 and i > 900:
            again = records[dice.randrange(len(records) - 900, len(records))]
            records.append((again[0], again[1], now + 600_000))
    end = START + N_EVENTS * STEP_MS + 24 * HOUR
    return records + [(partition, b'{"tick": %d}' % end, end) for partition in range(N_PARTITIONS)]


def ids_in_time(records: list[tuple[int, bytes, int | None]], pane_ms: int) -> int:
    """How many different ids came before their panes take no more: by a plain loop."""
    clock: Counter[int] = Counter()
    found = set()
    for partition, value, _ in records:
        event = json.loads(value)
        if "id" in event:
            clock[partition] = max(clock[partition], event["time"])
            pane_ends = event["time"] - event["time"] % pane_ms + pane_ms
            if clock[partition] - 600_000 < pane_ends + 8 * HOUR:
                found.add(event["id"])
    return len(found)


def test_revisions_and_duplicates_are_those_of_a_replay_through_kills(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    path = write_config(kafka, app, tmp_path, CONFIG)
    config = load_config(path)
    dice = random.Random(5)
    ref = reference(np.random.default_rng(5).normal(size=3_000), ["a", "b"] * 1_500)
    references.publish(config, ref)
    records = traffic(dice)
    pipeline = build_pipeline(config, [ref])
    topic = config.sources[0].topic
    engine = Replay(
        pipeline.settings, topic, wire=pipeline.formats[topic], judge=pipeline.judge, look=pipeline.look, references=[ref]
    )
    outcome = engine.run(stored(records))
    assert outcome.counted + outcome.revised == ids_in_time(records, pipeline.settings.model("m").pane_ms)
    assert outcome.counted + outcome.revised + outcome.late + outcome.duplicate + outcome.ticks == len(records)
    assert outcome.duplicate > 1_000
    assert min(outcome.revised, outcome.late, outcome.revisions, len(outcome.alerts)) > 10
    assert any(json.loads(value)["data"]["supersedes"] for _, value in outcome.alerts)

    send(config, records[:N_PARTITIONS])
    records = records[N_PARTITIONS:]
    running = Workers([sys.executable, "-m", "monitor"], lambda _: path, tmp_path)
    try:
        for index in range(2):
            running.start(index)
        time.sleep(6)
        n_parts = 5
        for part in range(n_parts):
            send(config, records[part * len(records) // n_parts : (part + 1) * len(records) // n_parts])
            time.sleep(2.5)
            if part < n_parts - 1:
                (running.wipe if part == 2 else running.kill)(part % 2)
        expected = set(outcome.results)
        wait_for(lambda: running.revive() or {key for key, _ in read(config, "results")} >= {key for key, _ in expected}, 60)
        n_wanted = len(outcome.results)
        wait_for(lambda: running.revive() or len(set(read(config, "results"))) >= n_wanted, 60)
        time.sleep(2)
    finally:
        running.end()

    live = {(key, json.dumps(stripped(value))) for key, value in read(config, "results")}
    assert live == {(key, json.dumps(stripped(value))) for key, value in outcome.results}
    assert {json.dumps(stripped(v)) for _, v in read(config, "alerts")} == {json.dumps(stripped(v)) for _, v in outcome.alerts}
    newest: dict[bytes, dict[str, int]] = {}
    for key, value in sorted(((key, json.loads(value)) for key, value in live), key=lambda item: item[1]["revision"]):
        newest[key] = value
    hourly = Counter({key: found["n"] for key, found in newest.items() if key.endswith(b"|3600000|3600000")})
    assert hourly.total() == outcome.counted + outcome.revised
