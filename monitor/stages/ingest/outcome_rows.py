"""Rows of one source partition on their way to the join: gathered as panes fold them, and packed into ranges at a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from monitor.columns import Bool, Codes, ColumnBatch, Float, Int, LabelRow
from monitor.events import Outcome
from monitor.hash_key import HashKey
from monitor.layout import Layout
from monitor.performance import ErrorTrees, PerformanceSpec
from monitor.ports import Message
from monitor.reference import PREDICTION, Reference
from monitor.stages.ingest.meta import IngestMeta
from monitor.stages.outcomes import Labels, Predictions, Range, encode, partition_of
from monitor.stages.settings import Settings

MAX_RANGE_BYTES = 1 << 20
"""Of rows in one message; a longer range is cut in two."""
MAX_LABEL_CHARS = 512
"""Of a label's text, that much is kept: no class has a longer name."""
ROW_BYTES = 60

NO_ID, NO_REFERENCE = "no_id", "no_reference"
"""Why a row cannot be joined: it has no id; or no reference says what its predictions and labels are."""


class _Made(NamedTuple):
    """Rows of one pane; by row: ids (n, 16), offsets, times, predicted (n,), scores (n, k), segments (n, s)."""

    place: tuple[str, str, int, str]
    ids: Codes
    offsets: Int
    times: Int
    predicted: Int | Float
    scores: Float
    segments: Int

    def rows(self, at: Int | Bool) -> _Made:
        return _Made(
            self.place,
            self.ids[at],
            self.offsets[at],
            self.times[at],
            self.predicted[at],
            self.scores[at],
            self.segments[at],
        )

    def packed(self) -> Predictions:
        kind = "<i4" if self.predicted.dtype.kind == "i" else "<f8"
        return Predictions(
            *self.place,
            self.ids.tobytes(),
            self.offsets.astype("<i8").tobytes(),
            self.times.astype("<i8").tobytes(),
            self.predicted.astype(kind).tobytes(),
            self.scores.astype("<f8").tobytes(),
            self.segments.astype("<u2").tobytes(),
        )


class _Known(NamedTuple):
    """Labels of one model."""

    model: str
    ids: Codes
    offsets: Int
    times: Int
    values: list[Outcome]

    def rows(self, at: Int | Bool) -> _Known:
        places = np.arange(len(self.values))[at].tolist()
        return _Known(self.model, self.ids[at], self.offsets[at], self.times[at], [self.values[i] for i in places])

    def packed(self) -> Labels:
        offsets, times = self.offsets.astype("<i8").tobytes(), self.times.astype("<i8").tobytes()
        return Labels(self.model, self.ids.tobytes(), offsets, times, self.values)


_Rows = TypeVar("_Rows", _Made, _Known)


class Specs:
    """Performance specifications by reference, made once."""

    def __init__(self) -> None:
        self._known: dict[str, PerformanceSpec] = {}
        self._trees: dict[str, ErrorTrees | None] = {}

    def of(self, reference: Reference) -> PerformanceSpec:
        """Return the specification of a reference."""
        spec = self._known.get(reference.sha256)
        if spec is None:
            spec = self._known[reference.sha256] = PerformanceSpec.of(reference)
        return spec

    def trees_of(self, reference: Reference) -> ErrorTrees | None:
        """Return what tells the error to be expected of a row; None where the reference does not know."""
        if reference.sha256 not in self._trees:
            model = self.of(reference).error_model
            self._trees[reference.sha256] = None if model is None else ErrorTrees(model, reference.layout)
        return self._trees[reference.sha256]


class OutcomeRows:
    """Gathers rows; `messages` packs and forgets them.

    meta: the owner's; its counts of rows that cannot be joined are changed in place. n: rows that were gathered, labels too.
    """

    def __init__(self, settings: Settings, hash_key: HashKey, meta: IngestMeta) -> None:
        self._settings = settings
        self._hash_key = hash_key
        self._meta = meta
        self._specs = Specs()
        self._made: dict[tuple[str, str, int, str], list[_Made]] = {}
        self._known: list[_Known] = []
        self._upto: int | None = None
        self.n = 0

    def begin(self, offset: int) -> None:
        """Say up to which offset everything was told, if that is not known yet."""
        if self._upto is None:
            self._upto = offset

    # --- gathering

    def take(
        self,
        place: tuple[str, str, int],
        reference: Reference | None,
        batch: ColumnBatch,
        texts: Sequence[str | None],
        marks: Int,
    ) -> None:
        """Take rows of a pane (model, version, start) as columns of its layout. texts: their ids. marks: offset and event time, shape (2, n)."""
        spec = None if reference is None else self._specs.of(reference)
        if reference is None or spec is None or spec.task == "unknown":
            self._count(place[0], NO_REFERENCE, len(texts))
            return
        at = np.array([i for i, text in enumerate(texts) if text], np.int64)
        self._count(place[0], NO_ID, len(texts) - len(at))
        if not len(at):
            return
        ids = self._hash_key.digests(f"{place[0]}|", (text.encode("utf-8", "surrogatepass") for text in filter(None, texts)))
        key = (*place, reference.sha256)
        layout = reference.layout
        predicted, scores, segments = _outcomes(layout, spec, batch, self._specs.trees_of(reference))
        rows = _Made(key, ids, marks[0, at], marks[1, at], predicted[at], scores[at], segments[at])
        self._made.setdefault(key, []).append(rows)
        self.n += len(at)

    def take_labels(self, rows: Sequence[LabelRow]) -> None:
        """Take labels, by offset."""
        by_model: dict[str, list[LabelRow]] = {}
        for row in rows:
            if row.id:
                by_model.setdefault(row.model, []).append(row)
            else:
                self._count(row.model, NO_ID, 1)
        for model, mine in by_model.items():
            ids = self._hash_key.digests(f"{model}|", (row.id.encode("utf-8", "surrogatepass") for row in mine))
            offsets, times = np.array([[row.offset, row.time_ms] for row in mine], np.int64).T
            self.n += len(mine)
            self._known.append(_Known(model, ids, offsets, times, [_bounded(row.value) for row in mine]))

    def _count(self, model: str, reason: str, n: int) -> None:
        if n:
            counts = self._meta.unjoined
            assert isinstance(counts, dict)
            of_model = counts.setdefault(model, {})
            of_model[reason] = of_model.get(reason, 0) + n

    # --- packing

    def messages(self, epoch: int, upto: int, closed: dict[int, int], *, idle: bool) -> tuple[Message, ...]:
        """Return what the source partition has up to an offset, for each partition of `outcomes`; the next call goes on from there."""
        begin = upto if self._upto is None else self._upto
        self._upto = upto
        made = [_joined(self._made[key]) for key in sorted(self._made)]  # whatever pane was folded first
        known, self._made, self._known, self.n = self._known, {}, [], 0
        n = self._settings.outcomes_partitions
        of_made, of_known = [_split(rows, n) for rows in made], [_split(rows, n) for rows in known]
        meta, topic = self._meta, self._settings.topic("outcomes")
        messages = []
        for r in range(n):
            mine = [rows[r] for rows in of_made if r in rows]
            labels = [rows[r] for rows in of_known if r in rows]
            first = begin
            for last in _cuts(mine, labels, upto):
                is_all = last == upto
                found = Range(
                    meta.topic, meta.partition, epoch, first, last,
                    closed if is_all else None, idle and is_all, meta.partitions,
                    [rows.packed() for rows in _between(mine, first, last)],
                    [rows.packed() for rows in _between(labels, first, last)],
                )  # fmt: skip
                messages.append(Message(topic, None, encode(found), r))
                first = last
        return tuple(messages)


def _outcomes(
    layout: Layout, spec: PerformanceSpec, batch: ColumnBatch, trees: ErrorTrees | None
) -> tuple[Int | Float, Float, Int]:
    """Return predicted (n,), scores (n, k) and segments (n, s) of a batch."""
    place = layout.index.get(PREDICTION)
    predicted: Int | Float
    if place is None:
        predicted = spec.codes([None] * batch.n)
    elif spec.task == "regression":
        predicted = _numbers(batch, layout.rows[place])
    else:
        values = batch.categories[layout.rows[place]]
        predicted = spec.outcomes([value if isinstance(value, str | int | float) else None for value in values])
    needs_cells = bool(layout.segmentations) or (trees is not None and bool(layout.categories))
    category_cells = layout.category_cells(batch) if needs_cells else None
    scores = np.empty((batch.n, spec.n_scores))
    if trees is not None:
        scores[:, 0] = trees.expected(batch, category_cells)
    for i, name in enumerate(spec.score_names):
        scores[:, i] = _numbers(batch, layout.rows[layout.index[name]])
    if not layout.segmentations or category_cells is None:
        return predicted, scores, np.zeros((batch.n, 0), np.int64)
    return predicted, scores, layout.segment_rows(batch, category_cells).T


def _numbers(batch: ColumnBatch, row: int) -> Float:
    numbers: Float = batch.numbers[row]
    return numbers if batch.specials is None else np.where(batch.specials[row] == 0, numbers, np.nan)


def _bounded(value: Outcome) -> Outcome:
    return value[:MAX_LABEL_CHARS] if isinstance(value, str) else value


def _joined(parts: list[_Made]) -> _Made:
    """Return rows that were folded a few at a time together, by offset."""
    whole = (
        parts[0]
        if len(parts) == 1
        else _Made(parts[0].place, *map(np.concatenate, zip(*(part[1:] for part in parts), strict=True)))
    )
    return whole if (whole.offsets[1:] > whole.offsets[:-1]).all() else whole.rows(np.argsort(whole.offsets, kind="stable"))


def _split(rows: _Rows, partitions: int) -> dict[int, _Rows]:
    """Return the rows by partition of `outcomes`."""
    if partitions == 1:
        return {0: rows}
    of = partition_of(rows.ids, partitions)
    return {r: rows.rows(of == r) for r in np.unique(of).tolist()}


def _between(parts: Sequence[_Rows], after: int, upto: int) -> Iterator[_Rows]:
    """Yield what of the rows lies after an offset and up to another, where there is any."""
    for rows in parts:
        first, last = np.searchsorted(rows.offsets, (after, upto), side="right").tolist()
        if last - first == len(rows.offsets):
            yield rows
        elif last > first:
            yield rows.rows(np.arange(first, last))


def _cuts(made: Sequence[_Made], known: Sequence[_Known], upto: int) -> list[int]:
    """Return where a range is cut so that no piece is much larger than MAX_RANGE_BYTES; `upto` is the last one."""
    sizes = [np.full(len(rows.offsets), ROW_BYTES + 8 * rows.scores.shape[1] + 2 * rows.segments.shape[1]) for rows in made]
    sizes += [np.array([ROW_BYTES + len(str(value)) for value in rows.values]) for rows in known]
    if sum(int(size.sum()) for size in sizes) <= MAX_RANGE_BYTES:
        return [upto]
    offsets = np.concatenate([rows.offsets for rows in made] + [rows.offsets for rows in known])
    order = np.argsort(offsets, kind="stable")
    piece = np.cumsum(np.concatenate(sizes)[order]) // MAX_RANGE_BYTES
    ends = offsets[order][np.flatnonzero(piece[1:] != piece[:-1])].tolist()
    return [*dict.fromkeys(end for end in ends if end < upto), upto]
