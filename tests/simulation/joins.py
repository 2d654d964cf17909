"""Predictions and labels of a few partitions, ingest and join with owners that die, wake up and lose their disks, and what must come of it.

It is held against tests/outcomes_oracle.py.
"""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from monitor.features import CategoryFeature
from monitor.formats.native import NativeFormat
from monitor.formats.native_label import NativeLabelFormat
from monitor.layout import Layout
from monitor.performance import PerformanceSpec
from monitor.ports import Message, PartitionStage, StoredRecord
from monitor.profiles import Profile
from monitor.reference import PREDICTION, SCORE, Reference, References
from monitor.segments import Key, Segmentation
from monitor.stages import outcomes
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.join.partition import JoinPartition
from monitor.stages.settings import Labelling, ModelSettings, Settings, SourceSettings
from monitor.windows import WindowSpec
from tests.outcomes_oracle import Oracle, published
from tests.shapes import number_feature_of
from tests.simulation import ZOMBIE_MS, Place, Topic, finish, run

PANE_MS, GRACE_MS, RETENTION_MS = 10, 6, 120
LATER_MS = 1 << 40
SOURCES = {"p": 2, "l": 1}
R = 2
MODEL = "m"
TAGS = ("u", "v", "w")
LAYOUT = Layout(
    (CategoryFeature(name=PREDICTION, values=("0", "1")), number_feature_of(SCORE, np.linspace(0.0, 1.0, 101))),
    (Segmentation((Key(name="tags.t"),), (("u",), ("v",))),),
)


def references() -> References:
    known = References()
    for version in ("1", "2"):
        known.add(Reference.build(MODEL, version, Profile(LAYOUT)))
    return known


def settings(*, retention_ms: int = RETENTION_MS) -> Settings:
    model = ModelSettings((WindowSpec(PANE_MS, PANE_MS),), grace_ms=GRACE_MS, sha256="x", labelling=Labelling(retention_ms, (0,)))
    sources = {topic: SourceSettings(topic, "event", 1 << 40, None) for topic in SOURCES}
    return Settings("a", {}, model, sources, partials_partitions=1, outcomes_partitions=R, retire_after_ms=ZOMBIE_MS)


class Disk:
    """A store of entries in memory (ports.Pending)."""

    def __init__(self, entries: Mapping[bytes, bytes] | None = None, state: bytes | None = None) -> None:
        self.entries = dict(entries or {})
        self.state = state

    def copy(self) -> Disk:
        return Disk(self.entries, self.state)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.entries.get(key) for key in keys]

    def write(self, entries: Mapping[bytes, bytes | None], state: bytes) -> None:
        for key, value in entries.items():
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value
        self.state = state

    def scan(self, after: bytes, n: int) -> list[tuple[bytes, bytes]]:
        return [item for item in sorted(self.entries.items()) if item[0] > after][:n]

    def clear(self) -> None:
        self.entries, self.state = {}, None


def prediction(
    time_ms: int, key: str | None, predicted: object = "1", score: float | None = 0.7, tag: str = "u", version: str = "1"
) -> bytes:
    body = {"model": MODEL, "version": version, "time": time_ms, "prediction": predicted, "score": score, "tags": {"t": tag}}
    return json.dumps(body | {"features": {}} | ({} if key is None else {"id": key})).encode()


def label(time_ms: int, key: str, value: object) -> bytes:
    return json.dumps({"model": MODEL, "id": key, "label": value, "time": time_ms}).encode()


def tick(time_ms: int) -> bytes:
    return b'{"tick": %d}' % time_ms


def log_of(values: Sequence[bytes]) -> Topic:
    return Topic([StoredRecord(i, LATER_MS, value) for i, value in enumerate(values)])


Logs = dict[tuple[str, int], Topic]


def draw(dice: random.Random, n: int = 40, *, quiet_ms: int = RETENTION_MS + 20 * PANE_MS) -> Logs:
    """Predictions of which a few are doubled, late or without an id; labels that are late, early, doubled, conflicting, orphans or never come.

    quiet_ms: how far ticks move the clocks at the end; by default, all retention is over.
    """
    end_ms = n * 3
    values: dict[tuple[str, int], list[tuple[int, bytes]]] = {(topic, i): [] for topic, k in SOURCES.items() for i in range(k)}
    labels = values["l", 0]
    for i in range(n):
        now, key = i * 3 + dice.randrange(3), f"id-{i}"
        time_ms = now - dice.randrange(GRACE_MS) - (50 if dice.random() < 0.05 else 0)
        body = (dice.choice("01"), dice.choice((0.1, 0.5, 0.9, None)), dice.choice(TAGS), dice.choice("12"))
        values["p", dice.randrange(2)].append((now, prediction(time_ms, None if dice.random() < 0.05 else key, *body)))
        if dice.random() < 0.1:
            values["p", dice.randrange(2)].append(
                (now + dice.randrange(9), prediction(time_ms + dice.randrange(-2, 9), key, *body))
            )
        chance = dice.random()
        delay = dice.randrange(RETENTION_MS - PANE_MS) if chance < 0.75 else -dice.randrange(30)
        if chance < 0.85:
            for _ in range(dice.choice((1, 1, 1, 1, 2, 3))):
                labels.append((time_ms + delay, label(time_ms + delay, key, dice.choice("01"))))
                delay += dice.choice((0, 0, 7, 25))
        if dice.random() < 0.1:
            labels.append((now, label(now, f"nobody-{i}", "1")))
    for rows in values.values():
        rows.sort(key=lambda row: row[0] + dice.randrange(GRACE_MS // 2 + 1))
    last = max(end_ms, *(at for at, _ in labels)) + quiet_ms
    return {place: log_of([value for _, value in rows] + [tick(last)]) for place, rows in values.items()}


@dataclass
class World:
    """Everything between the source logs and `partials`."""

    logs: Logs
    dice: random.Random
    settings: Settings = field(default_factory=settings)
    outcomes: list[Topic] = field(default_factory=lambda: [Topic() for _ in range(R)])
    partials: Topic = field(default_factory=Topic)
    disks: dict[int, list[Disk]] = field(default_factory=lambda: defaultdict(list))
    stages: dict[int, JoinPartition] = field(default_factory=dict)

    def places(self) -> list[Place]:
        found = [Place(log, self._ingest(*place), self._send) for place, log in self.logs.items()]
        return found + [Place(log, self._join(r), self._send) for r, log in enumerate(self.outcomes)]

    def _ingest(self, topic: str, partition: int) -> Callable[[int, list[tuple[bytes, bytes]], int], PartitionStage]:
        wire = NativeLabelFormat() if topic == "l" else NativeFormat()
        return lambda epoch, items, now_ms: IngestPartition(
            self.settings, topic, partition,
            partitions=SOURCES[topic], epoch=epoch, wire=wire, references=references(), rows=items, now_ms=now_ms,
        )  # fmt: skip

    def _join(self, r: int) -> Callable[[int, list[tuple[bytes, bytes]], int], PartitionStage]:
        def make(epoch: int, items: list[tuple[bytes, bytes]], now_ms: int) -> JoinPartition:
            known = self.disks[r]
            disk = (
                dice.choice(known).copy() if known and (dice := self.dice).random() < 0.8 else Disk()
            )  # of anybody, of any age, or lost
            known.append(disk)
            self.stages[r] = JoinPartition(
                self.settings, r,
                topology=SOURCES, epoch=epoch, references=references(), pending=disk, rows=items, now_ms=now_ms,
            )  # fmt: skip
            return self.stages[r]

        return make

    def _send(self, message: Message) -> None:
        if message.topic == "a.outcomes":
            assert message.partition is not None
            self.outcomes[message.partition].append(message)
        elif message.topic == "a.partials":
            self.partials.append(message)


def spec_of(version: str) -> PerformanceSpec:
    found = references().at(MODEL, version, 0)
    assert found is not None
    return PerformanceSpec.of(found)


def oracle_of(logs: Logs) -> Oracle:
    of = {version: spec_of(version) for version in ("1", "2")}
    plain = {place: log.records for place, log in logs.items()}
    return Oracle(plain, of, pane_ms=PANE_MS, grace_ms=GRACE_MS, retention_ms=RETENTION_MS)


def anomalies(world: World) -> list[str]:
    """Return everything that is not as it must be."""
    found, deltas, closed = published((record.value for record in world.partials.records), "a.outcomes", GRACE_MS)
    if len(closed) != R or len(set(closed.values())) != 1 or min(closed.values()) < 0:
        found.append(f"NEVER_CLOSED {closed}")
    oracle = oracle_of(world.logs)
    found += oracle.wrong(deltas)
    found += [f"LOST {n}" for stage in world.stages.values() if (n := stage.counters()["outcomes_lost",])]
    return found + _miscounted(world, oracle)


def _miscounted(world: World, oracle: Oracle) -> list[str]:
    made, known = oracle.made, oracle.known
    wanted = {
        "predictions": len(made),
        "labels": len(known),
        "joined": len(oracle.joined()),
        "duplicate_predictions": sum(len(of) - 1 for of in made.values()),
    }
    wanted["duplicate_labels + conflicting_labels"] = sum(len(of) for of in known.values()) - len(known)
    found = []
    for names, n in wanted.items():
        got = sum(
            stage.counters().get(("outcomes", MODEL, name), 0) for stage in world.stages.values() for name in names.split(" + ")
        )
        if got != n:
            found.append(f"MISCOUNTED {names}: {got} for {n}")
    return found


def simulate(seed: int, n_steps: int = 900) -> World:
    """Run a seed to its end."""
    dice = random.Random(seed)
    world = World(draw(dice), dice)
    run(world.places(), dice, n_steps)
    return world


def unfaulted(logs: Logs, own: Settings | None = None) -> World:
    """Let one owner of each place read everything."""
    world = World(logs, random.Random(0), own or settings())
    for place in world.places():
        finish(place, world.dice)
    return world


def ranges(world: World) -> list[outcomes.Range]:
    return [outcomes.decode(record.value or b"") for log in world.outcomes for record in log.records]


def main() -> None:
    """`python -m tests.simulation.joins [first] [seeds]` tells the seeds that have anomalies, and ends with 1 if any has."""
    first, n = (int(argument) for argument in (sys.argv[1:] or ["0", "100"]))
    failing = 0
    for seed in range(first, first + n):
        if found := anomalies(simulate(seed)):
            failing += 1
            print(f"seed {seed}: {found[0]}" + (f" and {len(found) - 1} more" if len(found) > 1 else ""), flush=True)
    print(f"join: {n} seeds from {first}, {failing} failing")
    sys.exit(bool(failing))


if __name__ == "__main__":
    main()
