"""Cells of values that the reference does not have."""

import numpy as np
import pytest

from monitor.findings import Kept, gather, never_seen_cells
from tests.closed_windows import closed, reference_of


@pytest.mark.parametrize(
    ("reference", "window", "cells"),
    [
        (({}, 0), ({}, 0), ([], [])),
        (({}, 0), ({7: 2, 9: 1}, 3), ([0, 0], [2, 1])),
        (({}, 0), ({7: 2, 9: 1}, 8), ([0, 0, 0], [2, 1, 5])),  # 5 rows beyond the bound
        (({7: 4}, 4), ({9: 1, 7: 2}, 3), ([4, 0], [2, 1])),
        (({7: 4, 20: 1}, 5), ({5: 1, 7: 2}, 6), ([0, 4, 1], [1, 2, 3])),  # 20 may be among the window's rest
        (({7: 4}, 9), ({7: 1, 30: 3}, 4), ([4, 5], [1, 3])),
    ],
)
def test_each_kept_value_has_a_cell_and_the_rest_shares_one(
    reference: Kept, window: Kept, cells: tuple[list[int], list[int]]
) -> None:
    found = never_seen_cells(reference, window)
    assert tuple(side.tolist() for side in found) == cells


def test_both_sides_keep_all_their_rows() -> None:
    reference = reference_of({"c": ["a", "b"] * 50})
    compared = gather(closed(reference, {"c": [f"new{i}" for i in range(500)] + ["a"]})).features["c"]
    assert [int(np.sum(side)) for side in compared.cells] == [100, 501]
    assert len(compared.cells[0]) == 2 + 64 + 1
