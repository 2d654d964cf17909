"""An owner of one partition: what recovery and the driver do, one record at a time. At every `yield` it may be stopped for ever."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from monitor.errors import OffsetGap, StaleOwner
from monitor.ports import Checkpoint, Message, PartitionStage
from tests.simulation.broker import Changelog, Log, Store

Rows = list[tuple[bytes, bytes]]


@dataclass
class Place:
    """A partition of a stage: its input, its changelog, and how a stage of it is made from epoch, rows and clock."""

    name: str
    log: Log
    make: Callable[[int, Rows, int], PartitionStage]
    changelog: Changelog = field(default_factory=Changelog)


@dataclass
class Surroundings:
    """What an owner has of its world. clock: its process's. send: put a message on its topic. is_reset: of the group."""

    dice: random.Random
    clock: Callable[[], int]
    send: Callable[[Message], None]
    broker_ms: Callable[[], int]
    is_confirmed: Callable[[int], bool]
    duplicates: float = 0.0


class Owner:
    """Owns a place in one generation of the group. in_flight: the one record that is on its way to the broker. at: what it is about to do."""

    def __init__(self, place: Place, store: Store, generation: int, around: Surroundings) -> None:
        self.place = place
        self.store = store
        self.generation = generation
        self.stage: PartitionStage | None = None
        self.in_flight: Callable[[], None] | None = None
        self.at = "recover"
        self._around = around
        self._steps = self._live()
        self._is_reading = False

    def step(self) -> None:
        """Do what comes next, up to the next moment at which it may be stopped. Raises StaleOwner."""
        next(self._steps)

    def let_go(self) -> None:
        """Finish what is under way, checkpoint once more, and never do anything again."""
        if self.stage is not None:
            while not self._is_reading:
                self.step()
            for _ in self._checkpoint(self.stage):
                pass
        self._steps.close()

    def settle(self) -> None:
        """Read all that there is, checkpoint, and send, without a stop."""
        while self.stage is None or not self._is_reading:
            self.step()
        self._read(self.stage, 1_000)
        for _ in self._tick(self.stage, is_due=True):
            pass

    def _live(self) -> Iterator[None]:
        yield from self._recover()
        self.stage = stage = self._load()
        if stage.next_offset < 0:
            stage.skip_to(0)
        yield
        yield from self._checkpoint(stage)  # before anything is made of records
        dice = self._around.dice
        while True:
            for _ in range(dice.randrange(3)):
                self._read(stage, dice.randrange(1, 9))
                yield from self._rest()
            yield from self._tick(stage, is_due=dice.random() < 0.6)
            yield from self._rest()

    def _rest(self) -> Iterator[None]:
        """Be between two turns: nothing is under way."""
        self._is_reading, self.at = True, "read"
        yield
        self._is_reading = False

    # --- starting

    def _recover(self) -> Iterator[None]:
        """Bring the local store up to where the changelog ends now."""
        self.store.forget_if_old(self._around.broker_ms())
        high = self.place.changelog.high
        while entries := self.place.changelog.between(self.store.offset, high):
            self.store.recover(entries[: self._around.dice.randrange(1, 60)])
            yield
        self.store.written_ms = self._around.broker_ms()

    def _load(self) -> PartitionStage:
        """Epoch = generation, above what was found where the group was reset; see Owners in the runtime."""
        try:
            return self._made(self.generation)
        except StaleOwner as newer:
            if not self._around.is_confirmed(self.generation):
                raise
            found = newer.found_epoch
        while True:  # a stage tells only the first that it meets
            try:
                self._made(found + 1)
            except StaleOwner as higher:
                found = higher.found_epoch
            else:
                return self._made(found + self.generation)

    def _made(self, epoch: int) -> PartitionStage:
        return self.place.make(epoch, list(self.store.rows.items()), self._around.clock())

    # --- reading

    def _read(self, stage: PartitionStage, n: int) -> None:
        records = self.place.log.read(stage.next_offset, n)
        while records:
            try:
                stage.feed(records, self._around.clock())
                return
            except OffsetGap as gap:
                present = self.place.log.present(gap.expected, records[-1].offset)
                if [offset for offset in present if offset <= gap.got] != [gap.got]:
                    raise
                stage.skip_to(gap.got)

    def _is_at_end(self, stage: PartitionStage) -> bool:
        high, expected = self.place.log.high, stage.next_offset
        if high <= expected:
            return True
        if self.place.log.first_at(expected) is not None:
            return False
        stage.skip_to(high)
        return True

    # --- writing

    def _tick(self, stage: PartitionStage, *, is_due: bool) -> Iterator[None]:
        now_ms = self._around.clock()
        at_end = stage.is_quiet(now_ms) and self._is_at_end(stage)
        if self._around.dice.random() < 0.1:
            yield
        stage.advance(now_ms, at_end=at_end, end=self.place.log.high)
        if is_due or stage.wants_checkpoint:
            yield from self._checkpoint(stage)
        while box := stage.outbox(self._around.clock()):
            yield from self._send_all(box.first, "send first")
            yield from self._send_all(box.then, "send then")
            self.at = "note what was sent"
            yield
            stage.emitted(box, self._around.clock())

    def _checkpoint(self, stage: PartitionStage) -> Iterator[None]:
        checkpoint = stage.checkpoint()
        if checkpoint is None:
            return
        yield from self._send_all(checkpoint.before_meta, "send before meta")
        offsets: list[int] = []
        for key, value in self.order(checkpoint):
            at = "write meta" if key == checkpoint.meta[0] else "write row"
            yield from self._deliver(lambda key=key, value=value: offsets.append(self._append(key, value)), at)  # type: ignore[misc]
        self.at = "store"
        yield
        self.store.commit(checkpoint, offsets, self.place.changelog, self._around.broker_ms())
        self.at = "commit"
        yield
        stage.committed(checkpoint)

    def order(self, checkpoint: Checkpoint) -> list[tuple[bytes, bytes | None]]:
        """Return what a checkpoint writes as it goes out: rows in any order, then meta."""
        rows = sorted(checkpoint.rows, key=lambda row: row[0])
        self._around.dice.shuffle(rows)
        return [*rows, checkpoint.meta]

    def _append(self, key: bytes, value: bytes | None) -> int:
        return self.place.changelog.append(key, value, self._around.broker_ms())

    def _send_all(self, messages: Sequence[Message], at: str) -> Iterator[None]:
        for message in messages:
            yield from self._deliver(lambda message=message: self._around.send(message), at)  # type: ignore[misc]

    def _deliver(self, deliver: Callable[[], None], at: str) -> Iterator[None]:
        """Let a record be on its way; the client may send it twice."""
        self.in_flight, self.at = deliver, at
        yield
        self.in_flight = None
        deliver()
        if self._around.duplicates and self._around.dice.random() < self._around.duplicates:
            deliver()
