"""Rows of many profiles counted by the compiled part as they come: each profile is what `Profile.update` of its rows makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor import tally
from monitor.columns import NOTHING_SAID, Coded, ColumnBatch, Int, NoValue, Special
from monitor.features import CategoryFeature, NumberFeature
from monitor.hash_key import HashKey
from monitor.layout import Layout
from monitor.profiles import Profile
from monitor.sketches.moments import scale_of
from monitor.tally import Grids, Tally
from tests.native import needs_native
from tests.properties.test_counting import EDGES, FINITE

pytestmark = needs_native

KEY = HashKey("a key of the tests")
TEXTS = ["a", "b", "c", "d", "é", "new", "newer"]
VALUES = [*TEXTS, None, NoValue.ABSENT, NoValue.WRONG_TYPE]
SPECIALS = st.sampled_from([Special.VALUE] * 4 + [s for s in Special if s != Special.NEVER_SEEN])


class Case(NamedTuple):
    """layouts: of one shape, by place. batches: each with the places of its rows."""

    layouts: list[Layout]
    batches: list[tuple[ColumnBatch, Int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n_numbers, n_categories = draw(st.integers(0, 3)), draw(st.integers(0, 2))
    layouts = [_layout(draw, n_numbers, n_categories) for _ in range(draw(st.integers(1, 3)))]
    by_place = [draw(st.sampled_from(layouts)) for _ in range(draw(st.integers(1, 5)))]
    return Case(by_place, [_batch(draw, by_place, n_numbers, n_categories) for _ in range(draw(st.integers(1, 3)))])


def _layout(draw: st.DrawFn, n_numbers: int, n_categories: int) -> Layout:
    numbers = []
    for i in range(n_numbers):
        edges = draw(EDGES)
        low, high = (edges[0], edges[-1]) if edges else (0.0, 0.0)
        centre, exponent = scale_of(draw(st.floats(-1e6, 1e6)), draw(st.floats(1e-6, 1e6)))
        is_integral = draw(st.booleans())
        numbers.append(
            NumberFeature(
                name=f"x{i}", edges=edges, reported=edges[::3], minimum=low, maximum=high, centre=centre, exponent=exponent,
                is_integral=is_integral,
            )
        )  # fmt: skip
    categories = []
    for i in range(n_categories):
        known = tuple(draw(st.lists(st.sampled_from(TEXTS[:4]), unique=True)))
        other = tuple(sorted(KEY.hashes(draw(st.lists(st.sampled_from(TEXTS[4:6]), unique=True))).tolist()))
        values = tuple(f"{one:016x}" for one in KEY.hashes(list(known)).tolist()) if (is_hashed := draw(st.booleans())) else known
        categories.append(
            CategoryFeature(
                name=f"y{i}", values=values, other=other, hash_key=KEY.id, is_hashed=is_hashed, is_open=draw(st.booleans()),
                keep_values=draw(st.booleans()) and not is_hashed,
            )
        )  # fmt: skip
    return Layout((*numbers, *categories), hash_key=KEY)


def _batch(draw: st.DrawFn, layouts: list[Layout], n_numbers: int, n_categories: int) -> tuple[ColumnBatch, Int]:
    n = draw(st.integers(1, 25))
    near = [edge for layout in layouts for _, number in layout.numbers for edge in number.edges] + [0.0]
    value = FINITE | st.sampled_from(near)
    numbers = np.array([[draw(value) for _ in range(n)] for _ in range(n_numbers)], np.float64).reshape(n_numbers, n)
    specials = None
    if draw(st.booleans()):
        specials = np.array([[draw(SPECIALS) for _ in range(n)] for _ in range(n_numbers)], np.uint8).reshape(n_numbers, n)
        numbers = np.where(specials == Special.NAN, np.nan, numbers)
    categories = [_column(draw, n) for _ in range(n_categories)]
    places = np.array([draw(st.integers(0, len(layouts) - 1)) for _ in range(n)], np.int64)
    return ColumnBatch(n, numbers, specials, categories), places


def _column(draw: st.DrawFn, n: int) -> Sequence[object]:
    """A list; or coded by values of its own, or by those of all columns, more of which may come."""
    codes = np.array([draw(st.integers(0, len(VALUES) - 1)) for _ in range(n)], np.int32)
    values = draw(st.sampled_from([VALUES, list(VALUES), None]))
    return [VALUES[code] for code in codes.tolist()] if values is None else Coded(values, codes)


def of_place(batch: ColumnBatch, rows: Int) -> ColumnBatch:
    """Return some rows."""
    specials = None if batch.specials is None else np.ascontiguousarray(batch.specials[:, rows])
    numbers = np.ascontiguousarray(batch.numbers[:, rows])
    return ColumnBatch(len(rows), numbers, specials, [[column[i] for i in rows.tolist()] for column in batch.categories])


def tallied(case: Case) -> list[Profile]:
    profiles = [Profile(layout) for layout in case.layouts]
    counts = Tally(case.layouts[0], profiles.__getitem__, Grids())
    for batch, places in case.batches:
        counts.add(batch, places)
    touched = sorted({place for _, places in case.batches for place in places.tolist()})
    for place, part in zip(touched, counts.parts(touched), strict=True):
        profiles[place].add_part(part, NOTHING_SAID)
    return profiles


def updated(case: Case) -> list[Profile]:
    profiles = [Profile(layout) for layout in case.layouts]
    for batch, places in case.batches:
        for place in sorted(set(places.tolist())):
            profiles[place].update(of_place(batch, np.flatnonzero(places == place)))
    return profiles


@given(cases())
def test_a_tally_counts_what_updates_do(case: Case) -> None:
    assert [p.to_bytes() for p in tallied(case)] == [p.to_bytes() for p in updated(case)]


@given(cases())
def test_forgetting_values_and_layouts_changes_nothing(case: Case) -> None:
    with patch.object(tally, "MAX_CODES", 0), patch.object(tally, "MAX_GRIDS", 1):
        assert [p.to_bytes() for p in tallied(case)] == [p.to_bytes() for p in updated(case)]


def test_values_that_are_coded_later_are_known_then() -> None:
    layout = Layout((CategoryFeature(name="y", values=("a", "b")),))
    profile, values = Profile(layout), ["b"]
    counts = Tally(layout, lambda _: profile, Grids())
    for _ in range(3):
        counts.add(ColumnBatch(1, np.zeros((0, 1)), None, [Coded(values, np.array([len(values) - 1]))]), np.zeros(1, np.int64))
        values += ["new" if "a" in values else "a"]
    (part,) = counts.parts((0,))
    profile.add_part(part, NOTHING_SAID)
    summary = profile.summary("y")
    assert (summary.values.tolist(), summary.never_seen) == ([1, 1, 0], 1)


def test_profiles_may_come_one_after_another_and_arrays_in_any_order_of_memory() -> None:
    layout = Layout((NumberFeature(name="x", edges=(0.0,), reported=(), minimum=0.0, maximum=0.0, centre=0.0, exponent=-36),))
    profiles = [Profile(layout) for _ in range(4)]
    counts = Tally(layout, profiles.__getitem__, Grids())
    for places in ([0], [1, 2], [3, 0]):
        numbers = np.ones((len(places), 2)).T[:1]
        specials = np.zeros((len(places), 2), np.uint8).T[:1]
        counts.add(ColumnBatch(len(places), numbers, specials, []), np.array(places))
    assert [(part.n, part.maximum.tolist()) for part in counts.parts(range(4))] == [(2, [1.0]), *[(1, [1.0])] * 3]


def test_counts_are_widened_before_they_pass_their_limit() -> None:
    layout = Layout((NumberFeature(name="x", edges=(0.0,), reported=(), minimum=0.0, maximum=0.0, centre=0.0, exponent=-36),))
    profiles = [Profile(layout), Profile(layout)]
    counts, n = Tally(layout, profiles.__getitem__, Grids()), 40_000
    for _ in range(2):
        counts.add(ColumnBatch(n + 1, np.ones((1, n + 1)), None, []), np.array([1] * n + [0]))
    for profile, part in zip(profiles, counts.parts((0, 1)), strict=True):
        profile.add_part(part, NOTHING_SAID)
    assert [profile.summary("x").values.tolist() for profile in profiles] == [[0, 2], [0, 2 * n]]
    assert [profile.summary("x").mean for profile in profiles] == [1.0, 1.0]


def test_the_compiled_part_refuses_what_does_not_fit_and_counts_nothing_then() -> None:
    from monitor_native import counting as native

    grid = native.Grid([np.array([0.0, 1.0])], [7], [-1], [0.0], [1.0], 7, 12)
    counts, cells = np.zeros(12, np.uint16), np.array([[10, 11]], np.int32)
    sums, extremes = np.zeros((1, 1, 4), np.int64), np.zeros((1, 1, 2))
    slots, numbers = np.zeros(2, np.int64), np.array([[0.5, 2.0]])
    good: tuple[Any, ...] = ([grid], [counts], slots, numbers, None, cells, sums, extremes)
    bad: list[tuple[int, Any]] = [
        (0, [grid, grid]),
        (1, [counts[:11]]),
        (1, [counts.astype(np.uint8)]),
        (2, slots + 1),
        (2, slots - 1),
        (3, numbers[:, :1].copy()),
        (4, np.zeros((1, 1), np.uint8)),
        (4, np.full((1, 2), 8, np.uint8)),
        (5, cells + 1),
        (5, cells - 11),
        (6, sums[:, :0]),
        (7, np.zeros((0, 1, 2))),
    ]
    for place, value in bad:
        arguments = [*good]
        arguments[place] = value
        with pytest.raises(ValueError, match=r"slot|row|shape|number"):
            native.count(*arguments)
        assert not counts.any()
    assert list(native.count(*good)) == []
    assert counts.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    with pytest.raises(ValueError, match="cells"):
        native.Grid([np.array([0.0, 1.0])], [10], [-1], [0.0], [1.0], 7, 12)
