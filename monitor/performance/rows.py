"""Rows of predictions as arrays, and in which cells of a segment's vector each of them counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.columns import Bool, Float, Int
from monitor.performance.calibrated import calibrated
from monitor.performance.lags import lag_cells
from monitor.performance.logarithm import log
from monitor.performance.spec import ECE_BINS, NO_CLASS, PerformanceSpec

SUM_BITS = 24
"""Sums are of whole multiples of 2^−24: right to 6e-8 a row, the same for any order, and 3e10 rows fit the worst of them."""
CLIP = 1e-7
"""Probabilities nearer to 0 or 1 count as this near in the log-loss."""


class Rows(NamedTuple):
    """Predictions of one model version, n of them."""

    predicted: npt.NDArray[np.integer] | Float
    """(n,) codes of classes (`PerformanceSpec.outcomes`), `OTHER_CLASS`, `NO_CLASS`; or float64, NaN where it is none."""
    scores: Float
    """(n, k) float64 in the order of `PerformanceSpec.score_names`, NaN where there is none; or (n, 1), what `ErrorTrees` expect."""
    segments: tuple[Int, Int]
    """(row, segment) of each membership, (m,) int64 each; segment 0, all rows, among them."""

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.predicted)


class Placed(NamedTuple):
    """Where rows count in a segment's vector."""

    cells: Int
    """(q, n): q cells for each row; −1 is none."""
    weights: Int
    """(q, n): what it adds there."""


def place_made(spec: PerformanceSpec, rows: Rows) -> Placed:
    """Return where predictions count that were made, whether or not a label comes."""
    found = _Places(rows.n)
    if spec.task == "regression":
        found.count(spec.blocks["made"].start + _predicted_cells(spec, rows.predicted))
        if "made_expected" in spec.blocks:
            found.count(spec.blocks["made_expected"].start + _expected_cells(spec, rows))
    if not spec.is_classes:
        return found.placed()
    predicted = _predicted_codes(spec, rows.predicted)
    found.count(spec.blocks["made"].start + predicted)
    score_cells = _score_cells(spec, rows.scores)
    for column, cells in enumerate(score_cells):
        found.count(spec.blocks[f"made_scores{column}"].start + cells)
    shares = _calibrated(spec, rows.scores)
    if shares:
        _add_expected(spec.blocks["expected"], rows, shares, predicted, found, np.zeros(rows.n, bool))
    for column, share in enumerate(shares if len(shares) > 1 else []):
        found.add(spec.blocks[f"expected_scores{column}"].start + score_cells[column], share)
    return found.placed()


def place_labelled(spec: PerformanceSpec, rows: Rows, labels: npt.NDArray[np.integer] | Float, lag_ms: Int) -> Placed:
    """Return where labelled predictions count besides; what the sums of numbers need is elsewhere."""
    found = _Places(rows.n)
    is_usable = np.isfinite(labels) if spec.task == "regression" else np.asarray(labels) != NO_CLASS
    found.count(np.where(is_usable, spec.blocks["lag"].start + lag_cells(lag_ms), spec.blocks["unusable"].start))
    if spec.task == "regression":
        both = is_usable & np.isfinite(rows.predicted)
        found.count(np.where(both, spec.blocks["labelled"].start + _predicted_cells(spec, rows.predicted), -1))
        if "labelled_expected" in spec.blocks:
            found.count(np.where(both, spec.blocks["labelled_expected"].start + _expected_cells(spec, rows), -1))
    if spec.is_classes:
        codes = np.where(np.asarray(labels) >= 0, labels, spec.n_classes).astype(np.int64)
        predicted = _predicted_codes(spec, rows.predicted)
        cells = spec.blocks["confusion"].start + codes * (spec.n_classes + 2) + predicted
        found.count(np.where(is_usable, cells, -1))
        _place_scores(spec, rows, np.where(is_usable, codes, -1), predicted, found)
    return found.placed()


def _place_scores(spec: PerformanceSpec, rows: Rows, codes: Int, predicted: Int, found: _Places) -> None:
    """codes: of the labels, −1 where there is none, n_classes for another class, which no score is about."""
    is_known = (codes >= 0) & (codes < spec.n_classes)
    about = _classes_of_scores(spec)
    for column, cells in enumerate(_score_cells(spec, rows.scores)):
        is_hit = codes == about[column]
        for side, mask in (("positives", is_known & is_hit), ("negatives", is_known & ~is_hit)):
            found.count(np.where(mask, spec.blocks[f"{side}{column}"].start + cells, -1))
    if "sums" not in spec.blocks:
        return
    is_scored = is_known & np.isfinite(rows.scores).all(axis=1)
    p = np.where(is_scored[:, np.newaxis], np.clip(rows.scores, 0.0, 1.0), 0.5)
    is_hit = codes[:, np.newaxis] == about
    loss, square = np.zeros(rows.n), np.zeros(rows.n)
    for column in range(p.shape[1]):
        mine = np.ascontiguousarray(p[:, column])
        gap = np.where(is_hit[:, column], 1.0 - mine, mine)
        square += gap * gap
        likely = np.where(is_hit[:, column], mine, 1.0 - mine)
        if len(spec.classes) == 2 or is_hit[:, column].any():
            loss = np.where(is_hit[:, column] | (len(spec.classes) == 2), -log(np.clip(likely, CLIP, 1 - CLIP)), loss)
        bins = np.searchsorted(np.arange(1, ECE_BINS) / ECE_BINS, mine, side="left")
        found.add(np.where(is_scored, spec.blocks["bins"].start + column * ECE_BINS + bins, -1), mine)
    square /= p.shape[1]
    sums = spec.blocks["sums"].start
    found.count(np.where(is_scored, spec.blocks["scored"].start, -1))
    for i, value in enumerate((loss, loss * loss, square, square * square)):
        found.add(np.where(is_scored, sums + i, -1), value)
    shares = _calibrated(spec, rows.scores)
    if shares:
        counted = np.where(codes >= 0, predicted, -1)
        _add_expected(spec.blocks["expected_labelled"], rows, shares, counted, found, codes == predicted)


def _add_expected(  # noqa: PLR0913 - one row of a table
    block: slice, rows: Rows, shares: list[Float], predicted: Int, found: _Places, is_hit: Bool
) -> None:
    """Add by what was predicted: each row's calibrated probabilities, the row, and whether it is a hit; predicted: −1 does not count."""
    k = rows.scores.shape[1]
    start = np.where(np.isfinite(rows.scores).all(axis=1) & (predicted >= 0), block.start + predicted * (k + 2), -1)
    for column, share in enumerate(shares):
        found.add(np.where(start >= 0, start + column, -1), share)
    found.count(np.where(start >= 0, start + k, -1))
    found.count(np.where((start >= 0) & is_hit, start + k + 1, -1))


def _calibrated(spec: PerformanceSpec, scores: Float) -> list[Float]:
    """Return the calibrated probabilities of scores, by column; none where the reference has no calibration."""
    if "expected" not in spec.blocks or spec.estimator is None or not spec.estimator.calibrations:
        return []
    return calibrated(spec.estimator.calibrations, np.nan_to_num(scores))


def _classes_of_scores(spec: PerformanceSpec) -> Int:
    return np.arange(spec.n_classes) if len(spec.score_names) > 1 else np.array([spec.positive or 0])


def _predicted_codes(spec: PerformanceSpec, predicted: npt.NDArray[np.integer] | Float) -> Int:
    """Return 0 … k−1, k for another class, k+1 for none."""
    codes = np.asarray(predicted).astype(np.int64)
    return np.where(codes >= 0, codes, spec.n_classes + np.where(codes == NO_CLASS, 1, 0))


def _predicted_cells(spec: PerformanceSpec, predicted: npt.NDArray[np.integer] | Float) -> Int:
    """Return the cell of each predicted number, the last one for none."""
    cells = np.searchsorted(spec.predicted_edges, predicted, side="left")
    return np.where(np.isfinite(predicted), cells, len(spec.predicted_edges) + 1)


def _expected_cells(spec: PerformanceSpec, rows: Rows) -> Int:
    """Return the cell of the error that is expected of each row, the last one for rows without a prediction."""
    expected = np.ascontiguousarray(rows.scores[:, 0])
    is_known = np.isfinite(expected) & np.isfinite(rows.predicted)
    return np.where(is_known, np.searchsorted(spec.error_edges, expected, side="left"), len(spec.error_edges) + 1)


def _score_cells(spec: PerformanceSpec, scores: Float) -> list[Int]:
    """Return, per column, the cell of each score, the last one for none. Of several scores a row has all or none."""
    is_scored = np.isfinite(scores).all(axis=1)
    return [
        np.where(is_scored, np.searchsorted(edges, np.ascontiguousarray(scores[:, column]), side="left"), len(edges) + 1)
        for column, edges in enumerate(spec.edges)
    ]


class _Places:
    def __init__(self, n: int) -> None:
        self._cells: list[Int] = []
        self._weights: list[Int] = []
        self._ones = np.ones(n, np.int64)

    def count(self, cells: Int) -> None:
        self._cells.append(cells)
        self._weights.append(self._ones)

    def add(self, cells: Int, values: Float) -> None:
        self._cells.append(cells)
        self._weights.append(np.rint(np.ldexp(values, SUM_BITS)).astype(np.int64))

    def placed(self) -> Placed:
        if not self._cells:
            return Placed(np.zeros((0, len(self._ones)), np.int64), np.zeros((0, len(self._ones)), np.int64))
        return Placed(np.stack(self._cells), np.stack(self._weights))
