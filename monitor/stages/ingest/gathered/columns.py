"""Values of rows that wait as columns, and are put in order when they are folded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from monitor.columns import Coded, Codes, ColumnBatch, Float, Indices, Int, Places
from monitor.layout import Layout

_Scalar = TypeVar("_Scalar", bound=np.generic)


class _Taken(NamedTuple):
    """Rows of one fetch, shape (n,) each. numbers: by feature, so that each can be let go of."""

    n: int
    numbers: list[Float]
    specials: Codes | None
    categories: list[Indices]
    tags: list[Indices]


class GatheredColumns:
    """Columns of layouts of one shape. held_bytes: memory that they take, about."""

    def __init__(self, layout: Layout) -> None:
        self.held_bytes = 0
        self._taken: list[_Taken] = []
        self._values = [Places() for _ in layout.categories]
        self._tags = [Places() for _ in layout.tags]

    def add(self, batch: ColumnBatch) -> None:
        """Take rows in."""
        taken = _Taken(
            batch.n,
            [row.copy() for row in batch.numbers],
            batch.specials,
            [values.codes(column) for values, column in zip(self._values, batch.categories, strict=True)],
            [values.codes(column) for values, column in zip(self._tags, batch.tags, strict=True)],
        )
        self._taken.append(taken)
        arrays: Iterable[npt.NDArray[np.generic]] = (*taken.numbers, *taken.categories, *taken.tags)
        self.held_bytes += sum(array.nbytes for array in arrays)

    def in_order(self, order: Int | None) -> ColumnBatch:
        """Return all rows in an order, shape (n,); None: as they came. Nothing is left here."""
        taken, self._taken = self._taken, []
        n = sum(part.n for part in taken)
        numbers = np.empty((len(taken[0].numbers), n))
        for row in reversed(range(len(numbers))):  # from the end, so that what was put in order is let go of
            ordered([part.numbers.pop() for part in taken], order, numbers[row])
        return ColumnBatch(
            n,
            numbers,
            _specials(taken, len(numbers), order),
            [Coded(list(v), ordered([p.categories[i] for p in taken], order)) for i, v in enumerate(self._values)],
            tags=[Coded(list(v), ordered([p.tags[i] for p in taken], order)) for i, v in enumerate(self._tags)],
        )


def ordered(
    parts: Sequence[npt.NDArray[_Scalar]], order: Int | None, out: npt.NDArray[_Scalar] | None = None
) -> npt.NDArray[_Scalar]:
    """Return arrays one behind the other, by their last axis, in an order; None: as they are. out: where to, if it is there."""
    if order is None:
        return np.concatenate(parts, axis=-1, out=out)
    return np.take(np.concatenate(parts, axis=-1), order, axis=-1, out=out)


def _specials(taken: Sequence[_Taken], n_numbers: int, order: Int | None) -> Codes | None:
    if all(part.specials is None for part in taken):
        return None
    none = (part.specials if part.specials is not None else np.zeros((n_numbers, part.n), np.uint8) for part in taken)
    return ordered(list(none), order)
