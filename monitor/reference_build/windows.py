"""The third pass: the reference's rows cut into windows of production length, as counts by window and cell."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.chance.calibration import MAX_CATEGORY_CELLS, MIN_ROWS, Calibration, WindowSums, calibrate, quantised_scores
from monitor.chance.laws import Sample
from monitor.chance.scores import grouped
from monitor.columns import ColumnBatch, Int
from monitor.distances import PSI_LAW
from monitor.distances.psi import psi
from monitor.features import Feature, NumberFeature
from monitor.layout import Layout
from monitor.profiles import Profile
from monitor.sides import Sides
from monitor.windows import NEVER_MS

MAX_WINDOWS = 4_096
"""The newest windows that have rows are kept, at most so many …"""
MAX_BYTES = 128 << 20
"""… and no more than fit this: wide layouts keep fewer."""
PSI_THRESHOLD = 0.2
MAX_PHI = 10.0
MAX_PSI_SHARE = 0.2
"""A reference is not homogeneous when a φ of single windows, or the share of its windows that pass `PSI_THRESHOLD`, is above these."""
NAMES_SHOWN = 10


class _Column(NamedTuple):
    """Where a feature's counts lie in a window's row, and how its value cells map to them."""

    feature: Feature
    row: int
    """of `Layout.cells`"""
    start: int
    """flat index of its first value cell"""
    first: int
    groups: Int
    """(n_values,)"""
    n_groups: int
    scores: tuple[Int, Int] | None


class WindowCounts:
    """Counts of the newest windows that have rows, `MAX_WINDOWS` at most; a function of the set of rows, not of their order.

    Memory: windows × (4 bytes × reported cells, at most `MAX_CATEGORY_CELLS` of a category, + 16 bytes a number).
    """

    def __init__(self, profile: Profile, size_ms: int) -> None:
        self._profile, self._layout, self._size_ms = profile, profile.layout, size_ms
        self._columns = list(_columns(profile.layout, profile))
        self._n_cells = sum(column.n_groups for column in self._columns)
        bytes_per_window = 4 * self._n_cells + 16 * len(self._layout.numbers)
        self._max_windows = max(2, min(MAX_WINDOWS, MAX_BYTES // max(bytes_per_window, 1)))
        self._place: dict[int, int] = {}
        self._starts: list[int] = []
        self._is_complete = True
        self._counts: npt.NDArray[np.int32] = np.zeros((0, self._n_cells), np.int32)
        self._scores: Int = np.zeros((0, 2 * len(self._layout.numbers)), np.int64)

    def add(self, batch: ColumnBatch, times_ms: Int) -> None:
        """Count rows; times_ms: (n,) int64, NEVER_MS where a row has no time: it belongs to no window."""
        starts, window = np.unique(times_ms // self._size_ms * self._size_ms, return_inverse=True)
        place = np.full(len(starts), -1, np.int64)
        for i in reversed(range(len(starts))):  # newest first: fewer windows are made only to be given up
            if starts[i] > NEVER_MS // 2:
                self._admit(int(starts[i]))
        for i, start in enumerate(starts.tolist()):
            place[i] = self._place.get(start, -1)
        kept = place >= 0
        cells = self._layout.cells(batch)
        for column in self._columns:
            values = cells[column.row] - column.start
            mine = (values >= 0) & (values < len(column.groups)) & kept[window]
            value, of = values[mine], window[mine]
            flat = of * column.n_groups + column.groups[value]
            counts = np.bincount(flat, minlength=len(starts) * column.n_groups).reshape(len(starts), -1)
            self._counts[place[kept], column.first : column.first + column.n_groups] += counts[kept].astype(np.int32)
            for i, scores in enumerate(column.scores or ()):
                total = np.bincount(of, weights=scores[value], minlength=len(starts))
                self._scores[place[kept], 2 * column.row + i] += total[kept].astype(np.int64)

    def _admit(self, start: int) -> None:
        """Give a window a row, the oldest one's where there is no more room."""
        if start in self._place:
            return
        if len(self._place) < self._max_windows:
            self._place[start] = len(self._place)
            self._grow()
            heapq.heappush(self._starts, start)
            return
        self._is_complete = False
        if start > self._starts[0]:
            oldest = heapq.heapreplace(self._starts, start)
            row = self._place[start] = self._place.pop(oldest)
            self._counts[row] = 0
            self._scores[row] = 0

    def _grow(self) -> None:
        if len(self._place) > len(self._counts):
            rows = min(max(64, 2 * len(self._counts)), self._max_windows)
            for name in ("_counts", "_scores"):
                old = getattr(self, name)
                new = np.zeros((rows, old.shape[1]), old.dtype)
                new[: len(old)] = old
                setattr(self, name, new)

    def calibration(self) -> tuple[Calibration, list[str]]:
        """Return what the windows show, and a warning where they differ so much that the reference is not one state."""
        starts = sorted(self._place)
        if not starts:
            return Calibration(size_ms=self._size_ms, unknown="no row has a time"), []
        order = np.array([self._place[start] for start in starts])
        found, dispersed, shifted = {}, {}, {}
        for column in self._columns:
            sums = self._sums(column, order)
            calibration = calibrate(sums)
            if calibration is None:
                continue
            found[column.feature.name] = calibration
            law = calibration.at(1)
            phi = max(law.phi, law.phi_location, law.phi_dispersion) if law else 1.0
            if phi > MAX_PHI:
                dispersed[column.feature.name] = phi
            share = _psi_share(sums.counts, sums.total)
            if share > MAX_PSI_SHARE:
                shifted[column.feature.name] = share
        made = Calibration(
            size_ms=self._size_ms,
            windows=len(starts),
            range_ms=(starts[0], starts[-1] + self._size_ms),
            is_complete=self._is_complete,
            features=found,
            unknown=None if found else _why_unknown(len(starts)),
        )
        return made, list(_warnings(dispersed, shifted))

    def _sums(self, column: _Column, order: Int) -> WindowSums:
        counts = self._counts[order, column.first : column.first + column.n_groups].astype(np.int64)
        values = self._profile.summary(column.feature.name).values
        total = grouped(values, column.groups)
        if column.scores is None:
            return WindowSums(counts, np.zeros((len(order), 2), np.int64), total, None)
        return WindowSums(counts, self._scores[order, 2 * column.row : 2 * column.row + 2], total, values)


def _columns(layout: Layout, profile: Profile) -> list[_Column]:
    columns: list[_Column] = []
    first = 0
    positions = [position for position, _ in (*layout.numbers, *layout.categories)]
    for row, position in enumerate(positions):
        feature = layout.features[position]
        groups, scores = feature.reported_groups(), None
        if isinstance(feature, NumberFeature):
            scores = quantised_scores(profile.summary(feature.name).values)
        else:
            groups = np.minimum(groups, MAX_CATEGORY_CELLS - 1)
        n_groups = int(groups.max()) + 1
        columns.append(_Column(feature, row, layout.value_slice(position).start, first, groups, n_groups, scores))
        first += n_groups
    return columns


def _psi_share(counts: Int, total: Int) -> float:
    """Return the share of windows, of those with enough rows, whose psi against the other rows passes the threshold and chance."""
    n = counts.sum(axis=-1)
    rest_n = total.sum() - n
    enough = (n >= MIN_ROWS) & (rest_n >= MIN_ROWS)
    if not enough.any():
        return 0.0
    counts, n, rest_n = counts[enough], n[enough], rest_n[enough]
    values = psi(Sides(total - counts, counts))
    limits = np.maximum(PSI_THRESHOLD, PSI_LAW.critical(Sample(n, rest_n, len(total), len(total), 0)))
    return float(np.mean(values > limits))


def _why_unknown(windows: int) -> str:
    if windows == 1:
        return "all rows lie in one window; their scatter cannot be seen"
    return f"of {windows} windows, fewer than two have {MIN_ROWS} rows with a value; name a longer one with --window"


def _warnings(dispersed: dict[str, float], shifted: dict[str, float]) -> list[str]:
    said = []
    if dispersed:
        said.append(
            f"reference not homogeneous: windows differ {max(dispersed.values()):.0f} times as much as independent rows would "
            f"(φ > {MAX_PHI:.0f}) in {_names(dispersed)}; smaller drift than that between its own windows is not seen"
        )
    if shifted:
        said.append(
            f"reference not homogeneous: up to {max(shifted.values()):.0%} of its own windows pass psi {PSI_THRESHOLD} against the rest "
            f"in {_names(shifted)}; a rule on psi would fire as often without drift"
        )
    return said


def _names(found: dict[str, float]) -> str:
    worst = sorted(found, key=lambda name: (-found[name], name))
    more = f" and {len(worst) - NAMES_SHOWN} more" if len(worst) > NAMES_SHOWN else ""
    return ", ".join(worst[:NAMES_SHOWN]) + more
