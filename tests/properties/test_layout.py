"""Layouts made from any data: cells partition the numbers, the range is exact, and order and method do not matter."""

from __future__ import annotations

import itertools
import math
import sys
import tempfile
from bisect import bisect_right
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.cells import roundest
from monitor.columns import ColumnBatch, Float, NoValue, Special
from monitor.features import CategoryFeature, NumberFeature, ValueType, canonical
from monitor.layout import N_SPECIAL, layout_of
from monitor.profiles import Profile
from monitor.reference_build import number_feature
from monitor.sketches.bounded import key_hash
from tests.shapes import number_feature_of

FINITE = st.floats(allow_nan=False, allow_infinity=False)
HUMAN = st.integers(-30, 30).map(lambda i: i / 4)
"""Values that occur more than once, so that there are atoms."""
COLUMN = (
    st.lists(FINITE, min_size=1, max_size=60) | st.lists(HUMAN, min_size=1, max_size=300) | st.lists(FINITE | HUMAN, min_size=1)
)

SHAPES = {
    "normal": np.random.default_rng(1).normal(5, 2, 20_000),
    "lognormal": np.random.default_rng(2).lognormal(0, 1, 20_000),
    "heavy tails": np.random.default_rng(3).standard_t(2, 20_000),
    "poisson": np.random.default_rng(4).poisson(3, 20_000).astype(float),
    "zeros": np.where(np.random.default_rng(5).random(20_000) < 0.4, 0.0, np.random.default_rng(6).normal(size=20_000)),
    "cents": np.random.default_rng(7).lognormal(3, 1, 20_000).round(2),
    "huge": np.random.default_rng(8).normal(1e18, 1e3, 20_000),
    "two": np.array([0.25] * 19_000 + [0.75] * 1_000),
}


def searched(values: Float) -> NumberFeature:
    """The feature as a column too large to sort would get it."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Path(folder) / "values"
        values.tofile(spool)
        return number_feature("x", spool, sort_bytes=0)


def counted(feature: NumberFeature, values: Float) -> Profile:
    profile = Profile(layout_of([feature]))
    profile.update(ColumnBatch(len(values), values[np.newaxis], None, []))
    return profile


@given(COLUMN)
def test_edges_are_finite_and_increase_and_hold_the_reported_ones(column: list[float]) -> None:
    values = np.array(column)
    feature = number_feature_of("x", values)
    assert all(math.isfinite(edge) for edge in feature.edges)
    assert all(low < high for low, high in itertools.pairwise(feature.edges))
    assert set(feature.reported) <= set(feature.edges)
    assert set(feature.reported) <= set((values + 0.0).tolist())
    assert (feature.minimum, feature.maximum) == (values.min(), values.max())


@given(COLUMN, st.randoms(use_true_random=False))
def test_neither_the_order_of_the_rows_nor_sorting_or_searching_makes_a_difference(column: list[float], dice: object) -> None:
    feature = number_feature_of("x", np.array(column))
    dice.shuffle(column)  # type: ignore[attr-defined]
    assert number_feature_of("x", np.array(column)) == feature


@pytest.mark.parametrize("name", SHAPES)
def test_a_column_too_large_to_sort_gets_the_same_layout(name: str) -> None:
    assert searched(SHAPES[name]) == number_feature_of("x", SHAPES[name])


@given(st.lists(FINITE | HUMAN, min_size=1, max_size=30))
def test_any_column_too_large_to_sort_gets_the_same_layout(column: list[float]) -> None:
    assert searched(np.array(column)) == number_feature_of("x", np.array(column))


@given(COLUMN)
def test_deciles_are_those_of_numpy_and_edges_divide_the_rows_as_the_fine_quantiles_do(column: list[float]) -> None:
    values = np.array(column) + 0.0
    feature = number_feature_of("x", values)
    deciles = set(np.quantile(values, np.arange(1, 10) / 10, method="inverted_cdf").tolist())
    assert feature.reported == tuple(sorted(deciles))
    up_to = {sum(x <= edge for x in column) for edge in feature.edges}
    for quantile in np.quantile(values, np.arange(1, 128) / 128, method="inverted_cdf").tolist():
        assert sum(x <= quantile for x in column) in up_to


@given(FINITE | HUMAN, FINITE | HUMAN)
@example(1e-09, 2.84564788536152e-225)
@example(1.0, 1.0000000000000002e308)
def test_the_roundest_number_lies_between_and_none_of_fewer_decimals_does(a: float, b: float) -> None:
    low, high = sorted((a, b))
    found = roundest(low, high)
    assert found == low or low < found < high
    if found != low:
        step = Fraction(10) ** Decimal(repr(found)).normalize().as_tuple().exponent  # type: ignore[operator]
        rounder = math.ceil(Fraction(low) / (step * 10)) * step * 10  # the first above low with a decimal fewer
        assert found == 0 or rounder > sys.float_info.max or float(rounder) >= high


@given(COLUMN, COLUMN)
def test_every_value_lies_in_the_one_cell_whose_borders_enclose_it(reference: list[float], window: list[float]) -> None:
    feature = number_feature_of("x", np.array(reference))
    borders = [-math.inf, *feature.edges, math.inf]
    expected = [sum(low < x <= high for x in window) for low, high in itertools.pairwise(borders)]
    assert counted(feature, np.array(window)).summary("x").values.tolist() == expected
    assert sum(expected) == len(window)


@given(COLUMN, COLUMN)
def test_reported_cells_are_unions_of_fine_ones(reference: list[float], window: list[float]) -> None:
    feature = number_feature_of("x", np.array(reference))
    values = counted(feature, np.array(window)).summary("x").values
    borders = [-math.inf, *feature.reported, math.inf]
    expected = [sum(low < x <= high for x in window) for low, high in itertools.pairwise(borders)]
    assert np.bincount(feature.reported_groups(), values, minlength=len(expected)).tolist() == expected


@given(COLUMN, COLUMN)
def test_rows_outside_the_range_of_the_reference_are_counted_exactly(reference: list[float], window: list[float]) -> None:
    feature = number_feature_of("x", np.array(reference))
    values = counted(feature, np.array(window)).summary("x").values
    low, high = min(reference), max(reference)
    below = bisect_right(feature.edges, math.nextafter(low, -math.inf))
    assert values[:below].sum() == sum(x < low for x in window)
    assert values[feature.edges.index(high) + 1 :].sum() == sum(x > high for x in window)


@pytest.mark.parametrize("name", SHAPES)
def test_an_atom_has_its_cell_alone_and_no_other_cell_is_heavy(name: str) -> None:
    values = SHAPES[name]
    feature = number_feature_of("x", values)
    counts = counted(feature, values).summary("x").values
    distinct, n = np.unique(values, return_counts=True)
    needed = len(values) / 128 if len(values) > 512 else 1
    atoms = distinct[(n >= needed) & np.isin(distinct, np.quantile(values, np.arange(1, 128) / 128, method="inverted_cdf"))]
    for atom in atoms.tolist():
        assert counts[feature.edges.index(atom)] == (values == atom).sum()
        assert math.nextafter(atom, -math.inf) in feature.edges
    is_atom = np.isin(feature.edges, atoms)
    largest_other = n[n < needed].max(initial=0)
    assert counts[:-1][~is_atom].max(initial=0) <= len(values) / 128 + max(largest_other, 1)
    assert counts[-1] == 0


# Categories.

TEXTS = st.text(max_size=3) | st.sampled_from(["true", "1", "1.0", "é", "NA"])


@given(
    st.lists(TEXTS, unique=True, max_size=8), st.lists(TEXTS, unique=True, max_size=5), st.lists(TEXTS | st.none(), max_size=30)
)
def test_a_text_is_in_the_dictionary_among_the_others_or_never_seen(
    known: list[str], others: list[str], column: list[str | None]
) -> None:
    others = [text for text in others if text not in known]
    feature = CategoryFeature(name="c", values=tuple(known), other=tuple(key_hash(text) for text in others))
    profile = Profile(layout_of([feature]))
    profile.update(ColumnBatch(len(column), np.empty((0, len(column))), None, [column]))
    summary = profile.summary("c")
    assert summary.values.tolist() == [*map(column.count, known), sum(text in others for text in column)]
    assert summary.missing == column.count(None)
    assert summary.never_seen == sum(text is not None and text not in known + others for text in column)
    new = {text for text in column if text is not None and text not in known + others}
    assert profile.outside[0].kept == {key_hash(text): column.count(text) for text in new}


@pytest.mark.parametrize(
    ("value_type", "values", "column", "counts"),
    [
        ("number", ("1", "2.5"), [1, 1.0, 2.5, 2, 6, "1"], [2 + 1, 1]),
        ("boolean", ("true", "false"), [True, False, True], [2, 1]),
        ("string", ("1", "true"), ["1", "true", "x"], [1, 1]),
    ],
)
def test_categories_match_by_the_type_of_the_wire(
    value_type: ValueType, values: tuple[str, ...], column: list[object], counts: list[int]
) -> None:
    layout = layout_of([CategoryFeature(name="c", values=values, value_type=value_type)])
    profile = Profile(layout)
    profile.update(ColumnBatch(len(column), np.empty((0, len(column))), None, [column]))
    assert profile.summary("c").values.tolist() == [*counts, 0]


def test_absent_and_wrong_typed_have_cells_of_their_own_and_are_not_the_numbers_two_and_six() -> None:
    layout = layout_of([CategoryFeature(name="c", values=("2", "6"), value_type="number")])
    column = [2, 6, NoValue.ABSENT, NoValue.WRONG_TYPE, None]
    profile = Profile(layout)
    profile.update(ColumnBatch(len(column), np.empty((0, len(column))), None, [column]))
    summary = profile.summary("c")
    assert (summary.values.tolist(), summary.absent, summary.wrong_type, summary.missing) == ([1, 1, 0], 1, 1, 2)


@given(st.integers(-(10**15), 10**15))
def test_a_whole_number_has_one_text_whichever_way_it_is_written(value: int) -> None:
    assert canonical(value) == canonical(float(value)) == str(value)


# The flat vector.


@given(st.permutations(["b", "a", "d", "c"]))
def test_the_order_of_features_does_not_matter_and_slices_tile_the_vector(names: list[str]) -> None:
    features = [
        number_feature_of(name, np.arange(9.0)) if name < "c" else CategoryFeature(name=name, values=("u", "v")) for name in names
    ]
    layout = layout_of(features)
    assert layout.sha256 == layout_of(sorted(features, key=lambda f: f.name)).sha256
    covered = [
        cell
        for position in range(4)
        for cell in (
            *(layout.special_cell(position, special) for special in Special if special),
            *range(*layout.value_slice(position).indices(layout.n_cells)),
        )
    ]
    assert covered == list(range(layout.n_cells))
    assert N_SPECIAL == 7
