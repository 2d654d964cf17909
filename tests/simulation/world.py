"""One seed, one run: producers, workers that die, wake up, move and forget, and what became of every event.

The same seed gives the same run, record by record: nothing here knows the time, and every set is sorted before dice are thrown over it.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from monitor.errors import StaleOwner
from monitor.ports import Message, PartitionStage
from monitor.reference import References
from monitor.stages.ingest import reading
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.merge.partition import MergePartition
from tests.simulation.broker import Log, Store
from tests.simulation.owner import Owner, Place, Rows, Surroundings
from tests.simulation.scenario import HOUR_MS, IN_FLIGHT_MS, ZOMBIE_MS, Producer, Scenario, Wire, judge, look
from tests.simulation.verdict import Outcome, anomalies_of

STEPS = 500
EVENTS = 36
"""Per source partition."""
SETTLING_ROUNDS = 80


@dataclass(frozen=True)
class Faults:
    """How likely each is at a step, or where it applies. skew: of a process's clock, an hour either way."""

    kill: float = 0.0
    rebalance: float = 0.0
    zombie: float = 0.0
    reset: float = 0.0
    old_disk: float = 0.0
    lost_disk: float = 0.0
    snapshot: float = 0.0
    compaction: float = 0.0
    duplicates: float = 0.0
    in_flight: float = 0.0
    skew: float = 0.0

    @classmethod
    def draw(cls, dice: random.Random) -> Faults:
        """Return faults of which each is rare, frequent or left out: some only show where others do not interfere."""
        return cls(
            kill=dice.choice((0.005, 0.015, 0.04)),
            rebalance=dice.choice((0.005, 0.02, 0.05)),
            zombie=dice.choice((0.0, 0.3, 0.8)),
            reset=dice.choice((0.0, 0.05)),
            old_disk=dice.choice((0.0, 0.3)),
            lost_disk=dice.choice((0.0, 0.3)),
            snapshot=0.02,
            compaction=dice.choice((0.0, 0.05)),
            duplicates=dice.choice((0.0, 0.05)),
            in_flight=dice.choice((0.0, 0.7)),
            skew=dice.choice((0.0, 0.4)),
        )


@dataclass
class Process:
    """A worker process: the partitions that it owns, its disk, its clock. ends_ms: when its guard will notice that it was replaced."""

    disk: dict[str, Store]
    skew_ms: int
    owners: dict[str, Owner] = field(default_factory=dict)
    ends_ms: int | None = None


class World:
    """Topics, workers and the group that they are members of."""

    def __init__(self, seed: int, scenario: Scenario | None = None, faults: Faults | None = None, n_events: int = EVENTS) -> None:
        self.dice = random.Random(seed)
        self.faults = faults or Faults.draw(self.dice)
        self.scenario = scenario or Scenario.draw(self.dice)
        self.now_ms = HOUR_MS if self.scenario.is_live else 0
        self.logs: list[Log] = []
        self.partials = [Log() for _ in range(self.scenario.settings.partials_partitions)]
        self.published: dict[str, list[tuple[bytes, bytes]]] = defaultdict(list)
        self.places: list[Place] = []
        self.producers: list[Producer] = []
        self.processes: list[Process] = []
        self.free_disks: list[dict[str, Store]] = []
        self.old_disks: list[dict[str, Store]] = []
        self.delayed: list[tuple[int, Callable[[], None]]] = []
        self.generation = 0
        self.happened: Counter[str] = Counter()
        self._trace = hashlib.blake2b(digest_size=12)
        self._references = self.scenario.references()
        for topic, n in self.scenario.partitions.items():
            for partition in range(n):
                log = Log()
                self.logs.append(log)
                self.places.append(Place(f"{topic}/{partition}", log, self._ingest(topic, partition, n)))
                self.producers.append(Producer(self.scenario, topic, log, self.dice, n_events))
        for q, partial in enumerate(self.partials):
            self.places.append(Place(f"partials/{q}", partial, self._merge(q)))

    # --- stages

    def _known(self) -> References:
        references = References()
        for reference in self._references:
            references.add(reference)
        return references

    def _ingest(self, topic: str, partition: int, n: int) -> Callable[[int, Rows, int], PartitionStage]:
        return lambda epoch, rows, now_ms: IngestPartition(
            self.scenario.settings, topic, partition,
            partitions=n, epoch=epoch, wire=Wire(), references=self._known(), rows=rows, now_ms=now_ms,
        )  # fmt: skip

    def _merge(self, q: int) -> Callable[[int, Rows, int], PartitionStage]:
        return lambda epoch, rows, now_ms: MergePartition(
            self.scenario.settings, q,
            topology=self.scenario.partitions, epoch=epoch, judge=judge, look=look, references=self._known(), rows=rows, now_ms=now_ms,
        )  # fmt: skip

    def _send(self, message: Message) -> None:
        topic, key, value = message.topic.removeprefix("m."), message.key or b"", message.value or b""
        self.note(topic, key, value)
        if topic == "partials":
            q = zlib.crc32(key) % len(self.partials) if message.partition is None else message.partition
            self.partials[q].append(value, message.key)
        else:
            self.published[topic].append((key, value))

    # --- the group

    def start(self, disk: dict[str, Store] | None = None) -> Process:
        """Start a process; it owns nothing before the next rebalance."""
        skew_ms = self.dice.choice((-HOUR_MS, HOUR_MS)) if self.dice.random() < self.faults.skew else 0
        process = Process({} if disk is None else disk, skew_ms)
        self.processes.append(process)
        return process

    def kill(self, process: Process) -> None:
        """End a process between two of its steps. What it had sent may still arrive; its disk may be kept, lost, or an old one."""
        self.processes.remove(process)
        for owner in process.owners.values():
            self._drop(owner)
        chance = self.dice.random()
        if chance < self.faults.lost_disk:
            self.happened["lost disk"] += 1
        elif chance < self.faults.lost_disk + self.faults.old_disk and self.old_disks:
            self.happened["old disk"] += 1
            self.free_disks.append(_copy(self.dice.choice(self.old_disks)))
        else:
            self.free_disks.append(process.disk)

    def _drop(self, owner: Owner) -> None:
        if owner.in_flight is not None and self.dice.random() < self.faults.in_flight:
            self.delayed.append((self.now_ms + self.dice.randrange(IN_FLIGHT_MS), owner.in_flight))
            self.happened["in flight"] += 1

    @property
    def members(self) -> list[Process]:
        """Processes that the group's coordinator hears of."""
        return [process for process in self.processes if process.ends_ms is None]

    @property
    def is_quiet(self) -> bool:
        """Whether the group may be deleted: its members are gone for a session by then, and what they had sent has arrived or never will."""
        return not self.delayed and all(process.ends_ms is None for process in self.processes)

    def rebalance(self) -> None:
        """Begin a generation: members let go, some do not notice and go on for a while, and partitions are given out anew."""
        for process in self.members:
            if self.dice.random() < self.faults.zombie and process.owners:
                process.ends_ms = self.now_ms + self.dice.randrange(1, ZOMBIE_MS)
                self.happened["zombie"] += 1
                continue
            for owner in process.owners.values():
                if self.dice.random() < 0.5:
                    owner.let_go()
                else:
                    self._drop(owner)
            process.owners = {}
        self.generation += 1
        if self.dice.random() < self.faults.reset and self.is_quiet:
            self.generation = 1
            self.happened["reset"] += 1
        while len(self.members) < 1 or (len(self.members) < 3 and self.dice.random() < 0.3):
            self.start(self.free_disks.pop(self.dice.randrange(len(self.free_disks))) if self.free_disks else None)
        members = self.members
        for place in self.places:
            self.own(self.dice.choice(members), place)

    def own(self, process: Process, place: Place) -> Owner:
        """Give a place to a process in the present generation."""
        around = Surroundings(
            dice=self.dice,
            clock=lambda: self.now_ms + process.skew_ms,
            send=self._send,
            broker_ms=lambda: self.now_ms,
            is_confirmed=lambda generation: process.ends_ms is None and generation == self.generation,
            duplicates=self.faults.duplicates,
        )
        owner = process.owners[place.name] = Owner(place, process.disk.setdefault(place.name, Store()), self.generation, around)
        return owner

    # --- time

    def pass_time(self, ms: int = 1) -> None:
        """Move the broker's clock; deliver what was on its way, end what has noticed that it was replaced."""
        self.now_ms += ms
        due = [item for item in self.delayed if item[0] <= self.now_ms]
        self.delayed = [item for item in self.delayed if item[0] > self.now_ms]
        for _, deliver in due:
            deliver()
        for process in [p for p in self.processes if p.ends_ms is not None and p.ends_ms <= self.now_ms]:
            self.kill(process)

    def step(self) -> None:
        """Let a millisecond pass, something be produced, something go wrong, and one owner do one thing."""
        self.pass_time()
        dice, faults = self.dice, self.faults
        if dice.random() < 0.25:
            dice.choice(self.producers).produce(self.now_ms)
        if dice.random() < faults.compaction:
            self.compact(dice.choice(self.places))
        if dice.random() < faults.snapshot and self.members:
            self.old_disks.append(_copy(dice.choice(self.members).disk))
        is_killed = dice.random() < faults.kill and bool(self.processes)
        if is_killed:
            self.happened["kill"] += 1
            self.kill(dice.choice(self.processes))
        if not self.members or (is_killed and dice.random() < 0.5) or dice.random() < faults.rebalance:
            self.rebalance()
        owners = [(process, owner) for process in self.processes for owner in process.owners.values()]
        if owners:
            self.advance(*dice.choice(owners))

    def advance(self, process: Process, owner: Owner) -> None:
        """Let an owner do one thing; one that finds younger rows than its own ends with its process."""
        try:
            owner.step()
        except StaleOwner:
            self.happened["stale"] += 1
            if process in self.processes:
                self.kill(process)

    def compact(self, place: Place) -> None:
        place.changelog.compact(self.dice.randrange(place.changelog.high + 1), self.now_ms)
        self.happened["compaction"] += 1

    def finish(self) -> None:
        """End the input, let everybody old die, and a last process read to the end and send everything."""
        for producer in self.producers:
            producer.finish()
        for process in list(self.processes):
            self.kill(process)
        self.pass_time(self.dice.randrange(IN_FLIGHT_MS + 1))
        self.generation += 1
        last = self.start(self.free_disks.pop() if self.free_disks else None)
        owners = [self.own(last, place) for place in self.places]
        quiet = 0
        for _ in range(SETTLING_ROUNDS):
            before = self._trace.digest()
            for owner in owners:
                owner.settle()
            self.pass_time(5)
            quiet = quiet + 1 if self._trace.digest() == before and not self.delayed else 0
            if quiet > (
                40 if self.scenario.is_live else 15
            ):  # longer than watermarks are repeated, and than silence is waited for
                break

    # --- what became of it

    def note(self, *facts: object) -> None:
        """Add to the trace."""
        self._trace.update(repr(facts).encode())

    def trace(self) -> str:
        """Return a hash of everything that was sent, written and read."""
        total = self._trace.copy()
        for log in (*self.logs, *self.partials):
            total.update(repr(log.records).encode())
        for place in self.places:
            total.update(repr(place.changelog.written).encode())
        total.update(repr(sorted(self.happened.items())).encode())
        return total.hexdigest()

    def anomalies(self) -> list[str]:
        """Return everything that is not as it must be, in the words of the chaos harness."""
        stages = [owner.stage for owner in self.processes[-1].owners.values() if owner.stage is not None]
        counters = [stage.counters() for stage in stages]
        return anomalies_of(self.scenario, self.logs, Outcome(self.published, counters))


def _copy(disk: dict[str, Store]) -> dict[str, Store]:
    return {name: store.copy() for name, store in disk.items()}


def simulate(seed: int, *, is_looked: bool = False) -> World:
    """Run a seed to its end. is_looked: with a model whose windows are looked at while they are open."""
    with rows_read_at_once(1 if seed % 2 else reading.READ_ROWS):
        world = World(seed, Scenario.draw(random.Random(seed)).with_looks() if is_looked else None)
        for _ in range(STEPS):
            world.step()
        world.finish()
    return world


@contextmanager
def rows_read_at_once(n: int) -> Iterator[None]:
    """Let stage 1 read with its fetch what it has so many rows of: few, or what waits in a simulation is never read before it is counted."""
    before, reading.READ_ROWS = reading.READ_ROWS, n
    try:
        yield
    finally:
        reading.READ_ROWS = before


def run(seed: int, *, is_looked: bool = False) -> list[str]:
    """Return the anomalies of a seed; none is what is promised."""
    return simulate(seed, is_looked=is_looked).anomalies()
