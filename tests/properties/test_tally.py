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
from monitor.columns import NOTHING_SAID, About, Bool, Coded, ColumnBatch, Int, NoValue, Special
from monitor.features import CategoryFeature, NumberFeature
from monitor.hash_key import HashKey
from monitor.layout import Layout
from monitor.profiles import Profile
from monitor.sketches.moments import scale_of
from monitor.stream_facts import DELAY_CELLS, LATEST_MS, delay_cells
from monitor.tally import Grids, Tally
from monitor.windows import NEVER_MS
from tests.native import needs_native
from tests.properties.test_counting import EDGES, FINITE

pytestmark = needs_native

KEY = HashKey("a key of the tests")
TEXTS = ["a", "b", "c", "d", "é", "new", "newer"]
VALUES = [*TEXTS, None, NoValue.ABSENT, NoValue.WRONG_TYPE]
SPECIALS = st.sampled_from([Special.VALUE] * 4 + [s for s in Special if s != Special.NEVER_SEEN])

T0 = 1_700_000_000_000
STAMPS = st.integers(T0 - 10_000, T0 + 10_000) | st.sampled_from([-1, 0, LATEST_MS - 1, LATEST_MS, 1 << 62])
"""Of records; some are none."""


class Rows(NamedTuple):
    """Some rows in the order of a log; as `Tally.add` takes them in."""

    batch: ColumnBatch
    places: Int
    marks: Int
    before: Int
    inspected: Bool


class Case(NamedTuple):
    """layouts: of one shape, by place."""

    layouts: list[Layout]
    batches: list[Rows]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n_numbers, n_categories = draw(st.integers(0, 3)), draw(st.integers(0, 2))
    layouts = [_layout(draw, n_numbers, n_categories) for _ in range(draw(st.integers(1, 3)))]
    by_place = [draw(st.sampled_from(layouts)) for _ in range(draw(st.integers(1, 5)))]
    found, offset, clock = [], draw(st.integers(0, 1 << 40)), NEVER_MS
    for _ in range(draw(st.integers(1, 3))):
        batch, places = _batch(draw, by_place, n_numbers, n_categories)
        times = np.array(draw(st.lists(st.integers(T0 - 5_000, T0 + 5_000), min_size=batch.n, max_size=batch.n)), np.int64)
        running = np.maximum.accumulate([clock, *times.tolist()])
        stamps = np.array(draw(st.lists(STAMPS, min_size=batch.n, max_size=batch.n)), np.int64)
        marks = np.stack((offset + np.arange(batch.n), times, stamps, running[1:]))
        found.append(Rows(batch, places, marks, running[:-1], marks[0] % 3 == 0))
        offset, clock = offset + batch.n + draw(st.integers(0, 2)), int(running[-1])
    return Case(by_place, found)


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
    for rows in case.batches:
        counts.add(*rows)
    for place, counted in zip(counts.places, counts.counted(), strict=True):
        profiles[place].add_part(counted.part, About(None, counted.n_inspected))
        profiles[place].stream.add_timed(None, counted.timing)
    return profiles


def updated(case: Case) -> list[Profile]:
    profiles = [Profile(layout) for layout in case.layouts]
    for batch, places, marks, _, inspected in case.batches:
        for place in sorted(set(places.tolist())):
            at = np.flatnonzero(places == place)
            rows = of_place(batch, at)
            rows.inspected = int(inspected[at].sum())
            profiles[place].update(rows)
            profiles[place].stream.add_rows(None, *marks[1:, at])
    return profiles


def add(counts: Tally, batch: ColumnBatch, places: Int) -> None:
    """Count rows whenever they came."""
    counts.add(batch, places, np.zeros((4, batch.n), np.int64), np.zeros(batch.n, np.int64), np.zeros(batch.n, bool))


@given(cases())
def test_a_tally_counts_what_updates_do(case: Case) -> None:
    assert [p.to_bytes() for p in tallied(case)] == [p.to_bytes() for p in updated(case)]


@given(cases())
def test_it_tells_where_the_rows_of_each_are_in_the_log(case: Case) -> None:
    counts = Tally(case.layouts[0], [Profile(layout) for layout in case.layouts].__getitem__, Grids())
    for rows in case.batches:
        counts.add(*rows)
    of_row = [(place, *row) for rows in case.batches for place, *row in zip(rows.places, rows.marks[0], rows.before, strict=True)]
    by_place = {place: [row[1:] for row in of_row if row[0] == place] for place in counts.places}
    assert {row[0] for row in of_row} == set(by_place)
    found = [(one.first, one.before, one.last, one.part.n) for one in counts.counted()]
    assert found == [(*rows[0], rows[-1][0], len(rows)) for rows in by_place.values()]


@given(cases())
def test_forgetting_values_and_layouts_changes_nothing(case: Case) -> None:
    with patch.object(tally, "MAX_CODES", 0), patch.object(tally, "MAX_GRIDS", 1):
        assert [p.to_bytes() for p in tallied(case)] == [p.to_bytes() for p in updated(case)]


def test_values_that_are_coded_later_are_known_then() -> None:
    layout = Layout((CategoryFeature(name="y", values=("a", "b")),))
    profile, values = Profile(layout), ["b"]
    counts = Tally(layout, lambda _: profile, Grids())
    for _ in range(3):
        add(counts, ColumnBatch(1, np.zeros((0, 1)), None, [Coded(values, np.array([len(values) - 1]))]), np.zeros(1, np.int64))
        values += ["new" if "a" in values else "a"]
    (counted,) = counts.counted()
    profile.add_part(counted.part, NOTHING_SAID)
    summary = profile.summary("y")
    assert (summary.values.tolist(), summary.never_seen) == ([1, 1, 0], 1)


def test_profiles_may_come_one_after_another_and_arrays_in_any_order_of_memory() -> None:
    layout = Layout((NumberFeature(name="x", edges=(0.0,), reported=(), minimum=0.0, maximum=0.0, centre=0.0, exponent=-36),))
    profiles = [Profile(layout) for _ in range(4)]
    counts = Tally(layout, profiles.__getitem__, Grids())
    for places in ([0], [1, 2], [3, 0]):
        numbers = np.ones((len(places), 2)).T[:1]
        specials = np.zeros((len(places), 2), np.uint8).T[:1]
        add(counts, ColumnBatch(len(places), numbers, specials, []), np.array(places))
    assert [(part.n, part.maximum.tolist()) for part, *_ in counts.counted()] == [(2, [1.0]), *[(1, [1.0])] * 3]


def test_counts_are_widened_before_they_pass_their_limit() -> None:
    layout = Layout((NumberFeature(name="x", edges=(0.0,), reported=(), minimum=0.0, maximum=0.0, centre=0.0, exponent=-36),))
    profiles = [Profile(layout), Profile(layout)]
    counts, n = Tally(layout, profiles.__getitem__, Grids()), 40_000
    for _ in range(2):
        add(counts, ColumnBatch(n + 1, np.ones((1, n + 1)), None, []), np.array([1] * n + [0]))
    for profile, counted in zip(profiles, counts.counted(), strict=True):
        profile.add_part(counted.part, NOTHING_SAID)
    assert [profile.summary("x").values.tolist() for profile in profiles] == [[0, 2], [0, 2 * n]]
    assert [profile.summary("x").mean for profile in profiles] == [1.0, 1.0]


def grid() -> Any:
    """Return what the compiled part knows of a layout of one number, whose three cells are followed by two of a category."""
    from monitor_native import counting as native

    return native.Grid([np.array([0.0, 1.0])], [7], [-1], [0.0], [1.0], 7, 12)


def test_the_compiled_part_refuses_what_does_not_fit_and_counts_nothing_then() -> None:
    from monitor_native import counting as native

    counts, cells = np.zeros(12, np.uint16), np.array([[10, 11]], np.int32)
    sums, extremes = np.zeros((1, 1, 4), np.int64), np.zeros((1, 1, 2))
    slot_of, numbers, slots = np.zeros(2, np.int64), np.array([[0.5, 2.0]]), native.Slots()
    slots.put(0, grid(), counts, np.zeros(5, np.int64))
    good: tuple[Any, ...] = (slots, slot_of, numbers, None, cells, sums, extremes)
    bad: list[tuple[int, Any]] = [
        (0, native.Slots()),
        (1, slot_of + 1),
        (1, slot_of - 1),
        (2, numbers[:, :1].copy()),
        (2, numbers[:0]),
        (3, np.zeros((1, 1), np.uint8)),
        (3, np.full((1, 2), 8, np.uint8)),
        (4, cells + 1),
        (4, cells - 11),
        (5, sums[:, :0]),
        (6, np.zeros((0, 1, 2))),
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


def test_a_slot_takes_nothing_that_does_not_fit_and_counts_where_it_did_then() -> None:
    from monitor_native import counting as native

    counts, delays, slots = np.zeros(12, np.uint16), np.zeros(5, np.int64), native.Slots()
    slots.put(0, grid(), counts, delays)
    fixed = counts.copy()
    fixed.flags.writeable = False
    bad: list[tuple[int, Any, Any, Any]] = [
        (2, grid(), counts, delays),
        (-1, grid(), counts, delays),
        (0, native.Grid([], [], [], [], [], 7, 12), counts, delays),
        (0, native.Grid([np.array([0.0, 1.0])], [6], [-1], [0.0], [1.0], 6, 12), counts, delays),
        (0, grid(), counts[:11], delays),
        (0, grid(), counts.astype(np.uint8), delays),
        (1, grid(), fixed, delays),
        (0, grid(), counts, delays[:4]),
        (1, grid(), counts, delays.astype(np.int32)),
        (0, grid(), counts, None),
    ]
    for one in bad:
        with pytest.raises((ValueError, BufferError, TypeError)):
            slots.put(*one)
        assert len(slots) == 1
    wider, rows = np.zeros(12, np.uint32), (np.array([[0.5]]), None, np.zeros((0, 1), np.int32))
    for slot in range(1, 40):
        slots.put(slot, grid(), np.zeros(12, np.int64), np.zeros(5, np.int64))
    for slot_of in (0, 0, 39):
        native.count(slots, np.array([slot_of]), *rows, np.zeros((40, 1, 4), np.int64), np.zeros((40, 1, 2)))
        slots.put(0, grid(), wider, delays)
    assert (counts[8], wider[8]) == (1, 1)


def test_times_that_do_not_fit_are_refused_too() -> None:
    from monitor_native import counting as native

    slots, delays = native.Slots(), [np.zeros(5, np.int64) for _ in range(2)]
    for slot in range(2):
        slots.put(slot, grid(), np.zeros(12, np.uint16), delays[slot])
    slot_of, marks, before = np.array([1, 1]), np.array([[7, 8], [50, 40], [60, LATEST_MS], [50, 50]]), np.array([NEVER_MS, 50])
    inspected, timed = np.array([0, 1], np.uint8), np.zeros((2, 11), np.int64)
    good: tuple[Any, ...] = (slots, slot_of, marks, before, inspected, LATEST_MS, timed)
    bad: list[tuple[int, Any]] = [
        (1, slot_of + 1),
        (1, slot_of - 2),
        (2, marks[:3].copy()),
        (2, marks[:, :1].copy()),
        (3, before[:1]),
        (4, inspected[:1]),
        (6, timed[:1]),
        (6, timed[:, :10].copy()),
    ]
    for place, value in bad:
        arguments = [*good]
        arguments[place] = value
        with pytest.raises(ValueError, match=r"slot|rows"):
            native.count_times(*arguments)
        assert not timed.any()
        assert not delays[1].any()
    native.count_times(*good)
    assert timed.tolist() == [[0] * 11, [2, 1, 7, 8, NEVER_MS, 40, 50, 1, 10, 0, 10]]
    assert [cells.tolist() for cells in delays] == [[0] * 5, [0, 0, 0, 0, 1]]  # 10 ms is beyond the two cells there are


def test_delays_are_in_the_cells_that_numpy_finds() -> None:
    from monitor_native import counting as native

    sizes = np.concatenate(
        ([0], 2 ** np.arange(62), 2 ** np.arange(62) - 1, np.random.default_rng(1).integers(0, 1 << 61, 5_000))
    )
    for delays in (sizes, -sizes):
        n = len(delays)
        marks = np.stack((np.arange(n), -delays, np.zeros(n, np.int64), np.zeros(n, np.int64)))
        timed, counted = np.zeros((1, 11), np.int64), np.zeros(2 * DELAY_CELLS + 1, np.int64)
        slots, zeros = native.Slots(), np.zeros(n, np.int64)
        slots.put(0, grid(), np.zeros(12, np.uint16), counted)
        native.count_times(slots, zeros, marks, zeros, np.zeros(n, np.uint8), LATEST_MS, timed)
        assert counted.tolist() == np.bincount(delay_cells(delays) + DELAY_CELLS, minlength=len(counted)).tolist()
