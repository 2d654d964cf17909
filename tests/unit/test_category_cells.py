"""Where the values of a category are counted."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.columns import ColumnBatch, NoValue, Special
from monitor.features import CategoryFeature
from monitor.layout import Layout

SIZES = Layout((CategoryFeature(name="size", values=("2", "6", "1"), value_type="number"),))


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (2, SIZES.value_slice(0).start),
        (2.0, SIZES.value_slice(0).start),
        (6, SIZES.value_slice(0).start + 1),
        (1, SIZES.value_slice(0).start + 2),
        (3, SIZES.special_cell(0, Special.NEVER_SEEN)),
        (None, SIZES.special_cell(0, Special.MISSING)),
        (NoValue.ABSENT, SIZES.special_cell(0, Special.ABSENT)),
        (NoValue.WRONG_TYPE, SIZES.special_cell(0, Special.WRONG_TYPE)),
    ],
)
def test_a_number_as_category_is_never_taken_for_a_marker(value: object, cell: int) -> None:
    batch = ColumnBatch(1, np.zeros((0, 1)), None, [[value]])
    assert SIZES.cells(batch).tolist() == [[cell]]
    assert SIZES.category_cells(batch).tolist() == [[cell]]
