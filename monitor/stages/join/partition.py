"""The join: one partition of `outcomes` → what became known of each pane, cut by cut, and how far that is complete.

What a delta contains is a function of the log of `outcomes` alone. Entries of ids are kept beside the state, in a store that may be lost:
they are then made anew from the log, up to where the state is, and nothing is counted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from monitor.columns import offsets_of
from monitor.errors import OffsetGap, StateMismatch
from monitor.ports import Checkpoint, Message, Outbox, Pending, Record
from monitor.reference import References
from monitor.stages import outcomes, partials
from monitor.stages.cursor import Cursor, Position
from monitor.stages.graces import Graces
from monitor.stages.join.deltas import Deltas, Place
from monitor.stages.join.joining import COUNT_NAMES, Joining, Owned, keys_of
from monitor.stages.join.outcome_clock import OutcomeClock
from monitor.stages.join.pending import Entries, Entry
from monitor.stages.kept import KeptReferences
from monitor.stages.rows import META, Predecessors, Versions, check_kinds, same_topic_id
from monitor.stages.settings import Settings
from monitor.stages.topology import change_sources, is_ahead, refuse_other_sources
from monitor.windows import FOREVER_MS, NEVER_MS

MAX_CHANGED = 200_000
"""Entries that wait to be written while they are made anew."""


class JoinMeta(msgspec.Struct, kw_only=True):
    """Stored as the row META; every field is a function of the log up to the row's `hi`.

    partitions, partials_partitions: of `outcomes` and of `partials`. counts: by model, as joining.COUNT_NAMES. gc_upto: by `model|version`,
    up to which cut deltas were collected.
    """

    outcomes_partition: int
    partitions: int
    topic_id: str | None = None
    partials_partitions: int
    position: Position = msgspec.field(default_factory=Position)
    clock: OutcomeClock = msgspec.field(default_factory=OutcomeClock)
    counts: dict[str, list[int]] = {}
    gc_upto: dict[str, int] = {}
    sources: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    """Sources, of labels too, and their partitions; absent where an earlier version wrote it."""
    graces: Graces = msgspec.field(default_factory=Graces)

    def resumed(self, payload: bytes, topic: str, *, ahead: bool) -> JoinMeta:
        """Return what an earlier owner stored. Raises StateMismatch when topics are not what they were.

        ahead: rows hold more than meta covers.
        """
        stored = _decode(payload)
        counts = (
            ("outcomes", self.partitions, stored.partitions),
            ("partials", self.partials_partitions, stored.partials_partitions),
        )
        for what, now, then in counts:
            if now != then:
                raise StateMismatch(
                    f"{what} has {now} partitions, its state was written for {then}; start with another `app` name to begin anew"
                )
        stored.topic_id = same_topic_id(topic, stored.topic_id, self.topic_id)
        reached = stored.clock.reached
        stored.graces = self.graces.after(
            stored.graces, topic, stored.counts.keys(), lambda grace_ms: reached.get(grace_ms, NEVER_MS), ahead=ahead
        )
        return stored

    def to_bytes(self) -> bytes:
        """Return the row's payload."""
        return _encode(self)

    @classmethod
    def from_bytes(cls, payload: bytes) -> JoinMeta:
        """Read what `to_bytes` wrote."""
        return _decode(payload)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(JoinMeta).decode


class _Sent(NamedTuple):
    """What an outbox holds, for `emitted`."""

    deltas: tuple[Place, ...]
    closed: dict[int, int]


class _Again(NamedTuple):
    """Reading what the state covers once more, to make entries anew."""

    cursor: Cursor
    joining: Joining
    clock: OutcomeClock


class JoinPartition:
    """State machine of one partition of `outcomes` (ports.PartitionStage).

    topology: partitions of every source, of predictions and of labels. pending: the store of entries; it may be empty, or of somebody else.
    rows: what the changelog holds of this partition, every epoch. Raises StaleOwner, UnknownCodec, StateMismatch.
    """

    def __init__(
        self,
        settings: Settings,
        partition: int,
        *,
        topology: Mapping[str, int],
        epoch: int,
        references: References,
        pending: Pending,
        rows: Iterable[tuple[bytes, bytes]] = (),
        topic_id: str | None = None,
        now_ms: int = 0,
    ) -> None:
        self._settings = settings
        self._partition = partition
        self._topology = dict(topology)
        self._epoch = epoch
        self._now_ms = now_ms
        self._predecessors = Predecessors(now_ms, settings.retire_after_ms)
        self._graces = sorted({model.grace_ms for model in (settings.defaults, *settings.models.values())})
        self._versions = Versions(rows, epoch)
        best = self._versions.best
        check_kinds(best)
        self._kept = KeptReferences(references, best)
        topic, r, q = settings.topic("outcomes"), settings.outcomes_partitions, settings.partials_partitions
        graces = Graces.configured(settings)
        self._meta = JoinMeta(outcomes_partition=partition, partitions=r, topic_id=topic_id, partials_partitions=q, graces=graces)
        stored, ahead = best.get(META), is_ahead(best)
        if stored is not None:
            self._meta = self._meta.resumed(stored.payload, topic, ahead=ahead)
        change_sources(topic, self._meta.sources, topology, self._meta.clock.marks, ahead=ahead)
        self._meta.sources = dict(topology)
        self._meta_dirty = stored is not None
        self._cursor = Cursor(self._meta.position, -1 if stored is None else stored.hi)
        self._deltas = Deltas(settings, references, self._kept, self._meta.gc_upto)
        self._deltas.load(self._versions, now_ms, is_strict=not self._meta.graces.of)
        if not self._meta.graces.of:
            self._meta.graces = graces
        reached = self._meta.clock.reached
        self._meta.clock.reached = {grace: reached[grace] for grace in self._graces if grace in reached}
        best.clear()
        self._entries = Entries(
            pending, f"{topic}|{partition}|{r}|{self._meta.topic_id}|{references.hash_key.id}", self._cursor.hi
        )
        owned = Owned(self._deltas, self._meta.counts, self._meta.graces)
        self._joining = Joining(settings, self._entries, self._meta.clock, owned)
        self._again = self._read_again()
        self._collected: list[bytes] = []
        self._durable_hi = self._cursor.hi
        self._durable_closed: dict[int, int] = {}
        self._snapshot_closed: dict[int, int] = {}
        self._sent_closed: dict[int, int] | None = None
        self._sent_ms = NEVER_MS

    def _read_again(self) -> _Again | None:
        state = self._entries.state
        if state.hi >= self._cursor.hi or not self._meta.position.started:
            return None
        clock = state.clock.copy()
        return _Again(Cursor(Position(started=True), state.hi), Joining(self._settings, self._entries, clock), clock)

    # --- reading

    @property
    def next_offset(self) -> int:
        """Offset to read next, before the state's own while entries are made anew; -1 when nothing was ever read."""
        return self._cursor.next_offset if self._again is None else self._again.cursor.next_offset

    def skip_to(self, offset: int, *, lost: bool = False) -> None:
        """Declare that no record lies between here and `offset`; `lost`: there were some, retention took them.

        Entries that were in what is lost are over: the topic's retention is longer than that of labels.
        """
        if self._again is not None:
            self._again.cursor.skip_to(min(offset, self._cursor.next_offset), lost=False)
            self._end_again()
        if offset > self._cursor.next_offset:
            self._cursor.skip_to(offset, lost=lost)
            if lost:
                self._meta.clock.tear()
            self._meta_dirty = True

    def feed(self, records: Sequence[Record], now_ms: int) -> None:
        """Take ranges in; see ports.PartitionStage."""
        self._now_ms = now_ms
        records = [record for record in records if record.offset >= self.next_offset]
        if self._again is not None:
            known = [record for record in records if record.offset <= self._cursor.hi]
            self._take(known, self._again.cursor, self._again.joining, self._again.clock)
            if self._entries.n_changed >= MAX_CHANGED:
                self._entries.write(self._again.cursor.hi, self._again.clock.copy())
            self._end_again()
            if self._again is not None and len(known) < len(records):
                raise OffsetGap(self._again.cursor.next_offset, records[len(known)].offset)
            records = records[len(known) :]
        if records:
            self._take(records, self._cursor, self._joining, self._meta.clock)
            self._meta_dirty = True

    def _take(self, records: Sequence[Record], cursor: Cursor, joining: Joining, clock: OutcomeClock) -> None:
        if not records:
            return
        cursor.take(offsets_of(records))
        told = [(record.offset, outcomes.decode(record.value)) for record in records if record.value]
        self._entries.load(keys_of(one for _, one in told))
        for offset, one in told:
            joining.take(one, offset)
            if clock is self._meta.clock:
                refuse_other_sources(one, self._topology, self._epoch)
            clock.move(one, self._topology, self._graces)

    def _end_again(self) -> None:
        if self._again is not None and self._again.cursor.hi >= self._cursor.hi:
            self._entries.write(self._cursor.hi, self._meta.clock.copy())
            self._again = None

    def is_quiet(self, now_ms: int) -> bool:
        """Never: how long nothing comes has no meaning here."""
        return False

    def advance(self, now_ms: int, *, at_end: bool, end: int | None = None) -> None:
        """Let time pass."""
        self._now_ms = now_ms
        self._predecessors.note(now_ms, end)

    def finish_input(self) -> None:
        """No more input will come: every delta is due, wherever the clock stands."""
        self._meta.clock.reached = dict.fromkeys(self._graces, FOREVER_MS)
        self._meta_dirty = True

    # --- closing

    @property
    def wants_checkpoint(self) -> bool:
        """Whether something could be sent after a checkpoint."""
        return self._deltas.has_due(self._meta.clock.reached) or self._meta.clock.reached != self._durable_closed

    def checkpoint(self) -> Checkpoint | None:
        """Count what waits, close what is due, and return what changed since the last checkpoint."""
        self._deltas.close(self._meta.clock.reached)
        for key in self._collected:  # gc_upto, which covers them, became durable with the last checkpoint
            self._versions.drop(key)
        self._collected = self._deltas.collect(self._durable_hi, self._now_ms)
        if self._again is not None and self._entries.n_changed:
            self._entries.write(self._again.cursor.hi, self._again.clock.copy())
        if not (self._deltas.has_new_rows or self._meta_dirty or self._versions.has_dropped or self._collected):
            return None
        checkpoint = self._versions.snapshot(
            self._deltas.new_rows() + self._kept.new_rows(),
            (self._cursor.hi, self._meta.to_bytes()),
            retire=self._predecessors.are_overtaken(self._durable_hi),
        )
        self._meta_dirty = False
        self._snapshot_closed = dict(self._meta.clock.reached)
        return checkpoint

    def committed(self, checkpoint: Checkpoint) -> None:
        """The checkpoint is durable: entries may follow."""
        if self._again is None and checkpoint.hi == self._cursor.hi:
            self._entries.sweep(self._is_over)
            self._entries.write(checkpoint.hi, self._meta.clock.copy())
        self._versions.committed(checkpoint)
        self._durable_hi = checkpoint.hi
        self._deltas.committed()
        self._durable_closed = self._snapshot_closed

    def _is_over(self, entry: Entry) -> bool:
        return self._joining.is_over(entry)

    # --- sending

    def outbox(self, now_ms: int) -> Outbox:
        """Differences of closed deltas, then the watermark to every partition of `partials`."""
        self._now_ms = now_ms
        topic, deltas, closed = self._settings.topic("partials"), self._deltas.to_send(), self._durable_closed
        is_news = closed != self._sent_closed and bool(closed)
        is_repeat = bool(closed) and now_ms - self._sent_ms >= self._settings.watermark_every_ms
        if not (deltas or is_news or is_repeat):
            return Outbox()
        first = tuple(
            Message(topic, delta.place.model.encode(), partials.encode(part))
            for delta in deltas
            for part in delta.partials(self._partition, self._epoch)
        )
        source, n = self._settings.topic("outcomes"), self._settings.outcomes_partitions
        mark = partials.encode(partials.Watermark(source, self._partition, self._epoch, self._durable_hi, closed, False, n))
        then = tuple(Message(topic, None, mark, q) for q in range(self._settings.partials_partitions))
        return Outbox(first, then, _Sent(tuple(delta.place for delta in deltas), closed))

    def emitted(self, outbox: Outbox, now_ms: int) -> None:
        """All of the outbox is on the topic."""
        sent = outbox.token
        assert isinstance(sent, _Sent)
        self._deltas.sent(sent.deltas, now_ms)
        self._sent_closed, self._sent_ms = sent.closed, now_ms

    # --- telemetry

    def counters(self) -> Mapping[tuple[str, ...], int]:
        """Monotone counts; functions of the log up to the last offset read, but for orphans, which are counted as they are found."""
        position = self._cursor.position
        counts: dict[tuple[str, ...], int] = {
            ("gaps",): position.gaps,
            ("lost",): position.lost,
            ("outcomes_lost",): self._meta.clock.lost,
        }
        for model, of_model in self._meta.counts.items():
            counts |= {("outcomes", model, name): n for name, n in zip(COUNT_NAMES, of_model, strict=True)}
        for model, n in self._entries.state.orphans.items():
            counts["outcomes", model, "orphan_labels"] = n
        return counts

    def gauges(self) -> Mapping[tuple[str, ...], float]:
        """Current values."""
        upto = min(self._meta.clock.reached.values(), default=NEVER_MS)
        return {
            ("watermark_ms",): float(upto) if NEVER_MS < upto < FOREVER_MS else float("nan"),
            ("open_rows",): float(self._deltas.n_unsent),
            ("rows",): float(len(self._deltas)),
        }

    def memory(self) -> Mapping[str, int]:
        """Bytes by what takes them: entries that are at hand, and counts."""
        return {"entries": self._entries.held_bytes, "deltas": self._deltas.held_bytes}
