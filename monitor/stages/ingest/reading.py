"""Which rows are read with their fetch: those of models that share a shape, where the fetch has enough of them to be read at once.

A shape is read so, or not, from one fold to the next: some of what a pane holds depends on the order of its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import cast

import numpy as np

from monitor.columns import Int, Places, present
from monitor.formats import Format
from monitor.layout import Layout
from monitor.profiles import Profile
from monitor.stages.ingest.arrivals import Arrived
from monitor.stages.ingest.gathered import Gathered
from monitor.stages.ingest.gathered.counts import GatheredCounts
from monitor.stages.ingest.gathered.rows import GatheredRows
from monitor.stages.ingest.meta import COUNTED, REVISED, IngestMeta
from monitor.stages.ingest.outcome_rows import OutcomeRows
from monitor.stages.ingest.panes import Pane
from monitor.tally import Grids

READ_ROWS = 64
"""Rows of a shape in a fetch: reading fewer at once costs as much as reading so many."""

_Shape = tuple[str, bool]
PaneOf = Callable[[str, str, int, int], Pane | None]
"""Model, version, start and cut (NEVER: none) → the pane, if its rows can be read before they are counted."""


class Reading:
    """The rows of one partition that were read with their fetch.

    meta: the owner's; `settle` brings its counts by model up to date. outcomes: told of every row as it is folded, where there is a join.
    """

    def __init__(self, meta: IngestMeta, outcomes: OutcomeRows | None = None) -> None:
        self._meta = meta
        self._outcomes = outcomes
        self._gathered: dict[_Shape, Gathered] = {}
        self._left_out: set[_Shape] = set()
        self._is_paused = False
        self._places: dict[tuple[int, int], dict[tuple[str, str], int]] = {}
        self._panes: list[Pane] = []
        self._limits: list[int] = []
        self._keys: list[tuple[str, str]] = []
        self._shapes = Places()
        self._shape_of: list[int] = []
        self._grids = Grids()
        self._uncounted: list[Int] = []

    @property
    def n_waiting(self) -> int:
        """How many rows wait as columns."""
        return sum(gathered.n_waiting for gathered in self._gathered.values())

    @property
    def n_counted(self) -> int:
        """How many rows were counted of which their panes do not know yet."""
        return sum(gathered.n_counted for gathered in self._gathered.values())

    @property
    def held_bytes(self) -> int:
        """Memory of the rows, about."""
        return sum(gathered.held_bytes for gathered in self._gathered.values())

    def take(self, arrived: Arrived, wire: Format, pane_of: PaneOf) -> Arrived:
        """Read what of a fetch can be, which has rows; return the others."""
        if self._is_paused:
            return arrived
        places = self._places_of(arrived, pane_of)
        n_rows = np.bincount(places[places >= 0], minlength=len(self._panes))
        is_read, limits = np.zeros(len(places), bool), np.array(self._limits, np.uint32)
        for shape, of_shape in self._by_shape(n_rows).items():
            if not self._is_read(shape, of_shape, n_rows, in_tables=wire.in_tables):
                continue
            mine = places >= 0 if len(of_shape) == np.count_nonzero(n_rows) else np.isin(places, of_shape)
            part = arrived if mine.all() else arrived.part(np.flatnonzero(mine))
            is_read |= mine
            gathered = self._gathered[shape]
            read = wire.read(gathered.layout, [self._keys[place] for place in of_shape], part.payloads, part.marks[0])
            if self._outcomes is not None:
                read = read._replace(ids=wire.ids(part.payloads))
            gathered.add(read, places[mine], part.marks, part.before, limits)
        if not is_read.any():
            return arrived
        self._uncounted.append(places[is_read])
        return arrived.part(np.flatnonzero(~is_read))

    def pause(self) -> None:
        """Read nothing up to the next `fold`; nothing was since the last one."""
        assert not self._gathered
        self._is_paused = True

    def _places_of(self, arrived: Arrived, pane_of: PaneOf) -> Int:
        """Return the place of each row's pane among those that rows wait for; −1 where the row is late, or cannot be read now."""
        places = np.full(len(arrived.rows), -1)
        (starts, start_of), (cuts, cut_of) = _distinct(arrived.starts), _distinct(arrived.cuts)
        for (i, start), (j, cut) in product(enumerate(starts), enumerate(cuts)):
            mine = np.flatnonzero((start_of == i) & (cut_of == j) & ~arrived.late)
            if len(mine):
                key_index = arrived.key_index[mine]
                found = present(key_index)
                place_of = np.empty(int(found[-1]) + 1, np.int64)
                place_of[found] = self._places_at(start, cut, list(map(arrived.batch.keys.__getitem__, found.tolist())), pane_of)
                places[mine] = place_of[key_index]
        return places

    def _places_at(self, start: int, cut: int, keys: Sequence[tuple[str, str]], pane_of: PaneOf) -> Sequence[int]:
        known = self._places.setdefault((start, cut), {})
        places = list(map(known.get, keys))
        if None not in places:
            return cast("list[int]", places)
        for key in [key for key, place in zip(keys, places, strict=True) if place is None]:
            pane = pane_of(*key, start, cut)
            known[key] = -1 if pane is None else len(self._panes)
            if pane is not None:
                self._panes.append(pane)
                self._limits.append(pane.id_limit)
                self._keys.append(key)
                self._shape_of.append(self._shapes[_shape_of(pane.layout)])
        return list(map(known.__getitem__, keys))

    def _by_shape(self, n_rows: Int) -> dict[_Shape, list[int]]:
        """Return the places of panes that have rows in a fetch, by the shape of their layouts."""
        places, shapes = np.flatnonzero(n_rows), list(self._shapes)
        shape_of = np.array(self._shape_of, np.int64)[places]
        return {shapes[shape]: places[shape_of == shape].tolist() for shape in present(shape_of).tolist()}

    def _is_read(self, shape: _Shape, places: Sequence[int], n_rows: Int, *, in_tables: bool) -> bool:
        """Whether rows of a shape are read now: others of it wait that were, or none does and these are enough.

        One by one, those of one pane alone are read when they are counted: there is nothing to put in order.
        """
        if shape in self._gathered:
            return True
        if shape in self._left_out or (len(places) < 2 and not in_tables) or int(n_rows[places].sum()) < READ_ROWS:
            self._left_out.add(shape)
            return False
        layout = self._panes[places[0]].layout
        is_counted = in_tables and not layout.segmentations and self._outcomes is None
        self._gathered[shape] = GatheredCounts(layout, self._profile_of, self._grids) if is_counted else GatheredRows(layout)
        return True

    def _profile_of(self, place: int) -> Profile:
        profile = self._panes[place].profile
        assert profile is not None
        return profile

    def settle(self) -> None:
        """Count the rows that were taken since the last call."""
        if not self._uncounted:
            return
        n_rows = np.bincount(np.concatenate(self._uncounted), minlength=len(self._panes))
        self._uncounted = []
        for place in np.flatnonzero(n_rows).tolist():
            pane = self._panes[place]
            self._meta.outcomes(pane.model, pane.version)[COUNTED if pane.cut_ms is None else REVISED] += int(n_rows[place])

    def fold(self) -> list[Pane]:
        """Fold what waits, and return the panes that it was for."""
        self.settle()
        folded = [pane for gathered in self._gathered.values() for pane in gathered.fold(self._panes, self._outcomes)]
        self._gathered, self._left_out, self._places, self._is_paused = {}, set(), {}, False
        self._panes, self._limits, self._keys, self._shapes, self._shape_of = [], [], [], Places(), []
        return folded


def _shape_of(layout: Layout) -> tuple[str, bool]:
    """Return what layouts are to have in common for their rows to be gathered together."""
    return layout.shape, bool(layout.segmentations)


def _distinct(values: Int) -> tuple[list[int], Int]:
    """Return the different values, and which one each is; mostly it is one."""
    if (values == values[0]).all():
        return [int(values[0])], np.zeros(len(values), np.int64)
    distinct, place = np.unique(values, return_inverse=True)
    return distinct.tolist(), place
