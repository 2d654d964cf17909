"""Panes that have few rows each are folded together: read as columns at once, counted at once where they have one layout."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby, islice
from operator import attrgetter

import numpy as np

from monitor.columns import NOTHING_SAID, ColumnBatch
from monitor.formats import Format
from monitor.parts import Part, parts_of
from monitor.stages.ingest.gathered import Gathered, Ordered
from monitor.stages.ingest.outcome_rows import OutcomeRows
from monitor.stages.ingest.panes import Pane
from monitor.stream_facts import timings_of

FEW_ROWS = 500
"""A pane with more is folded alone: sorting its own values is cheaper than placing each."""
ROWS_AT_ONCE = 4_000
"""Of panes that are folded together: enough for numpy, few enough for the processor's cache."""

_shape, _layout = attrgetter("layout.shape"), attrgetter("layout.sha256")


def fold_together(panes: Iterable[Pane], wire: Format, outcomes: OutcomeRows | None) -> list[Pane]:
    """Fold what waits in panes that can be folded with others; return those that are to be folded alone."""
    few, alone = list[Pane](), list[Pane]()
    for pane in panes:
        (few if pane.can_join and len(pane.waiting) < FEW_ROWS else alone).append(pane)
    few.sort(key=lambda pane: (_shape(pane), _layout(pane)))
    for _, of_shape in groupby(few, _shape):
        for group in _groups(of_shape):
            if len(group) == 1:
                alone += group
            else:
                _fold(group, wire, outcomes)
    return alone


def fold_gathered(gathered: Gathered, panes: Sequence[Pane], outcomes: OutcomeRows | None = None) -> list[Pane]:
    """Fold rows that were read with their fetches, tell `outcomes` of them, and return their panes.

    panes: those that the rows' places lie among.
    """
    places = sorted(gathered.places, key=lambda place: (_layout(panes[place]), place))
    rows = gathered.in_order(places, len(panes))
    ends = np.cumsum(np.bincount(rows.ranks, minlength=len(places))).tolist()
    first = 0
    while first < len(places):
        begin = ends[first - 1] if first else 0
        beyond = max(first + 1, bisect_left(ends, begin + ROWS_AT_ONCE) + 1)
        some = [(place, panes[place]) for place in places[first:beyond]]
        _fold_ordered(rows, some, begin, ends[first:beyond], outcomes)
        first = beyond
    return [panes[place] for place in places]


def _fold_ordered(
    rows: Ordered, panes: Sequence[tuple[int, Pane]], first: int, ends: Sequence[int], outcomes: OutcomeRows | None
) -> None:
    """Fold the rows from `first` on into the panes, each with its place; ends: behind the last row of each."""
    starts = [0, *(end - first for end in ends[:-1])]
    _, times, stamps, clock = rows.marks[:, first : ends[-1]]
    timings = timings_of(times, stamps, clock, starts)
    inspected = np.add.reduceat(rows.inspected[first : ends[-1]], starts, dtype=np.int64).tolist()
    parts: Iterable[Part | None]
    if isinstance(rows.columns, ColumnBatch):
        batch = rows.columns.part(first, ends[-1], NOTHING_SAID)
        parts = _parts([pane for _, pane in panes], batch, [end - first for end in ends])
    else:
        batch, parts = None, islice(rows.columns, len(panes))
    for (place, pane), part, timing, n, start, end in zip(panes, parts, timings, inspected, starts, ends, strict=True):
        begin = first + start
        about = rows.about(begin, end, n, place)
        alone = batch.part(start, end - first, about) if batch is not None and (part is None or outcomes is not None) else None
        if outcomes is not None and alone is not None:
            outcomes.take(pane.place, pane.reference, alone, rows.texts[begin:end], rows.marks[:2, begin:end])
        pane.begin(int(rows.marks[0, begin]), int(rows.before[begin]))
        pane.take_in(int(rows.marks[0, end - 1]), about, timing, part, alone)


def _groups(panes: Iterable[Pane]) -> Iterator[list[Pane]]:
    group, n = list[Pane](), 0
    for pane in panes:
        group.append(pane)
        n += len(pane.waiting)
        if n >= ROWS_AT_ONCE:
            yield group
            group, n = [], 0
    if group:
        yield group


def _fold(panes: Sequence[Pane], wire: Format, outcomes: OutcomeRows | None) -> None:
    ends = list(accumulate(len(pane.waiting) for pane in panes))
    starts = [0, *ends[:-1]]
    batch = wire.values(panes[0].layout, [payload for pane in panes for payload in pane.waiting])
    offsets, times, stamps, clock = np.concatenate([of_fetch for pane in panes for of_fetch in pane.marks], axis=1)
    timings = timings_of(times, stamps, clock, starts)
    for pane, part, timing, begin, end in zip(panes, _parts(panes, batch, ends), timings, starts, ends, strict=True):
        about = wire.about(pane.layout, pane.waiting, offsets[begin:end])
        rows = batch.part(begin, end, about) if part is None or outcomes is not None else None
        if outcomes is not None and rows is not None:
            outcomes.take(pane.place, pane.reference, rows, wire.ids(pane.waiting), pane.joined_marks()[:2])
        pane.take_in(int(offsets[end - 1]), about, timing, part, rows)


def _parts(panes: Sequence[Pane], batch: ColumnBatch, ends: Sequence[int]) -> Iterator[Part | None]:
    """Yield what of a batch each pane counts; None where it has to count for itself, by segment."""
    first = 0
    for _, of_layout in groupby(panes, _layout):
        mine = list(of_layout)
        layout, begin, end = mine[0].layout, ends[first - 1] if first else 0, ends[first + len(mine) - 1]
        starts = [ends[i - 1] - begin if i else 0 for i in range(first, first + len(mine))]
        first += len(mine)
        if layout.segmentations or (len(mine) == 1 and end - begin >= FEW_ROWS):
            yield from [None] * len(mine)
        else:
            rows = batch if end - begin == batch.n else batch.part(begin, end, NOTHING_SAID)
            yield from parts_of(layout, rows, starts)
