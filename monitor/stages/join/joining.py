"""What one range of outcomes changes: entries of ids, and the differences that this makes to what is known of panes.

What an entry says is a list of terms: its prediction was made, known from the end of its pane; a label is known from the end of the pane
that holds the label's time, together with the prediction from the later of the two; a later label takes the place of an earlier one. The
difference between the terms after an event and those before it is counted where it is due, or at the next cut where the clock has passed
that: the sum of all differences up to a cut is then what the events that came before it say of that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from monitor.columns import Codes, Float, Int
from monitor.hash_key import DIGEST_BYTES
from monitor.performance import Rows
from monitor.stages.graces import Graces
from monitor.stages.join.deltas import Delta, Deltas, Labelled, Place, memberships, rows_of
from monitor.stages.join.outcome_clock import OutcomeClock
from monitor.stages.join.pending import Entries, Entry, Kind, Label, Made, packed
from monitor.stages.outcomes import Labels, Predictions, Range
from monitor.stages.settings import ModelSettings, Settings
from monitor.windows import NEVER_MS

PREDICTIONS, LABELS, JOINED = 0, 1, 2
"""Places in the counts of a model: ids that have a prediction, that have a label, that have both."""
DUPLICATE_PREDICTIONS, DUPLICATE_LABELS, CONFLICTING_LABELS = 3, 4, 5
"""Predictions of an id beyond its first one; labels that say the same as the one before them, or something else."""
EXPIRED_PREDICTIONS, EXPIRED_LABELS = 6, 7
"""What came when its retention was over."""
COUNT_NAMES = (
    "predictions",
    "labels",
    "joined",
    "duplicate_predictions",
    "duplicate_labels",
    "conflicting_labels",
    "expired_predictions",
    "expired_labels",
)


class _Term(NamedTuple):
    """A row of a pane, made or labelled, known from `cut_ms` on; with sign −1 not any more."""

    cut_ms: int
    entry: Entry
    label: Label | None
    sign: int


class Owned(NamedTuple):
    """What an owner counts in, changed in place, and under which graces."""

    deltas: Deltas
    counts: dict[str, list[int]]
    graces: Graces


class Joining:
    """Takes ranges in. entries, clock: of the same offset of the log, changed in place. owned: without it entries are only made anew."""

    def __init__(self, settings: Settings, entries: Entries, clock: OutcomeClock, owned: Owned | None = None) -> None:
        self.settings = settings
        self.entries = entries
        self._clock = clock
        self.deltas = owned.deltas if owned is not None else None
        self._counts = owned.counts if owned is not None else None
        self._graces = owned.graces if owned is not None else None

    def take(self, told: Range, offset: int) -> None:
        """Take the rows of a range that are new, at its offset on the log."""
        after = self._clock.accept(told)
        if after is None or not (told.predictions or told.labels):
            return
        place = self.entries.place(told.place)
        touched: dict[Place, Delta] = {}
        for predictions in told.predictions:
            _Predictions(self, predictions, place, offset, touched).take(after)
        for labels in told.labels:
            self._take_labels(labels, place, after, offset, touched)
        if self.deltas is not None:
            self.deltas.counted(offset, touched.values())

    def reached(self, model: str) -> int:
        """Return up to when outcomes of a model are complete; NEVER while nobody knows."""
        reached_ms = self._clock.reached.get(self.settings.model(model).grace_ms, NEVER_MS)
        return reached_ms if self._graces is None else max(reached_ms, self._graces.passed(model))

    def count(self, model: str, what: int, n: int = 1) -> None:
        """Count, where this is no second reading."""
        if self._counts is not None and n:
            self._counts.setdefault(model, [0] * len(COUNT_NAMES))[what] += n

    def living(self, key: bytes) -> Entry | None:
        """Return an entry that is not over."""
        entry = self.entries.get(key)
        if entry is None or not self.is_over(entry):
            return entry
        self.entries.drop(key, entry)
        return None

    def is_over(self, entry: Entry) -> bool:
        """Whether an entry counts as gone, because the clock has passed its retention."""
        model = self.entries.kind_of(entry).model
        time_ms = entry.labels[-1].time_ms if entry.time_ms is None else entry.time_ms
        return _is_over(time_ms, self.settings.model(model), self.reached(model))

    # --- labels

    def _take_labels(self, labels: Labels, place: int, after: int, offset: int, touched: dict[Place, Delta]) -> None:
        """Take labels in; most are the first ones of their predictions, and those are counted together."""
        settings = self.settings.model(labels.model)
        reached, every = self.reached(labels.model), settings.pane_ms
        offsets, times = (np.frombuffer(column, "<i8").tolist() for column in (labels.offsets, labels.times))
        get, put_first_label = self.entries.get, self.entries.put_first_label
        first: dict[tuple[int, int, int], Labelled] = {}
        n_first = 0
        for i, (at, time_ms, value) in enumerate(zip(offsets, times, labels.values, strict=True)):
            if at <= after:
                continue
            key = labels.ids[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES]
            old, label = get(key), Label(time_ms, place, at, value)
            if old is not None and (old.labels or old.time_ms is None or _is_over(old.time_ms, settings, reached)):
                old = self.living(key)
            if old is not None and not old.labels and old.time_ms is not None:
                put_first_label(key, label)
                which = old.kind, old.time_ms // every, max(old.time_ms, time_ms) // every
                pairs = first.get(which)
                if pairs is None:
                    pairs = first[which] = Labelled()
                pairs.entries.append(old)
                pairs.values.append(value)
                pairs.lags.append(time_ms - old.time_ms)
                n_first += 1
            elif old is None and _is_over(time_ms, settings, reached):
                self.count(labels.model, EXPIRED_LABELS)
            else:
                self._take_label(labels.model, key, label, offset, touched)
        self.count(labels.model, LABELS, n_first)
        self.count(labels.model, JOINED, n_first)
        if self.deltas is not None:
            for (kind, pane, known), pairs in first.items():
                delta = self.delta(self.entries.state.kinds[kind], pane * every, (known + 1) * every, offset, touched)
                if delta is not None:
                    delta.labelled[1].add(pairs)
                    self.deltas.changed(delta, len(pairs.entries))

    def _take_label(self, model: str, key: bytes, label: Label, offset: int, touched: dict[Place, Delta]) -> None:
        """Take a label in of an id that has no prediction, or another label."""
        old = self.living(key)
        entry = Entry(self.entries.kind(Kind(model, "", "")), None) if old is None else old
        self._count_label(model, entry, label)
        new = _labelled(entry, self.entries.with_label(entry.labels, label))
        self.entries.put(key, new)
        if new.time_ms is not None:
            self.tell(old, new, offset, touched)

    def _count_label(self, model: str, entry: Entry, new: Label) -> None:
        """Count a label; entry: without it."""
        if not entry.labels:
            self.count(model, LABELS)
        elif new.text == entry.labels[-1].text:
            self.count(model, DUPLICATE_LABELS)
        else:
            self.count(model, CONFLICTING_LABELS)

    # --- differences

    def tell(self, old: Entry | None, new: Entry, offset: int, touched: dict[Place, Delta]) -> None:
        """Count the difference between what an entry said and what it says."""
        if self.deltas is None:
            return
        before, now = self._terms(old), self._terms(new)
        if old is not None and old.time_ms is not None and _same_prediction(old, new):
            gone = [term for term in before if term not in now]
            now = [term for term in now if term not in before]
            before = gone
        for term in now:
            self._add(term, term.sign, offset, touched)
        for term in before:
            self._add(term, -term.sign, offset, touched)

    def _terms(self, entry: Entry | None) -> list[_Term]:
        if entry is None or entry.time_ms is None:
            return []
        every = self.settings.model(self.entries.kind_of(entry).model).pane_ms
        row = _labelled(entry, ())
        made_ms = known_from(entry.time_ms, every)
        found = [_Term(made_ms, row, None, 1)]
        said: Label | None = None
        for label in entry.labels:
            if said is not None and label.text == said.text:
                continue
            cut_ms = max(made_ms, known_from(label.time_ms, every))
            if said is not None:
                found.append(_Term(cut_ms, row, said, -1))
            found.append(_Term(cut_ms, row, label, 1))
            said = label
        return found

    def _add(self, term: _Term, sign: int, offset: int, touched: dict[Place, Delta]) -> None:
        kind, entry = self.entries.kind_of(term.entry), term.entry
        assert entry.time_ms is not None and self.deltas is not None
        delta = self.delta(kind, entry.time_ms, term.cut_ms, offset, touched)
        if delta is None:
            return
        if term.label is None:
            delta.made[sign].append(rows_of(delta.spec, [entry]))
        else:
            delta.labelled[sign].add(Labelled([entry], [term.label.value], [term.label.time_ms - entry.time_ms]))
        self.deltas.changed(delta, 1)

    def delta(self, kind: Kind, time_ms: int, cut_ms: int, offset: int, touched: dict[Place, Delta]) -> Delta | None:
        """Return the delta for what is known from `cut_ms` on of a prediction; None where it holds what is at this offset."""
        assert self.deltas is not None
        every = self.settings.model(kind.model).pane_ms
        place = Place(
            kind.model, kind.version, time_ms // every * every, kind.reference, due(cut_ms, every, self.reached(kind.model))
        )
        if place in touched:
            return touched[place]
        delta = self.deltas.at(place, offset)
        if delta is not None:
            touched[place] = delta
        return delta


class _Predictions:
    """Rows of one pane that are taken in; most of them are of new ids, and those are counted all at once."""

    def __init__(self, joining: Joining, rows: Predictions, place: int, offset: int, touched: dict[Place, Delta]) -> None:
        self._joining = joining
        self.entries = joining.entries
        self._rows = rows
        self._place = place
        self._offset = offset
        self._touched = touched
        self._kind = Kind(rows.model, rows.version, rows.reference)

    def take(self, after: int) -> None:
        """Take those with a greater offset of their source partition."""
        joining, model = self._joining, self._rows.model
        settings = joining.settings.model(model)
        offsets, times, predicted, scores, segments = self._rows.columns()
        first = int(np.searchsorted(offsets, after, side="right"))
        if _is_over(self._rows.start_ms, settings, joining.reached(model)):
            joining.count(model, EXPIRED_PREDICTIONS, len(offsets) - first)
            return
        kind = self.entries.kind(self._kind)
        if joining.deltas is not None:
            joining.deltas.use(self._kind.reference)
        made = Made(offsets[first:], times[first:], predicted[first:], scores[first:], segments[first:])
        fresh = []
        ids, has, put = self._rows.ids, self.entries.has, self.entries.put_packed
        for i, data in enumerate(packed(made, kind, self._place)):
            key = ids[(first + i) * DIGEST_BYTES : (first + i + 1) * DIGEST_BYTES]
            if not has(key) or joining.living(key) is None:
                put(key, data)
                fresh.append(first + i)
            else:
                self._meet(key, made.entry(i, kind, self._place))
        joining.count(model, PREDICTIONS, len(fresh))
        if fresh and joining.deltas is not None:
            self._count_fresh(np.array(fresh), predicted, scores, segments)

    def _meet(self, key: bytes, new: Entry) -> None:
        """Take a prediction in whose id is known."""
        joining, entries, model = self._joining, self.entries, self._rows.model
        old = entries.get(key)
        assert old is not None and new.time_ms is not None
        if old.time_ms is not None:
            joining.count(model, DUPLICATE_PREDICTIONS)
            if entries.rank(new.time_ms, new.place, new.offset) >= entries.rank(old.time_ms, old.place, old.offset):
                return
        else:
            joining.count(model, PREDICTIONS)
            joining.count(model, JOINED)
        new = _labelled(new, old.labels)
        entries.put(key, new)
        joining.tell(old, new, self._offset, self._touched)

    def _count_fresh(self, at: Int, predicted: Int | Float, scores: Float, segments: Codes) -> None:
        joining = self._joining
        every = joining.settings.model(self._rows.model).pane_ms
        start_ms = self._rows.start_ms
        delta = joining.delta(self._kind, start_ms, known_from(start_ms, every), self._offset, self._touched)
        if delta is not None:
            delta.made[1].append(Rows(predicted[at], scores[at], memberships(segments[at])))
            assert joining.deltas is not None
            joining.deltas.changed(delta, len(at))


def known_from(time_ms: int, every_ms: int) -> int:
    """Return from when on an event counts as known: the end of the pane that holds its time.

    >>> known_from(59, 60), known_from(60, 60)
    (60, 120)
    """
    return (time_ms // every_ms + 1) * every_ms


def due(cut_ms: int, every_ms: int, reached_ms: int) -> int:
    """Return a cut, or the next one where the clock has passed it.

    >>> due(120, 60, 119), due(120, 60, 120), due(120, 60, 245)
    (120, 180, 300)
    """
    return max(cut_ms, (reached_ms // every_ms + 1) * every_ms) if reached_ms > NEVER_MS else cut_ms


def keys_of(told: Iterable[Range]) -> Sequence[bytes]:
    """Return the ids of ranges."""
    packed: list[bytes] = []
    for one in told:
        packed += [part.ids for part in one.predictions]
        packed += [part.ids for part in one.labels]
    return [ids[i : i + DIGEST_BYTES] for ids in packed for i in range(0, len(ids), DIGEST_BYTES)]


def _is_over(time_ms: int, settings: ModelSettings, reached_ms: int) -> bool:
    assert settings.labelling is not None
    return known_from(time_ms, settings.pane_ms) + settings.labelling.retention_ms <= reached_ms


def _same_prediction(a: Entry, b: Entry) -> bool:
    return (a.kind, a.time_ms, a.place, a.offset) == (b.kind, b.time_ms, b.place, b.offset)


def _labelled(entry: Entry, labels: tuple[Label, ...]) -> Entry:
    return Entry(entry.kind, entry.time_ms, entry.place, entry.offset, entry.predicted, entry.scores, entry.segments, labels)
