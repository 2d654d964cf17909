"""What every distance in the registry keeps to."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.columns import Int
from monitor.distances import DISTANCES, Distance

EACH = pytest.mark.parametrize("distance", DISTANCES, ids=lambda distance: distance.name)
WITH_LAW = pytest.mark.parametrize("distance", [d for d in DISTANCES if d.critical], ids=lambda distance: distance.name)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Int, Int]:
    k = draw(st.integers(1, 40))
    side = st.lists(st.integers(0, 10**6), min_size=k, max_size=k).filter(any)
    return np.array(draw(side), np.int64), np.array(draw(side), np.int64)


@EACH
@settings(max_examples=60, deadline=None)
@given(cells=pairs())
def test_it_stays_within_its_bounds_and_is_finite_whatever_is_empty(distance: Distance, cells: tuple[Int, Int]) -> None:
    value = distance.function(*cells)
    assert math.isfinite(value)
    assert distance.bounds[0] <= value <= distance.bounds[1]


@EACH
@settings(max_examples=60, deadline=None)
@given(cells=pairs())
def test_symmetry_is_as_declared(distance: Distance, cells: tuple[Int, Int]) -> None:
    if distance.symmetric:
        assert distance.function(*cells) == pytest.approx(distance.function(*cells[::-1]), rel=1e-12, abs=1e-15)


@EACH
@settings(max_examples=60, deadline=None)
@given(cells=pairs())
def test_it_changes_neither_side(distance: Distance, cells: tuple[Int, Int]) -> None:
    before = [side.copy() for side in cells]
    distance.function(*cells)
    assert all((a == b).all() for a, b in zip(before, cells, strict=True))


@EACH
@settings(max_examples=60, deadline=None)
@given(cells=pairs())
def test_a_side_without_a_row_gives_a_finite_value(distance: Distance, cells: tuple[Int, Int]) -> None:
    empty = np.zeros(len(cells[0]), np.int64)
    assert math.isfinite(distance.function(cells[0], empty))
    assert math.isfinite(distance.function(empty, cells[1]))
    assert math.isfinite(distance.function(empty, empty))


@WITH_LAW
@settings(max_examples=60, deadline=None)
@given(cells=pairs())
def test_of_a_distribution_to_itself_it_is_zero(distance: Distance, cells: tuple[Int, Int]) -> None:
    assert distance.function(cells[0], cells[0]) == 0.0


@WITH_LAW
@settings(max_examples=60, deadline=None)
@given(cells=pairs())
def test_the_order_of_cells_does_not_matter(distance: Distance, cells: tuple[Int, Int]) -> None:
    turned = (cells[0][::-1], cells[1][::-1])
    assert distance.function(*turned) == distance.function(*cells)


@WITH_LAW
@settings(max_examples=60, deadline=None)
@given(cells=pairs())
def test_no_cell_contributes_less_than_nothing(distance: Distance, cells: tuple[Int, Int]) -> None:
    assert distance.contributions is not None
    assert min(distance.contributions(*cells)) >= 0.0


@WITH_LAW
@pytest.mark.parametrize(("n", "m", "k"), [(100, 1000, 2), (1000, 10_000, 10), (10_000, 10_000, 265)])
def test_the_critical_value_is_where_p_is_one_in_a_thousand(distance: Distance, n: int, m: int, k: int) -> None:
    assert distance.critical is not None
    assert distance.p_value(distance.critical(n, m, k), n, m, k) == pytest.approx(0.001, rel=1e-6)


@WITH_LAW
def test_more_rows_lower_the_critical_value(distance: Distance) -> None:
    assert distance.critical is not None
    values = [distance.critical(n, 20_000, 10) for n in (100, 300, 1000, 10_000)]
    assert values == sorted(values, reverse=True)


@WITH_LAW
def test_without_drift_one_window_in_a_thousand_exceeds_the_critical_value(distance: Distance) -> None:
    dice, n, m, k = np.random.default_rng(2), 1000, 10_000, 10
    shares = np.full(k, 1 / k)
    assert distance.critical is not None
    critical = distance.critical(n, m, k)
    over = sum(distance.function(dice.multinomial(m, shares), dice.multinomial(n, shares)) > critical for _ in range(4_000))
    assert 0 <= over <= 12  # expected 4; a Poisson(4) exceeds 12 once in 3,700 seeds
