"""Which records of a batch are admitted, and where they move the clock: refusals, dead letters, the future guard, unknown models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from monitor.columns import Bool, DecodedBatch, Int, by_first_row
from monitor.events import Rejection, RejectionReason
from monitor.ports import LOG_APPEND_TIME, Message, Record
from monitor.stages.ingest.meta import IngestMeta
from monitor.stages.ingest.outsiders import RunningClock
from monitor.stages.settings import Settings, SourceSettings
from monitor.windows import FOREVER_MS


class Admitted(NamedTuple):
    """What a batch has for the panes: positions in it, rising."""

    accepted: Int
    """Predictions, on time or late; shape (n,)."""
    future: Int
    """Those refused as future that a pane is to witness: of a model and version that had an accepted one before them."""
    logged_ms: Int
    """The clock at each accepted one, as the log alone moves it, its own time included; shape (n,)."""
    clock: RunningClock


class Admission:
    """Sorts out the batches of one source partition. `meta` is the owner's: its clock and its counts of others are changed in place."""

    def __init__(self, settings: Settings, source: SourceSettings, meta: IngestMeta) -> None:
        self._settings = settings
        self._source = source
        self._meta = meta
        self._dead_letters: list[Message] = []

    def admit(self, batch: DecodedBatch, records: Sequence[Record], now_ms: int) -> Admitted:
        """Return what of the batch is admitted; count the others, move the clock. records: what the batch was decoded from."""
        accepted, future = self._refuse(batch, records, now_ms)
        if batch.label_rows:
            self._refuse_labels(batch, records, now_ms)
        future = self._known(batch, accepted, future)
        logged_ms, clock = self._run_clock(batch, records, accepted)
        self._count_others(batch, records)
        return Admitted(accepted, future, logged_ms, clock)

    @property
    def n_letters(self) -> int:
        """Letters of records that were refused since the last call of `new_dead_letters`."""
        return len(self._dead_letters)

    def new_dead_letters(self) -> list[Message]:
        """Return the letters of records refused since the last call."""
        letters, self._dead_letters = self._dead_letters, []
        return letters

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
        observed = self._meta.models if self._settings.unknown_model == "observe" else {}
        new = {model for model, _ in batch.keys}.difference(observed, self._settings.models)
        if new:  # one may be refused for those that came before it
            self._refuse_unknown(batch, keep)
        return np.flatnonzero(keep), np.flatnonzero(future)

    def _refuse_unknown(self, batch: DecodedBatch, keep: Bool) -> None:
        """Apply the policy for unknown models to the rows that are kept so far; `keep` is changed in place."""
        known = set(self._meta.models)
        for i in by_first_row(batch.key_index[keep]).tolist():  # an order that the log decides, not the fetch
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

    def _refuse_labels(self, batch: DecodedBatch, records: Sequence[Record], now_ms: int) -> None:
        """Do the same for labels; a model is not known for having labels."""
        stamps = {record.offset: record.timestamp for record in records}
        bound = FOREVER_MS if records[0].timestamp_type == LOG_APPEND_TIME else now_ms
        kept = []
        for row in batch.label_rows:
            limit = self._source.max_future_ms
            if limit is not None and row.time_ms > min(stamps[row.offset], bound) + limit:
                batch.rejections.append((row.offset, Rejection(RejectionReason.FUTURE_TIMESTAMP, "time")))
            elif row.model in self._settings.models or self._settings.unknown_model == "observe":
                kept.append(row)
            elif self._settings.unknown_model == "dlq":
                batch.rejections.append((row.offset, Rejection(RejectionReason.UNKNOWN_MODEL, "model")))
            else:
                self._meta.dropped += 1
        batch.label_rows = kept
        batch.labels = [(row.offset, row.model) for row in kept]

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
            if not self._meta.knows(model, version):
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
        if batch.label_rows:
            stamps = {record.offset: record.timestamp for record in records}
            marks += [(row.offset, min(row.time_ms, stamps[row.offset])) for row in batch.label_rows]
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
        refused = {offset for offset, _ in batch.rejections}
        by_offset = {record.offset: record for record in records if record.offset in refused}
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
        partition = self._meta.partition % self._settings.partials_partitions
        return Message(self._settings.topic("dead-letter"), record.key, record.value, partition, headers)
