"""What every distance in the registry keeps to. A new one is covered by being in it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.chance.laws import Law, Sample, sample_of
from monitor.columns import Int
from monitor.distances import DISTANCES, Distance
from monitor.sides import FineSides, Sides, Spread

EACH = pytest.mark.parametrize("distance", DISTANCES, ids=lambda distance: distance.name)
OF_REPORTED_CELLS = pytest.mark.parametrize("distance", [d for d in DISTANCES if d.cells == "reported"], ids=lambda d: d.name)
WITH_LAW = pytest.mark.parametrize("distance", [d for d in DISTANCES if d.law], ids=lambda distance: distance.name)
EXAMPLES = settings(max_examples=30, deadline=None)


def spread_of(counts: Int) -> Spread:
    """Of rows whose values are the index of their cell; zeros without a row."""
    values, n = np.arange(counts.shape[-1]), np.maximum(counts.sum(axis=-1), 1)
    mean = counts @ values / n
    is_empty = counts.sum(axis=-1) == 0
    low = np.where(is_empty, 0, (counts > 0).argmax(axis=-1))
    high = np.where(is_empty, 0, len(values) - 1 - (counts[..., ::-1] > 0).argmax(axis=-1))
    deviations = values - mean[..., np.newaxis]
    return Spread(low, high, mean, np.sqrt((counts * deviations**2).sum(axis=-1) / n))


def sides_of(distance: Distance, reference: Int, window: Int) -> Sides:
    """Return what the distance wants of these counts; as fine cells (…, 0], (0, 1], … that hold whole numbers."""
    if distance.cells == "reported":
        return Sides(reference, window)
    edges = np.arange(reference.shape[-1] - 1, dtype=np.float64)
    return FineSides(reference, window, edges, spread_of(reference), spread_of(window))


def value_of(distance: Distance, reference: Int, window: Int) -> float:
    return float(distance.function(sides_of(distance, reference, window)))


@st.composite
def pairs(draw: st.DrawFn, k: int | None = None) -> tuple[Int, Int]:
    size = draw(st.integers(2, 40)) if k is None else k
    side = st.lists(st.one_of(st.just(0), st.integers(0, 10**6)), min_size=size, max_size=size).filter(any)
    return np.array(draw(side), np.int64), np.array(draw(side), np.int64)


@EACH
@EXAMPLES
@given(cells=pairs())
def test_it_stays_within_its_bounds_and_is_finite_whatever_is_empty(distance: Distance, cells: tuple[Int, Int]) -> None:
    value = value_of(distance, *cells)
    if math.isnan(value):  # not defined: where the reference has only one value
        assert np.count_nonzero(cells[0]) == 1
    else:
        assert math.isfinite(value)
        assert distance.bounds[0] <= value <= distance.bounds[1]


@EACH
@EXAMPLES
@given(cells=pairs())
def test_symmetry_is_as_declared(distance: Distance, cells: tuple[Int, Int]) -> None:
    if distance.is_symmetric:
        assert value_of(distance, *cells) == pytest.approx(value_of(distance, *cells[::-1]), rel=1e-12, abs=1e-15)


@EACH
def test_what_is_declared_not_symmetric_is_not(distance: Distance) -> None:
    reference, window = np.array([50, 30, 15, 5]), np.array([10, 10, 10, 970])
    if not distance.is_symmetric:
        assert value_of(distance, reference, window) != pytest.approx(value_of(distance, window, reference), rel=1e-3)


@EACH
@EXAMPLES
@given(cells=pairs())
def test_it_changes_neither_side(distance: Distance, cells: tuple[Int, Int]) -> None:
    before = [side.copy() for side in cells]
    value_of(distance, *cells)
    assert all((a == b).all() for a, b in zip(before, cells, strict=True))


@EACH
@EXAMPLES
@given(cells=pairs())
def test_a_side_without_a_row_gives_no_infinite_value(distance: Distance, cells: tuple[Int, Int]) -> None:
    empty = np.zeros(len(cells[0]), np.int64)
    values = [value_of(distance, cells[0], empty), value_of(distance, empty, cells[1]), value_of(distance, empty, empty)]
    assert not any(math.isinf(value) for value in values)


@EACH
@EXAMPLES
@given(cells=pairs(), factor=st.integers(1, 50))
def test_of_a_distribution_to_itself_it_has_its_best_value(distance: Distance, cells: tuple[Int, Int], factor: int) -> None:
    counts = cells[0]
    value = value_of(distance, counts, counts)
    if math.isnan(value):
        assert np.count_nonzero(counts) == 1
    elif distance.direction == "lower is worse":
        assert value == distance.bounds[1]
    elif distance.bounds[0] == 0.0:
        assert value == 0.0
    else:
        assert value <= 0.0


@EACH
def test_the_further_a_window_is_the_worse_its_value(distance: Distance) -> None:
    reference = np.full(8, 1000)
    windows = [np.array([1000 - moved] * 4 + [1000 + moved] * 4) for moved in (0, 50, 100, 300, 900)]
    values = [value_of(distance, reference, window) for window in windows]
    assert values == sorted(values, reverse=distance.direction == "lower is worse")
    assert values[0] != values[1]


@OF_REPORTED_CELLS
@EXAMPLES
@given(cells=pairs(), seed=st.integers(0, 2**32 - 1))
def test_the_order_of_cells_does_not_change_a_bit(distance: Distance, cells: tuple[Int, Int], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(cells[0]))
    assert value_of(distance, cells[0][order], cells[1][order]) == value_of(distance, *cells)


@EACH
@EXAMPLES
@given(data=st.data(), k=st.integers(2, 20))
def test_in_a_stack_of_comparisons_each_has_the_value_that_it_has_alone(distance: Distance, data: st.DataObject, k: int) -> None:
    drawn = [data.draw(pairs(k)) for _ in range(3)]
    references, windows = (np.stack(side) for side in zip(*drawn, strict=True))
    together = distance.function(sides_of(distance, references, windows))
    alone = [value_of(distance, *cells) for cells in drawn]
    assert together.tolist() == pytest.approx(alone, rel=1e-12, nan_ok=True)


@EACH
def test_counts_of_billions_are_no_different(distance: Distance) -> None:
    reference, window = np.array([5, 3, 1, 1]), np.array([2, 3, 4, 1])
    large = value_of(distance, reference * 10**10, window * 10**10)
    assert not math.isinf(large)
    if distance.bounds[1] == 1.0 and distance.direction == "higher is worse":  # of shares: no matter how many rows
        assert large == pytest.approx(value_of(distance, reference * 10**5, window * 10**5), rel=1e-9)


@EACH
@EXAMPLES
@given(cells=pairs())
def test_no_cell_contributes_less_than_nothing(distance: Distance, cells: tuple[Int, Int]) -> None:
    if distance.contributions is not None:
        parts = distance.contributions(Sides(*cells))
        assert parts.shape == cells[0].shape
        assert parts.min() >= 0.0


def test_names_are_unique() -> None:
    assert len({distance.name for distance in DISTANCES}) == len(DISTANCES)


def law_of(distance: Distance) -> Law:
    assert distance.law is not None
    return distance.law


@WITH_LAW
@pytest.mark.parametrize(("n", "m", "k", "rare"), [(100, 1000, 2, 0), (1000, 10_000, 10, 0), (10_000, 10_000, 265, 200)])
def test_the_critical_value_is_where_p_is_one_in_a_thousand(distance: Distance, n: int, m: int, k: int, rare: int) -> None:
    sample, law = Sample(n, m, k, k, rare), law_of(distance)
    assert law.p_value(law.critical(sample), sample) == pytest.approx(0.001, rel=1e-6)


@WITH_LAW
def test_more_rows_never_raise_the_critical_value(distance: Distance) -> None:
    values = [law_of(distance).critical(Sample(n, 20_000, 10, 10, 0)) for n in (100, 300, 1000, 10_000)]
    assert values == sorted(values, reverse=True)


N_WINDOWS = 10_000


@WITH_LAW
@pytest.mark.parametrize(
    ("shares", "n", "m", "at_most"),
    [
        (np.full(10, 1.0), 1000, 10_000, 21),  # 10 expected; Poisson(10) exceeds 21 once in 1,400 seeds
        (np.full(10, 1.0), 300, 20_000, 30),
        (np.full(10, 1.0), 100, 20_000, 30),
        (1 / np.arange(1, 21) ** 1.5, 300, 20_000, 30),
        (1 / np.arange(1, 101) ** 1.5, 1000, 20_000, 30),
        (np.full(128, 1.0), 1000, 20_000, 30),
        (np.full(128, 1.0), 100, 1000, 30),
    ],
    ids=["deciles", "300 rows", "100 rows", "20 values", "100 values", "128 cells", "128 cells, 100 rows"],
)
def test_without_drift_one_window_in_a_thousand_exceeds_the_critical_value(
    distance: Distance, shares: np.ndarray, n: int, m: int, at_most: int
) -> None:
    dice, shares = np.random.default_rng(2), shares / shares.sum()
    sides = sides_of(distance, dice.multinomial(m, shares, N_WINDOWS), dice.multinomial(n, shares, N_WINDOWS))
    sample = sample_of(list(zip(sides.reference, sides.window, strict=True)))
    assert np.count_nonzero(distance.function(sides) > law_of(distance).critical(sample)) <= at_most
