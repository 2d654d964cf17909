"""Stage 1: one partition of a source topic → partial profiles per pane, a watermark, late rows and rejections.

What a pane contains is a function of the partition's log alone: a row is late iff its pane had ended, grace included, at or before the
running maximum of event time at the row's own offset. Timers decide when something is sent, never what is in it; the only exception,
the clock of a silent partition, is written down (offset, value) before it has an effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from monitor.columns import offsets_of
from monitor.formats import Format
from monitor.ports import Checkpoint, Message, Outbox, Record
from monitor.reference import References
from monitor.stages import codec_1, partials
from monitor.stages.cursor import Cursor
from monitor.stages.graces import Graces
from monitor.stages.ingest.admission import Admission
from monitor.stages.ingest.meta import OUTCOME_NAMES, IngestMeta
from monitor.stages.ingest.outcome_rows import OutcomeRows
from monitor.stages.ingest.partition_panes import PartitionPanes
from monitor.stages.ingest.waiting import Waiting
from monitor.stages.kept import KeptReferences
from monitor.stages.rows import META, Predecessors, Versions, check_kinds
from monitor.stages.settings import Settings
from monitor.stages.topology import is_ahead
from monitor.windows import FOREVER_MS, NEVER_MS

ROWS_AT_ONCE, ROWS_PER_MODEL = 1_000, 2
"""Of a fetch, and at least: enough for numpy, few enough that what they are decoded to is in the processor's cache until it is counted."""
TABLE_ROWS_AT_ONCE, TABLE_ROWS_PER_MODEL = 8_000, 8
"""The same of tables, which take less room: a fetch that is not compressed is read whole."""

MAX_HELD = 50_000
"""Rows for the join, or dead letters, that a partition holds until its next checkpoint."""


class _Sent(NamedTuple):
    """What an outbox holds, for `emitted`."""

    panes: tuple[bytes, ...]
    watermark: tuple[dict[int, int], bool] | None


class IngestPartition:
    """State machine of one source partition (ports.PartitionStage).

    rows: what the store holds of this partition, every epoch. waiting: shared with other partitions. Raises StaleOwner, UnknownCodec, StateMismatch.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        partition: int,
        *,
        partitions: int,
        epoch: int,
        wire: Format,
        references: References,
        rows: Iterable[tuple[bytes, bytes]] = (),
        topic_id: str | None = None,
        now_ms: int = 0,
        waiting: Waiting | None = None,
    ) -> None:
        self._settings = settings
        self._source = settings.sources[topic]
        self._wire = wire
        self._epoch = epoch
        self._now_ms = now_ms
        self._versions = Versions(rows, epoch)
        best = self._versions.best
        check_kinds(best)
        self._kept = KeptReferences(references, best)
        self._meta = IngestMeta(
            topic=topic,
            partition=partition,
            partitions=partitions,
            topic_id=topic_id,
            partials_partitions=settings.partials_partitions,
            source=self._source.sha256,
            graces=Graces.configured(settings),
        )
        graces = self._meta.graces
        self._outcomes: OutcomeRows | None = None
        if settings.outcomes_partitions:
            self._meta.outcomes_partitions, self._meta.unjoined = settings.outcomes_partitions, {}
        stored = best.get(META)
        if stored is not None:
            self._meta = self._meta.resumed(stored.payload, ahead=is_ahead(best))
        if self._meta.quiet_since is not None:  # silence is measured on one owner's clock: another's may be an hour ahead
            self._meta.quiet_since, self._meta.quiet_clock = now_ms, self._meta.clock_ms
        # The watermark goes out again, in this owner's epoch, which has to be known by then to whoever follows: meta is written first.
        self._meta_dirty = stored is not None
        self._cursor = Cursor(self._meta.position, -1 if stored is None else stored.hi)
        self._leftover = codec_1.upgrade(best)
        self._collected: list[bytes] = []
        self._admission = Admission(settings, self._source, self._meta)
        if settings.outcomes_partitions:
            self._outcomes = OutcomeRows(settings, references.hash_key, self._meta)
            if stored is not None:
                self._outcomes.begin(stored.hi)
        self._panes = PartitionPanes(settings, wire, references, self._kept, self._meta, self._outcomes)
        self._panes.load(self._versions, now_ms)
        if not self._meta.graces.of:
            self._meta.graces = graces
        if waiting is not None:
            self._panes.share(waiting)
        best.clear()
        self._predecessors = Predecessors(now_ms, settings.retire_after_ms)
        self._durable_hi = self._cursor.hi
        self._durable_closed: tuple[dict[int, int], bool] = ({}, False)
        self._snapshot_closed: tuple[dict[int, int], bool] = ({}, False)
        self._sent_closed: tuple[dict[int, int], bool] | None = None
        self._sent_ms = NEVER_MS

    # --- reading

    @property
    def next_offset(self) -> int:
        """Offset to read next; -1 when nothing was read yet: the driver then calls `skip_to` with where it starts."""
        return self._cursor.next_offset

    @property
    def clock_ms(self) -> int:
        """The partition's running maximum of event time; its watermark before grace."""
        return self._meta.clock_ms

    def skip_to(self, offset: int, *, lost: bool = False) -> None:
        """Declare that no record lies between here and `offset`; `lost`: there were some, retention took them."""
        n_lost = self._cursor.skip_to(offset, lost=lost)
        self._meta_dirty = True
        if n_lost:
            self._panes.lose(n_lost)

    def feed(self, records: Sequence[Record], now_ms: int) -> None:
        """Fold a batch; see ports.PartitionStage."""
        first_new = 0
        while first_new < len(records) and records[first_new].offset < self.next_offset:
            first_new += 1
        records = records[first_new:]
        if not records:
            return
        self._cursor.take(offsets_of(records))
        for piece in pieces(records, len(self._meta.models), in_tables=self._wire.in_tables):
            self._take(piece, now_ms)

    def _take(self, records: Sequence[Record], now_ms: int) -> None:
        if self._outcomes is not None:
            self._outcomes.begin(records[0].offset - 1)
        self._now_ms = now_ms
        batch = self._wire.decode(records)
        admitted = self._admission.admit(batch, records, now_ms)
        self._panes.take(batch, admitted)
        if self._outcomes is not None and batch.label_rows:
            self._outcomes.take_labels(batch.label_rows)
        self._meta.quiet_since = now_ms
        self._meta.quiet_clock = self.clock_ms
        if len(admitted.accepted) or batch.ticks or batch.label_rows:
            self._meta.idle = False
        self._meta_dirty = True

    # --- silence

    def is_quiet(self, now_ms: int) -> bool:
        """Whether the broker should be asked for the end: no data for `idle_after`, or none since the start."""
        since = self._meta.quiet_since
        return since is None or now_ms - since >= self._source.idle_after_ms

    def advance(self, now_ms: int, *, at_end: bool, end: int | None = None) -> None:
        """Move the clock of a silent partition, from where it stood; announce idleness when nothing is open."""
        self._now_ms = now_ms
        self._predecessors.note(now_ms, end)
        if not at_end or not self.is_quiet(now_ms):
            return
        meta = self._meta
        if meta.quiet_since is not None and self._source.clock == "wall" and meta.quiet_clock > NEVER_MS:
            elapsed = now_ms - meta.quiet_since
            # Old data that pauses (a backfill) is given as long as the slowest live data before its clock moves.
            is_live = meta.quiet_since - meta.quiet_clock <= self._source.max_delay_ms
            if is_live or elapsed >= self._source.max_delay_ms:
                meta.idle_clock = max(meta.idle_clock, meta.quiet_clock + elapsed)
                self._meta_dirty = True
        if not meta.idle and not self._panes.n_unsent:
            meta.idle = True
            self._meta_dirty = True

    # --- closing

    def finish_input(self) -> None:
        """No more input will come: every pane is due, wherever the clock stands."""
        self._meta.idle_clock = FOREVER_MS
        self._meta_dirty = True

    def _closed_by_grace(self) -> dict[int, int]:
        """Return, per grace that any model can have, up to when panes are closed, rounded down to the shortest pane with it."""
        clock = self.clock_ms
        if clock <= NEVER_MS:
            return {}
        panes: dict[int, int] = {}
        for settings in (self._settings.defaults, *self._settings.models.values()):
            panes[settings.grace_ms] = min(settings.pane_ms, panes.get(settings.grace_ms, settings.pane_ms))
        return {grace: (clock - grace) // pane * pane for grace, pane in sorted(panes.items())}

    @property
    def wants_checkpoint(self) -> bool:
        """Whether something could be sent after a checkpoint, or much is held until it."""
        if self._panes.has_due(self.clock_ms) or self._admission.n_letters >= MAX_HELD:
            return True
        if self._outcomes is not None and self._outcomes.n >= MAX_HELD:
            return True
        return (self._closed_by_grace(), self._meta.idle) != self._durable_closed

    def checkpoint(self) -> Checkpoint | None:
        """Fold what waits, close what is due, and return what changed since the last checkpoint."""
        self._panes.close(self.clock_ms)
        for key in self._collected:  # gc_upto, which covers them, became durable with the last checkpoint
            self._versions.drop(key)
        self._collected = self._leftover + self._panes.collect(self._durable_hi, self._now_ms)
        self._leftover = []
        if not (self._panes.has_new_rows or self._meta_dirty or self._versions.has_dropped or self._collected):
            return None
        checkpoint = self._versions.snapshot(
            self._panes.new_rows() + self._kept.new_rows(),
            (self._cursor.hi, self._meta.to_bytes()),
            self._admission.new_dead_letters(),
            retire=self._predecessors.are_overtaken(self._durable_hi),
        )
        self._meta_dirty = False
        self._snapshot_closed = closed, idle = self._closed_by_grace(), self._meta.idle
        if self._outcomes is not None:
            told = self._outcomes.messages(self._epoch, self._cursor.hi, closed, idle=idle)
            checkpoint = replace(checkpoint, outcomes=told)
        return checkpoint

    def committed(self, checkpoint: Checkpoint) -> None:
        """The checkpoint is durable."""
        self._versions.committed(checkpoint)
        self._durable_hi = checkpoint.hi
        self._panes.committed()
        self._durable_closed = self._snapshot_closed

    # --- sending

    def outbox(self, now_ms: int) -> Outbox:
        """Partials of closed panes, then the watermark to every partition of `partials`."""
        self._now_ms = now_ms
        topic = self._settings.topic("partials")
        meta = self._meta
        panes = self._panes.to_send()
        sender = (meta.topic, meta.partition, self._epoch)
        first = tuple(Message(topic, p.model.encode(), partials.encode(part)) for p in panes for part in p.partials(*sender))
        closed, idle = self._durable_closed
        is_news = self._durable_closed != self._sent_closed and (closed or idle)
        is_repeat = (closed or idle) and now_ms - self._sent_ms >= self._settings.watermark_every_ms
        if not (panes or is_news or is_repeat):
            return Outbox()
        mark = partials.encode(partials.Watermark(*sender, self._durable_hi, closed, idle, meta.partitions))
        then = tuple(Message(topic, None, mark, q) for q in range(self._settings.partials_partitions))
        return Outbox(first, then, _Sent(tuple(p.key for p in panes), self._durable_closed))

    def emitted(self, outbox: Outbox, now_ms: int) -> None:
        """All of the outbox is on the topic."""
        sent = outbox.token
        assert isinstance(sent, _Sent)
        self._panes.sent(sent.panes, now_ms)
        self._sent_closed, self._sent_ms = sent.watermark, now_ms

    # --- telemetry

    def counters(self) -> Mapping[tuple[str, ...], int]:
        """Monotone counts; functions of the log up to the last offset read."""
        self._panes.settle()
        meta = self._meta
        counts: dict[tuple[str, ...], int] = {
            ("labels",): meta.labels,
            ("ticks",): meta.ticks,
            ("gaps",): self._cursor.position.gaps,
            ("lost",): self._cursor.position.lost,
            ("dropped",): meta.dropped,
        }
        for model, versions in meta.models.items():
            for outcome, *by_version in zip(OUTCOME_NAMES, *versions.values(), strict=True):
                counts["events", model, outcome] = sum(by_version)
        for model, n in meta.without_id.items():
            counts["without_id", model] = n
        for model, reasons in (meta.unjoined or {}).items():
            counts |= {("unjoined", model, reason): n for reason, n in reasons.items()}
        for reason, n in meta.rejected.items():
            counts["rejections", reason] = n
        return counts

    def gauges(self) -> Mapping[tuple[str, ...], float]:
        """Current values."""
        clock = self.clock_ms
        return {
            ("watermark_ms",): float(clock) if clock > NEVER_MS else float("nan"),
            ("open_rows",): float(self._panes.n_unsent),
            ("rows",): float(len(self._panes)),
            ("idle",): float(self._meta.idle),
            ("ids",): float(self._panes.n_ids),
        }

    def memory(self) -> Mapping[str, int]:
        """Bytes by what takes them: rows that wait, and panes."""
        return {"rows": self._panes.waiting_bytes, "panes": self._panes.held_bytes}


def pieces(records: Sequence[Record], n_models: int, *, in_tables: bool) -> Iterator[Sequence[Record]]:
    """Yield what of a fetch is decoded and counted at once."""
    least, each = (TABLE_ROWS_AT_ONCE, TABLE_ROWS_PER_MODEL) if in_tables else (ROWS_AT_ONCE, ROWS_PER_MODEL)
    at_once = max(least, each * n_models)
    for begin in range(0, len(records), at_once):
        yield records[begin : begin + at_once]
