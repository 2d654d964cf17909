"""Rows of many panes that were read with their fetch, while they were in the processor's cache, and wait until they are folded.

As objects, an event of twenty features takes 2.2 kB and is far from the processor by the time that its pane has enough rows to be worth a
fold; as columns, which are put in order then, 210 bytes, so ten times as many may wait; where the compiled part has counted it at once, 50.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from monitor.columns import About, Bool, ColumnBatch, HashedIds, Int, More, Read, order_of, present
from monitor.event_envelope import MORE, NO_MORE, envelope
from monitor.layout import Layout
from monitor.parts import Part
from monitor.stages.ingest.gathered_columns import GatheredColumns, ordered
from monitor.stages.ingest.gathered_ids import Crcs, GatheredIds
from monitor.tally import Tally

TEXT_BYTES = 80
"""Of a name of 36 bytes, as an object in a list."""


class _Taken(NamedTuple):
    """Rows of one fetch, less their values: what is of a row has shape (n,), or (4, n) for marks."""

    places: Int
    marks: Int
    before: Int
    more: More | None
    inspected: Bool
    ids: Sequence[str | None] | None


class Gathered:
    """Rows of panes whose layouts have one shape, in the order of the log.

    layout: of one of them. places: of the panes, in the owner's list. tally: counts the rows as they come; None: their values are kept.
    """

    def __init__(self, layout: Layout, tally: Tally | None = None) -> None:
        self.layout = layout
        self.places = set[int]()
        self.n = self._rows_bytes = 0
        self._tally = tally
        self._columns = GatheredColumns(layout)
        self._taken: list[_Taken] = []
        self._ids = GatheredIds()
        self._unexpected: dict[int, Counter[str]] = {}

    def add(self, read: Read, places: Int, marks: Int, before: Int, limits: Crcs) -> None:
        """Take rows in. places: of their panes, in the owner's list. marks: as in `Pane.wait`. before: the clock before each row.

        limits: of the panes' samples of ids (sketches/id_sample.py).
        """
        if self._tally is not None:
            self._tally.add(read.columns, places)
        else:
            self._columns.add(read.columns)
        said = read.said
        taken = _Taken(places, marks, before, None if said is None else said.more, read.inspected, read.ids)
        self._taken.append(taken)
        self.places.update(present(places).tolist())
        if said is not None:
            self._ids.add(said, places, limits)
        for row, names in read.unexpected.items():
            self._unexpected.setdefault(int(places[row]), Counter()).update(names)
        self.n += len(places)
        n_texts = (0 if taken.more is None else len(MORE)) + (read.ids is not None)
        self._rows_bytes += (
            sum(array.nbytes for array in (places, marks, before, read.inspected)) + len(places) * TEXT_BYTES * n_texts
        )

    @property
    def is_counted(self) -> bool:
        """Whether rows are counted as they come."""
        return self._tally is not None

    @property
    def held_bytes(self) -> int:
        """Memory that the rows take, about."""
        of_values = self._columns.held_bytes if self._tally is None else self._tally.held_bytes
        return self._rows_bytes + of_values + self._ids.held_bytes

    def in_order(self, places: Sequence[int], n: int) -> Ordered:
        """Return the rows, those of a pane in the order of the log; nothing is left here. places: of the panes, as they are to follow each other.

        n: places that there are.
        """
        ranks = np.zeros(n, np.int64)
        ranks[places] = np.arange(len(places))
        taken, self._taken = self._taken, []
        ranked = ranks[np.concatenate([part.places for part in taken])]
        order = order_of(ranked) if len(self.places) > 1 else None
        return Ordered(
            ranked if order is None else ranked[order],
            ordered([part.marks for part in taken], order),
            ordered([part.before for part in taken], order),
            self._columns.in_order(order) if self._tally is None else self._tally.parts(places),
            _more(taken, order),
            self._ids.by_place(self.places, n),
            _texts(taken, order),
            ordered([part.inspected for part in taken], order),
            self._unexpected,
        )


class Ordered(NamedTuple):
    """Rows by pane; what is of a row has shape (n,).

    columns: in place of them, where the rows have been counted, what each pane counts. texts: ids as they are, none where they are not kept.
    By the place of a pane: ids, and how many rows have one that is no text; unexpected: rows by name of a feature that was not expected.
    """

    ranks: Int
    marks: Int
    before: Int
    columns: ColumnBatch | Iterator[Part]
    more: More | None
    ids: Mapping[int, tuple[HashedIds, int]]
    texts: Sequence[str | None]
    inspected: Bool
    unexpected: Mapping[int, Mapping[str, int]]

    def about(self, begin: int, end: int, n_inspected: int, place: int) -> About:
        """Return what rows [begin, end) say, those of the pane of a place; n_inspected: of them."""
        more = None if self.more is None else tuple(values[begin:end] for values in self.more)
        said = envelope(*self.ids[place], more)
        return About(said, n_inspected, self.unexpected.get(place, {}))


def _texts(taken: Sequence[_Taken], order: Int | None) -> Sequence[str | None]:
    texts = list(chain.from_iterable(part.ids or () for part in taken))
    return texts if order is None or not texts else [texts[place] for place in order.tolist()]


def _more(taken: Sequence[_Taken], order: Int | None) -> More | None:
    """Return what events say of themselves beside their ids, in an order; None where no event says any of it."""
    if all(part.more is None for part in taken):
        return None
    places = range(sum(len(part.places) for part in taken)) if order is None else order.tolist()
    by_field = zip(*(part.more or [[absent] * len(part.places) for absent in NO_MORE] for part in taken), strict=True)
    return tuple([values[place] for place in places] for values in map(list, map(chain.from_iterable, by_field)))
