"""State on Apache Kafka through what happens to it: damage, other versions, a full disk, topics that refuse. Exact, or refused with a word.

`FULL=1` takes the lengths of issue 5 (R10, R11, R12, R14); without it the same things happen in less time.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import struct
import subprocess
import time
from base64 import b64decode
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka as ck
import pytest
import rocksdict
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.runtime import references, topics
from monitor.stages.rows import CODEC_VERSION, stored_key
from tests.codec_events import CUT, records
from tests.codec_fixture import reference as codec_reference
from tests.integration.test_runtime_lives import EVENTS, HOUR, START, Worker, counted, ends, events, live_once, ticks, worker
from tests.integration.workers import event, read, send, wait_for, write_config
from tests.kafka import KafkaCluster
from tests.unit.runtime.test_store import DAMAGE
from tests.unit.test_codecs import FIXTURES, same

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

FULL = os.environ.get("FULL") == "1"


def admin_of(kafka: KafkaCluster) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})


def alter(kafka: KafkaCluster, topic: str, **settings: str) -> None:
    admin = admin_of(kafka)
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in settings.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(20)


def delete(kafka: KafkaCluster, topic: str) -> None:
    admin = admin_of(kafka)
    admin.delete_topics([topic])[topic].result(20)
    assert wait_for(lambda: topic not in admin.list_topics(timeout=5).topics, 20)


def stores(folder: Path) -> list[Path]:
    """Return the local stores of the partitions that have rows."""
    return sorted(path for path in folder.glob("state/worker-0/**/*.db") if path.is_dir())


def into_files(store: Path) -> None:
    """Have RocksDB write into a table file what so far is in its log only."""
    database = rocksdict.Rdict(str(store), options=rocksdict.Options(raw_mode=True))
    database.flush()
    database.close()


def end_offset(config: Config, topic: str, partition: int = 0) -> int:
    consumer = ck.Consumer({"bootstrap.servers": config.kafka.bootstrap_servers, "group.id": "x", "log_level": 0})
    _, high = consumer.get_watermark_offsets(ck.TopicPartition(topic, partition), timeout=10)
    consumer.close()
    return int(high)


def refused(path: Path) -> str:
    """Start a worker that refuses; return what it says."""
    found = Worker(path)
    try:
        assert found.process.wait(40) == 78, found.log.read_text()
    finally:
        found.end(signal.SIGKILL)
    return found.log.read_text()


class TestDamage:
    """R10."""

    def test_whatever_is_done_to_the_files_of_the_local_stores_they_are_made_anew_and_counts_are_exact(
        self, kafka: KafkaCluster, app: str, tmp_path: Path
    ) -> None:
        path = write_config(kafka, app, tmp_path, EVENTS)
        config = load_config(path)
        kinds = iter(DAMAGE.items())
        n_sent = n_damaged = 0
        done = False
        while not done:
            with worker(path) as found:
                send(config, events(1_000, first=n_sent))
                n_sent += 1_000
                found.wait_counted(1_000)
                assert wait_for(lambda: found.metric("monitor_stores_rebuilt_total ") == n_damaged, 5)  # noqa: B023
                found.end(signal.SIGKILL)
            round_ = list(zip(stores(tmp_path), kinds, strict=False))
            done = len(round_) < len(stores(tmp_path))
            for store, (what, damage) in round_:
                print(f"{store.name}: {what}")
                into_files(store)
                damage(store)
            n_damaged = sum(what != "the folder is gone" for _, (what, _) in round_)
        with worker(path) as last:
            assert wait_for(lambda: last.metric("monitor_stores_rebuilt_total ") == n_damaged, 5)
            send(config, ticks())
            assert wait_for(lambda: counted(config) >= n_sent, 30)
        assert counted(config) == n_sent

    def test_a_store_of_another_partition_or_topic_is_not_taken_and_counts_are_exact(
        self, kafka: KafkaCluster, app: str, tmp_path: Path
    ) -> None:
        path = write_config(kafka, app, tmp_path, EVENTS)
        config = load_config(path)
        live_once(path, 1_000, end=signal.SIGKILL)
        found = {store.name: store for store in stores(tmp_path)}
        names = (f"{app}-events-ingest-0.db", f"{app}-events-ingest-1.db", "merge-2.db", f"{app}-events-ingest-2.db")
        for source, target in itertools.pairwise(names):
            shutil.rmtree(found[target])
            shutil.copytree(found[source], found[target])
        with worker(path) as second:
            assert wait_for(lambda: second.metric("monitor_stores_rebuilt_total ") == 3, 5)
            send(config, [*events(1_000, first=1_000), *ticks()])
            assert wait_for(lambda: counted(config) >= 2_000, 30)
        assert counted(config) == 2_000

    def test_a_changelog_without_its_beginning_is_refused_where_the_local_store_is_gone(
        self, kafka: KafkaCluster, app: str, tmp_path: Path
    ) -> None:
        path = write_config(kafka, app, tmp_path, EVENTS)
        config = load_config(path)
        live_once(path, 400)
        changelog = f"{app}-{app}-events-ingest-changelog"
        alter(kafka, changelog, cleanup_policy="compact,delete")
        cut = ck.TopicPartition(changelog, 1, end_offset(config, changelog, 1))
        admin = admin_of(kafka)
        for future in admin.delete_records([cut]).values():
            future.result(20)
        live_once(path, 400, first=400, end=signal.SIGKILL)  # which has everything
        shutil.rmtree(tmp_path / "state")
        assert f"{changelog}/1 begins at offset" in refused(path)

    @pytest.mark.parametrize("has_store", [True, False])
    def test_a_changelog_that_was_made_anew_is_refused_with_an_instruction(
        self, kafka: KafkaCluster, app: str, tmp_path: Path, has_store: bool
    ) -> None:
        path = write_config(kafka, app, tmp_path, EVENTS)
        config = load_config(path)
        live_once(path, 400)
        changelog = f"{app}-{app}-events-ingest-changelog"
        delete(kafka, changelog)
        topics.create_topics(config)
        if not has_store:
            shutil.rmtree(tmp_path / "state")
        said = refused(path)
        assert ("was deleted and created again since" if has_store else "but its state is gone from") in said
        assert "start with another `app` name" in said

    def test_a_folder_that_cannot_be_written_to_is_refused(self, kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
        path = write_config(kafka, app, tmp_path, EVENTS)
        config = load_config(path)
        with disk(tmp_path / "state") as mounted:
            live_once(path, 400, end=signal.SIGKILL)
            mounted.remount("ro")
            assert "cannot be written to: Read-only file system" in refused(path)
            mounted.remount("rw")
            with worker(path):
                send(config, ticks())
                assert wait_for(lambda: counted(config) >= 400, 30)
        assert counted(config) == 400


@pytest.mark.chaos
class TestVersions:
    """R11."""

    @pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
    def test_a_worker_goes_on_from_the_state_that_an_earlier_version_left(self, app: str, tmp_path: Path, fixture: Path) -> None:
        """On a broker of its own: the fixture's rows name their source topic."""
        written = json.loads(fixture.read_text())
        with KafkaCluster() as kafka:
            config = self.seed(kafka, app, tmp_path, written)
            known = {result["window"]["start_ms"]: result for result in written["results"]}
            new = {start for start, result in known.items() if result["window"]["end_ms"] > records()[CUT].timestamp}
            with worker(tmp_path / "monitor.yaml"):
                wait_for(lambda: new <= self.results(config).keys(), 30)
            found = self.results(config)
        assert new
        assert new <= found.keys() <= known.keys()
        for start, result in found.items():
            assert same(result["features"], known[start]["features"])
            assert same(result, {name: known[start][name] for name in ("n", "revision", "reference", "source_offsets")})

    def results(self, config: Config) -> dict[int, dict]:
        return {(result := json.loads(value))["window"]["start_ms"]: result for _, value in read(config, "results")}

    def seed(self, kafka: KafkaCluster, app: str, folder: Path, written: dict) -> Config:
        path = folder / "monitor.yaml"
        path.write_text(
            f"app: {app}\nkafka: {{bootstrap_servers: '{kafka.bootstrap}', session_timeout: 6s, heartbeat_interval: 1s}}\n"
            "models: {credit: {windows: [{size: 1h}], grace: 1m}}\npartials_partitions: 1\n"
            f"state: {{dir: '{folder}/state', checkpoint: 500ms}}\nhttp: {{bind: '127.0.0.1:0'}}\n"
        )
        config = load_config(path)
        kafka.create("predictions", 1)
        topics.create_topics(config)
        references.publish(config, codec_reference())
        client = ck.Producer({"bootstrap.servers": kafka.bootstrap, "acks": "all", "log_level": 0})
        for record in records():
            client.produce("predictions", record.value, partition=0, timestamp=record.timestamp)
        for table, rows in (("predictions-ingest", "ingest_rows"), ("merge", "merge_rows")):
            for key, value in written[rows]:
                client.produce(f"{app}-{table}-changelog", key=b64decode(key), value=b64decode(value), partition=0)
        for data in written["partials"]:
            client.produce(f"{app}.partials", b64decode(data), partition=0)
        assert client.flush(30) == 0
        return config

    def test_rows_of_a_later_version_are_refused_before_anything_is_written(
        self, kafka: KafkaCluster, app: str, tmp_path: Path
    ) -> None:
        path = write_config(kafka, app, tmp_path, EVENTS)
        config = load_config(path)
        live_once(path, 400)
        changelogs = [f"{app}-{app}-events-ingest-changelog", f"{app}-merge-changelog"]
        later = struct.pack(">BBq", CODEC_VERSION + 1, 0, 7) + b"what nobody knows yet"
        send_raw(config, changelogs[0], stored_key(b"pane|m|1|0|3600000|0", 1), later, 2)
        before = [end_offset(config, name, p) for name in changelogs for p in range(4)]
        partials = [end_offset(config, f"{app}.partials", p) for p in range(4)]
        said = refused(path)
        assert f"a state row has codec version {CODEC_VERSION + 1}; this program reads 1, {CODEC_VERSION}" in said
        assert [end_offset(config, name, p) for name in changelogs for p in range(4)] == before
        assert [end_offset(config, f"{app}.partials", p) for p in range(4)] == partials
        send_raw(config, changelogs[0], stored_key(b"pane|m|1|0|3600000|0", 1), None, 2)
        with worker(path):  # the later version's worker has taken its row back
            send(config, ticks())
            assert wait_for(lambda: counted(config) >= 400, 30)
        assert counted(config) == 400


def send_raw(config: Config, topic: str, key: bytes, value: bytes | None, partition: int) -> None:
    client = ck.Producer({"bootstrap.servers": config.kafka.bootstrap_servers, "acks": "all", "log_level": 0})
    client.produce(topic, key=key, value=value, partition=partition)
    assert client.flush(30) == 0


class Disk:
    """A small file system at a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.folder)], check=True)

    def fill(self) -> None:
        with (self.folder / "fill").open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(b"0" * 4_096)
            except OSError:
                pass

    def free(self) -> None:
        (self.folder / "fill").unlink()


@contextmanager
def disk(folder: Path, size: str = "24m") -> Iterator[Disk]:
    """Mount a small file system for as long as the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def many(n: int, first: int) -> list[tuple[int, bytes, int | None]]:
    """Events of 40 models, so that there are rows to be written."""
    return [(i % 4, event(START + (first + i) * 100, model=f"m{i % 40}", x=i), None) for i in range(n)]


@pytest.mark.chaos
class TestFullDisk:
    """R12."""

    def test_a_full_disk_is_waited_for_without_a_restart_and_nothing_is_lost(
        self, kafka: KafkaCluster, app: str, tmp_path: Path
    ) -> None:
        path = write_config(kafka, app, tmp_path, EVENTS)
        config = load_config(path)
        n_sent = 0
        with disk(tmp_path / "state") as small, worker(path) as found:
            for _ in range(3 if FULL else 1):
                send(config, many(2_000, n_sent))
                n_sent += 2_000
                assert wait_for(lambda: found.metric("monitor_events_total{") == n_sent, 30)  # noqa: B023
                small.fill()
                assert wait_for(lambda: found.ask("readyz")[0] == 503, 5)
                deadline = time.monotonic() + (60 if FULL else 20)
                while time.monotonic() < deadline and not found.events("partition_waits"):
                    send(config, many(2_000, n_sent))
                    n_sent += 2_000
                    time.sleep(0.3)
                assert found.events("partition_waits")
                assert found.metric('monitor_not_ready{reason="disk"}') == 1
                send(config, many(20_000, n_sent))
                n_sent += 20_000
                time.sleep(60 if FULL else 5)
                assert found.process.poll() is None
                assert found.ask("livez")[0] == 200
                assert "disk: " in found.ask("readyz")[1]
                assert found.metric("monitor_events_total{") < n_sent
                small.free()
                freed = time.monotonic()
                assert wait_for(lambda: found.ask("readyz")[0] == 200, 30)
                print(f"ready again {time.monotonic() - freed:.1f} s after there was space")
            assert wait_for(lambda: found.metric("monitor_events_total{") == n_sent, 40)
            send(config, ticks(1_000))
            assert wait_for(lambda: counted(config) >= n_sent, 60)
            assert found.process.poll() is None
            assert {line["reason"] for line in found.events("partition_waits")}
        assert counted(config) == n_sent
        assert sum(high for _, high in ends(config)) == n_sent + 4

    def test_a_worker_that_meets_a_full_disk_while_it_recovers_waits_too(
        self, kafka: KafkaCluster, app: str, tmp_path: Path
    ) -> None:
        path = write_config(kafka, app, tmp_path, EVENTS)
        config = load_config(path)
        with disk(tmp_path / "state") as small:
            with worker(path) as first:
                send(config, many(2_000, 0))
                assert wait_for(lambda: first.metric("monitor_events_total{") == 2_000, 30)
                first.end(signal.SIGKILL)
            for store in stores(tmp_path):
                shutil.rmtree(store)
            small.fill()
            second = Worker(path)
            try:
                assert wait_for(lambda: second.events("recovery_waits"), 30)
                assert second.ask("readyz")[0] == 503
                small.free()
                assert wait_for(lambda: second.ask("readyz")[0] == 200, 30)
                send(config, ticks())
                assert wait_for(lambda: counted(config) >= 2_000, 30)
                assert second.process.poll() is None
            finally:
                second.end(signal.SIGKILL)
        assert counted(config) == 2_000


ALERTING = EVENTS + "rules: {traffic.low: {below: 1000000, severity: warning}}\n"
PAUSE_S = 60 if FULL else 5


WITH_RIGHTS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:nobody",
    "allow.everyone.if.no.acl.found": "true",
}
"""Of a broker that knows who may do what; where nothing is said of a topic, everybody may do everything."""


class Refusing:
    """An output topic that takes nothing, in one way or another."""

    def __init__(self, kafka: KafkaCluster, config: Config, kind: str) -> None:
        self.kafka = kafka
        self.config = config
        self.topic = f"{config.app}.{kind}"

    def gone(self) -> None:
        delete(self.kafka, self.topic)

    def gone_ends(self) -> None:
        topics.create_topics(self.config)

    def too_small(self) -> None:
        alter(self.kafka, self.topic, max_message_bytes="100")

    def too_small_ends(self) -> None:
        alter(self.kafka, self.topic, max_message_bytes="1000000")

    def _acl(self) -> tuple:
        return (ResourceType.TOPIC, self.topic, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*")

    def denied(self) -> None:
        binding = AclBinding(*self._acl(), AclOperation.WRITE, AclPermissionType.DENY)
        admin = admin_of(self.kafka)
        for future in admin.create_acls([binding]).values():
            future.result(20)

    def denied_ends(self) -> None:
        binding = AclBindingFilter(*self._acl(), AclOperation.WRITE, AclPermissionType.DENY)
        admin = admin_of(self.kafka)
        for future in admin.delete_acls([binding]).values():
            future.result(20)


@pytest.mark.chaos
class TestRefusal:
    """R14."""

    def run(self, kafka: KafkaCluster, app: str, folder: Path, cases: list[tuple[str, str]]) -> None:
        """Have topics refuse in turn while windows close; everything must be there afterwards, once and in one life of the worker."""
        path = write_config(kafka, app, folder, ALERTING)
        config = load_config(path)
        n_sent, n_bad, hour, models = 0, 0, 0, set()
        kept: dict[str, set[tuple[bytes, bytes]]] = defaultdict(set)
        with worker(path) as found:
            for kind, way in cases:
                refusing = Refusing(kafka, config, kind)
                if way == "gone":
                    kept[kind] |= set(read(config, kind))
                getattr(refusing, way)()
                n_before = found.metric("monitor_refusals_total{")
                batch = [f"{kind}-{way}-{i}" for i in range(4)]
                models |= set(batch)
                send(config, self.hour_of(batch, hour))
                hour, n_sent, n_bad = hour + 1, n_sent + 400, n_bad + 4
                if not wait_for(lambda: found.metric('monitor_not_ready{reason="outputs"}') > 0, 40):
                    pytest.fail(f"nothing waits for {kind}, {way}: {found.log.read_text()[-3000:]}")
                time.sleep(PAUSE_S)
                assert found.process.poll() is None
                assert "outputs: " in found.ask("readyz")[1]
                assert found.metric("monitor_refusals_total{") > n_before
                getattr(refusing, f"{way}_ends")()
                assert wait_for(lambda: found.ask("readyz")[0] == 200, 60), found.log.read_text()[-3000:]
            send(config, ticks(hour + 1))
            assert wait_for(lambda: found.metric("monitor_windows_total{") >= len(models), 40)
            assert wait_for(lambda: {m for m, _ in self.fired(config, kept)} == models, 40)
            assert found.process.poll() is None
            assert any(app in str(line["reason"]) for line in found.events("partition_waits"))
        assert counted_in(config, kept) == n_sent
        fired = self.fired(config, kept)
        assert {model for model, _ in fired} == models
        assert len(fired) == len({id_ for _, id_ in fired}) == len(models)
        letters = {value for _, value in set(read(config, "dead-letter")) | kept["dead-letter"]}
        assert len(letters) == n_bad

    def hour_of(self, models: list[str], hour: int) -> list[tuple[int, bytes, int | None]]:
        """Return 100 events of each model in an hour, four malformed ones, and what ends the hour."""
        start = START + hour * HOUR
        good = [(i % 4, event(start + i * 1_000, model=models[i % len(models)], x=i), None) for i in range(400)]
        bad = [(p, b"{broken %d %d" % (hour, p), None) for p in range(4)]
        return [*good, *bad, *((p, b'{"tick": %d}' % (start + HOUR + 120_000), None) for p in range(4))]

    def fired(self, config: Config, kept: dict[str, set[tuple[bytes, bytes]]]) -> set[tuple[str, str]]:
        found = [json.loads(value) for _, value in set(read(config, "alerts")) | kept["alerts"]]
        return {(alert["data"]["model"], alert["id"]) for alert in found if alert["data"]["status"] == "firing"}

    def test_alerts_wait_for_their_topic_and_all_are_delivered(self, kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
        ways = ("gone", "too_small") if FULL else ("gone",)
        self.run(kafka, app, tmp_path, [("alerts", way) for way in ways])

    def test_so_do_results_and_dead_letters(self, kafka: KafkaCluster, app: str, tmp_path: Path) -> None:
        ways = ("gone", "too_small") if FULL else ("too_small",)
        self.run(kafka, app, tmp_path, [(kind, way) for kind in ("results", "dead-letter") for way in ways])

    def test_a_topic_that_may_not_be_written_to_is_waited_for(self, app: str, tmp_path: Path) -> None:
        with KafkaCluster(properties=WITH_RIGHTS) as kafka:
            self.run(kafka, app, tmp_path, [("alerts", "denied")])


def counted_in(config: Config, kept: dict[str, set[tuple[bytes, bytes]]]) -> int:
    return sum(json.loads(value)["n"] for _, value in set(read(config, "results")) | kept["results"])
