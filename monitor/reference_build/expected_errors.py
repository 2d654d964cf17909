"""How large errors are where a number was predicted: what direct loss estimation takes instead of labels."""

from __future__ import annotations

import numpy as np

from monitor.columns import Float, Int, by_place
from monitor.features import NumberFeature
from monitor.reference import PerformanceEstimator
from monitor.sketches.moments import exact_sums_by_group, mean_std

MIN_ROWS = 30
"""Cells with fewer share those of their neighbours."""
_DIGITS = 10


class ExpectedErrors:
    """Exact sums of |error| and its square by cell of the prediction."""

    def __init__(self, predicted: NumberFeature) -> None:
        self._edges = np.array(predicted.edges)
        self._exponent = predicted.exponent
        self._rows: Int = np.zeros(len(self._edges) + 1, np.int64)
        self._sums = np.zeros((len(self._edges) + 1, 2), object)

    def add(self, predicted: Float, error: Float) -> None:
        """Take finite predictions and errors in, (n,) each."""
        if not len(predicted):
            return
        cells = np.searchsorted(self._edges, predicted, side="left")
        order, names, starts = by_place(cells)
        absolute = np.abs(error[order])[np.newaxis]
        self._sums[names] += exact_sums_by_group(absolute, np.zeros(1), np.array([self._exponent]), starts)[:, 0]
        self._rows += np.bincount(cells, minlength=len(self._rows))

    def estimator(self) -> PerformanceEstimator:
        """Return mean |error| and mean squared error by cell; neighbours are joined until a group has enough rows."""
        absolute, square = np.zeros(len(self._rows)), np.zeros(len(self._rows))
        groups = _groups(self._rows)
        for group in range(int(groups.max()) + 1):
            mine = groups == group
            rows, (first, second) = int(self._rows[mine].sum()), self._sums[mine].sum(axis=0)
            mean, std = mean_std(rows, first, second, 0.0, self._exponent)
            absolute[mine], square[mine] = mean, mean * mean + std * std
        return PerformanceEstimator(
            n=int(self._rows.sum()),
            predicted=self._rows.tolist(),
            absolute_error=[float(f"{value:.{_DIGITS}g}") for value in absolute.tolist()],
            squared_error=[float(f"{value:.{_DIGITS}g}") for value in square.tolist()],
        )


def _groups(rows: Int) -> Int:
    """Return the group of each cell; one group at least, none without rows if there are any.

    >>> _groups(np.array([0, 20, 20, 40, 5])).tolist()
    [0, 0, 0, 1, 1]
    """
    groups = np.zeros(len(rows), np.int64)
    group = held = 0
    for cell, count in enumerate(rows.tolist()):
        if held >= MIN_ROWS:
            group, held = group + 1, 0
        groups[cell] = group
        held += count
    if group and held < MIN_ROWS:
        groups[groups == group] = group - 1
    return groups
