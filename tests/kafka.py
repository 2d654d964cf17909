"""Apache Kafka in the tests: real brokers from Maven jars, on free loopback ports, ended by pid and with this process."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic

from monitor.runtime.supervisor import die_with_parent

ROOT = Path(__file__).parents[1]
JARS = ROOT / ".cache" / "kafka-jars"
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"
START_ATTEMPTS = 3
READY_S = 40
PORTS = range(15_000, 32_000)
"""Below those that a system gives to connections that go out: one of these would take a port before its server does."""

PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "num.partitions": "4",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "5",
    "transaction.state.log.num.partitions": "5",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": "2097152",
    "log.cleaner.min.cleanable.ratio": "0.01",
    "log.cleaner.backoff.ms": "500",
    "log.segment.bytes": "16777216",
    "message.max.bytes": "4194304",
    "message.timestamp.after.max.ms": "9223372036854775807",
}


def why_not() -> str | None:
    """Return what is missing for a real broker, None when it can be started."""
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if JARS.is_dir():
        missing = [name for name in missing if name != "mvn"]
    return f"{' and '.join(missing)} not found" if missing else None


def fetch_jars() -> None:
    """Download the broker's jars once; processes that want them at the same time wait for each other."""
    JARS.parent.mkdir(exist_ok=True)
    with (JARS.parent / "kafka-jars.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if JARS.is_dir():
            return
        partial = JARS.with_suffix(".part")
        command = ["mvn", "-q", "-B", "-f", str(ROOT / "tools/kafka/pom.xml"), "dependency:copy-dependencies"]
        subprocess.run([*command, f"-DoutputDirectory={partial}", "-DincludeScope=runtime"], check=True, timeout=300)
        partial.rename(JARS)


def free_ports(n: int) -> range:
    """Return neighbouring ports at which nobody listens."""
    while True:
        first = secrets.choice(PORTS[: len(PORTS) - n])
        with suppress(OSError), ExitStack() as held:
            for port in range(first, first + n):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return range(first, first + n)


def free_port() -> int:
    return free_ports(1)[0]


class KafkaCluster:
    """`with KafkaCluster(nodes=1) as kafka:` — kafka.bootstrap; kafka.kill(0, SIGKILL); kafka.start(0).

    Every node has a second listener, which names a port to its clients where nobody listens until a proxy does:
    `proxied` holds (that port, the listener's own) of each node.
    """

    def __init__(self, nodes: int = 1, properties: Mapping[str, str] | None = None) -> None:
        self.nodes = nodes
        self._extra = dict(properties or {})
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * nodes

    def __enter__(self) -> KafkaCluster:
        fetch_jars()
        for _ in range(START_ATTEMPTS):
            self._folder = Path(tempfile.mkdtemp(prefix="kafka-"))
            self._ports = [(free_port(), free_port()) for _ in range(self.nodes)]
            self.proxied = [(free_port(), free_port()) for _ in range(self.nodes)]
            self.bootstrap = ",".join(f"127.0.0.1:{port}" for port, _ in self._ports)
            self._write()
            for node in range(self.nodes):
                self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self._config(node)))
                self.start(node)
            if self.is_ready():
                return self
            self.stop()
        raise RuntimeError(f"Kafka was not ready within {READY_S} s, {START_ATTEMPTS} times")

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _config(self, node: int) -> Path:
        return self._folder / f"n{node}.properties"

    def _write(self) -> None:
        voters = ",".join(f"{i + 1}@127.0.0.1:{c}" for i, (_, c) in enumerate(self._ports))
        replicas = str(min(3, self.nodes))
        for node, (port, controller) in enumerate(self._ports):
            proxy, hidden = self.proxied[node]
            settings = (
                dict(PROPERTIES)
                | {
                    "node.id": str(node + 1),
                    "controller.quorum.voters": voters,
                    "listeners": f"PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{hidden},CONTROLLER://127.0.0.1:{controller}",
                    "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}",
                    "log.dirs": str(self._folder / f"n{node}"),
                    "offsets.topic.replication.factor": replicas,
                    "transaction.state.log.replication.factor": replicas,
                    "transaction.state.log.min.isr": "1",
                    "share.coordinator.state.topic.replication.factor": "1",
                    "share.coordinator.state.topic.min.isr": "1",
                }
                | self._extra
            )
            self._config(node).write_text("".join(f"{k}={v}\n" for k, v in settings.items()))

    def _java(self, *arguments: str) -> None:
        command = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*", *arguments]
        subprocess.run(command, check=True, timeout=60, capture_output=True)

    def start(self, node: int) -> None:
        """Start a node that does not run."""
        command = [
            "java", "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
            "-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp", f"{JARS}/*", "kafka.Kafka", str(self._config(node)),
        ]  # fmt: skip
        with (self._folder / f"n{node}.log").open("ab") as out:
            self._processes[node] = subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=die_with_parent)

    def kill(self, node: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to a node and, if it ends it, wait for that."""
        process = self._processes[node]
        assert process is not None
        os.kill(process.pid, number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            process.wait(60)
            self._processes[node] = None

    def stop(self) -> None:
        """End every node and remove its files."""
        for node, process in enumerate(self._processes):
            if process is not None:
                process.kill()
                process.wait(30)
                self._processes[node] = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def is_ready(self) -> bool:
        """Wait until every node answers; False when some does not within `READY_S`."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            try:
                if len(admin.list_topics(timeout=2).brokers) == self.nodes:
                    return True
            except ck.KafkaException:
                time.sleep(0.2)
        return False

    def create(self, name: str, partitions: int = 4, **settings: str) -> None:
        """Make a topic."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        replicas = min(3, self.nodes)
        config = {key.replace("_", "."): value for key, value in settings.items()}
        for future in admin.create_topics([NewTopic(name, partitions, replicas, config=config)]).values():
            future.result(20)
