"""Rows of many panes that wait as columns: read with their fetch, while they are in the processor's cache, and put in order when they are folded.

As objects, an event of twenty features takes 2.2 kB and is far from the processor by the time that its pane has enough rows to be worth a
fold; as columns it takes 210 bytes, so ten times as many may wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from monitor.columns import (
    About,
    Bool,
    Coded,
    Codes,
    ColumnBatch,
    Float,
    HashedIds,
    Indices,
    Int,
    More,
    Places,
    Read,
    order_of,
    present,
)
from monitor.event_envelope import MORE, NO_MORE, envelope
from monitor.layout import Layout
from monitor.stages.ingest.gathered_ids import Crcs, GatheredIds

TEXT_BYTES = 80
"""Of a name of 36 bytes, as an object in a list."""

_Scalar = TypeVar("_Scalar", bound=np.generic)


class _Taken(NamedTuple):
    """Rows of one fetch: what is of a row has shape (n,), or (4, n) for marks. numbers: by feature, so that each can be let go of."""

    places: Int
    marks: Int
    before: Int
    numbers: list[Float]
    specials: Codes | None
    categories: list[Indices]
    tags: list[Indices]
    more: More | None
    inspected: Bool
    ids: Sequence[str | None] | None


class Gathered:
    """Rows of panes whose layouts have one shape, in the order of the log.

    layout: of one of them. places: of the panes, in the owner's list.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.places = set[int]()
        self.n = self._rows_bytes = 0
        self._taken: list[_Taken] = []
        self._values = [Places() for _ in layout.categories]
        self._tags = [Places() for _ in layout.tags]
        self._ids = GatheredIds()
        self._unexpected: dict[int, Counter[str]] = {}

    def add(self, read: Read, places: Int, marks: Int, before: Int, limits: Crcs) -> None:
        """Take rows in. places: of their panes, in the owner's list. marks: as in `Pane.wait`. before: the clock before each row.

        limits: of the panes' samples of ids (sketches/id_sample.py).
        """
        batch = read.columns
        taken = _Taken(
            places,
            marks,
            before,
            [row.copy() for row in batch.numbers],
            batch.specials,
            [values.codes(column) for values, column in zip(self._values, batch.categories, strict=True)],
            [values.codes(column) for values, column in zip(self._tags, batch.tags, strict=True)],
            None if read.said is None else read.said.more,
            read.inspected,
            read.ids,
        )
        self._taken.append(taken)
        self.places.update(present(places).tolist())
        if read.said is not None:
            self._ids.add(read.said, places, limits)
        for row, names in read.unexpected.items():
            self._unexpected.setdefault(int(places[row]), Counter()).update(names)
        self.n += batch.n
        arrays: tuple[npt.NDArray[np.generic], ...] = (
            places,
            marks,
            before,
            *taken.numbers,
            *taken.categories,
            *taken.tags,
            read.inspected,
        )
        n_texts = (0 if taken.more is None else len(MORE)) + (read.ids is not None)
        self._rows_bytes += sum(array.nbytes for array in arrays) + batch.n * TEXT_BYTES * n_texts

    @property
    def held_bytes(self) -> int:
        """Memory that the rows take, about."""
        return self._rows_bytes + self._ids.held_bytes

    def in_order(self, ranks: Int) -> Ordered:
        """Return the rows by the rank of their panes, shape (number of panes,), those of a pane in the order of the log; nothing is left here."""
        taken, self._taken = self._taken, []
        ranked = ranks[np.concatenate([part.places for part in taken])]
        order = order_of(ranked) if len(self.places) > 1 else None
        numbers = np.empty((len(self.layout.numbers), self.n))
        for row in reversed(range(len(numbers))):  # from the end, so that what was put in order is let go of
            _ordered([part.numbers.pop() for part in taken], order, numbers[row])
        columns = ColumnBatch(
            self.n,
            numbers,
            _specials(taken, order),
            [Coded(list(v), _ordered([p.categories[i] for p in taken], order)) for i, v in enumerate(self._values)],
            tags=[Coded(list(v), _ordered([p.tags[i] for p in taken], order)) for i, v in enumerate(self._tags)],
        )
        return Ordered(
            ranked if order is None else ranked[order],
            _ordered([part.marks for part in taken], order),
            _ordered([part.before for part in taken], order),
            columns,
            _more(taken, order),
            self._ids.by_place(self.places, len(ranks)),
            _texts(taken, order),
            _ordered([part.inspected for part in taken], order),
            self._unexpected,
        )


class Ordered(NamedTuple):
    """Rows by pane; what is of a row has shape (n,).

    texts: ids as they are, none where they are not kept.
    By the place of a pane: ids, and how many rows have one that is no text; unexpected: rows by name of a feature that was not expected.
    """

    ranks: Int
    marks: Int
    before: Int
    columns: ColumnBatch
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


def _ordered(
    parts: Sequence[npt.NDArray[_Scalar]], order: Int | None, out: npt.NDArray[_Scalar] | None = None
) -> npt.NDArray[_Scalar]:
    """Return arrays one behind the other, by their last axis, in an order; None: as they are. out: where to, if it is there."""
    if order is None:
        return np.concatenate(parts, axis=-1, out=out)
    return np.take(np.concatenate(parts, axis=-1), order, axis=-1, out=out)


def _specials(taken: Sequence[_Taken], order: Int | None) -> Codes | None:
    if all(part.specials is None for part in taken):
        return None
    parts = [
        part.specials if part.specials is not None else np.zeros((_height(taken), len(part.places)), np.uint8) for part in taken
    ]
    return _ordered(parts, order)


def _height(taken: Sequence[_Taken]) -> int:
    return next(len(part.specials) for part in taken if part.specials is not None)


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
