"""Ids of rows that wait as columns: hashed with their fetch, since as texts they would be the largest part of a row."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress

import numpy as np
import numpy.typing as npt

from monitor.columns import HashedIds, Int, Said, order_of
from monitor.event_envelope import ids_among
from monitor.sketches.id_sample import Hashes, hashes_of, mixed_crcs

Crcs = npt.NDArray[np.uint32]

_NO_PLACES: Int = np.zeros(0, np.int64)


class GatheredIds:
    """Ids by the place of their rows' pane.

    held_bytes: memory of the hashes, about. Kept of an id is what a sample may keep of it, often nothing.
    """

    def __init__(self) -> None:
        self.held_bytes = 0
        self._n_ids = self._n_wrong = _NO_PLACES
        self._places: list[Int] = []
        self._hashes: list[Hashes] = []

    def add(self, said: Said, places: Int, limits: Crcs) -> None:
        """Take the ids of some rows in. places: of their panes. limits: of the samples of all panes (sketches/id_sample.py)."""
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

    def by_place(self, of: Iterable[int], n: int) -> dict[int, tuple[HashedIds, int]]:
        """Return the ids of each of some places, and how many of its rows have one that is no text. n: places that there are."""
        places = np.concatenate((_NO_PLACES, *self._places))
        hashes = np.concatenate((np.zeros(0, np.uint64), *self._hashes))[order_of(places)]
        ends = [0, *np.cumsum(np.bincount(places, minlength=n)).tolist()]
        n_ids, n_wrong = (_counted(counts, _NO_PLACES, n).tolist() for counts in (self._n_ids, self._n_wrong))
        return {place: (HashedIds(n_ids[place], hashes[ends[place] : ends[place + 1]]), n_wrong[place]) for place in of}


def _counted(before: Int, places: Int, n: int) -> Int:
    """Return counts by place, of `n` places, with some more."""
    counts = np.bincount(places, minlength=n)
    counts[: len(before)] += before
    return counts
