"""Counting by sorting, and summing by rows, equal the plain definitions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monitor.columns import ColumnBatch, Special
from monitor.features import NumberFeature
from monitor.layout import Layout
from monitor.profiles import Profile
from monitor.sketches.moments import exact_sums, exact_sums_by_group, scale_of

FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0, 2.5, -1e300, 1e300, 5e-324])
EDGES = st.lists(FINITE, max_size=12, unique=True).map(lambda edges: tuple(sorted(e + 0.0 for e in set(edges))))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Layout, ColumnBatch]:
    """Numbers around the edges of random layouts, some of them no numbers."""
    features = []
    for i in range(draw(st.integers(0, 3))):
        edges = draw(EDGES)
        low, high = (edges[0], edges[-1]) if edges else (0.0, 0.0)
        centre, exponent = scale_of(draw(st.floats(-1e6, 1e6)), draw(st.floats(1e-6, 1e6)))
        features.append(
            NumberFeature(
                name=f"x{i}", edges=edges, reported=edges[::3], minimum=low, maximum=high, centre=centre, exponent=exponent
            )
        )
    n = draw(st.integers(0, 20))
    near = [e for f in features for e in f.edges] + [0.0]
    value = FINITE | st.sampled_from(near)
    numbers = np.array([[draw(value) for _ in range(n)] for _ in features], np.float64).reshape(len(features), n)
    specials = None
    if draw(st.booleans()):
        codes = st.sampled_from([Special.VALUE] * 4 + [s for s in Special if s != Special.NEVER_SEEN])
        specials = np.array([[draw(codes) for _ in range(n)] for _ in features], np.uint8).reshape(len(features), n)
        numbers = np.where(specials == Special.NAN, np.nan, numbers)
    return Layout(tuple(features)), ColumnBatch(n, numbers, specials, [])


@given(batches())
def test_counting_numbers_equals_counting_their_cells(case: tuple[Layout, ColumnBatch]) -> None:
    layout, batch = case
    assert layout.count_numbers(batch).tolist() == np.bincount(layout.cells(batch).ravel(), minlength=layout.n_cells).tolist()


@given(batches())
def test_a_profile_has_the_extremes_and_sums_of_the_finite_values_only(case: tuple[Layout, ColumnBatch]) -> None:
    layout, batch = case
    profile = Profile(layout)
    profile.update(batch)
    for row, (_, feature) in enumerate(layout.numbers):
        keep = np.ones(batch.n, bool) if batch.specials is None else batch.specials[row] == Special.VALUE
        values = batch.numbers[row][keep]
        summary = profile.summary(feature.name)
        assert summary.n == len(values)
        assert tuple(profile.sums[0, row]) == exact_sums(values, feature.centre, feature.exponent)
        if len(values):
            assert (summary.minimum, summary.maximum) == (values.min(), values.max())


@given(st.lists(st.lists(FINITE, min_size=5, max_size=5), min_size=1, max_size=4), st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_sums_equal_those_of_rational_arithmetic(rows: list[list[float]], centre: float, spread: float) -> None:
    centre, exponent = scale_of(centre, spread)
    quantum = Fraction(2) ** exponent
    sums = exact_sums_by_group(np.array(rows), np.full(len(rows), centre), np.full(len(rows), exponent), np.array([0, 2]))
    cases = [(row[part], sums[group, i]) for i, row in enumerate(rows) for group, part in enumerate((slice(2), slice(2, None)))]
    for row, (first, second) in cases:
        # Near the centre the difference is rounded to a double first: that is the definition there.
        near = [Fraction(x - centre) / quantum if math.isfinite(x - centre) else None for x in row]
        quanta = [
            round(q) if q is not None and abs(round(q)) < 2**46 else round((Fraction(x) - Fraction(centre)) / quantum)
            for x, q in zip(row, near, strict=True)
        ]
        assert (first, second) == (sum(quanta), sum(q * q for q in quanta))
