"""Stage 1: one partition of a source topic → partial profiles per pane, a watermark, late rows and rejections.

What a pane contains is a function of the partition's log alone: a row is late iff its pane had ended, grace included, at or before the
running maximum of event time at the row's own offset. Timers decide when something is sent, never what is in it; the only exception,
the clock of a silent partition, is written down (offset, value) before it has an effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from monitor.columns import DecodedBatch, Int
from monitor.errors import StateMismatch
from monitor.events import Rejection, RejectionReason
from monitor.formats import Format
from monitor.ports import LOG_APPEND_TIME, Checkpoint, Message, Outbox, Record
from monitor.reference import References
from monitor.stages import codec_1, partials
from monitor.stages.cursor import Cursor, Position
from monitor.stages.kept import KeptReferences
from monitor.stages.outsiders import RunningClock, outsiders_of
from monitor.stages.panes import Pane, groups, load_pane, pane_key, windows_changed
from monitor.stages.rows import CLOSED, CODEC_VERSION, EMITTED, META, OPEN, Stored, Versions, key_parts
from monitor.stages.settings import ModelSettings, Settings
from monitor.windows import FOREVER_MS, NEVER_MS

FOLD_ROWS = 1_000
"""Rows of a pane that are gathered before they are folded: large enough for numpy, small enough for memory."""
MAX_PENDING_ROWS = 50_000
"""Rows of all panes together that may wait."""

COUNTED, LATE = 0, 1


class _Meta(msgspec.Struct, kw_only=True):
    """What a partition knows beside its rows; every field is a function of the log up to `hi`, but for the four of silence."""

    topic: str
    partition: int
    partitions: int
    topic_id: str | None = None
    position: Position = msgspec.field(default_factory=Position)
    max_ts: int = NEVER_MS
    models: dict[str, dict[str, list[int]]] = {}
    rejected: dict[str, int] = {}
    dropped: int = 0
    labels: int = 0
    ticks: int = 0
    lost_pending: int = 0
    gc_upto: dict[str, int] = {}
    idle_clock: int = NEVER_MS
    quiet_since: int | None = None
    quiet_clock: int = NEVER_MS
    idle: bool = False


_encode = msgspec.msgpack.Encoder().encode
_decode_meta = msgspec.msgpack.Decoder(_Meta).decode


class _Sent(NamedTuple):
    """What an outbox holds, for `emitted`."""

    panes: tuple[bytes, ...]
    watermark: tuple[dict[int, int], bool] | None


class IngestPartition:
    """State machine of one source partition (ports.PartitionStage).

    rows: what the store holds of this partition, every epoch. Raises StaleOwner, UnknownCodec, StateMismatch.
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
    ) -> None:
        self._settings = settings
        self._source = settings.sources[topic]
        self._wire = wire
        self._references = references
        self._epoch = epoch
        self._now_ms = now_ms
        self._meta = _Meta(topic=topic, partition=partition, partitions=partitions, topic_id=topic_id)
        self._cursor = Cursor(self._meta.position)
        self._meta_dirty = False
        self._panes: dict[bytes, Pane] = {}
        self._dirty: set[bytes] = set()
        self._waiting_rows = 0
        self._dead_letters: list[Message] = []
        self._collected: list[bytes] = []
        self._leftover: list[bytes] = []
        self._snapshot: list[tuple[Pane, int, int]] = []
        self._snapshot_closed: tuple[dict[int, int], bool] = ({}, False)
        self._versions = Versions(rows, epoch)
        self._kept = KeptReferences(references, self._versions.best)
        self._load()
        self._loaded_ms = now_ms
        self._durable_hi = self._cursor.hi
        self._durable_closed: tuple[dict[int, int], bool] = ({}, False)
        self._sent_closed: tuple[dict[int, int], bool] | None = None
        self._sent_ms = NEVER_MS

    # --- loading

    def _load(self) -> None:
        best = self._versions.best
        if META in best:
            stored = _decode_meta(best[META].payload)
            self._check_identity(stored)
            stored.topic_id = stored.topic_id or self._meta.topic_id
            self._meta = stored
            self._cursor = Cursor(stored.position, best[META].hi)
        self._leftover += codec_1.upgrade(best)
        blocks: dict[tuple[str, str, int], dict[int, Stored]] = {}
        for key in [key for key in best if key.startswith(b"pane|")]:
            _, model, version, start, size, block = key_parts(key)
            if int(start) + int(size) <= self._meta.gc_upto.get(f"{model}|{version}", NEVER_MS):
                self._versions.drop(key)  # a paused owner wrote it again after it had been collected
                continue
            if int(size) != self._settings.model(model).pane_ms:
                raise windows_changed(model)
            blocks.setdefault((model, version, int(start)), {})[int(block)] = best[key]
        for (model, version, start_ms), of_pane in blocks.items():
            pane = load_pane(model, version, start_ms, of_pane, self._settings.model(model), self._references)
            pane.emitted_ms = self._now_ms
            self._panes[pane.key] = pane
            if any(stored.codec != CODEC_VERSION for stored in of_pane.values()):
                self._touch(pane)
        best.clear()

    def _check_identity(self, stored: _Meta) -> None:
        mine = self._meta
        if stored.partitions != mine.partitions:
            raise StateMismatch(
                f"topic {mine.topic} has {mine.partitions} partitions, its state was written for {stored.partitions}; "
                "start with another `app` name to begin anew"
            )
        if stored.topic_id and mine.topic_id and stored.topic_id != mine.topic_id:
            raise StateMismatch(
                f"topic {mine.topic} was deleted and created again since its state was written; "
                "start with another `app` name to begin anew"
            )

    # --- reading

    @property
    def next_offset(self) -> int:
        """Offset to read next; -1 when nothing was read yet: the driver then calls `skip_to` with where it starts."""
        return self._cursor.next_offset

    @property
    def clock_ms(self) -> int:
        """The partition's running maximum of event time; its watermark before grace."""
        return max(self._meta.max_ts, self._meta.idle_clock)

    def skip_to(self, offset: int, *, lost: bool = False) -> None:
        """Declare that no record lies between here and `offset`; `lost`: there were some, retention took them."""
        n_lost = self._cursor.skip_to(offset, lost=lost)
        self._meta_dirty = True
        if not n_lost:
            return
        self._meta.lost_pending += n_lost
        for pane in self._panes.values():
            if pane.state == OPEN:
                pane.lost += n_lost
                self._touch(pane)

    def _touch(self, pane: Pane) -> None:
        """The store has not what all rows of a pane have in common as it is here."""
        pane.dirty.add(0)
        self._dirty.add(pane.key)

    def feed(self, records: Sequence[Record], now_ms: int) -> None:
        """Fold a batch; see ports.PartitionStage."""
        first_new = 0
        while first_new < len(records) and records[first_new].offset < self.next_offset:
            first_new += 1
        records = records[first_new:]
        if not records:
            return
        self._cursor.take(np.fromiter((r.offset for r in records), np.int64, len(records)))
        self._now_ms = now_ms
        batch = self._wire.decode(records)
        clock_before = self.clock_ms
        accepted, future = self._refuse(batch, records, now_ms)
        future = self._known(batch, accepted, future)
        running, clock = self._run_clock(batch, records, accepted)
        self._count_others(batch, records)
        panes, late = self._gather(batch, accepted, running, clock_before) if len(accepted) else ([], accepted)
        if len(late) or len(future):
            self._witness(batch, late, future, clock)
        for pane in panes:
            if len(pane.waiting) >= FOLD_ROWS:
                self._fold(pane)
        self._meta.quiet_since = now_ms
        self._meta.quiet_clock = self.clock_ms
        if len(accepted) or batch.ticks:
            self._meta.idle = False
        self._meta_dirty = True
        if self._waiting_rows > MAX_PENDING_ROWS:
            self._fold_all()

    def _refuse(self, batch: DecodedBatch, records: Sequence[Record], now_ms: int) -> tuple[Int, Int]:
        """Apply the future guard and the policy for unknown models; return the positions of what is left, and of the future ones."""
        keep = np.ones(len(batch.offsets), bool)
        future = ~keep
        if self._source.max_future_ms is not None and len(keep):
            limit = batch.record_ms
            if records[0].timestamp_type != LOG_APPEND_TIME:
                limit = np.minimum(limit, now_ms)
            future = batch.times_ms > limit + self._source.max_future_ms
            if future.any():
                keep &= ~future
                reason = Rejection(RejectionReason.FUTURE_TIMESTAMP, "time")
                batch.rejections += [(o, reason) for o in batch.offsets[future].tolist()]
        known = set(self._meta.models)
        for i in _by_first_row(batch.key_index, keep):
            refusal = self._refusal(batch.keys[i][0], known)
            if refusal is None:
                known.add(batch.keys[i][0])
                continue
            mine = (batch.key_index == i) & keep
            keep &= ~mine
            if isinstance(refusal, RejectionReason):
                batch.rejections += [(o, Rejection(refusal, "model")) for o in batch.offsets[mine].tolist()]
            else:
                self._meta.dropped += int(mine.sum())
        return np.flatnonzero(keep), np.flatnonzero(future)

    def _refusal(self, model: str, known: set[str]) -> RejectionReason | str | None:
        if model in self._settings.models:
            return None
        if self._settings.unknown_model == "drop":
            return "drop"
        if self._settings.unknown_model == "dlq":
            return RejectionReason.UNKNOWN_MODEL
        is_one_more = model not in known and len(known) >= self._settings.max_models
        return RejectionReason.MODEL_LIMIT if is_one_more else None

    def _known(self, batch: DecodedBatch, accepted: Int, future: Int) -> Int:
        """Return those of the future predictions whose model and version had an accepted one before them: no others open a pane."""
        keep = np.ones(len(future), bool)
        for i in np.unique(batch.key_index[future]).tolist():
            model, version = batch.keys[i]
            if version not in self._meta.models.get(model, {}):
                first = accepted[batch.key_index[accepted] == i][:1]
                mine = batch.key_index[future] == i
                keep[mine] = future[mine] > first if len(first) else False
        return future[keep]

    def _run_clock(self, batch: DecodedBatch, records: Sequence[Record], accepted: Int) -> tuple[Int, RunningClock]:
        """Move the clock over the batch; return its value at each accepted prediction, its own time included, and the clock itself.

        Without the clock of silence: a function of the log.
        """
        times = np.minimum(batch.times_ms, batch.record_ms)[accepted]
        offsets = batch.offsets[accepted]
        before = self._meta.max_ts
        marks = list(batch.ticks)
        if self._source.clock == "wall" and records[0].timestamp_type == LOG_APPEND_TIME:
            marks += [(r.offset, r.timestamp - self._source.max_delay_ms) for r in records]
        n = len(marks)
        if n:
            offsets = np.concatenate((np.array([o for o, _ in marks], np.int64), offsets))
            times = np.concatenate((np.array([t for _, t in marks], np.int64), times))
        order = np.argsort(offsets, kind="stable") if n else np.arange(len(times))
        moved = np.maximum.accumulate(np.maximum(times[order], before))
        self._meta.max_ts = int(moved[-1]) if len(moved) else before
        running = np.empty_like(moved)
        running[order] = moved
        return running[n:], RunningClock(offsets[order], moved, before, self._meta.idle_clock)

    def _count_others(self, batch: DecodedBatch, records: Sequence[Record]) -> None:
        self._meta.ticks += len(batch.ticks)
        self._meta.labels += len(batch.labels)
        if not batch.rejections:
            return
        by_offset = {record.offset: record for record in records}
        for offset, rejection in sorted(batch.rejections):
            reason = rejection.reason.value
            self._meta.rejected[reason] = self._meta.rejected.get(reason, 0) + 1
            self._dead_letters.append(self._dead_letter(by_offset[offset], rejection))

    def _dead_letter(self, record: Record, rejection: Rejection) -> Message:
        headers = {str(name): value for name, value in getattr(record, "headers", ()) or ()}
        facts = {
            "topic": self._meta.topic,
            "partition": self._meta.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "reason": rejection.reason.value,
            "pointer": rejection.pointer,
        }
        headers |= {f"__monitor.errors.{name}": str(value).encode() for name, value in facts.items()}
        return Message(self._settings.topic("dead-letter"), record.key, record.value, headers=headers)

    def _gather(self, batch: DecodedBatch, accepted: Int, logged: Int, clock_before: int) -> tuple[list[Pane], Int]:
        """Let accepted rows wait in their panes; return these panes, and the positions of the rows that came too late.

        logged: the clock at each row, as the log alone moves it.
        """
        running = np.maximum(logged, self._meta.idle_clock)
        key_index = batch.key_index[accepted]
        by_key = [self._settings.model(model) for model, _ in batch.keys]
        pane_ms = np.array([s.pane_ms for s in by_key], np.int64)[key_index]
        grace_ms = np.array([s.grace_ms for s in by_key], np.int64)[key_index]
        starts = batch.times_ms[accepted] // pane_ms * pane_ms
        late = starts + pane_ms <= running - grace_ms
        before = np.concatenate(([clock_before], running[:-1]))
        marks = np.stack((batch.offsets[accepted], batch.times_ms[accepted], batch.record_ms[accepted], logged))
        panes = []
        for key, start, rows in groups(key_index, starts):
            model, version = batch.keys[key]
            on_time = rows[~late[rows]]
            pane = self._pane(model, version, start, by_key[key]) if len(on_time) else None
            if pane is not None and pane.state == EMITTED:
                late[on_time] = True
                pane, on_time = None, on_time[:0]
            counts = self._meta.models.setdefault(model, {}).setdefault(version, [0, 0])
            counts[COUNTED] += len(on_time)
            counts[LATE] += len(rows) - len(on_time)
            if pane is not None:
                self._wait(pane, [batch.payloads[i] for i in accepted[on_time].tolist()], marks[:, on_time], before[on_time[0]])
                panes.append(pane)
        return panes, accepted[late]

    def _wait(self, pane: Pane, payloads: list[object], marks: Int, clock_before: int) -> None:
        waiting = len(pane.waiting)
        pane.wait(payloads, marks, int(clock_before))
        self._waiting_rows += len(pane.waiting) - waiting

    def _witness(self, batch: DecodedBatch, late: Int, future: Int, clock: RunningClock) -> None:
        """Count late and future rows where they belong: in the pane that holds the clock (outsiders.py)."""
        found = outsiders_of(batch, late, future, clock)
        if not len(found.offsets):
            return
        by_key = [self._settings.model(model) for model, _ in batch.keys]
        pane_ms = np.array([s.pane_ms for s in by_key], np.int64)[found.key_index]
        for key, start, rows in groups(found.key_index, found.clock_ms // pane_ms * pane_ms):
            pane = self._pane(*batch.keys[key], start, by_key[key])
            if pane.state != EMITTED:
                pane.witness(found.offsets[rows], found.is_late[rows], found.ms[rows], int(found.before_ms[rows[0]]))

    def _pane(self, model: str, version: str, start_ms: int, settings: ModelSettings) -> Pane:
        """Return a pane, opened under the reference that applies at its start if it was not open."""
        key = pane_key(model, version, start_ms, settings)
        pane = self._panes.get(key)
        if pane is None:
            reference = self._references.at(model, version, start_ms)
            pane = self._panes[key] = Pane(model, version, start_ms, settings, reference, self._references.hash_key)
            pane.lost, self._meta.lost_pending = self._meta.lost_pending, 0
            if reference is not None:
                self._kept.use(reference)
        return pane

    def _fold(self, pane: Pane) -> None:
        self._waiting_rows -= pane.fold(self._wire)
        self._dirty.add(pane.key)

    def _fold_all(self) -> None:
        for pane in self._panes.values():
            if pane.is_waiting:
                self._fold(pane)

    # --- silence

    def is_quiet(self, now_ms: int) -> bool:
        """Whether the broker should be asked for the end: no data for `idle_after`, or none since the start."""
        since = self._meta.quiet_since
        return since is None or now_ms - since >= self._source.idle_after_ms

    def advance(self, now_ms: int, *, at_end: bool) -> None:
        """Move the clock of a silent partition, from where it stood; announce idleness when nothing is open."""
        self._now_ms = now_ms
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
        if not meta.idle and not any(self._holds_back(pane) for pane in self._panes.values()):
            meta.idle = True
            self._meta_dirty = True

    def _holds_back(self, pane: Pane) -> bool:
        return pane.state != EMITTED

    # --- closing

    def finish_input(self) -> None:
        """No more input will come: every pane is due, wherever the clock stands."""
        self._meta.idle_clock = FOREVER_MS
        self._meta_dirty = True

    def _is_due(self, pane: Pane) -> bool:
        return pane.state == OPEN and pane.end_ms + pane.settings.grace_ms <= self.clock_ms

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
        """Whether something could be sent after a checkpoint."""
        if any(self._is_due(pane) for pane in self._panes.values()):
            return True
        return (self._closed_by_grace(), self._meta.idle) != self._durable_closed

    def checkpoint(self) -> Checkpoint | None:
        """Fold what waits, close what is due, and return what changed since the last checkpoint."""
        self._fold_all()
        for pane in self._panes.values():
            if self._is_due(pane):
                pane.state = CLOSED
                self._touch(pane)
        for key in self._collected:  # gc_upto, which covers them, became durable with the last checkpoint
            self._versions.drop(key)
        self._collected = self._leftover + self._collect()
        self._leftover = []
        if not (self._dirty or self._meta_dirty or self._versions.has_dropped or self._collected):
            return None
        changed = [self._panes[key] for key in sorted(self._dirty) if key in self._panes]
        rows = [row for pane in changed for row in pane.rows()]
        meta = (self._cursor.hi, _encode(self._meta))
        checkpoint = self._versions.snapshot(rows + self._kept.new_rows(), meta, self._dead_letters, retire=self._may_retire)
        self._dirty, self._meta_dirty = set(), False
        self._dead_letters = []
        self._snapshot = [(pane, pane.state, pane.hi) for pane in changed]
        self._snapshot_closed = (self._closed_by_grace(), self._meta.idle)
        return checkpoint

    @property
    def _may_retire(self) -> bool:
        """Whether owners before this one are surely gone: a paused one ends itself well before."""
        return self._now_ms - self._loaded_ms >= self._settings.retire_after_ms

    def _collect(self) -> list[bytes]:
        """Raise `gc_upto` over panes that are emitted, old and durable; return them, to be deleted one checkpoint later."""
        ends: dict[str, list[tuple[int, bool, bytes]]] = {}
        for pane in self._panes.values():
            ripe = (
                pane.state == EMITTED
                and pane.durable == (EMITTED, pane.hi)
                and pane.hi <= self._durable_hi
                and pane.emitted_ms + self._settings.retire_after_ms <= self._now_ms
            )
            ends.setdefault(f"{pane.model}|{pane.version}", []).append((pane.end_ms, ripe, pane.key))
        collected: list[bytes] = []
        for name, panes in ends.items():
            for end_ms, ripe, key in sorted(panes):
                if not ripe:
                    break
                self._meta.gc_upto[name] = max(end_ms, self._meta.gc_upto.get(name, NEVER_MS))
                collected += self._panes.pop(key).keys
        return collected

    def committed(self, checkpoint: Checkpoint) -> None:
        """The checkpoint is durable."""
        self._versions.committed(checkpoint)
        self._durable_hi = checkpoint.hi
        for pane, state, hi in self._snapshot:
            pane.durable = (state, hi)
        self._durable_closed = self._snapshot_closed
        self._snapshot = []

    # --- sending

    def outbox(self, now_ms: int) -> Outbox:
        """Partials of closed panes, then the watermark to every partition of `partials`."""
        self._now_ms = now_ms
        topic = self._settings.topic("partials")
        panes = [p for p in self._panes.values() if p.state == CLOSED and p.durable == (CLOSED, p.hi)]
        panes.sort(key=lambda p: (p.end_ms, p.key))
        first = tuple(Message(topic, p.model.encode(), partials.encode(part)) for p in panes for part in self._partials(p))
        closed, idle = self._durable_closed
        is_news = self._durable_closed != self._sent_closed and (closed or idle)
        is_repeat = (closed or idle) and now_ms - self._sent_ms >= self._settings.watermark_every_ms
        if not (panes or is_news or is_repeat):
            return Outbox()
        meta = self._meta
        mark = partials.encode(
            partials.Watermark(meta.topic, meta.partition, self._epoch, self._durable_hi, closed, idle, meta.partitions)
        )
        then = tuple(Message(topic, None, mark, q) for q in range(self._settings.partials_partitions))
        return Outbox(first, then, _Sent(tuple(p.key for p in panes), self._durable_closed))

    def _partials(self, pane: Pane) -> Iterator[partials.Partial]:
        """Yield a partial per block of segments."""
        assert pane.profile is not None
        for chunk in range(len(pane.his)):
            yield partials.Partial(
                source=self._meta.topic,
                partition=self._meta.partition,
                epoch=self._epoch,
                hi=pane.hi,
                model=pane.model,
                version=pane.version,
                start_ms=pane.start_ms,
                size_ms=pane.settings.pane_ms,
                first=pane.first,
                last=pane.last,
                clock_before_ms=pane.clock_before,
                n=pane.profile.n,
                lost=pane.lost,
                reference=pane.reference_sha256,
                settings=pane.settings.sha256,
                chunk=chunk,
                chunks=len(pane.his),
                profile=pane.profile.block_bytes(chunk),
                discovery=b"" if chunk else pane.discovered,
            )

    def emitted(self, outbox: Outbox, now_ms: int) -> None:
        """All of the outbox is on the topic."""
        sent = outbox.token
        assert isinstance(sent, _Sent)
        for key in sent.panes:
            pane = self._panes[key]
            pane.state, pane.emitted_ms = EMITTED, now_ms
            pane.forget_rows()
            self._touch(pane)
        self._sent_closed, self._sent_ms = sent.watermark, now_ms

    # --- telemetry

    def counters(self) -> Mapping[tuple[str, ...], int]:
        """Monotone counts; functions of the log up to the last offset read."""
        meta = self._meta
        counts: dict[tuple[str, ...], int] = {
            ("labels",): meta.labels,
            ("ticks",): meta.ticks,
            ("gaps",): self._cursor.position.gaps,
            ("lost",): self._cursor.position.lost,
            ("dropped",): meta.dropped,
        }
        for model, versions in meta.models.items():
            counts["events", model, "counted"] = sum(v[COUNTED] for v in versions.values())
            counts["events", model, "late"] = sum(v[LATE] for v in versions.values())
        for reason, n in meta.rejected.items():
            counts["rejections", reason] = n
        return counts

    def gauges(self) -> Mapping[tuple[str, ...], float]:
        """Current values."""
        clock = self.clock_ms
        return {
            ("watermark_ms",): float(clock) if clock > NEVER_MS else float("nan"),
            ("open_rows",): float(sum(pane.state != EMITTED for pane in self._panes.values())),
            ("rows",): float(len(self._panes)),
            ("idle",): float(self._meta.idle),
        }


def _by_first_row(key_index: Int, keep: npt.NDArray[np.bool_]) -> list[int]:
    """Return the keys that have kept rows, by their first one: an order that the log decides, not the fetch."""
    keys, first = np.unique(key_index[keep], return_index=True)
    return [int(key) for key in keys[np.argsort(first)]]
