"""Rows that are counted as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, starmap
from typing import NamedTuple

import numpy as np

from monitor.columns import Int, More, Read, by_place
from monitor.layout import Layout
from monitor.profiles import Profile
from monitor.stages.ingest.gathered.columns import ordered
from monitor.stages.ingest.gathered.said import Crcs, GatheredSaid, more_bytes, more_of, part_of
from monitor.stages.ingest.outcome_rows import OutcomeRows
from monitor.stages.ingest.panes import Pane
from monitor.stream_facts import NO_TIMES, Times, times_of
from monitor.tally import Grids, Tally


class _Named(NamedTuple):
    """Rows of one fetch in which some say more than their id; what is of a row has shape (n,)."""

    places: Int
    times: Times
    more: More


class GatheredCounts:
    """Rows that are counted as they come (`Gathered`); only where the compiled part is, and for layouts without segments.

    layout: of one of their panes'. profile_of: of the pane of a place.
    """

    def __init__(self, layout: Layout, profile_of: Callable[[int], Profile], grids: Grids) -> None:
        self.layout = layout
        self.n_waiting = self.n_counted = self._named_bytes = 0
        self._tally = Tally(layout, profile_of, grids)
        self._said = GatheredSaid()
        self._named: list[_Named] = []

    def add(self, read: Read, places: Int, marks: Int, before: Int, limits: Crcs) -> None:
        """Count rows; see `Gathered`."""
        self._tally.add(read.columns, places, marks, before, read.inspected)
        self._said.add(read, places, limits)
        self.n_counted += len(places)
        if read.said is not None and read.said.more is not None:
            _, times_ms, record_ms, _ = marks
            named = _Named(places, times_of(times_ms, record_ms), read.said.more)
            self._named.append(named)
            self._named_bytes += sum(array.nbytes for array in (places, *named.times)) + more_bytes(named.more)

    @property
    def held_bytes(self) -> int:
        """Memory that the rows take, about."""
        return self._tally.held_bytes + self._said.held_bytes + self._named_bytes

    def fold(self, panes: Sequence[Pane], outcomes: OutcomeRows | None) -> list[Pane]:
        """Give the panes what was counted of their rows; see `Gathered`."""
        assert outcomes is None  # rows that are joined are needed whole
        places = self._tally.places
        said, named_of = self._said.by_place(places, len(panes)), self._named_by_place()
        for place, counted in zip(places, self._tally.counted(), strict=True):
            times, more = named_of.get(place, (NO_TIMES, None))
            pane, about = panes[place], said[place].about(counted.n_inspected, more)
            pane.begin(counted.first, counted.before)
            pane.take_in(counted.last, about, counted.timing._replace(said=times), counted.part, None)
        return [panes[place] for place in places]

    def _named_by_place(self) -> dict[int, tuple[Times, More | None]]:
        """Return, by place, when the rows of fetches in which some say more than their id came, and what they say."""
        if not self._named:
            return {}
        order, found, starts = by_place(np.concatenate([part.places for part in self._named]))
        times_ms, delays_ms = (ordered(list(column), order) for column in zip(*(part.times for part in self._named), strict=True))
        more = more_of([(part.more, len(part.places)) for part in self._named], order)
        parts = starmap(slice, pairwise((*starts.tolist(), len(order))))
        return {
            place: (Times(times_ms[part], delays_ms[part]), part_of(more, part))
            for place, part in zip(found.tolist(), parts, strict=True)
        }
