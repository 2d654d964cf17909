"""On Apache Kafka: every check of the stream, wide segmented models through a broker's defaults, a reference that is published mid-stream."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from monitor.bootstrap import build_pipeline
from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.files import ColumnOptions
from monitor.reference import Reference
from monitor.reference_build import SegmentOptions, build_reference
from monitor.replay import Replay
from monitor.runtime import references
from monitor.runtime.broker import read_to_end
from monitor.segments import Key
from tests.health_vectors import HOUR_MS, PARTITIONS, START_MS, STREAM_VECTORS, Logged, reference_rows
from tests.integration.test_live import stripped
from tests.integration.workers import read, send_to, stored, wait_for, workers, write_config
from tests.kafka import KafkaCluster
from tests.unit import test_replay_learning as learnt
from tests.unit.test_replay_windows import reference

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

GAP = "telemetry.gap"
CASES = {f"{check}-{side}": (check, side) for check in STREAM_VECTORS for side in ("firing", "quiet")}


def renamed(records: list[Logged], model: str) -> list[tuple[int, bytes, int]]:
    """The records with another model; what a file of them says of lost offsets is left out."""
    made = []
    for record in records:
        body = json.loads(record.value)
        if "tick" not in body:
            body["model"] = model
        made.append((record.partition, json.dumps(body).encode(), record.timestamp_ms))
    return made


def test_every_check_of_the_stream_fires_and_is_quiet_on_a_broker(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    """A topic and a model for each case. What retention took is a loss between two lives of the worker."""
    topics = {case: f"{app}-{case}" for case in CASES}
    for topic in topics.values():
        kafka.create(topic, PARTITIONS, message_timestamp_type="CreateTime", retention_ms="-1")
    rules = {check: rule for vector in STREAM_VECTORS.values() for check, rule in vector.rules.items()}
    models = {case: {"windows": [{"size": "1h"}], "grace": "1m", "sources": [topic]} for case, topic in topics.items()}
    sources = [{"topic": topic, "clock": "event"} for topic in topics.values()]
    parts = {"sources": sources, "models": models, "rules": rules}
    path = write_config(kafka, app, tmp_path, "".join(f"{name}: {json.dumps(part)}\n" for name, part in parts.items()))
    config = load_config(path)
    (tmp_path / "train.ndjson").write_text("".join(json.dumps(row) + "\n" for row in reference_rows()))
    for case in CASES:
        made = build_reference(tmp_path / "train.ndjson", case, "7", ColumnOptions(time="time"))
        references.publish(config, made)
    held_back: dict[str, list[tuple[int, bytes, int]]] = {}
    for case, (check, side) in CASES.items():
        records = renamed(getattr(STREAM_VECTORS[check], side), case)
        if check == GAP:
            held_back[case] = records[len(records) // 2 :]
            records = records[: len(records) // 2]
        send_to(config, topics[case], records)
    with workers(path):
        done = {case for case, (check, _) in CASES.items() if check != GAP}
        assert wait_for(lambda: {of(v)["model"] for _, v in read(config, "results")} >= done, 120)
        wait_for(lambda: all(committed(config, topics[case]) for case in held_back), 20)
    for case, records in held_back.items():
        if CASES[case][1] == "firing":
            lose(config, topics[case], 5)
        send_to(config, topics[case], records)
    with workers(path):
        assert wait_for(lambda: {of(v)["model"] for _, v in read(config, "results")} >= set(CASES), 60)
        time.sleep(2)
    fired = [a for _, v in read(config, "alerts") if (a := of(v)["data"])["status"] == "firing"]
    alerts = {(a["model"], member["check"]) for a in fired for member in a["members"]}
    for case, (check, side) in CASES.items():
        assert ((case, check) in alerts) == (side == "firing"), case


def of(value: bytes) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(value)
    return record


def committed(config: Config, topic: str) -> bool:
    """Whether a checkpoint covers all that a topic has."""
    admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap_servers, "log_level": 0})
    wanted = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    (asked,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(config.app, wanted)]).values()
    return all(found.offset >= end(config, topic, found.partition) for found in asked.result(10).topic_partitions)


def end(config: Config, topic: str, partition: int) -> int:
    return sum(m.partition() == partition for m in read_to_end(config.kafka, topic, partitions=PARTITIONS))


def lose(config: Config, topic: str, n: int) -> None:
    """Add records that nobody reads, and let retention take all up to them."""
    send_to(config, topic, [(partition, b"{}", START_MS) for partition in range(PARTITIONS) for _ in range(n)])
    admin = AdminClient({"bootstrap.servers": config.kafka.bootstrap_servers, "log_level": 0})
    cut = [TopicPartition(topic, partition, end(config, topic, partition)) for partition in range(PARTITIONS)]
    for future in admin.delete_records(cut).values():
        future.result(10)


def test_a_hundred_features_in_fifty_segments_pass_through_a_brokers_defaults(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    dice = np.random.default_rng(5)

    def row(i: int) -> dict[str, Any]:
        features = {f"f{j:02}": round(float(x), 4) for j, x in enumerate(dice.lognormal(size=99))}
        return {"model": "m", "version": "1", "time": START_MS + i * 1_000, "features": features | {"group": f"g{i % 48:02}"}}

    path = write_config(
        kafka, app, tmp_path,
        "sources: [{topic: EVENTS, clock: event}]\n"
        "models: {m: {windows: [{size: 1h}], grace: 0s, segments: [group], max_segments: 50}}\n",
    )  # fmt: skip
    config = load_config(path)
    train = tmp_path / "train.ndjson"
    train.write_text("".join(json.dumps(row(i)) + "\n" for i in range(6_000)))
    made = build_reference(
        train, "m", "1", ColumnOptions(time="time"), segments=[SegmentOptions((Key(name="group"),))], max_segments=50
    )
    assert (len(made.layout.features), len(made.layout.segments)) == (100, 50)
    references.publish(config, made)
    events = [row(i) for i in range(3_600)]
    records = [(i % 4, json.dumps(event).encode(), None) for i, event in enumerate(events)]
    with workers(path):
        send_to(
            config, config.sources[0].topic, [*records, *((p, b'{"tick": %d}' % (START_MS + HOUR_MS), None) for p in range(4))]
        )
        assert wait_for(lambda: len(read(config, "results")) >= 50, 90)
    found = {record["segment"]: record for record in (of(value) for _, value in read(config, "results"))}
    rows = Counter(event["features"]["group"] for event in events)
    assert {name: record["n"] for name, record in found.items()} == (
        {"all": 3_600, "group=(other)": 0} | {f"group={group}": n for group, n in rows.items()}
    )
    for group in ("g00", "g47"):
        mine = [event["features"]["f50"] for event in events if event["features"]["group"] == group]
        assert found[f"group={group}"]["features"]["f50"]["mean"] == pytest.approx(np.mean(mine), rel=1e-9)
    listed = AdminClient({"bootstrap.servers": config.kafka.bootstrap_servers, "log_level": 0}).list_topics(timeout=10).topics
    changelogs = [name for name in listed if name.startswith(app) and name.endswith("changelog")]
    assert len(changelogs) == 2
    sizes = [
        len(m.value() or b"")
        for name in [f"{app}.partials", *changelogs]
        for m in read_to_end(config.kafka, name, partitions=len(listed[name].partitions))
    ]
    assert max(sizes) <= 512 << 10
    assert sum(size > 64 << 10 for size in sizes) > 3, "blocks were hardly filled: the test shows nothing"


def test_a_reference_that_is_published_mid_stream_is_named_by_every_window_and_live_equals_replay(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    path = write_config(
        kafka, app, tmp_path,
        "sources: [{topic: EVENTS, clock: event}]\nmodels: {m: {windows: [{size: 1h}, {size: 4h, step: 1h}], grace: 10m}}\n",
    )  # fmt: skip
    config = load_config(path)
    dice = random.Random(4)
    old = reference(np.random.default_rng(1).normal(size=2_000), ["a", "b"] * 1_000)
    change_ms = START_MS + 8 * HOUR_MS
    new = reference(np.random.default_rng(2).normal(2, 1, size=2_000), ["a", "b"] * 1_000).effective_from(change_ms)
    stamped = []
    for i in range(9_000):
        t = START_MS + i * 6_400 + dice.randrange(300_000)
        x = dice.gauss(2.0 if t >= change_ms else 0.0, 1.0)
        body = {"model": "m", "version": "1", "time": t, "features": {"x": x, "c": dice.choice("ab")}}
        stamped.append((i % 4, json.dumps(body).encode(), t))
    last = START_MS + 9_000 * 6_400 + 8 * HOUR_MS
    stamped += [(p, b'{"tick": %d}' % last, last) for p in range(4)]
    references.publish(config, old)
    topic = config.sources[0].topic
    with workers(path, 2):
        send_to(config, topic, stamped[:3_000])
        assert wait_for(lambda: read(config, "results"), 60)
        references.publish(config, new)
        time.sleep(4)  # the workers follow the topic; the change lies an hour of event time ahead
        send_to(config, topic, stamped[3_000:])
        pipeline = build_pipeline(config, [old, new])
        engine = Replay(
            pipeline.settings,
            topic,
            wire=pipeline.formats[topic],
            judge=pipeline.judge,
            look=pipeline.look,
            references=[old, new],
        )
        outcome = engine.run(stored(stamped))
        expected = {key for key, _ in outcome.results}
        assert wait_for(lambda: {key for key, _ in read(config, "results")} >= expected, 90)
        time.sleep(2)
    live = {(key, json.dumps(stripped(value))) for key, value in read(config, "results")}
    assert live == {(key, json.dumps(stripped(value))) for key, value in outcome.results}
    records = [json.loads(value) for _, value in live]
    for record in records:
        window = record["window"]
        if record["n"] and window["size_ms"] == HOUR_MS:
            assert record["reference"] == (new if window["start_ms"] >= change_ms else old).sha256
            assert record["rows_other_layout"] == 0
    assert {record["reference"] for record in records} == {old.sha256, new.sha256}
    of_hours = [r for r in records if r["window"]["size_ms"] == HOUR_MS]
    assert sum(r["n"] + r["rows_other_layout"] for r in of_hours) + outcome.late == 9_000


def members_of(alert: dict[str, Any]) -> set[tuple[str, str | None]]:
    return {(member["check"], member["feature"]) for member in alert["members"]}


def test_a_model_without_a_reference_learns_one_and_is_compared_with_it(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    """The reference is the one of a replay, bit for bit: a function of the log."""
    path = write_config(
        kafka, app, tmp_path,
        "sources: [{topic: EVENTS, clock: event}]\n"
        "models: {m: {windows: [{size: 1h}, {size: 4h, step: 1h}], learning: {rows: 2000, windows: 6}}}\n",
    )  # fmt: skip
    config = load_config(path)
    topic = config.sources[0].topic
    records = [(partition, record.value or b"", record.timestamp) for partition, record in learnt.EVENTS]
    at = next(i for i, (_, record) in enumerate(learnt.EVENTS) if record.timestamp >= learnt.START + 8 * HOUR_MS)
    ticks = [(p, b'{"tick": %d}' % (learnt.NOW + HOUR_MS), learnt.NOW + HOUR_MS) for p in range(4)]
    idle = [(p, b'{"tick": %d}' % (learnt.START + 8 * HOUR_MS), learnt.START + 8 * HOUR_MS) for p in range(4)]
    ((key, value),) = learnt.replay([]).references
    expected = Reference.from_bytes(value)
    with workers(path, 2):
        send_to(config, topic, [*records[:at], *idle])
        assert wait_for(lambda: read(config, "references", 1), 60)
        time.sleep(4)
        send_to(config, topic, [*records[at:], *ticks])
        last_ms = learnt.NOW
        assert wait_for(lambda: any(of(v)["window"]["end_ms"] >= last_ms for _, v in read(config, "results")), 60)
        time.sleep(2)
    assert [(k, Reference.from_bytes(v).sha256) for k, v in read(config, "references", 1)] == [(key, expected.sha256)]
    results = [of(v) for _, v in read(config, "results")]
    known = [r for r in results if r["window"]["start_ms"] >= learnt.START + 9 * HOUR_MS and r["n"]]
    assert len(known) > 30
    assert {r["reference"] for r in known} == {expected.sha256}
    assert {r["reference"] for r in results if r["window"]["end_ms"] <= learnt.START + 7 * HOUR_MS} == {None}
    alerts = [a for _, v in read(config, "alerts") if {("drift.distribution", "x")} <= members_of(a := of(v)["data"])]
    assert min(a["window"]["end_ms"] for a in alerts) == learnt.START + (learnt.DRIFT_AT + 1) * HOUR_MS
