"""A broker for the demo and quick tests: librdkafka's mock cluster, in a process of its own.

It makes topics of 4 partitions when they are asked for, keeps 5 MiB per partition (the oldest records go), and has no compaction, no
transactions, no admin calls. It never stands in for Apache Kafka in a claim.
"""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType

import confluent_kafka as ck

from monitor.runtime.supervisor import die_with_parent

PARTITIONS = 4
"""Of every topic."""


class EmbeddedBroker:
    """Context manager; `bootstrap` is an address on the loopback interface."""

    bootstrap: str

    def __enter__(self) -> EmbeddedBroker:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "monitor.runtime.embedded"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent,
        )
        assert self._process.stdout is not None
        self.bootstrap = self._process.stdout.readline().decode().strip()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> None:
    """Serve until standard input ends."""
    cluster = ck.Producer({"bootstrap.servers": "embedded", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = cluster.list_topics(timeout=10).brokers.values()
    print(",".join(f"{b.host}:{b.port}" for b in brokers), flush=True)  # noqa: T201  (the parent reads it)
    sys.stdin.read()


if __name__ == "__main__":
    main()
