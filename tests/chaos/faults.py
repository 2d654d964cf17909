"""What is done to workers and brokers, each by one function that says so in the experiment's book of faults."""

from __future__ import annotations

import signal
import time
from typing import Literal

from confluent_kafka.admin import AdminClient

from tests.chaos.experiment import Experiment
from tests.chaos.proxy import Cut

RETURN_S = 30
"""There must be progress so long after a broker has returned."""


def pick(experiment: Experiment) -> int:
    """Return a worker."""
    return experiment.dice.choice(experiment.workers.indexes)


def kill(experiment: Experiment, index: int | None = None) -> None:
    """SIGKILL a worker, a random one if none is named."""
    experiment.workers.kill(pick(experiment) if index is None else index)
    experiment.faults["kill"] += 1


def wipe(experiment: Experiment) -> None:
    """SIGKILL a worker and delete its state."""
    experiment.workers.wipe(pick(experiment))
    experiment.faults["wipe"] += 1


def restart(experiment: Experiment, number: int = signal.SIGTERM) -> None:
    """Ask a worker to end, and start it again."""
    index = pick(experiment)
    experiment.workers.stop(index, number)
    experiment.workers.start(index)
    experiment.faults["term" if number == signal.SIGTERM else "interrupt"] += 1


def stop(experiment: Experiment, index: int) -> None:
    """End a worker for good."""
    experiment.workers.stop(index)
    experiment.faults["stopped"] += 1


def start(experiment: Experiment, index: int) -> None:
    """Add a worker."""
    experiment.workers.start(index)
    experiment.faults["started"] += 1


def pause(experiment: Experiment, seconds: float) -> None:
    """SIGSTOP a worker for longer than its session, and let it go on."""
    process = experiment.workers.processes[pick(experiment)]
    process.send_signal(signal.SIGSTOP)
    experiment.wait(seconds)
    process.send_signal(signal.SIGCONT)
    experiment.faults["zombie"] += 1


def cut_off(experiment: Experiment, seconds: float) -> None:
    """Keep the workers behind the proxies from the group's coordinator; partition leaders stay in reach."""
    how: Cut = experiment.dice.choice(("silent", "closed"))
    for proxy in experiment.proxies:
        proxy.cut(how)
    experiment.wait(seconds)
    for proxy in experiment.proxies:
        proxy.mend()
    experiment.faults["live zombie"] += 1


def broker_down(experiment: Experiment, seconds: float) -> None:
    """SIGKILL the only broker, and start it again."""
    experiment.kafka.kill(0)
    experiment.wait(seconds)
    experiment.kafka.start(0)
    if not experiment.wait_for(lambda: experiment.progress() >= 0, 60):
        experiment.stuck.append("the broker did not return within 60 s")
    experiment.await_progress(RETURN_S, f"the return of a broker that was away for {seconds:.0f} s")
    experiment.faults["broker outage" if seconds > 60 else "broker kill"] += 1


def bounce(experiment: Experiment, how: Literal["clean", "hard"]) -> None:
    """End the node that leads a source partition, wait until others lead, and start it again until every replica is in sync."""
    node = leader(experiment, experiment.dice.randrange(4))
    experiment.kafka.kill(node, signal.SIGTERM if how == "clean" else signal.SIGKILL)
    experiment.await_progress(60, f"a {how} end of a leader")
    experiment.wait(experiment.dice.uniform(2, 6))
    experiment.kafka.start(node)
    if not experiment.wait_for(lambda: in_sync(experiment), 90):
        experiment.stuck.append("the replicas were not in sync within 90 s")
    experiment.faults[f"{how} bounce"] += 1


def leader(experiment: Experiment, partition: int) -> int:
    """Return the node (from 0) that leads a partition of the source."""
    return int(_metadata(experiment).topics[experiment.topic].partitions[partition].leader) - 1


def in_sync(experiment: Experiment) -> bool:
    """Whether every partition has all its replicas."""
    try:
        found = _metadata(experiment)
    except Exception:  # noqa: BLE001  (whatever the client says, it is not in sync yet)
        time.sleep(0.5)
        return False
    partitions = [p for topic in found.topics.values() for p in topic.partitions.values()]
    return len(found.brokers) == experiment.kafka.nodes and all(len(p.isrs) == len(p.replicas) for p in partitions)


def _metadata(experiment: Experiment):  # type: ignore[no-untyped-def]
    return AdminClient({"bootstrap.servers": experiment.kafka.bootstrap, "log_level": 0}).list_topics(timeout=10)
