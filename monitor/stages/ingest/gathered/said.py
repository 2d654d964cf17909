"""What rows that were read with their fetch say beside their values: ids are hashed, since as texts they would be the largest part of a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, compress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.columns import About, HashedIds, Int, More, Read, Said, order_of
from monitor.event_envelope import MORE, NO_MORE, envelope, ids_among
from monitor.sketches.id_sample import Hashes, hashes_of, mixed_crcs

Crcs = npt.NDArray[np.uint32]

TEXT_BYTES = 80
"""Of a name of 36 bytes, as an object in a list."""

_NO_PLACES: Int = np.zeros(0, np.int64)


class SaidOfPane(NamedTuple):
    """Ids of a pane's rows, how many have one that is no text, and rows by name of a feature that was not expected."""

    ids: HashedIds
    n_wrong: int
    unexpected: Mapping[str, int]

    def about(self, n_inspected: int, more: More | None) -> About:
        """Return what the rows say. n_inspected: of them. more: as they say it, by row."""
        return About(envelope(self.ids, self.n_wrong, more), n_inspected, self.unexpected)


class GatheredSaid:
    """Ids and unexpected names by the place of their rows' pane.

    held_bytes: memory of the ids' hashes, about. Kept of an id is what a sample may keep of it, often nothing.
    """

    def __init__(self) -> None:
        self.held_bytes = 0
        self._n_ids = self._n_wrong = _NO_PLACES
        self._places: list[Int] = []
        self._hashes: list[Hashes] = []
        self._unexpected: dict[int, Counter[str]] = {}

    def add(self, read: Read, places: Int, limits: Crcs) -> None:
        """Take in what some rows say. places: of their panes. limits: of the samples of ids of all panes (sketches/id_sample.py)."""
        if read.said is not None:
            self._add_ids(read.said, places, limits)
        for row, names in read.unexpected.items():
            self._unexpected.setdefault(int(places[row]), Counter()).update(names)

    def _add_ids(self, said: Said, places: Int, limits: Crcs) -> None:
        ids = said.ids
        if not said.has_ids:
            is_id, is_wrong = ids_among(ids)
            self._n_wrong = _counted(self._n_wrong, places[is_wrong], len(limits))
            ids, places = list(compress(ids, is_id)), places[is_id]
        self._n_ids = _counted(self._n_ids, places, len(limits))
        mixed = mixed_crcs(ids)
        at = np.flatnonzero(mixed <= limits[places])
        if len(at):
            kept = ids if len(at) == len(ids) else [ids[i] for i in at.tolist()]
            self._places.append(places[at])
            self._hashes.append(hashes_of(kept, mixed[at]))
            self.held_bytes += self._places[-1].nbytes + self._hashes[-1].nbytes

    def by_place(self, of: Iterable[int], n: int) -> dict[int, SaidOfPane]:
        """Return what the rows of the panes of some places say. n: places that there are."""
        places = np.concatenate((_NO_PLACES, *self._places))
        hashes = np.concatenate((np.zeros(0, np.uint64), *self._hashes))[order_of(places)]
        ends = [0, *np.cumsum(np.bincount(places, minlength=n)).tolist()]
        n_ids, n_wrong = (_counted(counts, _NO_PLACES, n).tolist() for counts in (self._n_ids, self._n_wrong))
        return {
            place: SaidOfPane(
                HashedIds(n_ids[place], hashes[ends[place] : ends[place + 1]]), n_wrong[place], self._unexpected.get(place, {})
            )
            for place in of
        }


def _counted(before: Int, places: Int, n: int) -> Int:
    """Return counts by place, of `n` places, with some more."""
    counts = np.bincount(places, minlength=n)
    counts[: len(before)] += before
    return counts


def more_of(parts: Sequence[tuple[More | None, int]], order: Int | None) -> More | None:
    """Return what events say of themselves beside their ids, in an order; None where no event says any of it. parts: each with its rows."""
    if all(more is None for more, _ in parts):
        return None
    places = range(sum(n for _, n in parts)) if order is None else order.tolist()
    by_field = zip(*(more or [[absent] * n for absent in NO_MORE] for more, n in parts), strict=True)
    return tuple([values[place] for place in places] for values in map(list, map(chain.from_iterable, by_field)))


def part_of(more: More | None, part: slice) -> More | None:
    """Return what some of the events say."""
    return None if more is None else tuple(values[part] for values in more)


def more_bytes(more: More | None) -> int:
    """Return the memory that it takes, about."""
    return 0 if more is None else TEXT_BYTES * len(MORE) * len(more[0])
