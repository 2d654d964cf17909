"""Single workers on Apache Kafka through what a life brings: stops, pauses, groups that are reset, logs that were cut or made anew."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka as ck
import numpy as np
import pytest
from confluent_kafka.admin import AdminClient

from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.runtime import references, topics
from monitor.runtime.exits import EXIT_OWNERSHIP
from monitor.runtime.supervisor import die_with_parent
from tests.integration.workers import event, read, send, send_to, wait_for, write_config
from tests.kafka import KafkaCluster
from tests.unit.test_replay_windows import reference

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

HOUR = 3_600_000
START = 1_735_689_600_000
EVENTS = "sources: [{topic: EVENTS, clock: event}]\ndefaults: {windows: [{size: 1h}], grace: 1m}\n"


class Worker:
    """One worker process, without a supervisor. fault: one that `faulty_worker` knows."""

    def __init__(self, path: Path, index: int = 0, fault: str | None = None) -> None:
        self.log = path.parent / f"worker-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "monitor", "worker", "--config", str(path), "--index", str(index)]
        if fault is not None:
            command = [sys.executable, "-m", "tests.integration.faulty_worker", str(path), fault]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=die_with_parent)

    def events(self, name: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def ask(self, page: str) -> tuple[int, str]:
        """Return status and text; status 0 while nobody listens, or when the process ends before it has answered."""
        started = self.events("worker_starts")
        if not started:
            return 0, ""
        connection = http.client.HTTPConnection(str(started[0]["http"]), timeout=5)
        try:
            connection.request("GET", f"/{page}")
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def metric(self, start: str) -> float:
        """Return the sum of samples whose line begins so."""
        lines = self.ask("metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    def wait_ready(self) -> None:
        assert wait_for(lambda: self.ask("readyz")[0] == 200, 30), (self.ask("readyz"), self.log.read_text())

    def wait_counted(self, n: int) -> None:
        wait_for(lambda: self.metric("monitor_events_total{") >= n, 30)
        assert self.metric("monitor_events_total{") == n

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait(40)


@contextmanager
def worker(path: Path) -> Iterator[Worker]:
    """A worker that is ready, and is killed if it still runs at the end."""
    found = Worker(path)
    try:
        found.wait_ready()
        yield found
    finally:
        found.end(signal.SIGKILL)


def live_once(path: Path, n: int, first: int = 0, end: int = signal.SIGTERM) -> None:
    """Send `n` events to a worker that counts them, and end it."""
    with worker(path) as found:
        send(load_config(path), events(n, first=first))
        found.wait_counted(n)
        found.end(end)


def events(n: int, first: int = 0) -> list[tuple[int, bytes, int | None]]:
    return [(i % 4, event(START + (first + i) * 100, x=i), None) for i in range(n)]


def ticks(hour: int = 2) -> list[tuple[int, bytes, int | None]]:
    return [(p, b'{"tick": %d}' % (START + hour * HOUR), None) for p in range(4)]


def counted(config: Config) -> int:
    """Return rows of all final windows, each counted once."""
    return sum(json.loads(value)["n"] for _, value in set(read(config, "results")))


def committed(config: Config, topic: str) -> list[int]:
    consumer = ck.Consumer({"bootstrap.servers": config.kafka.bootstrap_servers, "group.id": config.app, "log_level": 0})
    found = consumer.committed([ck.TopicPartition(topic, p) for p in range(4)], timeout=10)
    consumer.close()
    return [partition.offset for partition in found]


def test_a_stop_is_clean_and_a_group_that_was_deleted_since_changes_nothing(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    """After the last checkpoint everything is committed. A new group begins with generation 1, below the epochs in the state."""
    path = write_config(kafka, app, tmp_path, EVENTS)
    config = load_config(path)
    topic = config.sources[0].topic
    for _ in range(2):
        with worker(path) as first:  # two generations: 1 and at least 2
            send(config, events(2_000))
            first.wait_counted(2_000)
            assert first.end() == 0
    assert committed(config, topic) == [1_000] * 4
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.delete_consumer_groups([app])[app].result(20)
    with worker(path) as second:
        assert second.events("epochs_as_high_found")
        send(config, [*events(1_000), *ticks()])
        second.wait_counted(1_000)
        assert wait_for(lambda: counted(config) >= 5_000, 30)
    assert counted(config) == 5_000


def test_a_worker_that_lost_its_disk_counts_on_from_the_changelog(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    """Also when the changelog's last offset holds no record: here a transaction's marker, elsewhere what compaction took."""
    path = write_config(kafka, app, tmp_path, EVENTS)
    config = load_config(path)
    live_once(path, 2_000, end=signal.SIGKILL)
    shutil.rmtree(tmp_path / "state")
    writer = ck.Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": app, "log_level": 0})
    writer.init_transactions(20)
    writer.begin_transaction()
    writer.produce(f"{app}-{app}-events-ingest-changelog", key=b"of no row", value=None, partition=2)
    writer.commit_transaction(20)
    send(config, [*events(1_000), *ticks()])
    with worker(path):
        assert wait_for(lambda: counted(config) >= 3_000, 30)
    assert counted(config) == 3_000


@pytest.mark.parametrize("pause_s", [4.9, 9.0])
def test_a_worker_that_was_paused_for_most_of_its_session_ends_itself(
    kafka: KafkaCluster, app: str, tmp_path: Path, pause_s: float
) -> None:
    """Sessions are of 6 s: after 4.9 s the coordinator would still take its heartbeats, after 9 s it has given its partitions away."""
    path = write_config(kafka, app, tmp_path, EVENTS)
    config = load_config(path)
    with worker(path) as paused:
        send(config, events(400))
        paused.wait_counted(400)
        os.kill(paused.process.pid, signal.SIGSTOP)
        time.sleep(pause_s)
        os.kill(paused.process.pid, signal.SIGCONT)
        assert paused.process.wait(10) == EXIT_OWNERSHIP
        assert "no heartbeat was answered for" in str(paused.events("worker_ends")[0]["reason"])


def test_two_workers_of_one_folder_are_refused(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    path = write_config(kafka, app, tmp_path, EVENTS)
    with worker(path):
        other = Worker(path)
        assert other.process.wait(30) == 78
        assert "is in use by another worker" in other.log.read_text()


def test_transactions_aborted_ones_too_are_read_whole_and_their_markers_are_no_gaps(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    """Also markers at the end of the log: a silent partition with only markers left is at its end."""
    path = write_config(
        kafka, app, tmp_path, "sources: [{topic: EVENTS}]\ndefaults: {windows: [{size: 5s}], grace: 0s, idle_after: 2s}\n"
    )
    config = load_config(path)
    producer = ck.Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": app, "log_level": 0, "linger.ms": 1})
    producer.init_transactions(20)
    with worker(path) as reader:
        for i in range(60):
            producer.begin_transaction()
            for p in range(2):
                for _ in range(1 + i % 3):
                    producer.produce(config.sources[0].topic, event(time.time_ns() // 1_000_000, x=1), partition=p)
            (producer.abort_transaction if i % 10 == 0 else producer.commit_transaction)(20)
        # Those that were aborted before they were sent are not on the log.
        n = sum(high - low for low, high in ends(config)) - markers(config)
        reader.wait_counted(n)
        assert wait_for(lambda: counted(config) >= n, 20)
        assert counted(config) == n
        assert reader.metric("monitor_gap_offsets_total{") == markers(config)
        assert reader.metric("monitor_lost_offsets_total{") == 0


def ends(config: Config) -> list[tuple[int, int]]:
    consumer = ck.Consumer({"bootstrap.servers": config.kafka.bootstrap_servers, "group.id": "x", "log_level": 0})
    found = [consumer.get_watermark_offsets(ck.TopicPartition(config.sources[0].topic, p), timeout=10) for p in range(4)]
    consumer.close()
    return found


def markers(config: Config) -> int:
    """Return how many offsets of the source hold no record: read with another client, uncommitted."""
    from monitor.runtime.broker import read_to_end

    records = sum(1 for _ in read_to_end(config.kafka, config.sources[0].topic, partitions=4))
    return sum(high - low for low, high in ends(config)) - records


def test_records_that_retention_took_before_they_were_read_are_counted_as_lost(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    path = write_config(kafka, app, tmp_path, EVENTS)
    config = load_config(path)
    live_once(path, 400)
    send(config, events(400))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    cut = ck.TopicPartition(config.sources[0].topic, 1, 150)
    for future in admin.delete_records([cut]).values():
        future.result(20)
    send(config, ticks())
    with worker(path) as second:
        second.wait_counted(350)
        assert second.metric("monitor_lost_offsets_total{") == 50
        assert wait_for(lambda: counted(config) >= 750, 30)
    assert counted(config) == 750


def test_a_source_that_was_made_anew_is_refused_with_an_instruction(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    path = write_config(kafka, app, tmp_path, EVENTS)
    config = load_config(path)
    topic = config.sources[0].topic
    live_once(path, 400)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.delete_topics([topic])[topic].result(20)
    wait_for(lambda: topic not in admin.list_topics(timeout=5).topics, 20)
    kafka.create(topic, 4)
    send(config, events(4_000))
    second = Worker(path)
    assert second.process.wait(40) == 78
    assert "was deleted and created again since its state was written" in second.log.read_text()
    assert "start with another `app` name" in second.log.read_text()


def test_a_source_comes_between_two_lives_and_goes_only_once_nothing_of_it_is_open(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    only = EVENTS.replace("grace: 1m", "grace: 1m, idle_after: 1s")
    path = write_config(kafka, app, tmp_path, only)
    live_once(path, 400)
    only, both = path.read_text(), path.read_text().replace("}]\n", f"}}, {{topic: {app}-more, clock: event}}]\n", 1)
    path.write_text(both)
    config = load_config(path)
    kafka.create(f"{app}-more", 4)
    topics.create_topics(config)
    with worker(path) as second:
        send_to(config, f"{app}-more", events(400))
        second.wait_counted(400)
        assert second.end() == 0
    path.write_text(only)
    refused = Worker(path)
    assert refused.process.wait(40) == 78
    assert f"the source {app}-more is not configured any more, but events of it wait in open windows" in refused.log.read_text()
    path.write_text(both)
    with worker(path) as fourth:
        for source in config.sources:
            send_to(config, source.topic, ticks(2))
        wait_for(lambda: counted(config) >= 800 and fourth.metric("monitor_idle_partitions") == 8, 30)
        assert counted(config) == 800
        time.sleep(2)  # and stage 2 knows
        assert fourth.end() == 0
    path.write_text(only)
    with worker(path) as fifth:
        send(config, events(400, first=72_000))
        fifth.wait_counted(400)  # a partition that is idle holds nobody up: ticks of the others would make its events late
        send(config, ticks(4))
        wait_for(lambda: counted(config) >= 1_200, 30)
        assert counted(config) == 1_200
        assert fifth.end() == 0


def test_probes_say_when_a_worker_is_ready(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    path = write_config(kafka, app, tmp_path, EVENTS)
    found = Worker(path)
    try:
        assert wait_for(lambda: found.ask("livez")[0] == 200, 20)
        found.wait_ready()
        assert found.ask("readyz")[1] == "8 partitions\n"
        assert wait_for(lambda: found.metric("monitor_partitions ") == 8, 5)
        assert found.metric("monitor_reference_age_seconds ") < 10
    finally:
        found.end(signal.SIGKILL)


def test_a_reference_that_is_published_while_a_worker_runs_applies_to_the_next_pane(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    path = write_config(kafka, app, tmp_path, EVENTS)
    config = load_config(path)
    ref = reference(np.arange(500.0), ["a"] * 500)
    with worker(path) as found:
        send(config, events(400))
        found.wait_counted(400)
        references.publish(config, ref)
        time.sleep(2)
        send(config, [*events(400, first=36_000), *ticks(3)])
        wait_for(lambda: counted(config) >= 800, 30)
    used = {(r := json.loads(v))["window"]["start_ms"]: r["reference"] for _, v in read(config, "results")}
    assert used == {START: None, START + HOUR: ref.sha256}


def test_prometheus_has_the_last_final_window_as_its_result_record_has_it(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    path = write_config(
        kafka, app, tmp_path, "sources: [{topic: EVENTS, clock: event}]\nmodels: {m: {windows: [{size: 1h}], grace: 0s}}\n"
    )
    config = load_config(path)
    dice = np.random.default_rng(3)
    references.publish(config, reference(dice.normal(size=2_000), ["a", "b"] * 1_000))
    start, hour = 1_735_689_600_000, 3_600_000
    batch = [(i % 4, event(start + i * 7_200, x=float(dice.normal(1)), c="a"), None) for i in range(1_000)]
    with worker(path) as told:
        send(config, [*batch, *((p, b'{"tick": %d}' % (start + 2 * hour), None) for p in range(4))])
        assert wait_for(lambda: told.metric("monitor_window_rows{") > 0, 40)
        results = sorted((json.loads(v) for _, v in read(config, "results")), key=lambda r: r["window"]["end_ms"])
        last = results[-1]

        def sample(name: str, **more: str) -> float:
            labels = {"model": "m", "version": last["version"], "window": "1h", "segment": "all"} | more
            return told.metric(name + "{" + ",".join(f'{key}="{labels[key]}"' for key in sorted(labels)) + "}")

        wait_for(lambda: sample("monitor_window_end_timestamp_seconds") == last["window"]["end_ms"] / 1_000, 10)
        assert sample("monitor_window_rows") == last["n"] == 500
        for name in ("psi", "js"):
            expected = last["features"]["x"]["distances"][name]
            assert sample("monitor_feature_distance", feature="x", distance=name) == pytest.approx(expected, rel=1e-12)
        assert (
            sample("monitor_window_breaches", severity="warning") == sum(f["severity"] == "warning" for f in last["findings"]) > 0
        )
        assert told.metric("monitor_suppressed_series ") == 0


def test_windows_and_grace_change_between_two_lives(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    """A longer window begins where the state stands, one that goes is not missed, and no row is counted twice or lost."""
    path = write_config(kafka, app, tmp_path, EVENTS.replace("size: 1h", "size: 1h}, {size: 2h"))
    live_once(path, 400)
    config = load_config(path)
    path.write_text(path.read_text().replace("size: 1h}, {size: 2h", "size: 1h}, {size: 4h").replace("grace: 1m", "grace: 10m"))
    with worker(path) as second:
        send(config, [*ticks(1), *events(400, first=36_000), *ticks(2), *events(400, first=72_000), *ticks(9)])
        wait_for(lambda: len(windows(config)) >= 4, 30)
        assert second.end() == 0
    hour, found = HOUR, windows(config)
    assert {window: n for window, n in found.items() if n} == {
        (START, hour): 400, (START + hour, hour): 400, (START + 2 * hour, hour): 400, (START, 4 * hour): 1_200,
    }  # fmt: skip
    path.write_text(path.read_text().replace("{size: 1h}, {size: 4h}", "{size: 4h}"))
    refused = Worker(path)
    assert refused.process.wait(40) == 78
    assert (
        "is made of panes of 1h, and its windows now ask for panes of 5m: add `pane: 1h` to the model" in refused.log.read_text()
    )
    path.write_text(path.read_text().replace("grace: 10m", "grace: 10m, pane: 1h"))
    live_once(path, 400, first=324_000)


def windows(config: Config) -> dict[tuple[int, int], int]:
    """Return rows of each final window, by start and size."""
    results = [json.loads(value) for _, value in set(read(config, "results"))]
    return {(each["window"]["start_ms"], each["window"]["size_ms"]): each["n"] for each in results}
