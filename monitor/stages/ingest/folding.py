"""Panes that have few rows each are folded together: read as columns at once, counted at once where they have one layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from operator import attrgetter

import numpy as np

from monitor.columns import NOTHING_SAID, ColumnBatch
from monitor.formats import Format
from monitor.parts import Part, parts_of
from monitor.stages.ingest.outcome_rows import OutcomeRows
from monitor.stages.ingest.panes import Pane
from monitor.stream_facts import times_of, timings_of

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
    timings = timings_of(times_of(times, stamps), clock, starts)
    for pane, part, timing, begin, end in zip(panes, parts_of_panes(panes, batch, ends), timings, starts, ends, strict=True):
        about = wire.about(pane.layout, pane.waiting, offsets[begin:end])
        rows = batch.part(begin, end, about) if part is None or outcomes is not None else None
        if outcomes is not None and rows is not None:
            outcomes.take(pane.place, pane.reference, rows, wire.ids(pane.waiting), pane.joined_marks()[:2])
        pane.take_in(int(offsets[end - 1]), about, timing, part, rows)


def parts_of_panes(panes: Sequence[Pane], batch: ColumnBatch, ends: Sequence[int]) -> Iterator[Part | None]:
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
