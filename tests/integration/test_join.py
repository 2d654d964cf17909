"""On Apache Kafka: what is known of each pane at each time is what plain loops say, through kills and lost disks."""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from monitor.bootstrap import build_settings
from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.performance import OutcomeCells
from monitor.ports import StoredRecord
from monitor.runtime import references
from monitor.runtime.broker import read_to_end
from monitor.stages import partials
from tests.chaos.workers import Workers
from tests.integration.test_live import HOUR, START
from tests.integration.workers import send_to, wait_for, write_config
from tests.kafka import KafkaCluster
from tests.outcomes_oracle import Oracle, published
from tests.simulation import joins

pytestmark = [pytest.mark.broker, pytest.mark.timeout(400)]

N_PREDICTIONS = 6_000
DAY = 24 * HOUR
SPAN = 20 * DAY
GRACE, RETENTION = HOUR // 6, 31 * DAY
DISORDER = GRACE - 60_000
PARTITIONS, R = 4, 4
CONFIG = """\
sources: [{topic: EVENTS, clock: event}, {topic: EVENTS-labels, format: native-label, clock: event}]
models: {m: {windows: [{size: 6h}], grace: 10m, labels: {retention: 31d}}}
outcomes_partitions: 4
"""

Rows = list[tuple[int, str, int, bytes]]
"""(when it is sent, `p` or `l`, partition, value)"""


def traffic(dice: random.Random) -> Rows:
    """Labels 0 s to 30 days late; 5 % orphans, 5 % doubled, 5 % before their prediction, 2 % conflicting; and ticks."""
    rows: Rows = []

    def add(time_ms: int, kind: str, partition: int, value: bytes) -> None:
        rows.append((time_ms + dice.randrange(DISORDER), kind, partition, value))

    for i in range(N_PREDICTIONS):
        made, key = START + i * SPAN // N_PREDICTIONS, f"id-{i}"
        body = (dice.choice("01"), dice.random(), dice.choice("uvw"), dice.choice("12"))
        for _ in range(1 + (dice.random() < 0.03)):
            add(made, "p", dice.randrange(3), joins.prediction(made, key, *body))
        if dice.random() < 0.1:
            continue
        known = made + (-dice.randrange(HOUR) if dice.random() < 0.05 else int(30 * DAY * dice.random() ** 4))
        said = joins.label(known, f"nobody-{i}" if dice.random() < 0.05 else key, dice.choice("01"))
        for _ in range(1 + (dice.random() < 0.05)):
            add(known, "l", dice.randrange(2), said)
        if dice.random() < 0.02:
            other = known + dice.randrange(2 * DAY)
            add(other, "l", dice.randrange(2), joins.label(other, key, dice.choice("01")))
    end = max(sent for sent, *_ in rows) + 6 * HOUR
    for at in range(START, end, DAY):
        rows += [(at, kind, partition, joins.tick(at)) for kind in "pl" for partition in range(PARTITIONS)]
    rows += [(end, kind, partition, joins.tick(end)) for kind in "pl" for partition in range(PARTITIONS)]
    return sorted(rows, key=lambda row: row[0])


def logs_of(rows: Rows) -> dict[tuple[str, int], Sequence[StoredRecord]]:
    found: dict[tuple[str, int], list[StoredRecord]] = {(kind, i): [] for kind in "pl" for i in range(PARTITIONS)}
    for _, kind, partition, value in rows:
        log = found[kind, partition]
        log.append(StoredRecord(len(log), 1 << 60, value))
    return dict(found)


def begin(config: Config, rows: Rows) -> Rows:
    """Send what begins every partition, and return the rest: one without any record is idle, and nobody waits for it."""
    first = [row for row in rows if row[0] <= START]
    for kind, source in zip("pl", config.sources, strict=True):
        mine = [(partition, value, None) for _, of_kind, partition, value in first if of_kind == kind]
        assert {partition for partition, *_ in mine} == {*range(PARTITIONS)}
        send_to(config, source.topic, mine)
    return rows[len(first) :]


def send_in_parts(config: Config, rows: Rows, running: Workers, n_parts: int, faults: Sequence[Callable[[int], None]]) -> None:
    """Start two workers and send the rows while, after each part but the last, one of them meets with the next fault."""
    rows = begin(config, rows)
    for index in range(2):
        running.start(index)
    time.sleep(6)
    for part in range(n_parts):
        mine = rows[part * len(rows) // n_parts : (part + 1) * len(rows) // n_parts]
        for kind, source in zip("pl", config.sources, strict=True):
            send_to(config, source.topic, [(partition, value, None) for _, of_kind, partition, value in mine if of_kind == kind])
        time.sleep(2.5)
        if part < n_parts - 1:
            faults[part % len(faults)](part % 2)
        running.revive()


def told(config: Config) -> tuple[list[str], dict[tuple[int, str, int, int, int], bytes], dict[int, int]]:
    """Return what the join has published: all of the model's is in one partition of `partials`."""
    logs: dict[int, list[bytes | None]] = {}
    for message in read_to_end(config.kafka, f"{config.app}.partials", partitions=config.partials_partitions):
        logs.setdefault(message.partition() or 0, []).append(message.value())
    of_model = [log for log in logs.values() if any(isinstance(partials.decode(v or b""), partials.OutcomePartial) for v in log)]
    assert len(of_model) <= 1
    return published(of_model[0] if of_model else [], f"{config.app}.outcomes", GRACE)


def test_what_is_known_at_each_time_is_that_of_the_oracle_through_kills_and_lost_disks(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    path = write_config(kafka, app, tmp_path, CONFIG)
    config = load_config(path)
    for version in ("1", "2"):
        found = joins.references().at(joins.MODEL, version, 0)
        assert found is not None
        references.publish(config, found)
    rows = traffic(random.Random(11))
    logs = logs_of(rows)
    of = {version: joins.spec_of(version) for version in ("1", "2")}
    pane_ms = build_settings(config).model(joins.MODEL).pane_ms
    oracle = Oracle(logs, of, pane_ms=pane_ms, grace_ms=GRACE, retention_ms=RETENTION)
    end = json.loads(logs["p", 0][-1].value or b"")["tick"]
    reached = (end - GRACE) // pane_ms * pane_ms
    assert len(oracle.joined()) > 4_000

    running = Workers([sys.executable, "-m", "monitor"], lambda _: path, tmp_path)

    def wipe_pending(index: int) -> None:
        running.processes[index].kill()
        running.processes[index].wait()
        shutil.rmtree(tmp_path / "state" / f"worker-{index}" / "pending", ignore_errors=True)
        running.start(index)

    faults = (running.kill, running.wipe, running.kill, wipe_pending, running.kill)
    try:
        send_in_parts(config, rows, running, 11, faults)

        def is_done() -> bool:
            running.revive()
            _, _, closed = told(config)
            return len(closed) == R and min(closed.values()) >= reached

        wait_for(is_done, 90)
        time.sleep(2)
    finally:
        running.end()

    wrong, deltas, closed = told(config)
    assert closed == dict.fromkeys(range(R), reached), [path.read_text()[-3_000:] for path in tmp_path.glob("*.log")]
    assert wrong == []
    assert oracle.wrong(deltas) == []
    cells = [OutcomeCells.from_bytes(of[version], data) for (_, version, *_), data in deltas.items()]
    assert sum(one.n_labelled() for one in cells) == len(oracle.joined())
    assert sum(one.n_made() for one in cells) == len(oracle.made)
    assert len(deltas) > 1_000
