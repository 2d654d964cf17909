"""Which rows are read with their fetch: those of models that share a shape, where the fetch has enough of them to be read at once.

A shape is read so, or not, from one fold to the next: some of what a pane holds depends on the order of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from monitor.columns import Int
from monitor.formats import Format
from monitor.stages.ingest.arrivals import Arrived
from monitor.stages.ingest.folding import fold_gathered
from monitor.stages.ingest.gathered import Gathered
from monitor.stages.ingest.meta import COUNTED, REVISED, IngestMeta
from monitor.stages.ingest.panes import Pane
from monitor.windows import NEVER_MS

READ_ROWS = 64
"""Rows of a shape in a fetch: reading fewer at once costs as much as reading so many."""

PaneOf = Callable[[str, str, int, int], Pane | None]
"""Model, version, start and cut (NEVER: none) → the pane, if its rows can be read before they are counted."""


class _Group(NamedTuple):
    """Rows of a fetch that belong in one pane; place: of the pane among those that rows wait for, −1 where its rows are not read."""

    key: tuple[str, str]
    cut: int
    n: int
    place: int


class Reading:
    """The rows of one partition that wait as columns. meta: the owner's; rows count from when they are taken. n: how many wait."""

    def __init__(self, meta: IngestMeta) -> None:
        self.n = 0
        self._meta = meta
        self._gathered: dict[str, Gathered] = {}
        self._left_out: set[str] = set()
        self._places: dict[tuple[tuple[str, str], int, int], int] = {}
        self._panes: list[Pane] = []

    @property
    def held_bytes(self) -> int:
        """Memory of the rows, about."""
        return sum(gathered.held_bytes for gathered in self._gathered.values())

    def take(self, arrived: Arrived, wire: Format, pane_of: PaneOf) -> Arrived:
        """Read what of a fetch can be; return the others."""
        rows = np.flatnonzero(~arrived.late)
        if not len(rows):
            return arrived
        groups, group_of = self._sorted(arrived, rows, pane_of)
        places = np.array([group.place for group in groups], np.int64)
        is_read = np.zeros(len(arrived.rows), bool)
        for shape, of_shape in self._by_shape(groups).items():
            if not self._is_read(shape, [groups[i] for i in of_shape]):
                continue
            mine = np.isin(group_of, of_shape) if len(of_shape) < len(groups) else np.ones(len(rows), bool)
            at = rows[mine]
            is_read[at] = True
            part = arrived if len(at) == len(arrived.rows) else arrived.part(at)
            gathered = self._gathered[shape]
            keys = [groups[i].key for i in of_shape]
            read = wire.read(gathered.layout, keys, part.payloads, part.marks[0])
            gathered.add(read, places[group_of[mine]], part.marks, part.before)
            self.n += len(at)
            for key, cut, n, _ in (groups[i] for i in of_shape):
                self._meta.outcomes(*key)[COUNTED if cut == NEVER_MS else REVISED] += n
        return arrived.part(np.flatnonzero(~is_read)) if is_read.any() else arrived

    def _sorted(self, arrived: Arrived, rows: Int, pane_of: PaneOf) -> tuple[list[_Group], Int]:
        """Return the panes of some rows of a fetch, and which one each row belongs in."""
        (starts, start_of), (cuts, cut_of) = _distinct(arrived.starts[rows]), _distinct(arrived.cuts[rows])
        keys = arrived.batch.keys
        code = (start_of * len(cuts) + cut_of) * len(keys) + arrived.key_index[rows]
        n_rows = np.bincount(code)
        found = np.flatnonzero(n_rows)
        group_of = np.zeros(len(n_rows), np.int64)
        group_of[found] = np.arange(len(found))
        groups = []
        for of_code, n in zip(found.tolist(), n_rows[found].tolist(), strict=True):
            rest, key = divmod(of_code, len(keys))
            start, cut = starts[rest // len(cuts)], cuts[rest % len(cuts)]
            groups.append(_Group(keys[key], cut, n, self._place(keys[key], start, cut, pane_of)))
        return groups, group_of[code]

    def _place(self, key: tuple[str, str], start: int, cut: int, pane_of: PaneOf) -> int:
        place = self._places.get((key, start, cut))
        if place is None:
            pane = pane_of(*key, start, cut)
            place = -1 if pane is None else len(self._panes)
            self._places[key, start, cut] = place
            self._panes += () if pane is None else (pane,)
        return place

    def _by_shape(self, groups: Sequence[_Group]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for i, group in enumerate(groups):
            if group.place >= 0:
                found.setdefault(self._panes[group.place].layout.shape, []).append(i)
        return found

    def _is_read(self, shape: str, groups: Sequence[_Group]) -> bool:
        """Whether rows of a shape are read now: more of it wait that were, or none does and these are enough, of more panes than one."""
        if shape in self._gathered:
            return True
        if shape in self._left_out or len(groups) < 2 or sum(group.n for group in groups) < READ_ROWS:
            self._left_out.add(shape)
            return False
        self._gathered[shape] = Gathered(self._panes[groups[0].place].layout)
        return True

    def fold(self) -> list[Pane]:
        """Fold what waits, and return the panes that it was for."""
        folded = [pane for gathered in self._gathered.values() for pane in fold_gathered(gathered, self._panes)]
        self.n = 0
        self._gathered, self._left_out, self._places, self._panes = {}, set(), {}, []
        return folded


def _distinct(values: Int) -> tuple[list[int], Int]:
    """Return the different values, and which one each is; mostly it is one."""
    if (values == values[0]).all():
        return [int(values[0])], np.zeros(len(values), np.int64)
    distinct, place = np.unique(values, return_inverse=True)
    return distinct.tolist(), place
