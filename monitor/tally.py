"""Rows of many profiles counted as they come, by the compiled part (native/) where that is installed.

A pane of a few dozen rows is as cheap as one of thousands: nothing is sorted, and nothing but sums is kept until a pane takes in what
was counted of it. What a profile then holds is what `Profile.update` of its rows would have made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.columns import Bool, Coded, ColumnBatch, Float, Indices, Int, Objects, Places, Special, present
from monitor.compiled import counting as native
from monitor.layout import N_SPECIAL, Layout
from monitor.outside import Found
from monitor.parts import Part
from monitor.profiles import Profile
from monitor.sketches.moments import quantise_far
from monitor.stream_facts import LATEST_MS, NO_TIMES, Timing
from monitor.windows import FOREVER_MS, NEVER_MS

MAX_GRIDS: Final = 2_048
"""Layouts that are remembered from one tally to the next."""
MAX_CODES: Final = 1 << 18
"""Different values of a category, times layouts, whose cells are remembered."""

_NO_CELLS: Int = np.zeros(0, np.int64)
_UNTIMED: Int = np.array([0, 0, 0, 0, NEVER_MS, 0, 0, 0, 0, FOREVER_MS, NEVER_MS])
"""Of a profile that has had no row, what the compiled part's `count_times` adds to."""
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


class Counted(NamedTuple):
    """What was counted of a profile's rows, less the cells, which the profile has already.

    n_inspected: of the rows. first, last: their offsets. before: the clock before the first.
    """

    part: Part
    timing: Timing
    n_inspected: int
    first: int
    last: int
    before: int


class Tally:
    """Counts rows of profiles whose layouts have one shape and no segments; only where the compiled part is.

    layout: of one of them. profile_of: of a place, asked once. held_bytes: memory that it takes, about. Cells, and those of delays, are
    counted in the profiles themselves; the rest is theirs with `counted`, after which nothing more may come.
    """

    def __init__(self, layout: Layout, profile_of: Callable[[int], Profile], grids: Grids) -> None:
        self._profile_of = profile_of
        self._known = grids
        self._slot_of: Int = np.zeros(0, np.int64)
        self._profiles: list[Profile] = []
        self._counted_in = native.Slots()
        self._layout_places = Places()
        self._layouts: list[Layout] = []
        self._layout_of: Int = np.zeros(0, np.int64)
        self._room: Int = np.zeros(0, np.int64)
        self._sums: Int = np.zeros((0, len(layout.numbers), 4), np.int64)
        self._extremes: Float = np.zeros((0, len(layout.numbers), 2))
        self._timed: Int = np.zeros((0, len(_UNTIMED)), np.int64)
        self._far: list[tuple[int, int, int]] = []
        self._categories = [_Category(i) for i in range(len(layout.categories))]
        self.held_bytes = 0

    def add(self, batch: ColumnBatch, places: Int, marks: Int, before: Int, inspected: Bool) -> None:
        """Count rows, in the order of the log.

        places: of their profiles, shape (n,). marks: offset, event time, timestamp of the record and running clock of each, shape (4, n).
        before: the clock before each row. inspected: which were compared with the layout's names.
        """
        slots = self._slots(places)
        rows = self._timed[:, 0] + np.bincount(slots, minlength=len(self._profiles))
        for slot in np.flatnonzero(rows > self._room).tolist():
            profile = self._profiles[slot]
            counts = profile.room_for(int(rows[slot]))
            self._counted_in.put(slot, self._known.of(profile.layout), counts, profile.stream.delays)
            self._room[slot] = np.iinfo(counts.dtype).max - profile.n
        cells = np.empty((len(self._categories), batch.n), np.int32)
        layout_of = None if len(self._layouts) == 1 else self._layout_of[slots]
        for category, column, of_column in zip(self._categories, batch.categories, cells, strict=True):
            category.place(column, slots, self._layouts, layout_of, of_column)
        specials = None if batch.specials is None else np.ascontiguousarray(batch.specials)
        values = (np.ascontiguousarray(batch.numbers), specials, cells)
        for number, row in native.count(self._counted_in, slots, *values, self._sums, self._extremes):
            slot = int(slots[row])
            centres, exponents = self._profiles[slot].layout.grid
            q = quantise_far(float(batch.numbers[number, row]), float(centres[number]), int(exponents[number]))
            self._far.append((slot, number, q))
        times = (np.ascontiguousarray(marks), before, inspected.view(np.uint8), LATEST_MS)
        native.count_times(self._counted_in, slots, *times, self._timed)
        of_categories = sum(category.held_bytes for category in self._categories)
        self.held_bytes = self._sums.nbytes + self._extremes.nbytes + self._timed.nbytes + of_categories

    def _slots(self, places: Int) -> Int:
        """Return the slot of each row's profile; new ones get one."""
        n = int(places.max()) + 1
        if n > len(self._slot_of):
            self._slot_of = _longer(self._slot_of, n - len(self._slot_of), _UNKNOWN)
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
            layout_of.append(self._layout_places[layout.sha256])
            if layout_of[-1] == len(self._layouts):
                self._layouts.append(layout)
        n = len(places)
        self._layout_of = np.concatenate((self._layout_of, np.array(layout_of, np.int64)))
        self._room = _longer(self._room, n, 0)
        self._sums, self._extremes = _longer(self._sums, n, 0), _longer(self._extremes, n, (np.inf, -np.inf))
        self._timed = _longer(self._timed, n, _UNTIMED)

    @property
    def places(self) -> list[int]:
        """Those that have had rows, rising."""
        return np.flatnonzero(self._slot_of != _UNKNOWN).tolist()

    def counted(self) -> Iterator[Counted]:
        """Yield what was counted of the profiles of `places`."""
        sums = _sums_of(self._sums)
        for slot, number, q in self._far:
            sums[slot, number] += (q, q * q)
        low, high = np.moveaxis(self._extremes, -1, 0) + 0.0
        outside = [category.outside(self._profiles) for category in self._categories]
        timed = self._timed.tolist()
        for slot in self._slot_of[self.places].tolist():
            found = [of_category.get(slot) for of_category in outside]
            n, n_inspected, first, last, before, *when = timed[slot]
            part = Part(n, _NO_CELLS, (), sums[slot], low[slot], high[slot], found)
            yield Counted(part, Timing(n, _NO_CELLS, NO_TIMES, *when), n_inspected, first, last, before)


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


def _longer(known: npt.NDArray[Any], n: int, value: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return an array in C order with n more rows, each of a value."""
    found = np.empty((len(known) + n, *known.shape[1:]), known.dtype)
    found[: len(known)], found[len(known) :] = known, value
    return found


def _sums_of(halves: Int) -> Objects:
    """Return sums as Python integers, shape (slots, numbers, 2), from the low and the high half of each."""
    low, high = halves[..., 0::2], halves[..., 1::2]
    sums: Objects = (high.astype(object) << 64) + low.view(np.uint64).astype(object)
    return sums
