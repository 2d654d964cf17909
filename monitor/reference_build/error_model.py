"""Learns which error is to be expected of a row (direct loss estimation): gradient boosting of small symmetric trees.

Own code, since a reference has the same bytes for any order of its rows: rows are chosen, and put in order, by a hash of what they hold.
A tree asks the same question in all branches of a level (Prokhorenkova et al. 2018), so that a worker answers each question once a batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.columns import ColumnBatch, Float, Int
from monitor.features import CategoryFeature
from monitor.layout import N_SPECIAL, Layout
from monitor.reference import LATENCY, PREDICTION, ErrorModel

MAX_ROWS = 60_000
MAX_VALUES = 1_600_000
"""Rows, and rows times features, that are learnt from, at the most: some seconds and 60 MB."""
MIN_ROWS = 500
"""With a label; of fewer nothing is learnt."""
FOLDS = 3
MAX_TREES, DEPTH = 100, 5
RATE, LARGE_RATE = 0.1, 0.3
"""Share of what is left that a tree takes. The large one is taken where so many trees with the small one leave `MIN_GAIN` more of it: where
errors depend much on features, they stop long before they know how."""
MAX_RANKS = 64
"""Neighbouring cells of a feature are joined until so many are left."""
PRIOR_ROWS = 5.0
"""A leaf says what its rows, and so many without a difference, say."""
CLIP = 20.0
"""Trees are made from errors of at most so many times their mean."""
UNIT_BITS = 16
"""What is expected of a row is in whole multiples of the mean error divided by 2^16."""
ERROR_CELLS, ROWS_PER_CELL = 64, 50
TOLERANCE = 0.002
"""Trees are added while the share of scatter that is left is at most that much above the least: the last ones know the rarer rows, and
rare rows become frequent where data drift."""
MIN_GAIN = 0.005
"""Share of the scatter of errors that a model explains beyond what a simpler one does, or it is not kept."""
_DIGITS = 10

Hashes = npt.NDArray[np.uint64]
Ranks = npt.NDArray[np.int16]


class Sample(NamedTuple):
    """Rows by hash: cells of their features, (n_features, n), |error| and hash, (n,)."""

    cells: Int
    errors: Float
    hashes: Hashes


class ErrorRows:
    """Gathers a sample of rows with an error: those with the least hashes, whatever the order they come in."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        positions = [position for position, _ in (*layout.numbers, *layout.categories)]
        self._rows = [row for row, position in enumerate(positions) if layout.features[position].name != LATENCY]
        self.positions = [positions[row] for row in self._rows]
        self._starts = np.array([layout.offsets[position] for position in self.positions])[:, np.newaxis]
        self._limit = max(min(MAX_ROWS, MAX_VALUES // len(positions)), MIN_ROWS)
        self._parts: list[Sample] = []
        self._held = 0

    def add(self, columns: ColumnBatch, error: Float) -> None:
        """Take rows in; error: (n,), NaN where a row has none."""
        at = np.flatnonzero(np.isfinite(error))
        cells, errors = self.layout.cells(columns)[self._rows][:, at] - self._starts, np.abs(error[at])
        self._parts.append(Sample(cells.astype(np.int32), errors, _hashes(cells, errors)))
        self._held += len(at)
        if self._held > 2 * self._limit:
            self.sample()

    def sample(self) -> Sample:
        """Return the rows."""
        whole = Sample(*(np.concatenate(columns, axis=-1) for columns in zip(*self._parts, strict=True)))
        first = np.argsort(whole.hashes, kind="stable")[: self._limit]
        self._parts, self._held = [Sample(whole.cells[:, first], whole.errors[first], whole.hashes[first])], len(first)
        return self._parts[0]


def learnt(rows: ErrorRows, by_prediction: Float, mae: float, rmse: float) -> ErrorModel | None:
    """Return a model; None where rows are too few, or their features say hardly more of errors than the prediction alone.

    by_prediction: mean |error| by cell of the prediction; mae, rmse: of all rows, of which `rows` may be a part.
    """
    cells, errors, hashes = rows.sample()
    mean = float(errors.mean()) if len(errors) else 0.0
    if len(errors) < MIN_ROWS or not 0 < mean < np.inf:
        return None
    target = np.minimum(errors / mean, CLIP)
    ranks = [_ranks(rows.layout, *one, target) for one in zip(rows.positions, cells, strict=True)]
    codes = np.stack([mine[row] for mine, row in zip(ranks, cells, strict=True)]).astype(np.int16)
    said, n_trees, rate = _best_outside(codes, target, (hashes % np.uint64(FOLDS)).astype(np.int64))
    predicted = cells[rows.positions.index(rows.layout.index[PREDICTION])] - N_SPECIAL
    alone = np.minimum(by_prediction[predicted] / mean, CLIP)
    if _left(target, said) > _left(target, alone) - MIN_GAIN * target.var():
        return None
    model = _Boosting(codes, target, rate)
    for _ in range(n_trees):
        model.grow()
    whole = np.rint(np.ldexp(said, UNIT_BITS)).astype(np.int64)
    n_cells = min(ERROR_CELLS, len(errors) // ROWS_PER_CELL)
    edges = np.unique(np.sort(whole)[np.arange(1, n_cells) * len(whole) // n_cells])
    found, held = np.searchsorted(edges, whole, side="left"), np.zeros(len(edges) + 1)
    held += np.bincount(found, minlength=len(held))
    absolute, square = (np.bincount(found, weights=errors**power, minlength=len(held)) for power in (1, 2))
    factors = mae / mean, rmse**2 / float((errors**2).mean())
    return _recorded(
        rows,
        ranks,
        model,
        edges,
        *(_shortened(f * s / np.maximum(held, 1)) for f, s in zip(factors, (absolute, square), strict=True)),
    )


def _recorded(  # noqa: PLR0913 - the parts of one record
    rows: ErrorRows, ranks: list[Int], model: _Boosting, edges: Int, absolute: list[float], square: list[float]
) -> ErrorModel:
    used = sorted({feature for tree in model.trees for feature, _ in tree.questions})
    features = [rows.layout.features[rows.positions[feature]] for feature in used]
    is_category = [isinstance(feature, CategoryFeature) for feature in features]

    def recorded(feature: int, rank: int) -> tuple[int, int]:
        place = used.index(feature)
        return place, rank if is_category[place] else int(np.flatnonzero(ranks[feature] <= rank)[-1])

    asked = [[recorded(*question) for question in tree.questions] for tree in model.trees]
    questions = sorted({question for tree in asked for question in tree})
    return ErrorModel(
        features=[feature.name for feature in features],
        ranks=[ranks[feature].tolist() if of_category else [] for feature, of_category in zip(used, is_category, strict=True)],
        questions=questions,
        trees=[[questions.index(question) for question in tree] for tree in asked],
        values=[np.rint(np.ldexp(tree.values, UNIT_BITS)).astype(np.int64).tolist() for tree in model.trees],
        start=round(model.start * (1 << UNIT_BITS)),
        edges=edges.tolist(),
        absolute_error=absolute,
        squared_error=square,
    )


# --- trees


class _Tree(NamedTuple):
    questions: list[tuple[int, int]]
    """(feature, rank) by level: is a row's rank above?"""
    values: Float
    """By leaf."""

    def said(self, codes: Ranks) -> Float:
        leaf = np.zeros(codes.shape[1], np.int64)
        for feature, rank in self.questions:
            leaf = leaf * 2 + (codes[feature] > rank)
        return self.values[leaf]


class _Boosting:
    """Trees whose sum, with the mean of the targets, is what is expected of rows; codes: (n_features, n)."""

    def __init__(self, codes: Ranks, target: Float, rate: float) -> None:
        self._codes, self._rate = codes, rate
        self.start = float(target.mean())
        self._left = target - self.start
        self.trees: list[_Tree] = []

    def grow(self) -> _Tree:
        """Add a tree of what is left."""
        tree = _grown(self._codes, self._left, self._rate)
        self._left -= tree.said(self._codes)
        self.trees.append(tree)
        return tree


def _grown(codes: Ranks, left: Float, rate: float) -> _Tree:
    leaf = np.zeros(len(left), np.int64)
    questions = []
    for level in range(DEPTH):
        shape = 1 << level, MAX_RANKS
        best, question = -1.0, (0, 0)
        for feature, code in enumerate(codes):
            keys = leaf * MAX_RANKS + code
            below = np.bincount(keys, weights=left, minlength=shape[0] * shape[1]).reshape(shape).cumsum(axis=1)
            rows = np.bincount(keys, minlength=shape[0] * shape[1]).reshape(shape).cumsum(axis=1)
            above, rows_above = below[:, -1:] - below, rows[:, -1:] - rows
            gains = (below**2 / (rows + PRIOR_ROWS) + above**2 / (rows_above + PRIOR_ROWS)).sum(axis=0)[:-1]
            at = int(gains.argmax())
            if gains[at] > best:
                best, question = float(gains[at]), (feature, at)
        questions.append(question)
        leaf = leaf * 2 + (codes[question[0]] > question[1])
    sums, rows = np.bincount(leaf, weights=left, minlength=1 << DEPTH), np.bincount(leaf, minlength=1 << DEPTH)
    return _Tree(questions, rate * sums / (rows + PRIOR_ROWS))


def _best_outside(codes: Ranks, target: Float, fold: Int) -> tuple[Float, int, float]:
    """Return what is expected of each row by trees of the other folds, how many trees do that well, and at which rate."""
    said, n_trees = _said_outside(codes, target, fold, RATE)
    if n_trees == MAX_TREES:
        larger, n_larger = _said_outside(codes, target, fold, LARGE_RATE)
        if _left(target, larger) < _left(target, said) - MIN_GAIN * target.var():
            return larger, n_larger, LARGE_RATE
    return said, n_trees, RATE


def _said_outside(codes: Ranks, target: Float, fold: Int, rate: float) -> tuple[Float, int]:
    """Return what is expected of each row by trees of the other folds, and how many trees do that well."""
    models = [_Boosting(codes[:, fold != i], target[fold != i], rate) for i in range(FOLDS)]
    said = np.array([model.start for model in models])[fold]
    found, least = (said.copy(), 0), _left(target, said)
    for n_trees in range(1, MAX_TREES + 1):
        for i, model in enumerate(models):
            said[fold == i] += model.grow().said(codes[:, fold == i])
        left = _left(target, said)
        least = min(least, left)
        if left > least + TOLERANCE * target.var():
            break
        found = said.copy(), n_trees
    return found


def _left(target: Float, said: Float) -> float:
    return float(((target - said) ** 2).mean())


def _ranks(layout: Layout, position: int, cells: Int, target: Float) -> Int:
    """Return the rank of each cell of a feature: by their order, or of a category by the mean of its rows' targets."""
    n_cells = layout.offsets[position + 1] - layout.offsets[position]
    held, order = np.bincount(cells, minlength=n_cells), np.arange(n_cells)
    if isinstance(layout.features[position], CategoryFeature):
        sums = np.bincount(cells, weights=target, minlength=n_cells) + PRIOR_ROWS * target.mean()
        order = np.argsort(sums / (held + PRIOR_ROWS), kind="stable")
    ranks = np.empty(n_cells, np.int64)
    middles = np.cumsum(held[order]) - held[order] / 2
    ranks[order] = np.minimum(middles * MAX_RANKS / len(cells), MAX_RANKS - 1)
    return ranks


# --- hashes


def _hashes(cells: Int, errors: Float) -> Hashes:
    """Return a hash of each row: rows of the same hash are alike, so that it does not matter which of them is taken."""
    mixed = _stirred(errors.view(np.uint64))
    for row, cell in enumerate(cells):
        mixed = _stirred(mixed + cell.astype(np.uint64) + np.uint64(row << 32))
    return mixed


def _stirred(values: Hashes) -> Hashes:
    """Return splitmix64 of each value."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _shortened(values: Float) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values.tolist()]
