"""Two references compared, against what the raw rows say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.columns import ColumnBatch
from monitor.distances.psi import psi
from monitor.features import CategoryFeature, NumberFeature
from monitor.files import ColumnOptions
from monitor.layout import N_SPECIAL, layout_of
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.reference_build import FeatureOptions, build_reference
from monitor.reference_diff import difference, regroup
from monitor.sides import Sides
from monitor.sketches.bounded import key_hash
from tests.shapes import number_feature_of

DICE = np.random.default_rng(8)


def build(path: Path, columns: dict[str, Any], **options: FeatureOptions) -> Reference:
    pa.parquet.write_table(pa.table(columns), path / "t.parquet")
    return build_reference(path / "t.parquet", "m", "1", ColumnOptions(), options)


def of_numbers(values: np.ndarray) -> Reference:
    profile = Profile(layout_of([number_feature_of("x", values)]))
    profile.update(ColumnBatch(len(values), values[np.newaxis], None, []))
    return Reference.build("m", "1", profile)


def test_a_reference_differs_in_nothing_from_itself(tmp_path: Path) -> None:
    made = build(tmp_path, {"x": DICE.normal(size=900), "c": DICE.choice(["a", "b"], 900)})
    found = difference(made, made)
    assert (found.added, found.removed, found.changed_kind) == ([], [], {})
    for feature in found.features.values():
        assert (feature.uncertain_ratio, feature.distances_between) == (0, {})
        assert {name: value for name, value in feature.distances.items() if name in ("psi", "js")} == {"psi": 0, "js": 0}


def test_features_and_kinds_that_changed_are_named(tmp_path: Path) -> None:
    a = build(tmp_path, {"x": DICE.normal(size=500), "old": [1.5] * 500, "size": ["S", "M"] * 250})
    b = build(tmp_path, {"x": DICE.normal(size=500), "new": ["v"] * 500, "size": DICE.normal(size=500)})
    found = difference(a, b)
    assert (found.added, found.removed, found.changed_kind) == (["new"], ["old"], {"size": ("category", "real")})
    assert list(found.features) == ["x"]


def test_rows_missing_means_and_ranges_are_those_of_both_files(tmp_path: Path) -> None:
    values = [DICE.normal(3, 2, 800), DICE.normal(5, 1, 600)]
    empty = [np.arange(800) % 4 == 0, np.arange(600) % 3 == 0]
    a, b = (build(tmp_path, {"x": pa.array(v, mask=m)}) for v, m in zip(values, empty, strict=True))
    found = difference(a, b).features["x"]
    present = [v[~m] for v, m in zip(values, empty, strict=True)]
    assert found.n == (600, 400)
    assert found.missing_ratio == (0.25, 1 / 3)
    assert found.mean == pytest.approx([v.mean() for v in present])
    assert found.std == pytest.approx([v.std() for v in present])
    assert (found.minimum, found.maximum) == ((present[0].min(), present[1].min()), (present[0].max(), present[1].max()))


@pytest.mark.parametrize("shape", ["normal", "lognormal", "zeros"])
def test_numbers_on_other_cells_are_as_far_apart_as_the_rows_are_to_the_stated_error(shape: str) -> None:
    draw = {
        "normal": lambda n: DICE.normal(size=n),
        "lognormal": lambda n: DICE.lognormal(size=n),
        "zeros": lambda n: np.where(DICE.random(n) < 0.4, 0.0, DICE.normal(size=n)),
    }[shape]
    first, second = draw(20_000), draw(15_000) * 1.3 + 0.2
    a, b = of_numbers(first), of_numbers(second)
    found = difference(a, b).features["x"]
    assert 0 < found.uncertain_ratio <= 1 / 128 + 1e-3
    feature = a.layout.features[0]
    assert isinstance(feature, NumberFeature)
    k = len(feature.reported) + 1
    counts = [np.bincount(np.searchsorted(feature.reported, v), minlength=k) for v in (first, second)]
    low, high = found.distances_between["psi"]
    assert low <= found.distances["psi"] <= high
    assert 0.98 * low <= psi(Sides(*counts)) <= 1.02 * high


COLUMN = st.lists(st.floats(-1e9, 1e9) | st.integers(-20, 20).map(float), min_size=1, max_size=150)


@given(COLUMN, COLUMN)
def test_at_every_edge_the_rows_below_are_right_to_the_stated_uncertainty(first: list[float], second: list[float]) -> None:
    a, b = of_numbers(np.array(first)), of_numbers(np.array(second))
    found = regroup(a, b, "x")
    feature = a.layout.features[0]
    assert isinstance(feature, NumberFeature)
    values = found.counts[N_SPECIAL:]
    assert (values >= 0).all()
    assert values.sum() == len(second)
    assert bool(found.extremes) == (found.uncertain > 0)
    for extreme in found.extremes:
        assert (extreme >= 0).all()
        assert extreme.sum() == found.counts.sum()
    if found.extremes:
        few, many = (np.cumsum(extreme[N_SPECIAL:])[:-1].tolist() for extreme in found.extremes)
        exact = [sum(x <= edge for x in second) for edge in feature.edges]
        assert all(a <= b <= c for a, b, c in zip(few, exact, many, strict=True))
    for edge, upto in zip(feature.edges, np.cumsum(values).tolist(), strict=False):
        assert abs(upto - sum(x <= edge for x in second)) <= found.uncertain


def test_a_shift_by_a_whole_cell_is_exact_where_no_edge_cuts_a_cell() -> None:
    first = np.repeat(np.arange(10.0), 20)
    a, b = of_numbers(first), of_numbers(first + 1)
    found = regroup(a, b, "x")
    assert found.uncertain == 0
    expected = np.bincount(np.searchsorted(a.layout.features[0].edges, first + 1), minlength=a.layout.features[0].n_values)  # type: ignore[union-attr]
    assert found.counts[N_SPECIAL:].tolist() == expected.tolist()


def category(values: tuple[str, ...], counts: list[int], other: tuple[str, ...] = (), n_other: int = 0) -> Reference:
    feature = CategoryFeature(name="c", values=values, other=tuple(sorted(key_hash(v) for v in other)))
    profile = Profile(layout_of([feature]))
    rows = [v for v, n in zip(values, counts, strict=True) for _ in range(n)] + [other[i % len(other)] for i in range(n_other)]
    profile.update(ColumnBatch(len(rows), np.zeros((0, len(rows))), None, [rows]))
    return Reference.build("m", "1", profile)


@pytest.mark.parametrize(
    ("of", "cells", "never_seen", "uncertain"),
    [
        (category(("b", "a"), [30, 20]), [20, 30, 0], 0, 0),
        (category(("b", "y"), [30, 20]), [0, 30, 20], 0, 0),
        (category(("b", "new"), [30, 20]), [0, 30, 0], 20, 0),
        (category(("b",), [30], ("x", "y"), 6), [0, 30, 6], 0, 0),
        (category(("b",), [30], ("n1", "n2"), 6), [0, 30, 0], 6, 0),
        (category(("b",), [30], ("a", "x", "n"), 6), [2, 30, 2], 2, 6),
    ],
)
def test_categories_are_moved_by_value_and_other_ones_by_their_hash(
    of: Reference, cells: list[int], never_seen: int, uncertain: int
) -> None:
    a = category(("a", "b"), [50, 40], ("x", "y"), 10)
    found = regroup(a, of, "c")
    assert found.counts[N_SPECIAL:].tolist() == cells
    assert found.counts[:N_SPECIAL].tolist() == [0] * (N_SPECIAL - 1) + [never_seen]
    assert found.uncertain == uncertain
    for extreme, cell in zip(found.extremes, (N_SPECIAL - 1, -1), strict=bool(uncertain)):
        assert extreme[cell] == found.counts[cell] + uncertain - (2 if uncertain else 0)


def test_values_that_one_dictionary_lacks_are_named_up_to_a_bound() -> None:
    a = category(tuple(f"v{i:02}" for i in range(30)), [2] * 30)
    b = category(("v00", "n"), [5, 3])
    found = difference(a, b).features["c"]
    assert (found.values_added, found.n_values_added) == (["n"], 1)
    assert (found.values_removed, found.n_values_removed) == ([f"v{i:02}" for i in range(1, 21)], 29)
    assert found.distances["psi"] == pytest.approx(psi(Sides(np.array([2] * 30 + [0]), np.array([5] + [0] * 29 + [3]))))


def test_a_spread_too_wide_for_a_double_is_no_error() -> None:
    found = difference(of_numbers(np.array([1.0, 2.0, 3.0] * 50)), of_numbers(np.array([-1e308, 0.0, 1e308] * 50)))
    assert math.isfinite(found.features["x"].distances["psi"])
