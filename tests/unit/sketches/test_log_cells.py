"""Log-linear cells against plain loops, and exact sums of any doubles against fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.sketches.log_cells import LogCells, relative_width
from monitor.sketches.wide_sums import UNIT_EXPONENT, wide_sums

BUDGET = 24_576

DATA = {
    "normal": np.random.default_rng(1).normal(0, 1, 20_000),
    "lognormal": np.random.default_rng(2).lognormal(0, 3, 20_000),
    "heavy": np.random.default_rng(3).standard_t(2, 20_000),
    "narrow": np.random.default_rng(4).normal(293.15, 5, 20_000),
    "zeros": np.where(np.arange(20_000) % 5 < 2, 0.0, np.random.default_rng(5).exponential(4, 20_000)),
    "every exponent": np.ldexp(1.5, np.arange(-1_070, 1_020)) * np.where(np.arange(2_090) % 2, 1, -1),
}


def cells_of(values: np.ndarray, budget: int = BUDGET) -> LogCells:
    cells = LogCells()
    cells.update(values, budget)
    return cells


@pytest.mark.parametrize("name", DATA)
def test_a_cell_holds_exactly_the_values_up_to_its_end(name: str) -> None:
    values = DATA[name]
    ends, counts = cells_of(values).cells()
    assert (np.diff(ends) > 0).all()
    assert np.cumsum(counts).tolist() == [int((values <= end).sum()) for end in ends]
    assert ends[-1] == values.max()


@pytest.mark.parametrize("name", ["normal", "lognormal", "heavy", "narrow"])
def test_a_cell_is_no_wider_than_stated(name: str) -> None:
    values = np.sort(DATA[name])
    cells = cells_of(values)
    ends, _ = cells.cells()
    place = np.searchsorted(ends, values)
    assert (np.abs(values - ends[place]) <= relative_width(cells.shift) * np.abs(values)).all()
    assert 250 <= len(ends) <= 1_024


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=60), st.integers(160, 3_000))
def test_the_cells_are_the_finest_that_the_budget_allows(values: list[float], budget: int) -> None:
    cells = cells_of(np.array(values, np.float64), budget)

    def bits(shift: int) -> int:
        return len({key >> shift for key in map(key_of, filter(None, values))}) * (80 - shift)

    assert bits(cells.shift) <= budget or cells.shift == 62
    assert not cells.shift or bits(cells.shift - 1) > budget


def key_of(value: float) -> int:
    bits = int.from_bytes(np.float64(abs(value)).tobytes(), "little")
    return bits - 1 if value > 0 else -1 - bits


def test_zero_of_either_sign_stands_apart_from_the_smallest_doubles() -> None:
    cells = cells_of(np.array([0.0, -0.0, 5e-324, -5e-324, 1.0]), 160)
    ends, counts = cells.cells()
    assert cells.shift == 27
    at = ends.tolist().index(0.0)
    assert counts[at] == 2
    assert ends[at - 1] == -5e-324


def test_a_few_different_values_are_all_known() -> None:
    values = np.random.default_rng(1).choice(np.random.default_rng(2).normal(size=300), 5_000)
    cells = cells_of(values)
    assert cells.is_exact
    distinct, counts = np.unique(values, return_counts=True)
    assert cells.cells()[0].tolist() == distinct.tolist()
    assert cells.cells()[1].tolist() == counts.tolist()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=60))
def test_wide_sums_are_exact_for_any_doubles(values: list[float]) -> None:
    first, second = wide_sums(np.array(values, np.float64))
    unit = Fraction(2) ** UNIT_EXPONENT
    assert first * unit == sum(map(Fraction, values))
    assert second * unit * unit == sum(Fraction(value) ** 2 for value in values)


def test_wide_sums_of_many_rows_are_exact() -> None:
    values = np.concatenate((DATA["heavy"], DATA["lognormal"], np.full(150_000, math.nextafter(1.0, 0.0))))
    assert wide_sums(values)[0] * Fraction(2) ** UNIT_EXPONENT == sum(map(Fraction, values.tolist()))
