"""Rows of many profiles counted as they come, by the compiled part (native/) where that is installed.

A pane of a few dozen rows is as cheap as one of thousands: nothing is sorted, and nothing but sums is kept until a pane takes in what
was counted of it. What a profile then holds is what `Profile.update` of its rows would have made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.columns import Coded, ColumnBatch, Float, Indices, Int, Objects, Places, Special, present
from monitor.compiled import counting as native
from monitor.layout import N_SPECIAL, Layout
from monitor.outside import Found
from monitor.parts import Part
from monitor.profiles import Profile
from monitor.sketches.moments import quantise_far

MAX_GRIDS: Final = 2_048
"""Layouts that are remembered from one tally to the next."""
MAX_CODES: Final = 1 << 18
"""Different values of a category, times layouts, whose cells are remembered."""

_NO_CELLS: Int = np.zeros(0, np.int64)
_UNKNOWN: Final = -1


class Grids(dict[str, Any]):
    """What the compiled part knows of a layout, by its hash."""

    def of(self, layout: Layout) -> Any:
        """Return a layout's, made if there is none."""
        found = self.get(layout.sha256)
        if found is None:
            if len(self) >= MAX_GRIDS:
                self.clear()
            found = self[layout.sha256] = _grid_of(layout)
        return found


class Tally:
    """Counts rows of profiles whose layouts have one shape and no segments; only where the compiled part is.

    layout: of one of them. profile_of: of a place, asked once. held_bytes: memory that it takes, about. Cells are counted in the profiles
    themselves; the rest is theirs with `parts`, after which nothing more may come.
    """

    def __init__(self, layout: Layout, profile_of: Callable[[int], Profile], grids: Grids) -> None:
        self._profile_of = profile_of
        self._known = grids
        self._slot_of: Int = np.zeros(0, np.int64)
        self._profiles: list[Profile] = []
        self._grids: list[Any] = []
        self._counts: list[npt.NDArray[Any]] = []
        self._layout_places = Places()
        self._layouts: list[Layout] = []
        self._layout_of: Int = np.zeros(0, np.int64)
        self._rows: Int = np.zeros(0, np.int64)
        self._room: Int = np.zeros(0, np.int64)
        self._sums: Int = np.zeros((0, len(layout.numbers), 4), np.int64)
        self._extremes: Float = np.zeros((0, len(layout.numbers), 2))
        self._far: list[tuple[int, int, int]] = []
        self._categories = [_Category(i) for i in range(len(layout.categories))]
        self.held_bytes = 0

    def add(self, batch: ColumnBatch, places: Int) -> None:
        """Count rows. places: of their profiles, shape (n,)."""
        slots = self._slots(places)
        rows = self._rows + np.bincount(slots, minlength=len(self._profiles))
        for slot in np.flatnonzero(rows > self._room).tolist():
            self._counts[slot] = self._profiles[slot].room_for(int(rows[slot]))
            self._room[slot] = np.iinfo(self._counts[slot].dtype).max - self._profiles[slot].n
        self._rows = rows
        cells = np.empty((len(self._categories), batch.n), np.int32)
        layout_of = None if len(self._layouts) == 1 else self._layout_of[slots]
        for category, column, of_column in zip(self._categories, batch.categories, cells, strict=True):
            category.place(column, slots, self._layouts, layout_of, of_column)
        specials = None if batch.specials is None else np.ascontiguousarray(batch.specials)
        counted = (slots, np.ascontiguousarray(batch.numbers), specials, cells, self._sums, self._extremes)
        for number, row in native.count(self._grids, self._counts, *counted):
            slot = int(slots[row])
            centres, exponents = self._profiles[slot].layout.grid
            q = quantise_far(float(batch.numbers[number, row]), float(centres[number]), int(exponents[number]))
            self._far.append((slot, number, q))
        of_categories = sum(category.held_bytes for category in self._categories)
        self.held_bytes = self._sums.nbytes + self._extremes.nbytes + of_categories

    def _slots(self, places: Int) -> Int:
        """Return the slot of each row's profile; new ones get one."""
        n = int(places.max()) + 1
        if n > len(self._slot_of):
            self._slot_of = np.concatenate((self._slot_of, np.full(n - len(self._slot_of), _UNKNOWN)))
        slots = self._slot_of[places]
        if (slots == _UNKNOWN).any():
            self._open(present(places[slots == _UNKNOWN]).tolist())
            slots = self._slot_of[places]
        return slots

    def _open(self, places: Sequence[int]) -> None:
        """Give slots to places that have none."""
        layout_of = []
        for place in places:
            profile = self._profile_of(place)
            layout = profile.layout
            self._slot_of[place] = len(self._profiles)
            self._profiles.append(profile)
            self._grids.append(self._known.of(layout))
            self._counts.append(profile.room_for(0))
            layout_of.append(self._layout_places[layout.sha256])
            if layout_of[-1] == len(self._layouts):
                self._layouts.append(layout)
        n = len(places)
        self._layout_of = np.concatenate((self._layout_of, np.array(layout_of, np.int64)))
        self._rows, self._room = (np.concatenate((kept, np.zeros(n, np.int64))) for kept in (self._rows, self._room))
        known, self._sums = self._sums, np.zeros((len(self._profiles), *self._sums.shape[1:]), np.int64)
        self._sums[: len(known)] = known
        ends, self._extremes = self._extremes, np.empty((len(self._profiles), *self._extremes.shape[1:]))
        self._extremes[: len(ends)], self._extremes[len(ends) :] = ends, (np.inf, -np.inf)

    def parts(self, places: Iterable[int]) -> Iterator[Part]:
        """Yield what was counted of the profiles of some places, all of which had rows."""
        sums = _sums_of(self._sums)
        for slot, number, q in self._far:
            sums[slot, number] += (q, q * q)
        low, high = np.moveaxis(self._extremes, -1, 0) + 0.0
        outside = [category.outside(self._profiles) for category in self._categories]
        for place in places:
            slot = int(self._slot_of[place])
            found = [of_category.get(slot) for of_category in outside]
            yield Part(int(self._rows[slot]), _NO_CELLS, (), sums[slot], low[slot], high[slot], found)


class _Category:
    """One category of the layouts of a tally: the cells of the values that came, and the rows whose values no dictionary has."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._values = Places()
        self._read: Sequence[object] = ()
        self._code_of: Indices = np.zeros(0, np.int32)
        self._cells: Indices = np.zeros((0, 0), np.int32)
        self._outside_cells: Int = np.zeros((0, 2), np.int64)
        self._outside: list[tuple[Int, list[object]]] = []

    @property
    def held_bytes(self) -> int:
        """Memory of the cells, and of rows outside, about."""
        return self._cells.nbytes + sum(slots.nbytes for slots, _ in self._outside)

    def place(
        self, column: Sequence[object], slots: Int, layouts: Sequence[Layout], layout_of: Int | None, cells: Indices
    ) -> None:
        """Write the cells of a column, shape (n,). layout_of: the place of each row's layout; None where there is but one."""
        if len(self._values) * len(layouts) > MAX_CODES:
            self._values, self._read, self._cells = Places(), (), np.zeros((0, 0), np.int32)
        codes = self._codes(column)
        if self._cells.shape != (len(layouts), len(self._values)):
            known, self._cells = self._cells, np.full((len(layouts), len(self._values)), _UNKNOWN, np.int32)
            self._cells[: known.shape[0], : known.shape[1]] = known
            new = [layout.outside_cells(self._index) for layout in layouts[len(self._outside_cells) :]]
            self._outside_cells = np.concatenate((self._outside_cells, np.array(new, np.int64).reshape(-1, 2)))
        rows: Int | int = 0 if layout_of is None else layout_of
        cells[:] = self._cells[rows, codes]
        is_unknown = cells == _UNKNOWN
        if is_unknown.any():
            self._learn(layouts, np.broadcast_to(rows, cells.shape)[is_unknown], codes[is_unknown])
            cells[:] = self._cells[rows, codes]
        is_outside = (cells == self._outside_cells[rows, 0]) | (cells == self._outside_cells[rows, 1])
        if is_outside.any():
            values = list(self._values)
            self._outside.append((slots[is_outside], [values[code] for code in codes[is_outside].tolist()]))

    def _codes(self, column: Sequence[object]) -> Indices:
        """Return the code of each row's value; what has coded a column of one batch mostly codes that of the next."""
        if not isinstance(column, Coded):
            return self._values.codes(column)
        if column.values is not self._read or len(column.values) != len(self._code_of):
            self._read, self._code_of = column.values, self._values.codes(column.values)
        codes: Indices = self._code_of[column.codes]
        return codes

    def _learn(self, layouts: Sequence[Layout], layout_of: Int, codes: Indices) -> None:
        """Find the cells of values that come for the first time under their layouts."""
        values = list(self._values)
        for place in present(layout_of).tolist():
            new = present(codes[layout_of == place])
            self._cells[place, new] = layouts[place].cells_of(self._index, [values[code] for code in new.tolist()])

    def outside(self, profiles: Sequence[Profile]) -> dict[int, Found | None]:
        """Return by slot what its layout's dictionary does not have, in the order of the log."""
        values: dict[int, list[object]] = {}
        for slots, of_rows in self._outside:
            for slot, value in zip(slots.tolist(), of_rows, strict=True):
                values.setdefault(slot, []).append(value)
        return {slot: profiles[slot].layout.outside(self._index, of_slot) for slot, of_slot in values.items()}


def _grid_of(layout: Layout) -> Any:
    """Return what the compiled part is to know of a layout."""
    centres, exponents = layout.grid
    return native.Grid(
        layout.edges,
        [layout.value_slice(position).start for position, _ in layout.numbers],
        [layout.special_cell(position, Special.NEVER_SEEN) if number.is_integral else -1 for position, number in layout.numbers],
        centres.tolist(),
        np.ldexp(1.0, -exponents).tolist(),
        N_SPECIAL,
        layout.n_cells,
    )


def _sums_of(halves: Int) -> Objects:
    """Return sums as Python integers, shape (slots, numbers, 2), from the low and the high half of each."""
    low, high = halves[..., 0::2], halves[..., 1::2]
    sums: Objects = (high.astype(object) << 64) + low.view(np.uint64).astype(object)
    return sums
