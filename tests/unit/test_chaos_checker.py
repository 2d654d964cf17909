"""The checker of the fault experiments finds nothing in sound topics, and the right word for each thing that is done to them."""

from __future__ import annotations

import json
import random
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from pathlib import Path

import pytest

from monitor.bootstrap import build_pipeline
from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.ports import LOG_APPEND_TIME, PartitionStage, StoredRecord
from monitor.runtime import topics
from monitor.stages.rows import stored_key
from tests.chaos import checker
from tests.chaos.ledger import Ledger, Live
from tests.chaos.plan import PARTITIONS, Plan, reference
from tests.chaos.workers import Scraper, Workers

START_MS = 1_700_000_000_000
PLAN = Plan(clock="event", rows_above=1_200)
EVENTS = 30_000
"""One every 2 ms."""


@dataclass(frozen=True)
class Said:
    """A record as confluent-kafka gives it."""

    of_partition: int
    at: int
    of_key: bytes | None
    of_value: bytes | None
    sent_ms: int = START_MS + 10_000_000
    of_headers: Mapping[str, bytes] = field(default_factory=dict)

    def partition(self) -> int:
        return self.of_partition

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.of_key

    def value(self) -> bytes | None:
        return self.of_value

    def timestamp(self) -> tuple[int, int]:
        return LOG_APPEND_TIME, self.sent_ms

    def headers(self) -> list[tuple[str, bytes]]:
        return list(self.of_headers.items())


Topics = dict[str, list[Said]]


def log_of(seed: int) -> list[Said]:
    """Return a source topic with everything that live traffic has, and control records around it."""
    clock = count(START_MS, 2)
    now = [START_MS]

    def tick() -> int:
        now[0] = next(clock)
        return now[0]

    traffic = Live(PLAN, impossible=0.01, partitions=(0, 1, 2, 3), clock=tick)
    ends = [0] * PARTITIONS
    log = []

    def say(partition: int, value: bytes) -> None:
        log.append(Said(partition, ends[partition], None, value, now[0]))
        ends[partition] += 1

    for partition in range(PARTITIONS):
        say(partition, json.dumps({"tick": START_MS - 100_000}).encode())
    for item in islice(traffic.items(random.Random(seed)), EVENTS):
        if item is not None:
            say(item.partition, item.value)
    for partition in range(PARTITIONS):
        say(partition, json.dumps({"tick": now[0] + 100_000}).encode())
    return log


def sound(config: Config, seed: int = 1) -> Topics:
    """Return what the stages make of the log, without a fault."""
    found: Topics = defaultdict(list)
    pipeline = build_pipeline(config, [reference(model) for model in PLAN.models])
    source = config.sources[0].topic

    def drive(stage: PartitionStage, table: str, partition: int, log: list[Said]) -> None:
        if not log:
            return
        stage.skip_to(0)
        stage.feed([StoredRecord(m.at, m.sent_ms, m.of_value, timestamp_type=LOG_APPEND_TIME) for m in log], log[-1].sent_ms)
        checkpoint = stage.checkpoint()
        assert checkpoint is not None
        changelog = topics.changelog(config.app, table)
        for key, value in (*checkpoint.rows, checkpoint.meta):
            found[changelog].append(Said(partition, len(found[changelog]), key, value))
        for letter in checkpoint.dead_letters:
            found[letter.topic].append(Said(0, len(found[letter.topic]), letter.key, letter.value, of_headers=letter.headers))
        stage.committed(checkpoint)
        box = stage.outbox(log[-1].sent_ms)
        for message in (*box.first, *box.then):
            place = message.partition or 0
            at = sum(m.of_partition == place for m in found[message.topic])
            found[message.topic].append(Said(place, at, message.key, message.value))

    found[source] = log_of(seed)
    for partition in range(PARTITIONS):
        stage = pipeline.ingest(source, partition, partitions=PARTITIONS)
        drive(stage, topics.ingest_table(source), partition, [m for m in found[source] if m.of_partition == partition])
    partials = f"{config.app}.partials"
    merge = pipeline.merge(0, topology={source: PARTITIONS})
    drive(merge, topics.MERGE_TABLE, 0, [m for m in found[partials] if m.of_partition == 0])
    return found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("chaos") / "monitor.yaml"
    path.write_text(PLAN.config("chaos", "127.0.0.1:1", Path("unused"), 0))
    return load_config(path)


@pytest.fixture(scope="module")
def topics_of_a_sound_run(config: Config) -> Topics:
    return sound(config)


def observed(config: Config, found: Topics) -> checker.Observed:
    ledger = Ledger()
    for m in found[config.sources[0].topic]:
        ledger.acknowledged[m.of_partition][m.at] = zlib.crc32(m.of_value or b"")
    scraper = Scraper(Workers((), lambda _: Path(), Path()), 0)
    return checker.Observed(
        config=config,
        read=lambda topic: found.get(topic, []),
        expected=checker.expectation(lambda topic: found[topic], config.sources[0].topic, PLAN),
        ledger=ledger,
        scraper=scraper,
        exits=[],
        was_killed=True,
        closing_ms=START_MS + 100_000_000,
        may_idle=False,
    )


def test_a_sound_run_has_no_anomaly_and_something_of_everything(config: Config, topics_of_a_sound_run: Topics) -> None:
    report = checker.check(observed(config, topics_of_a_sound_run))
    assert report.anomalies == []
    assert all(report.figures[name] > 10 for name in ("events", "late", "rejected", "windows", "results", "alerts"))
    told = [json.loads(m.of_value or b"")["data"] for m in topics_of_a_sound_run["chaos.alerts"]]
    assert {(data["check"], data["status"]) for data in told} == {
        (check, status) for check in ("health.missing", "health.never_seen", "traffic.high") for status in ("firing", "resolved")
    }


def changed(record: Said, **changes: object) -> Said:
    value = json.loads(record.of_value or b"")
    value.update(changes)
    return replace(record, of_value=json.dumps(value).encode())


def last(topic: str, change: Callable[[Said], list[Said]]) -> Callable[[Topics], None]:
    """Return what replaces the last record of a topic that has rows."""

    def apply(found: Topics) -> None:
        records = found[topic]
        at = max(i for i, m in enumerate(records) if topic.endswith("alerts") or b'"n":0,' not in (m.of_value or b""))
        found[topic] = [*records[:at], *change(records[at]), *records[at + 1 :]]

    return apply


def n_of(record: Said) -> int:
    return int(json.loads(record.of_value or b"")["n"])


RESULTS, ALERTS = "chaos.results", "chaos.alerts"
DAMAGE: Mapping[str, tuple[str, Callable[[Topics], None]]] = {
    "a row less": ("LOST", last(RESULTS, lambda m: [changed(m, n=n_of(m) - 1)])),
    "a row more": ("OVERCOUNTED", last(RESULTS, lambda m: [changed(m, n=n_of(m) + 1)])),
    "another sum": ("WRONG_CELLS", last(RESULTS, lambda m: [replace(m, of_value=_other_mean(m.of_value or b""))])),
    "the same result again with other bytes": ("CHANGED", last(RESULTS, lambda m: [m, changed(m, policy="another")])),
    "no result": ("NEVER_CLOSED", last(RESULTS, lambda m: [])),
    "a result before its time": ("EARLY_CLOSE", last(RESULTS, lambda m: [replace(m, sent_ms=START_MS)])),
    "a second id": ("DUP_ALERT", last(ALERTS, lambda m: [m, changed(m, id="another")])),
    "no alert": ("ALERT_MISSING", last(ALERTS, lambda m: [])),
    "the same id with other bytes": ("ALERT_CHANGED", last(ALERTS, lambda m: [m, changed(m, subject="another")])),
    "no dead letter": ("DLQ_MISSING", lambda found: found["chaos.dead-letter"].pop() and None),
    "a dead letter cut short": (
        "DLQ_MISSING",
        lambda found: found["chaos.dead-letter"].append(replace(found["chaos.dead-letter"].pop(), of_value=b"cut")),
    ),
    "an older state": ("COUNTERS", lambda found: _drop_meta(found, 2)),
}


def _other_mean(value: bytes) -> bytes:
    record = json.loads(value)
    record["features"]["x"]["mean"] += 0.001
    return json.dumps(record).encode()


def _drop_meta(found: Topics, partition: int) -> None:
    name = topics.changelog("chaos", topics.ingest_table("chaos-events"))
    found[name] = [m for m in found[name] if (m.of_partition, m.of_key) != (partition, stored_key(b"meta", 1))]


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_damage_is_found_by_its_word(config: Config, topics_of_a_sound_run: Topics, damage: str) -> None:
    word, apply = DAMAGE[damage]
    found = {name: list(records) for name, records in topics_of_a_sound_run.items()}
    apply(found)
    assert checker.check(observed(config, found)).words[word] >= 1


def test_an_acknowledged_record_that_is_not_on_the_log_is_lost(config: Config, topics_of_a_sound_run: Topics) -> None:
    seen = observed(config, topics_of_a_sound_run)
    seen.ledger.acknowledged[0][10**9] = 0
    assert checker.check(seen).words == {"LOST": 1}


def test_a_worker_that_ends_for_good_and_a_counter_that_falls_are_found(config: Config, topics_of_a_sound_run: Topics) -> None:
    seen = observed(config, topics_of_a_sound_run)
    compare = partial(seen.scraper._compare, 1, 0)
    for n in (5, 4):
        compare(f'# TYPE a_total counter\na_total{{b="c"}} {n}\n')
    assert checker.check(replace(seen, exits=[(0, 70), (1, 78)])).words == {"ENDED": 1, "COUNTER_FELL": 1}
