"""A broker, changelogs and owners in memory: any interleaving of single records, crashes and paused owners that wake up.

An owner is a generator; every `yield` is a place where it may be stopped for ever, or paused while another one takes over.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from monitor.columns import About, ColumnBatch, DecodedBatch, Int, Payloads, Read
from monitor.findings import ClosedWindow, Judgement
from monitor.formats import Format
from monitor.layout import Layout
from monitor.ports import Message, PartitionStage, Record, StoredRecord
from monitor.reference import References
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.merge.partition import Judge, MergePartition
from monitor.stages.settings import ModelSettings, Settings, SourceSettings
from monitor.windows import WindowSpec

SOURCE = "predictions"
PARTITIONS = 2

ZOMBIE_MS = 30
"""How long after a take-over the old owner may go on writing; a step of a place is one millisecond."""


class BareFormat:
    """`[model, time]` or `[model, time, tag]` in JSON, `["tick", ms]` for a tick: events without features."""

    in_tables = False

    def decode(self, records: Sequence[Record]) -> DecodedBatch:
        offsets, times, stamps, models, ticks, tags = [], [], [], [], [], []
        for record in records:
            name, time, *tag = msgspec.json.decode(record.value or b"")
            if name == "tick":
                ticks.append((record.offset, time))
                continue
            offsets.append(record.offset)
            times.append(time)
            stamps.append(record.timestamp)
            models.append((name, "1"))
            tags.append(tag[0] if tag else None)
        keys = sorted(set(models))
        return DecodedBatch(
            np.array(offsets, np.int64),
            np.array(times, np.int64),
            np.array(stamps, np.int64),
            keys,
            np.array([keys.index(m) for m in models], np.int64),
            Payloads(tags),
            ticks,
            [],
            [],
        )

    def columns(self, layout: Layout, payloads: Sequence[object], offsets: Int) -> ColumnBatch:
        return self.values(layout, payloads)

    def about(self, layout: Layout, payloads: Sequence[object], offsets: Int) -> About:
        return About(None)

    def read(self, layout: Layout, keys: Iterable[tuple[str, str]], payloads: Sequence[object], offsets: Int) -> Read:
        return Read(self.values(layout, payloads), None, np.zeros(len(payloads), bool), {})

    def values(self, layout: Layout, payloads: Sequence[object]) -> ColumnBatch:
        return ColumnBatch(len(payloads), np.zeros((0, len(payloads))), None, [], tags=[payloads] if layout.tags else [])

    def ids(self, payloads: Sequence[object]) -> list[str | None]:
        return [None for _ in payloads]

    def rows(self, payloads: Sequence[object]) -> list[dict[str, object]]:
        return [{} for _ in payloads]


def count_rows(closed: ClosedWindow, before: bytes, history: Sequence[bytes]) -> Judgement:
    """A judge that says a window's rows, in all and by segment, those too late meanwhile, and how many windows came before it."""
    so_far, profile = int(before or b"0") + 1, closed.profile
    key = f"{closed.model}|{closed.window.start_ms}|{closed.window.size_ms}".encode()
    facts = {"n": profile.n, "segments": profile.rows[1:].tolist(), "late": profile.stream.count("late"), "window": so_far}
    value = msgspec.json.encode(facts)
    return Judgement(((key, value),), (), str(so_far).encode(), ())


def settings(
    *specs: WindowSpec, grace_ms: int = 0, sources: dict[str, SourceSettings] | None = None, **kwargs: object
) -> Settings:
    """Settings of one source without a future guard."""
    defaults = ModelSettings(specs or (WindowSpec(10, 10),), grace_ms=grace_ms)
    own = sources or {SOURCE: SourceSettings(SOURCE, clock="event", max_future_ms=None)}
    return Settings("m", {}, defaults, own, partials_partitions=1, retire_after_ms=ZOMBIE_MS, **kwargs)  # type: ignore[arg-type]


def record(offset: int, model: str, time: int, stamp: int | None = None, tag: str | None = None) -> StoredRecord:
    """One event of `BareFormat`."""
    value = [model, time] if tag is None else [model, time, tag]
    return StoredRecord(offset, time if stamp is None else stamp, msgspec.json.encode(value))


@dataclass
class Topic:
    """One partition's log."""

    records: list[StoredRecord] = field(default_factory=list)

    def append(self, message: Message) -> None:
        self.records.append(StoredRecord(len(self.records), 0, message.value, message.key))


@dataclass
class Place:
    """One partition of a stage: its input, its changelog, and where its messages go."""

    log: Topic
    make: Callable[[int, list[tuple[bytes, bytes]], int], PartitionStage]
    send: Callable[[Message], None]
    changelog: dict[bytes, bytes] = field(default_factory=dict)
    epoch: int = 0
    now_ms: int = 0

    def owner(self) -> PartitionStage:
        """A new owner, of the next generation, from what the changelog holds now."""
        self.epoch += 1
        stage = self.make(self.epoch, list(self.changelog.items()), self.now_ms)
        if stage.next_offset < 0:
            stage.skip_to(0, lost=False)
        return stage

    def write(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.changelog.pop(key, None)
        else:
            self.changelog[key] = value

    def steps(self, stage: PartitionStage, dice: random.Random, *, meta_first: bool = False) -> Iterator[None]:
        """Do what the driver does, one record at a time. `meta_first` plants a defect: meta goes out with its rows."""
        yield from self.tick(stage, dice, meta_first=meta_first)
        while True:
            for _ in range(dice.randrange(3)):
                start = stage.next_offset
                batch = self.log.records[start : start + dice.randrange(1, 6)]
                if batch:
                    stage.feed(batch, self.now_ms)
                yield
            yield from self.tick(stage, dice, meta_first=meta_first)

    def tick(self, stage: PartitionStage, dice: random.Random, *, meta_first: bool = False) -> Iterator[None]:
        stage.advance(self.now_ms, at_end=False, end=len(self.log.records))
        checkpoint = stage.checkpoint()
        if checkpoint is not None:
            rows: list[tuple[bytes, bytes | None]] = list(checkpoint.rows)
            if meta_first:
                rows.append(checkpoint.meta)
            dice.shuffle(rows)
            messages = list(checkpoint.before_meta)  # of a partition they stay in order
            while rows or messages:
                if messages and dice.randrange(len(rows) + len(messages)) < len(messages):
                    self.send(messages.pop(0))
                else:
                    self.write(*rows.pop())
                yield
            self.write(*checkpoint.meta)
            yield
            stage.committed(checkpoint)
        while box := stage.outbox(self.now_ms):
            for message in (*box.first, *box.then):
                self.send(message)
                yield
            stage.emitted(box, self.now_ms)


def places_of(
    own: Settings, wire: Format, judge: Judge, logs: Sequence[Topic], references: Callable[[], References]
) -> tuple[list[Place], Topic, list[Message]]:
    """Return the places of every source partition and of the merge behind them, the `partials` between, and what will be published.

    references: asked for every owner anew.
    """

    def ingest(partition: int) -> Callable[[int, list[tuple[bytes, bytes]], int], PartitionStage]:
        return lambda epoch, items, now_ms: IngestPartition(
            own, SOURCE, partition,
            partitions=len(logs), epoch=epoch, wire=wire, references=references(), rows=items, now_ms=now_ms,
        )  # fmt: skip

    def merge(epoch: int, items: list[tuple[bytes, bytes]], now_ms: int) -> PartitionStage:
        return MergePartition(
            own, 0,
            topology={SOURCE: len(logs)}, epoch=epoch, judge=judge, references=references(), rows=items, now_ms=now_ms,
        )  # fmt: skip

    partials, published = Topic(), list[Message]()
    places = [Place(log, ingest(p), partials.append) for p, log in enumerate(logs)]
    return [*places, Place(partials, merge, published.append)], partials, published


def run(places: Sequence[Place], dice: random.Random, n_steps: int, *, meta_first: bool = False) -> None:
    """Interleave owners at random, with take-overs, live zombies and crashes; then let a last owner of each place finish."""
    running = {i: [(0, place.steps(place.owner(), dice, meta_first=meta_first))] for i, place in enumerate(places)}
    for _ in range(n_steps):
        i = dice.randrange(len(places))
        place, owners = places[i], running[i]
        place.now_ms += 1
        if dice.random() < 0.06:
            owners[:] = [(place.now_ms if since == 0 else since, steps) for since, steps in owners]
            owners.append((0, place.steps(place.owner(), dice, meta_first=meta_first)))
        owners[:] = [(since, steps) for since, steps in owners if since == 0 or place.now_ms - since < ZOMBIE_MS]
        if dice.random() < 0.04 and len(owners) > 1:
            owners.pop(dice.randrange(len(owners) - 1))
        next(dice.choice(owners)[1])
    for place in places:
        finish(place, dice)


def finish(place: Place, dice: random.Random) -> None:
    """Let a new owner read to the end and send everything."""
    stage = place.owner()
    for _ in range(3):
        batch = place.log.records[stage.next_offset :]
        if batch:
            stage.feed(batch, place.now_ms)
        for _ in place.tick(stage, dice):
            pass
