"""Rows that wait as columns until they are put in order and folded."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from monitor.columns import NOTHING_SAID, About, Bool, ColumnBatch, Int, More, Read, order_of, present
from monitor.layout import Layout
from monitor.stages.ingest.folding import ROWS_AT_ONCE, parts_of_panes
from monitor.stages.ingest.gathered.columns import GatheredColumns, ordered
from monitor.stages.ingest.gathered.said import TEXT_BYTES, Crcs, GatheredSaid, SaidOfPane, more_bytes, more_of, part_of
from monitor.stages.ingest.outcome_rows import OutcomeRows
from monitor.stages.ingest.panes import Pane
from monitor.stream_facts import times_of, timings_of


class _Taken(NamedTuple):
    """Rows of one fetch, less their values: what is of a row has shape (n,), or (4, n) for marks."""

    places: Int
    marks: Int
    before: Int
    more: More | None
    inspected: Bool
    ids: Sequence[str | None] | None


class GatheredRows:
    """Rows whose values wait (`Gathered`). layout: of one of their panes'."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.n_waiting = self.n_counted = self._rows_bytes = 0
        self._places = set[int]()
        self._columns = GatheredColumns(layout)
        self._taken: list[_Taken] = []
        self._said = GatheredSaid()

    def add(self, read: Read, places: Int, marks: Int, before: Int, limits: Crcs) -> None:
        """Take rows in; see `Gathered`."""
        self._columns.add(read.columns)
        taken = _Taken(places, marks, before, None if read.said is None else read.said.more, read.inspected, read.ids)
        self._taken.append(taken)
        self._said.add(read, places, limits)
        self._places.update(present(places).tolist())
        self.n_waiting += len(places)
        self._rows_bytes += sum(array.nbytes for array in (places, marks, before, read.inspected)) + more_bytes(taken.more)
        self._rows_bytes += 0 if read.ids is None else TEXT_BYTES * len(places)

    @property
    def held_bytes(self) -> int:
        """Memory that the rows take, about."""
        return self._rows_bytes + self._columns.held_bytes + self._said.held_bytes

    def fold(self, panes: Sequence[Pane], outcomes: OutcomeRows | None) -> list[Pane]:
        """Fold the rows into their panes; see `Gathered`."""
        places = sorted(self._places, key=lambda place: (panes[place].layout.sha256, place))
        rows = self._in_order(places, len(panes))
        ends = np.cumsum(np.bincount(rows.ranks, minlength=len(places))).tolist()
        first = 0
        while first < len(places):
            begin = ends[first - 1] if first else 0
            beyond = max(first + 1, bisect_left(ends, begin + ROWS_AT_ONCE) + 1)
            some = [(place, panes[place]) for place in places[first:beyond]]
            _fold(rows, some, begin, ends[first:beyond], outcomes)
            first = beyond
        return [panes[place] for place in places]

    def _in_order(self, places: Sequence[int], n: int) -> _Ordered:
        """Return the rows, those of a pane in the order of the log; nothing is left here. places: of the panes, as they are to follow each other.

        n: places that there are.
        """
        ranks = np.zeros(n, np.int64)
        ranks[places] = np.arange(len(places))
        taken, self._taken = self._taken, []
        ranked = ranks[np.concatenate([part.places for part in taken])]
        order = order_of(ranked) if len(self._places) > 1 else None
        return _Ordered(
            ranked if order is None else ranked[order],
            ordered([part.marks for part in taken], order),
            ordered([part.before for part in taken], order),
            self._columns.in_order(order),
            more_of([(part.more, len(part.places)) for part in taken], order),
            self._said.by_place(self._places, n),
            _texts(taken, order),
            ordered([part.inspected for part in taken], order),
        )


class _Ordered(NamedTuple):
    """Rows by pane; what is of a row has shape (n,).

    texts: ids as they are, none where they are not kept. said: by the place of a pane.
    """

    ranks: Int
    marks: Int
    before: Int
    columns: ColumnBatch
    more: More | None
    said: Mapping[int, SaidOfPane]
    texts: Sequence[str | None]
    inspected: Bool

    def about(self, begin: int, end: int, n_inspected: int, place: int) -> About:
        """Return what rows [begin, end) say, those of the pane of a place; n_inspected: of them."""
        return self.said[place].about(n_inspected, part_of(self.more, slice(begin, end)))


def _texts(taken: Sequence[_Taken], order: Int | None) -> Sequence[str | None]:
    texts = list(chain.from_iterable(part.ids or () for part in taken))
    return texts if order is None or not texts else [texts[place] for place in order.tolist()]


def _fold(
    rows: _Ordered, panes: Sequence[tuple[int, Pane]], first: int, ends: Sequence[int], outcomes: OutcomeRows | None
) -> None:
    """Fold the rows from `first` on into the panes, each with its place; ends: behind the last row of each."""
    starts = [0, *(end - first for end in ends[:-1])]
    _, times, stamps, clock = rows.marks[:, first : ends[-1]]
    timings = timings_of(times_of(times, stamps), clock, starts)
    inspected = np.add.reduceat(rows.inspected[first : ends[-1]], starts, dtype=np.int64).tolist()
    batch = rows.columns.part(first, ends[-1], NOTHING_SAID)
    parts = parts_of_panes([pane for _, pane in panes], batch, [end - first for end in ends])
    for (place, pane), part, timing, n, start, end in zip(panes, parts, timings, inspected, starts, ends, strict=True):
        begin = first + start
        about = rows.about(begin, end, n, place)
        alone = batch.part(start, end - first, about) if part is None or outcomes is not None else None
        if outcomes is not None and alone is not None:
            outcomes.take(pane.place, pane.reference, alone, rows.texts[begin:end], rows.marks[:2, begin:end])
        pane.begin(int(rows.marks[0, begin]), int(rows.before[begin]))
        pane.take_in(int(rows.marks[0, end - 1]), about, timing, part, alone)
