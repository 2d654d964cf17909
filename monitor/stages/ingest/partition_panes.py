"""The panes of one source partition: rows go to theirs or are late; panes are closed, sent and, when old, collected.

Where late rows are counted, those of a pane that come before the same cut are a pane of their own: it is opened, stored, closed and sent
as every other one, so what a revision contains is as much a function of the log as what a window does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from monitor.columns import Bool, DecodedBatch, Int, present
from monitor.formats import Format
from monitor.reference import References
from monitor.stages.ingest.admission import Admitted
from monitor.stages.ingest.arrivals import Arrived, Joined, joined
from monitor.stages.ingest.folding import fold_together
from monitor.stages.ingest.kinds import Kinds
from monitor.stages.ingest.meta import COUNTED, DUPLICATE, LATE, REVISED, IngestMeta
from monitor.stages.ingest.outcome_rows import OutcomeRows
from monitor.stages.ingest.outsiders import RunningClock, outsiders_of
from monitor.stages.ingest.panes import Pane, PanePlace, groups, load_pane, pane_key, place_of_row, settings_changed, settings_of
from monitor.stages.ingest.reading import Reading
from monitor.stages.ingest.seen_ids import Deduplication
from monitor.stages.ingest.waiting import Waiting
from monitor.stages.kept import KeptReferences
from monitor.stages.rows import CLOSED, CODEC_VERSION, EMITTED, OPEN, Stored, Versions
from monitor.stages.settings import ModelSettings, Revising, Settings, check_pane_size
from monitor.windows import FOREVER_MS, NEVER_MS

FOLD_ROWS = 1_000
"""Rows of a partition that are gathered before they are folded: enough for numpy, few enough to be in the processor's cache still."""
ROWS_EACH = 48
"""Rows of each model version, on average, that are gathered: a pane costs some 30 µs to fold, however few its rows."""
MAX_PENDING_ROWS = 50_000
"""Rows of all panes together that may wait."""
COMPACT = 5
"""So many times as many rows wait where they do so as columns: they are small, and in order when they are folded."""
COUNTED_ROWS, COUNTED_EACH = 50_000, 500
"""So many, and so many of each model version, are counted before their panes are told of them, which tells of how many ids samples still need."""


class PartitionPanes:
    """Panes by key; iterating yields them. A pane is opened by its first row, or by the first outsider while it holds the clock.

    Rows of many models wait for those of more fetches before they are sorted by pane, until the next checkpoint at the latest; a pane is
    opened then, under the reference that is known by then.

    meta: the owner's; its counts by model, `lost_pending` and `gc_upto` (by when panes were due) are changed in place. kept: told which references are in use.
    outcomes: told of every row that a pane holds, where there is a join.
    """

    def __init__(
        self,
        settings: Settings,
        wire: Format,
        references: References,
        kept: KeptReferences,
        meta: IngestMeta,
        outcomes: OutcomeRows | None = None,
    ) -> None:
        self._settings = settings
        self._kinds = Kinds(settings)
        self._waiting = Waiting()
        self._wire = wire
        self._references = references
        self._kept = kept
        self._meta = meta
        self._outcomes = outcomes
        self._deduplication = Deduplication(settings, wire, references.hash_key, meta)
        self._panes: dict[bytes, Pane] = {}
        self._dirty: set[bytes] = set()
        self._arrived: list[Arrived] = []
        self._waiting_rows = self._unread_bytes = 0
        self._reading = Reading(meta, outcomes)
        self._counted = set[tuple[str, str]]()
        self._ahead = -1
        self._next_close_ms = math.inf
        self._snapshot: list[tuple[Pane, int, int]] = []

    def __iter__(self) -> Iterator[Pane]:
        self.settle()
        return iter(self._panes.values())

    def share(self, waiting: Waiting) -> None:
        """Let no more rows wait than `waiting` allows this partition and others together."""
        self._waiting = waiting
        waiting.join(self)

    def __len__(self) -> int:
        self.settle()
        return len(self._panes)

    def load(self, versions: Versions, now_ms: int) -> None:
        """Take over the panes of earlier owners. Raises StateMismatch when their windows are not the configured ones."""
        self._deduplication.load(versions)
        best = versions.best
        blocks: dict[PanePlace, dict[int, Stored]] = {}
        for key in [key for key in best if key.startswith((b"pane|", b"late|"))]:
            place, size_ms, block = place_of_row(key)
            due_ms = place.start_ms + size_ms if place.cut_ms is None else place.cut_ms
            if due_ms <= self._meta.gc_upto.get(f"{place.model}|{place.version}", NEVER_MS):
                versions.drop(key)  # a paused owner wrote it again after it had been collected
                continue
            check_pane_size(place.model, size_ms, self._settings.model(place.model))
            blocks.setdefault(place, {})[block] = best[key]
        for place, of_pane in blocks.items():
            settings = self._settings.model(place.model)
            if not self._meta.graces.of and any(settings_of(stored.payload) != settings.sha256 for stored in of_pane.values()):
                raise settings_changed(place.model)
            pane = load_pane(place, of_pane, settings, self._references)
            pane.emitted_ms = now_ms
            self._panes[pane.key] = pane
            self._next_close_ms = min(self._next_close_ms, pane.closes_ms)
            self._ahead = max(self._ahead, *pane.his)
            if any(stored.codec != CODEC_VERSION for stored in of_pane.values()):
                self._touch(pane)

    def _touch(self, pane: Pane) -> None:
        """The store has not what all rows of a pane have in common as it is here."""
        pane.dirty.add(0)
        self._dirty.add(pane.key)

    # --- rows

    def take(self, batch: DecodedBatch, admitted: Admitted) -> None:
        """Let what is admitted of a batch wait; fold what waits where it is enough for as many model versions as the batch has."""
        enough = min(max(FOLD_ROWS, ROWS_EACH * len(batch.keys)), MAX_PENDING_ROWS)
        if len(admitted.accepted) or len(admitted.future):
            arrived = self._sorted_out(batch, admitted)
            if batch.offsets[0] <= self._ahead:
                self._reading.pause()  # some panes may hold rows of it
            if len(arrived.rows):
                arrived = self._reading.take(arrived, self._wire, self._readable)
            n = len(arrived.rows)
            self._waiting_rows += n
            self._unread_bytes += batch.held_bytes * n // max(1, len(batch.payloads))
            if n or len(admitted.future):
                self._arrived.append(arrived)
            if len(admitted.future) or arrived.late.any():
                self.settle()
        is_enough = self._waiting_rows >= enough or self._reading.n_waiting >= COMPACT * enough
        if is_enough or self._reading.n_counted >= max(COUNTED_ROWS, COUNTED_EACH * len(batch.keys)) or self._waiting.is_too_much:
            self._fold_all()

    @property
    def waiting_bytes(self) -> int:
        """Memory of the rows that wait, about."""
        return self._unread_bytes + self._reading.held_bytes

    def lose(self, n: int) -> None:
        """Retention took `n` offsets: every open pane may lack rows, and so may the next one."""
        self.settle()
        self._meta.lost_pending += n
        for pane in self:
            if pane.state == OPEN:
                pane.lost += n
                self._touch(pane)

    def _sorted_out(self, batch: DecodedBatch, admitted: Admitted) -> Arrived:
        """Say where each admitted row of a batch belongs: a function of the log."""
        accepted, _, logged_ms, clock = admitted
        running = np.maximum(logged_ms, clock.idle_ms)
        key_index = batch.key_index[accepted]
        kinds, kind = self._kinds, self._kinds.of_keys(batch.keys)[key_index]
        pane_ms, grace_ms = kinds.pane_ms[kind], kinds.grace_ms[kind]
        starts = batch.times_ms[accepted] // pane_ms * pane_ms
        passed = running - grace_ms
        graces = self._meta.graces
        if graces.passed_ms:
            formerly = np.array([graces.passed(model) for model, _ in batch.keys], np.int64)
            passed = np.maximum(passed, formerly[key_index])
        late = starts + pane_ms <= passed
        cuts = _cuts(kinds.revising, kind, starts + pane_ms, np.where(late, passed, NEVER_MS))
        before = np.concatenate(([max(clock.before_ms, clock.idle_ms)], running))[: len(accepted)]
        marks = np.stack((batch.offsets[accepted], batch.times_ms[accepted], batch.record_ms[accepted], logged_ms))
        late &= cuts == NEVER_MS
        if not self._counted.issuperset(batch.keys):
            for key in present(key_index).tolist():
                self._meta.outcomes(*batch.keys[key])
                self._counted.add(batch.keys[key])
        rows = np.arange(len(accepted))
        duplicates = self._deduplication.find(batch, accepted, kinds.remember_ids_ms[kind], logged_ms, ~late)
        if duplicates is not None and duplicates.any():
            self._count_duplicates(batch, key_index[duplicates])
            rows = np.flatnonzero(~duplicates)
        due_ms = np.where(cuts == NEVER_MS, starts + pane_ms, cuts) + grace_ms
        at = slice(None) if len(rows) == len(accepted) else rows
        of_row = (key_index[at], starts[at], cuts[at], late[at], marks[:, at], before[at])
        return Arrived(batch, admitted, rows, *of_row, int(due_ms.min(initial=FOREVER_MS)))

    def settle(self) -> None:
        """Let rows that have arrived wait in their panes; counts in meta are then those up to the last row taken."""
        self._reading.settle()
        if not self._arrived:
            return
        parts, self._arrived = self._arrived, []
        waiting = self._waiting_rows
        self._waiting_rows -= sum(len(part.rows) for part in parts)
        late = self._gather(joined(parts))
        self._unread_bytes = self._unread_bytes * self._waiting_rows // max(1, waiting)
        end = 0
        for part in parts:
            begin, end = end, end + len(part.rows)
            too_late = part.admitted.accepted[part.rows[late[begin:end]]]
            if len(too_late) or len(part.admitted.future):
                self._witness(part.batch, too_late, part.admitted.future, part.admitted.clock)

    def _gather(self, rows: Joined) -> Bool:
        """Let rows wait in their panes; return which of them came too late."""
        late = rows.late.copy()
        by_key = [self._settings.model(model) for model, _ in rows.keys]
        for (key, start, cut), places in groups(rows.key_index, rows.starts, rows.cuts) if len(late) else ():
            model, version = rows.keys[key]
            taken = places[~late[places]]
            pane = self._pane(model, version, start, by_key[key], None if cut == NEVER_MS else cut) if len(taken) else None
            holder = pane
            if pane is not None and pane.state == EMITTED:
                beyond = rows.marks[0, taken] > pane.hi  # sent by a paused owner that was further: what it holds it has counted
                late[taken[beyond]] = True
                pane, taken = None, taken[~beyond]
            counts = self._meta.outcomes(model, version)
            counts[COUNTED if cut == NEVER_MS else REVISED] += len(taken)
            counts[LATE] += len(places) - len(taken)
            payloads, marks = [rows.payloads[i] for i in taken.tolist()], rows.marks[:, taken]
            if holder is not None and self._outcomes is not None:
                self._tell_held(holder, payloads, marks)
            if pane is not None:
                self._wait(pane, payloads, marks, rows.before[taken[0]])
        return late

    def _tell_held(self, pane: Pane, payloads: list[object], marks: Int) -> None:
        """Tell of rows that a pane held before they came, after a crash: it will not fold them again."""
        assert self._outcomes is not None
        n_held = int(np.searchsorted(marks[0], min(pane.his), side="right"))
        if n_held:
            payloads = payloads[:n_held]
            columns = self._wire.columns(pane.layout, payloads, marks[0, :n_held])
            self._outcomes.take(pane.place, pane.reference, columns, self._wire.ids(payloads), marks[:2, :n_held])

    def _count_duplicates(self, batch: DecodedBatch, keys: Int) -> None:
        for key, n in zip(*(found.tolist() for found in np.unique(keys, return_counts=True)), strict=True):
            self._meta.outcomes(*batch.keys[key])[DUPLICATE] += n

    def _wait(self, pane: Pane, payloads: list[object], marks: Int, clock_before: int) -> None:
        waiting = len(pane.waiting)
        pane.wait(payloads, marks, int(clock_before))
        self._waiting_rows += len(pane.waiting) - waiting

    def _witness(self, batch: DecodedBatch, late: Int, future: Int, clock: RunningClock) -> None:
        """Count late and future rows where they belong: in the pane that holds the clock (outsiders.py)."""
        found = outsiders_of(batch, late, future, clock)
        if not len(found.offsets):
            return
        pane_ms = self._kinds.pane_ms[self._kinds.of_keys(batch.keys)[found.key_index]]
        for (key, start), rows in groups(found.key_index, found.clock_ms // pane_ms * pane_ms):
            model, version = batch.keys[key]
            pane = self._pane(model, version, start, self._settings.model(model))
            if pane.state != EMITTED:
                pane.witness(found.offsets[rows], found.is_late[rows], found.ms[rows], int(found.before_ms[rows[0]]))

    def _pane(self, model: str, version: str, start_ms: int, settings: ModelSettings, cut_ms: int | None = None) -> Pane:
        """Return a pane, opened under the reference that applies at its start if it was not open."""
        key = pane_key(model, version, start_ms, settings, cut_ms)
        pane = self._panes.get(key)
        if pane is None:
            reference = self._references.at(model, version, start_ms)
            pane = self._panes[key] = Pane(model, version, start_ms, settings, reference, self._references.hash_key, cut_ms)
            pane.lost, self._meta.lost_pending = self._meta.lost_pending, 0
            if reference is not None:
                self._kept.use(reference)
        self._next_close_ms = min(self._next_close_ms, pane.closes_ms)
        return pane

    def _readable(self, model: str, version: str, start_ms: int, cut_ms: int) -> Pane | None:
        """Return the pane of rows that are in time for it, where they can be read before they are counted."""
        pane = self._pane(model, version, start_ms, self._settings.model(model), None if cut_ms == NEVER_MS else cut_ms)
        return None if pane.state == EMITTED or pane.discovery is not None else pane

    def _fold(self, *panes: Pane) -> None:
        rows = self._waiting_rows
        self._waiting_rows -= sum(len(pane.waiting) for pane in panes)
        for pane in fold_together(panes, self._wire, self._outcomes):
            pane.fold(self._wire, self._outcomes)
        self._unread_bytes = self._unread_bytes * self._waiting_rows // max(1, rows)
        self._dirty.update(pane.key for pane in panes)

    def _fold_all(self) -> None:
        self.settle()
        self._dirty.update(pane.key for pane in self._reading.fold())
        self._fold(*(pane for pane in self if pane.is_waiting))

    # --- closing

    def has_due(self, clock_ms: int) -> bool:
        """Whether `close` would close a pane."""
        if any(part.due_ms <= clock_ms for part in self._arrived):
            return True
        if self._next_close_ms <= clock_ms:  # it may be that of a pane that is closed by now
            self._next_close_ms = min((pane.closes_ms for pane in self._panes.values() if pane.state == OPEN), default=math.inf)
        return self._next_close_ms <= clock_ms

    def close(self, clock_ms: int) -> None:
        """Fold what waits, and close what has ended, grace included."""
        self._fold_all()
        for pane in self:
            if pane.state == OPEN and pane.closes_ms <= clock_ms:
                pane.state = CLOSED
                self._touch(pane)

    # --- storing

    def collect(self, durable_hi: int, now_ms: int) -> list[bytes]:
        """Raise `gc_upto` over panes that are emitted, old and durable, and forget old ids; return the keys of what is gone.

        These rows are to be deleted one checkpoint later.

        durable_hi: of the last durable checkpoint.
        """
        ends: dict[str, list[tuple[int, bool, bytes]]] = {}
        for pane in self:
            ripe = (
                pane.state == EMITTED
                and pane.durable == (EMITTED, pane.hi)
                and pane.hi <= durable_hi
                and pane.emitted_ms + self._settings.retire_after_ms <= now_ms
            )
            ends.setdefault(f"{pane.model}|{pane.version}", []).append((pane.due_ms, ripe, pane.key))
        collected = self._deduplication.collect()
        for name, panes in ends.items():
            for due_ms, ripe, key in sorted(panes):
                if not ripe:
                    break
                self._meta.gc_upto[name] = max(due_ms, self._meta.gc_upto.get(name, NEVER_MS))
                collected += self._panes.pop(key).keys
        return collected

    @property
    def has_new_rows(self) -> bool:
        """Whether there is anything that the store has not."""
        return bool(self._dirty) or self._deduplication.is_dirty

    def new_rows(self) -> list[tuple[bytes, int, int, bytes]]:
        """Return rows (key, state, hi, payload) of what changed since the last call: durable with the next `committed`."""
        changed = [self._panes[key] for key in sorted(self._dirty) if key in self._panes]
        self._dirty = set()
        self._snapshot = [(pane, pane.state, pane.hi) for pane in changed]
        return [row for pane in changed for row in pane.rows()] + self._deduplication.new_rows()

    def committed(self) -> None:
        """The rows that `new_rows` returned are durable."""
        for pane, state, hi in self._snapshot:
            pane.durable = (state, hi)
        self._snapshot = []

    # --- sending

    @property
    def n_ids(self) -> int:
        """How many ids are remembered."""
        return len(self._deduplication)

    @property
    def held_bytes(self) -> int:
        """Memory of the panes' profiles, about."""
        return sum(pane.profile.held_bytes for pane in self._panes.values() if pane.profile is not None)

    @property
    def n_unsent(self) -> int:
        """How many panes are still to be sent, closed or not."""
        return sum(pane.state != EMITTED for pane in self)

    def to_send(self) -> list[Pane]:
        """Return the panes that are closed, and durably so, in the order in which they were due."""
        # Rows that have arrived are in none of them: these were late for a pane that is closed.
        panes = [p for p in self._panes.values() if p.state == CLOSED and p.durable == (CLOSED, p.hi)]
        panes.sort(key=lambda p: (p.due_ms, p.key))
        return panes

    def sent(self, keys: Iterable[bytes], now_ms: int) -> None:
        """The partials of these panes are on their topic."""
        for key in keys:
            pane = self._panes[key]
            pane.state, pane.emitted_ms = EMITTED, now_ms
            pane.forget_rows()
            self._touch(pane)


def _cuts(revising_of: Mapping[int, Revising], kind: Int, ends: Int, watermark: Int) -> Int:
    """Return when each row is cut off, NEVER for those that are no part of a revision; shape (n,) like the others but `revising_of`.

    watermark: at each late row the clock less grace; NEVER for the others.
    """
    cuts = np.full(len(ends), NEVER_MS)
    for place, revising in revising_of.items():
        mine = (kind == place) & (watermark > NEVER_MS) & (watermark < ends + revising.for_ms)
        cuts[mine] = (watermark[mine] // revising.every_ms + 1) * revising.every_ms
    return cuts
