"""On Apache Kafka: live equals replay, silence closes windows, bad records are kept, and a start that cannot work says so."""

from __future__ import annotations

import json
import random
import subprocess
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
from tests.integration.workers import KAFKA, event, read, send, stored, wait_for, workers, write_config
from tests.kafka import KafkaCluster
from tests.unit.test_replay_windows import reference

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

HOUR = 3_600_000
START = 1_735_689_600_000
YEAR = 365 * 24 * HOUR


def stripped(value: bytes) -> dict:
    record = json.loads(value)
    record.pop("source_offsets", None)
    record.get("data", {}).pop("source_offsets", None)
    stream = record.get("stream") or {}
    stream.pop("delay", None)  # the broker stamps the live records itself
    return record


def test_live_results_and_alerts_are_those_of_a_replay_byte_for_byte(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    """Also bad records, late ones, and a worker that is killed in the middle."""
    path = write_config(
        kafka,
        app,
        tmp_path,
        "sources: [{topic: EVENTS, clock: event}]\nmodels: {m: {windows: [{size: 1h}, {size: 4h, step: 1h}], grace: 10m}}\n",
    )
    config = load_config(path)
    dice = np.random.default_rng(8)
    ref = reference(dice.normal(size=3_000), ["a", "b"] * 1_500)
    references.publish(config, ref)
    records: list[tuple[int, bytes, int | None]] = []
    for i in range(12_000):
        t = START + i * 20_000
        t -= int(dice.integers(0, 5 * HOUR)) if i % 97 == 0 else int(dice.integers(0, 600_000))
        shift = 2.0 if 4_000 < i < 6_000 else 0.0
        body = event(t, x=float(dice.normal() + shift), c=str(dice.choice(["a", "b"])))
        records.append((i % 3, b"{broken" if i % 501 == 0 else body, t + 600_000))
    end = START + 12_000 * 20_000 + 12 * HOUR
    records += [(p, b'{"tick": %d}' % end, end) for p in range(4)]
    half = len(records) // 2
    with workers(path, 2):
        send(config, records[:half])
        time.sleep(8)
        send(config, records[half:])
        pipeline = build_pipeline(config, [ref])
        topic = config.sources[0].topic
        engine = Replay(
            pipeline.settings, topic, wire=pipeline.formats[topic], judge=pipeline.judge, look=pipeline.look, references=[ref]
        )
        outcome = engine.run(stored(records))
        assert outcome.late > 50
        assert outcome.rejected == {"malformed_json": 24}
        expected = {key for key, _ in outcome.results}
        wait_for(lambda: {key for key, _ in read(config, "results")} >= expected, 90)
        time.sleep(2)
    live = {(key, value) for key, value in read(config, "results")}
    assert {(k, json.dumps(stripped(v))) for k, v in live} == {(k, json.dumps(stripped(v))) for k, v in outcome.results}
    alerts = {json.dumps(stripped(v)) for _, v in read(config, "alerts")}
    assert alerts == {json.dumps(stripped(v)) for _, v in outcome.alerts}
    assert len(alerts) > 2
    total = sum(stripped(v)["n"] for k, v in live if k.endswith(b"|3600000|3600000"))
    assert total + outcome.late + 24 == 12_000


def test_live_traffic_with_a_silent_partition_closes_and_a_stop_of_all_traffic_is_told(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    path = write_config(
        kafka, app, tmp_path, "sources: [{topic: EVENTS}]\ndefaults: {windows: [{size: 5s}], grace: 1s, idle_after: 2s}\n"
    )
    config = load_config(path)
    with workers(path):
        time.sleep(6)
        last = 0
        for _ in range(60):  # partition 1 speaks once, then is silent; 2 and 3 never speak
            last = time.time_ns() // 1_000_000
            send(config, [(0, event(last, x=1), None)] + ([(1, event(last, x=1), None)] if _ == 0 else []))
            time.sleep(0.2)
        window_end = last // 5_000 * 5_000
        closed = wait_for(lambda: [v for _, v in read(config, "results") if json.loads(v)["window"]["end_ms"] == window_end], 16)
        seconds = time.time() - window_end / 1000
        assert closed
        assert seconds <= 5 + 1 + 2 + 5, f"window closed {seconds:.1f} s after its end"

        def told() -> list[dict]:
            return [a for _, v in read(config, "alerts") if (a := json.loads(v)["data"])["check"] == "traffic.low"]

        assert wait_for(told, 30)
        counted = sum(json.loads(v)["n"] for _, v in read(config, "results"))
        assert counted == 61


def test_a_backfill_of_year_old_events_with_long_pauses_loses_nothing(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    """A topic with producers' timestamps, a year old, `clock: wall`, windows of 10 s, idle_after 1 s, pauses of 4 s."""
    kafka.create(f"{app}-events", 4, message_timestamp_type="CreateTime", retention_ms="-1")
    path = write_config(
        kafka, app, tmp_path, "sources: [{topic: EVENTS}]\ndefaults: {windows: [{size: 10s}], grace: 0s, idle_after: 1s}\n"
    )
    config = load_config(path)
    old = (time.time_ns() // 1_000_000 - YEAR) // 10_000 * 10_000
    n = 0
    with workers(path):
        for step in range(5):
            batch = []
            for i in range(100):
                t = old + step * 7_000 + i * 70
                batch += [(0, event(t, x=1), t), *([(1, event(t, x=1), t)] if step % 2 == 0 else [])]
            send(config, batch)
            n += len(batch)
            time.sleep(4)
        end = old + 100_000
        send(config, [(p, b'{"tick": %d}' % end, end) for p in range(4)])
        wait_for(lambda: sum(json.loads(v)["n"] for _, v in read(config, "results")) >= n, 30)
    assert sum(json.loads(v)["n"] for _, v in read(config, "results")) == n


def test_malformed_records_of_ten_kinds_are_all_kept_byte_for_byte(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    path = write_config(
        kafka, app, tmp_path, "sources: [{topic: EVENTS, clock: event}]\ndefaults: {windows: [{size: 1h}], grace: 1m}\n"
    )
    config = load_config(path)
    kinds = [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": 1, "time": 1, "features": {}}', b'{"model": "m", "features": {}}',
        b'{"model": "a|b", "time": 1, "features": {}}', b'{"model": "m", "time": 1e30, "features": {}}',
        event(START + 10 * YEAR, x=1), b'{"model": "m", "time": 5, "features": []}',
    ]  # fmt: skip
    dice = random.Random(1)
    bad: Counter[bytes] = Counter()
    records: list[tuple[int, bytes, int | None]] = []
    for i in range(10_000):
        value = dice.choice(kinds) if i % 100 == 7 else event(START + i, x=1)
        bad[value] += i % 100 == 7
        records.append((i % 4, value, None))
    records += [(p, b'{"tick": %d}' % (START + 2 * HOUR), None) for p in range(4)]
    with workers(path):
        send(config, records)
        wait_for(lambda: sum(json.loads(v)["n"] for _, v in read(config, "results")) >= 9_900, 60)
        wait_for(lambda: len(read(config, "dead-letter")) >= 100, 10)
    assert sum(json.loads(v)["n"] for _, v in read(config, "results")) == 9_900
    assert Counter(value for _, value in read(config, "dead-letter")) == +bad


class TestStart:
    def fails(self, path: Path, *sentence: str, command: str = "run") -> None:
        done = subprocess.run(
            [sys.executable, "-m", "monitor", command, "--config", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 78, done.stderr
        for part in sentence:
            assert part in done.stderr
        assert "Traceback" not in done.stderr
        assert not (path.parent / "state").exists()

    def test_a_missing_topic(self, kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
        path = write_config(kafka, app, tmp_path, "sources: [{topic: EVENTS}]\n")
        path.write_text(path.read_text().replace(f"{app}-events", f"{app}-other"))
        self.fails(path, f"topic {app}-other is missing; `monitor topics create` makes it")

    def test_a_wrong_partition_count(self, kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
        kafka.create(f"{app}-{app}-events-ingest-changelog", 7)
        path = write_config(kafka, app, tmp_path, "sources: [{topic: EVENTS}]\n")
        self.fails(path, "has 7 partitions", "has 4; they must be equal")

    def test_an_unreachable_broker(self, tmp_path: Path) -> None:
        path = tmp_path / "monitor.yaml"
        path.write_text('kafka: {bootstrap_servers: "127.0.0.1:1"}\n')
        self.fails(path, "no broker answers at 127.0.0.1:1")

    def test_an_unknown_key(self, tmp_path: Path) -> None:
        path = tmp_path / "monitor.yaml"
        path.write_text("app: a\nkafak: {}\n")
        self.fails(path, f"{path}:2: kafak: unknown key (did you mean kafka?)")

    def test_a_wrong_version_of_faust(
        self, kafka: KafkaCluster, app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_config(kafka, app, tmp_path, "sources: [{topic: EVENTS}]\n")
        (tmp_path / "sitecustomize.py").write_text("import faust\nfaust.__version__ = '0.11.3'\n")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
        self.fails(path, "faust-streaming 0.11.3 is installed; this program needs 0.15.3 exactly")


def test_the_commands_for_an_own_kafka_work_in_their_order(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    path = tmp_path / "monitor.yaml"
    path.write_text(
        KAFKA.format(app=app, bootstrap=kafka.bootstrap, folder=tmp_path)
        + f"sources: [{{topic: {app}-events}}]\nmodels: {{m: {{windows: [{{size: 2s}}], grace: 0s, idle_after: 1s}}}}\n"
    )
    (tmp_path / "reference.json").write_bytes(reference(np.random.default_rng(1).normal(size=500), ["a", "b"] * 250).to_bytes())

    def monitor(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "monitor", *words, "--config", str(path)],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    monitor("config", "check")
    assert f"{app}.alerts" in monitor("topics", "create").splitlines()
    assert monitor("topics", "create") == ""
    assert f"{app}-events\t4" in monitor("topics", "check").splitlines()
    assert len(monitor("reference", "publish", str(tmp_path / "reference.json")).strip()) == 64
    with workers(path):
        monitor("traffic", "--rate", "40", "--seconds", "12")
        lines = monitor("tail", "results", "--from-beginning", "--limit", "2").splitlines()
        assert [json.loads(line)["model"] for line in lines] == ["m", "m"]
    alerts = monitor("tail", "alerts", "--from-beginning", "--no-follow").splitlines()
    assert {json.loads(line)["specversion"] for line in alerts} <= {"1.0"}
