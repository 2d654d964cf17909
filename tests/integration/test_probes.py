"""Probes of real workers tell the truth within 5 s, and workers that stand still end; docs/operations.md has the table of cases."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka as ck
import numpy as np
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from monitor.config.file import load_config
from monitor.runtime import references
from monitor.runtime.compacted import LEAD_S
from monitor.runtime.exits import EXIT_LOOP, EXIT_PROGRESS, EXIT_RECOVERY
from tests.integration.test_runtime_lives import EVENTS, HOUR, START, Worker, counted, events, live_once, ticks, worker
from tests.integration.test_state import disk
from tests.integration.workers import event, read, send, wait_for, workers, write_config
from tests.kafka import KafkaCluster, free_port
from tests.unit.test_replay_windows import reference

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

SHORT = EVENTS + "watchdog: {progress: 20s, recovery: 3s, loop: 6s}\n"


@contextmanager
def started(path: Path, fault: str | None = None, index: int = 0) -> Iterator[Worker]:
    """A worker that listens, ready or not."""
    found = Worker(path, index, fault)
    try:
        assert wait_for(lambda: found.ask("livez")[0], 30), found.log.read_text()
        yield found
    finally:
        found.process.send_signal(signal.SIGCONT)
        found.end(signal.SIGKILL)


def within_5_s(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true in time; asked often."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def says(found: Worker, condition: str) -> Callable[[], bool]:
    """A question: is it not ready, for this reason?"""

    def asked() -> bool:
        status, text = found.ask("readyz")
        return status == 503 and any(line.startswith(f"{condition}: ") for line in text.splitlines())

    return asked


def last_line(found: Worker) -> dict[str, object]:
    (line,) = found.events("worker_ends")
    return line


def test_a_loop_that_does_not_turn_is_neither_live_nor_ready_and_the_next_life_says_why_the_last_one_ended(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    path = write_config(kafka, app, tmp_path, SHORT)
    config = load_config(path)
    with started(path, "wedge") as wedged:
        wedged.wait_ready()
        send(config, [(0, event(1, wedge=1), None)])
        assert within_5_s(lambda: wedged.ask("livez")[0] == 503)
        assert says(wedged, "loop")()
        assert wedged.metric('monitor_not_ready{reason="loop"}') == 1
        assert wedged.process.wait(20) == EXIT_LOOP
        assert "event loop: its turns stood still for" in str(last_line(wedged)["reason"])
        assert "faulty_worker.py" in str(last_line(wedged)["stack"])
    with worker(path) as next_life:
        assert next_life.metric('monitor_worker_restarts_total{reason="loop"}') == 1
        assert next_life.metric("monitor_worker_restarts_total{") == 1
        assert next_life.end() == 0
    with worker(path) as after_a_clean_stop:
        assert after_a_clean_stop.metric("monitor_worker_restarts_total{") == 1


def test_a_worker_whose_broker_is_lost_is_live_but_not_ready(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    """`kafka` only says whether a broker can be had: this test stops one of its own."""
    with KafkaCluster() as broker:
        path = write_config(broker, app, tmp_path, EVENTS)
        path.write_text(path.read_text().replace("session_timeout: 6s", "session_timeout: 30s"))
        with worker(path) as found:
            for number, is_back in ((signal.SIGSTOP, signal.SIGCONT), (signal.SIGKILL, None)):
                broker.kill(0, number)
                assert within_5_s(says(found, "broker"))
                assert found.ask("livez")[0] == 200
                if is_back is not None:
                    broker.kill(0, is_back)
                else:
                    broker.start(0)
                assert wait_for(lambda: found.ask("readyz")[0] == 200, 20), found.ask("readyz")


def test_a_restore_is_live_all_the_time_and_ready_only_at_its_end_and_never_stuck_while_it_gets_on(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    """400 records take 10 s, more than three times what the watchdog grants a recovery that stands still."""
    path = write_config(kafka, app, tmp_path, SHORT)
    with worker(path) as first:
        first.end()
    shutil.rmtree(tmp_path / "state")
    writer = ck.Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for i in range(400):
        writer.produce(f"{app}-{app}-events-ingest-changelog", key=b"no row %d" % i, value=None, partition=1)
    assert writer.flush(20) == 0
    with started(path, "slow") as restoring:
        assert within_5_s(says(restoring, "recovery"))
        began, answers = time.monotonic(), []
        while restoring.ask("readyz")[0] != 200 and time.monotonic() < began + 40:
            answers.append((restoring.ask("livez")[0], says(restoring, "recovery")() or says(restoring, "assignment")()))
            time.sleep(0.1)
        assert restoring.ask("readyz")[0] == 200
        assert time.monotonic() - began > 6
        assert {live for live, _ in answers} == {200}
        assert all(is_told for _, is_told in answers[:-1])


def test_a_recovery_that_does_not_get_on_ends_the_worker(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    path = write_config(kafka, app, tmp_path, SHORT)
    live_once(path, 400, end=signal.SIGKILL)
    shutil.rmtree(tmp_path / "state")
    with started(path, "deaf") as stuck:
        assert within_5_s(says(stuck, "recovery"))
        assert "changelog records to go" in stuck.ask("readyz")[1]
        assert stuck.ask("livez")[0] == 200
        assert stuck.process.wait(30) == EXIT_RECOVERY
        assert "recovery" in last_line(stuck)["not_ready"]  # type: ignore[operator]


def test_records_that_wait_and_are_not_read_end_the_worker(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    path = write_config(kafka, app, tmp_path, SHORT)
    with started(path, "unread") as unread:
        unread.wait_ready()
        send(load_config(path), events(400))
        assert unread.process.wait(60) == EXIT_PROGRESS
        assert f"progress: {app}-events/" in str(last_line(unread)["reason"])
        assert "records wait to be read" in str(last_line(unread)["reason"])


def test_a_member_that_waits_for_its_partitions_and_one_that_gave_them_up_are_live_but_not_ready(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    """A paused member holds the assignment up until its session ends, for a new member and for one that had partitions."""
    path = write_config(kafka, app, tmp_path, EVENTS)
    with started(path) as owner, started(path, index=1) as paused:
        wait_for(lambda: owner.ask("readyz")[1] == paused.ask("readyz")[1] == "4 partitions\n", 30)
        os.kill(paused.process.pid, signal.SIGSTOP)
        with started(path, index=2) as newcomer:
            assert within_5_s(lambda: says(owner, "assignment")() and says(newcomer, "assignment")())
            assert (owner.ask("livez")[0], newcomer.ask("livez")[0]) == (200, 200)
            owner.wait_ready()
            newcomer.wait_ready()
            assert owner.metric("monitor_rebalance_seconds_count") >= 2


def test_a_full_disk_makes_a_worker_not_ready_and_room_makes_it_ready_again(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    path = write_config(kafka, app, tmp_path, EVENTS)
    with disk(tmp_path / "state") as small, worker(path) as found:
        small.fill()
        assert within_5_s(says(found, "disk"))
        assert found.ask("livez")[0] == 200
        assert found.metric('monitor_not_ready{reason="disk"}') == 1
        small.free()
        assert wait_for(lambda: found.ask("readyz")[0] == 200, 20), found.ask("readyz")
        assert found.process.poll() is None


def test_a_worker_that_stops_is_not_ready_at_once(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    path = write_config(kafka, app, tmp_path, EVENTS)
    with worker(path) as found:
        os.kill(found.process.pid, signal.SIGTERM)
        answers = []
        while found.process.poll() is None:
            answers.append(found.ask("readyz"))
            time.sleep(0.05)
        assert found.process.returncode == 0
    assert answers[0][0] in (200, 503)  # the very moment of the signal
    assert {status for status, _ in answers[1:]} <= {503, 0}
    assert any("stopping: SIGTERM was received" in text for _, text in answers)


def test_a_topic_that_is_deleted_under_a_worker_makes_it_not_ready(kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
    path = write_config(kafka, app, tmp_path, EVENTS)
    with worker(path) as found:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
        admin.delete_topics([f"{app}.references"])[f"{app}.references"].result(20)
        assert within_5_s(says(found, "topics"))
        assert f"{app}.references" in found.ask("readyz")[1]
        assert found.ask("livez")[0] == 200
        kafka.create(f"{app}.references", 1)
        assert within_5_s(lambda: "was deleted and created again" in found.ask("readyz")[1])


WITH_ACLS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
    "early.start.listeners": "CONTROLLER",
}


def test_a_worker_that_may_not_read_its_references_any_more_is_not_ready_and_counts_nothing_until_it_may(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    """It may look at the topic, so it knows that there is something newer, and not what: a pane must not begin without it."""
    with KafkaCluster(properties=WITH_ACLS) as broker:
        path = write_config(broker, app, tmp_path, EVENTS)
        config, admin = load_config(path), AdminClient({"bootstrap.servers": broker.bootstrap})
        topic = ResourceType.TOPIC, f"{app}.references", ResourcePatternType.LITERAL
        may_write = *topic, "User:ANONYMOUS", "*", AclOperation.WRITE, AclPermissionType.ALLOW
        newer = reference(np.arange(500.0), ["a"] * 500)
        with worker(path) as found:
            send(config, events(400))
            found.wait_counted(400)
            for future in admin.create_acls([AclBinding(*may_write)]).values():
                future.result(20)
            time.sleep(2)  # a fetch that was under way may still be answered
            references.publish(config, newer)
            answers = []
            wait_for(lambda: answers.append(found.ask("livez")[0]) or found.ask("readyz")[0] != 200, LEAD_S / 2 + 5)
            assert says(found, "references")()
            assert found.metric('monitor_not_ready{reason="references"}') == 1
            assert wait_for(lambda: found.metric("monitor_reference_age_seconds") > LEAD_S / 2, 5)
            send(config, events(400, first=36_000))
            time.sleep(3)
            assert found.metric("monitor_events_total{") == 400
            for future in admin.delete_acls([AclBindingFilter(*may_write)]).values():
                future.result(20)
            assert wait_for(lambda: answers.append(found.ask("livez")[0]) or found.ask("readyz")[0] == 200, 10)
            assert set(answers) == {200}
            found.wait_counted(800)
            send(config, ticks(3))
            wait_for(lambda: counted(config) >= 800, 30)
        used = {(r := json.loads(v))["window"]["start_ms"]: r["reference"] for _, v in read(config, "results")}
        assert used == {START: None, START + HOUR: newer.sha256}


def test_a_worker_that_starts_without_its_topics_never_listens_and_ends_with_a_sentence(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    path = write_config(kafka, app, tmp_path, EVENTS)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.delete_topics([f"{app}.alerts"])[f"{app}.alerts"].result(20)
    wait_for(lambda: f"{app}.alerts" not in admin.list_topics(timeout=5).topics, 20)
    found = Worker(path)
    assert found.process.wait(30) == 78
    assert f"topic {app}.alerts is missing; `monitor topics create` makes it" in found.log.read_text()
    assert not found.events("worker_starts")


def test_a_worker_that_its_supervisor_starts_again_is_ready_again_and_says_that_it_was_killed(
    kafka: KafkaCluster, app: str, tmp_path: Path
) -> None:
    path = write_config(kafka, app, tmp_path, EVENTS)
    path.write_text(path.read_text().replace("127.0.0.1:0", f"127.0.0.1:{free_port()}"))
    log = tmp_path / "workers.log"
    probe = Worker.__new__(Worker)  # asks what the supervisor's child answers
    probe.log = log
    with workers(path) as supervisor:
        assert wait_for(lambda: log.exists() and probe.ask("readyz")[0] == 200, 40)
        (child,) = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        assert within_5_s(lambda: probe.ask("livez")[0] == probe.ask("readyz")[0] == 0)
        assert wait_for(lambda: probe.ask("readyz")[0] == 200, 30)
        assert probe.metric('monitor_worker_restarts_total{reason="killed"}') == 1
        ended = [json.loads(line) for line in log.read_text().splitlines() if "worker_ended" in line]
        assert ended[0]["reason"] == "killed by SIGKILL"
