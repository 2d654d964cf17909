"""What a restart and a lost disk cost on Apache Kafka: `python -m benchmarks.restart [--restarts N] [--records N] [--json FILE]`.

Restarts: a worker under steady traffic gets SIGTERM and is started again. Drain: from the signal to the end of the process. Replayed:
events that the next life counts beyond those after the committed offsets. First event: from the start of the process until an event is
counted and durable. Kills: the same after SIGKILL, where the group first waits for the dead member's session.

Restore: the folder is removed, and a changelog of many records is read back; beside it, in the same run, aiokafka and librdkafka read
the same partitions and do nothing else. Pauses: what two workers lose when a third joins and leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import aiokafka
import confluent_kafka as ck

from monitor.config.file import load_config
from monitor.config.settings import Config
from monitor.runtime import topics
from monitor.runtime.broker import read_to_end
from monitor.runtime.supervisor import die_with_parent
from tests.kafka import KafkaCluster, free_port

PARTITIONS = 4
RATE = 400
ROW_BYTES = 300
LIMIT_S = 60.0
CONFIG = """\
app: {app}
kafka: {{bootstrap_servers: "{bootstrap}"}}
sources: [{{topic: {app}-events}}]
defaults: {{windows: [{{size: 1h}}]}}
partials_partitions: 4
state: {{dir: "{folder}/{app}", checkpoint: {checkpoint}}}
http: {{bind: "127.0.0.1:{port}"}}
"""


class Life:
    """One life of a worker; `started_s` is when its process was."""

    def __init__(self, path: Path, index: int = 0) -> None:
        self._config = load_config(path, {})
        host, port = self._config.http.bind.split(":")
        self._address = f"http://{host}:{int(port) + index}"
        self.log = path.parent / f"life-{time.monotonic_ns()}.log"
        self.started_s = time.monotonic()
        command = [sys.executable, "-m", "monitor", "worker", "--config", str(path), "--index", str(index)]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=die_with_parent)

    def ask(self, page: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"{self._address}/{page}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""
        except OSError:
            return 0, ""

    def metric(self, start: str) -> float:
        lines = self.ask("metrics")[1].splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    def counted(self) -> float:
        return self.metric("monitor_events_total{")

    def is_ready(self) -> bool:
        return self.ask("readyz")[0] == 200

    def wait(self, condition: Callable[[], Any], limit_s: float = 120) -> float:
        """Return seconds since the start of the process at which `condition` was true."""
        while not condition():
            if time.monotonic() - self.started_s > limit_s or self.process.poll() is not None:
                raise RuntimeError(f"gave up after {limit_s} s: {self.ask('readyz')} {self.log.read_text()[-3_000:]}")
            time.sleep(0.02)
        return time.monotonic() - self.started_s

    def end(self, number: int = signal.SIGTERM) -> float:
        """Return seconds from the signal to the end."""
        began = time.monotonic()
        os.kill(self.process.pid, number)
        self.process.wait(60)
        return time.monotonic() - began

    def lines(self, event: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == event]


class Traffic(threading.Thread):
    """Steady events on every partition; `pause` returns once what was sent is on the log."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(daemon=True)
        self._producer = ck.Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "acks": "all", "log_level": 0})
        self._topic = topic
        self._going, self._idle = threading.Event(), threading.Event()
        self._going.set()
        self.n_sent = 0

    def run(self) -> None:
        while True:
            if not self._going.is_set():
                self._producer.flush(30)
                self._idle.set()
                self._going.wait()
            value = json.dumps({"model": f"m{self.n_sent % 3}", "time": time.time_ns() // 1_000_000, "features": {"x": 1.5}})
            self._producer.produce(self._topic, value, partition=self.n_sent % PARTITIONS)
            self._producer.poll(0)
            self.n_sent += 1
            time.sleep(1 / RATE)

    def go(self) -> None:
        self._idle.clear()
        self._going.set()

    def pause(self) -> None:
        self._going.clear()
        self._idle.wait()


def configure(cluster: KafkaCluster, folder: Path, app: str, checkpoint: str = "2s") -> Path:
    path = folder / f"{app}.yaml"
    path.write_text(CONFIG.format(app=app, bootstrap=cluster.bootstrap, folder=folder, port=free_port(), checkpoint=checkpoint))
    topics.create_topics(load_config(path, {}))
    return path


def committed(config: Config) -> int:
    """Return how many records of the source the group has committed."""
    consumer = ck.Consumer({"bootstrap.servers": config.kafka.bootstrap_servers, "group.id": config.app, "log_level": 0})
    found = consumer.committed([ck.TopicPartition(config.sources[0].topic, p) for p in range(PARTITIONS)], timeout=10)
    consumer.close()
    return sum(max(0, partition.offset) for partition in found)


def restarts(cluster: KafkaCluster, folder: Path, n: int, n_kills: int) -> dict[str, Any]:
    """Restart under traffic."""
    path = configure(cluster, folder, "restart")
    config = load_config(path, {})
    traffic = Traffic(cluster.bootstrap, config.sources[0].topic)
    traffic.start()
    life = Life(path)
    first: dict[int, list[float]] = {signal.SIGTERM: [], signal.SIGKILL: []}
    listening, ready, drains, replayed = [], [], [], 0
    for i in range(n + n_kills):
        life.wait(lambda life=life: life.counted() > 0)
        number = signal.SIGTERM if i < n else signal.SIGKILL
        drain = life.end(number)
        done = committed(config)
        life = Life(path)
        listening.append(life.wait(lambda life=life: life.ask("livez")[0]))
        ready.append(life.wait(life.is_ready))
        first[number].append(life.wait(lambda life=life: life.counted() > 0))
        if number == signal.SIGTERM:
            drains.append(drain)
            traffic.pause()
            time.sleep(0.1)
            life.wait(lambda life=life, done=done: life.counted() >= traffic.n_sent - done)
            time.sleep(2.5)  # of a checkpoint and what would still come
            replayed += round(life.counted()) - (traffic.n_sent - done)
            traffic.go()
    traffic.pause()
    life.end()
    return {
        "restarts": n,
        "to_listening_s": spread(listening[:n]),
        "to_ready_s": spread(ready[:n]),
        "to_first_event_s": spread(first[signal.SIGTERM]),
        "drain_s": spread(drains),
        "replayed_events": replayed,
        "kills": n_kills,
        "to_first_event_after_a_kill_s": spread(first[signal.SIGKILL]),
        "session_s": config.kafka.session_timeout / 1000,
    }


def pauses(cluster: KafkaCluster, folder: Path, n: int) -> dict[str, Any]:
    """Let a third worker join and leave; return what the rebalances cost the first one."""
    path = configure(cluster, folder, "rebalance")
    stay = [Life(path, i) for i in (0, 1)]
    for life in stay:
        life.wait(life.is_ready)
    before = seconds_and_count(stay[0])
    for _ in range(n):
        guest = Life(path, 2)
        guest.wait(guest.is_ready)
        time.sleep(1)
        guest.end()
        time.sleep(4)
    after = seconds_and_count(stay[0])
    for life in stay:
        life.end()
    n_seen = after[1] - before[1]
    return {"rebalances": n_seen, "mean_s": round((after[0] - before[0]) / max(1, n_seen), 2)}


def seconds_and_count(life: Life) -> tuple[float, int]:
    return life.metric("monitor_rebalance_seconds_sum"), round(life.metric("monitor_rebalance_seconds_count"))


def restore(cluster: KafkaCluster, folder: Path, n: int, runs: int) -> dict[str, Any]:
    """Write a long changelog, remove the folder, and read it back."""
    path = configure(cluster, folder, "restore", checkpoint="500ms")
    config = load_config(path, {})
    traffic = Traffic(cluster.bootstrap, config.sources[0].topic)
    traffic.start()
    life = Life(path)
    life.wait(lambda: life.counted() > 1_000)
    traffic.pause()
    life.wait(lambda: life.counted() == traffic.n_sent)
    life.end()
    topic = topics.changelog(config.app, topics.ingest_table(config.sources[0].topic))
    lengthen(config, topic, n)
    restored = []
    for _ in range(runs):
        bare = {"aiokafka": asyncio.run(bare_aiokafka(config, topic)), "librdkafka": bare_librdkafka(config, topic)}
        shutil.rmtree(folder / config.app)
        life = Life(path)
        answers: list[int] = []

        def is_ready(life: Life = life, answers: list[int] = answers) -> bool:
            answers.append(life.ask("livez")[0])
            return life.is_ready()

        to_ready = life.wait(is_ready)
        line = max(life.lines("state_recovered"), key=lambda line: line["records"])
        life.end()
        rate = line["records"] / line["seconds"]
        restored.append(
            bare
            | {
                "records": line["records"],
                "restore": rate,
                "to_ready_s": to_ready,
                "not_live": sum(1 for answer in answers if answer == 503),
            }
        )
    median = {key: statistics.median(run[key] for run in restored) for key in restored[0]}
    return {
        "records": median["records"],
        "bytes_per_row": ROW_BYTES,
        "records_per_second": {key: round(median[key]) for key in ("restore", "aiokafka", "librdkafka")},
        "restore / bare aiokafka": round(median["restore"] / median["aiokafka"], 3),
        "to_ready_s": round(median["to_ready_s"], 2),
        "liveness_failures": sum(run["not_live"] for run in restored),
    }


def lengthen(config: Config, topic: str, n: int) -> None:
    """Append n records of `ROW_BYTES` or a tombstone: rows of as many different keys, their deletions, and the true rows once more.

    What a restore ends with is a state that a stage can load, and no record of a fetch stands for another one.
    """
    newest: dict[tuple[int, bytes], bytes | None] = {}
    for message in read_to_end(config.kafka, topic, partitions=PARTITIONS):
        newest[message.partition() or 0, message.key() or b""] = message.value()
    producer = ck.Producer(
        {"bootstrap.servers": config.kafka.bootstrap_servers, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000}
    )

    def put(partition: int, key: bytes, value: bytes | None) -> None:
        while True:
            try:
                producer.produce(topic, value, key=key, partition=partition)
                return
            except BufferError:
                producer.poll(0.1)

    noise = random.Random(1).randbytes(ROW_BYTES + 10_000)
    for i in range(n // 2):
        put(i % PARTITIONS, b"no row %07d" % i, noise[i % 10_000 :][:ROW_BYTES])
    for i in range(n // 2):
        put(i % PARTITIONS, b"no row %07d" % i, None)
    for (partition, key), value in newest.items():
        put(partition, key, value)
    if producer.flush(120):
        raise RuntimeError("the changelog was not written")


async def bare_aiokafka(config: Config, topic: str) -> float:
    """Return records per second of the client that a worker restores with, with the same settings."""
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=config.kafka.bootstrap_servers, max_partition_fetch_bytes=4 << 20, fetch_max_wait_ms=1_500
    )
    await consumer.start()
    try:
        partitions = [aiokafka.TopicPartition(topic, p) for p in range(PARTITIONS)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        for partition in partitions:
            consumer.seek(partition, 0)
        left = {tp for tp, end in ends.items() if end}
        n, began = 0, time.perf_counter()
        while left:
            if time.perf_counter() - began > LIMIT_S:
                raise RuntimeError(f"aiokafka read {n} records in {LIMIT_S} s and did not reach {left}")
            for tp, found in (await consumer.getmany(max_records=5_000, timeout_ms=1_000)).items():
                n += len(found)
                if found[-1].offset + 1 >= ends[tp]:
                    left.discard(tp)
        return n / (time.perf_counter() - began)
    finally:
        await consumer.stop()


def bare_librdkafka(config: Config, topic: str) -> float:
    consumer = ck.Consumer(
        {
            "bootstrap.servers": config.kafka.bootstrap_servers,
            "group.id": "bare",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([ck.TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    n, ended, began = 0, 0, time.perf_counter()
    while ended < PARTITIONS:
        if time.perf_counter() - began > LIMIT_S:
            raise RuntimeError(f"librdkafka read {n} records in {LIMIT_S} s and no end of {PARTITIONS - ended} partitions")
        for message in consumer.consume(5_000, 0.1):
            if message.error() is None:
                message.key(), message.value()
                n += 1
            else:
                ended += 1
    took = time.perf_counter() - began
    consumer.close()
    return n / took


def spread(values: list[float]) -> dict[str, float] | None:
    """Return median, 95th percentile and maximum, rounded."""
    if not values:
        return None
    ordered = sorted(values)
    p95 = ordered[max(0, -(-95 * len(ordered) // 100) - 1)]
    return {"median": round(statistics.median(ordered), 2), "p95": round(p95, 2), "max": round(ordered[-1], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--guests", type=int, default=3)
    parser.add_argument("--records", type=int, default=400_000, help="of the changelog that is restored")
    parser.add_argument("--runs", type=int, default=3, help="restores")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"at": datetime.now().astimezone().isoformat(timespec="seconds")}
    with KafkaCluster() as cluster, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.runs:
            figures["restore"] = restore(cluster, folder, arguments.records, arguments.runs)
        if arguments.restarts:
            figures["restarts"] = restarts(cluster, folder, arguments.restarts, arguments.kills)
        if arguments.guests:
            figures["rebalances"] = pauses(cluster, folder, arguments.guests)
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
