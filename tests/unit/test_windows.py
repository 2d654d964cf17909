"""Windows are half-open, aligned to the epoch, and hold every time in as many of them as they overlap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.windows import Window, WindowSpec, duration_text, pane_size_ms

STEP = st.integers(1, 50)


@given(STEP, st.integers(1, 6), st.integers(-1_000, 1_000))
def test_a_time_is_in_as_many_windows_as_steps_fit_into_one(step: int, n: int, time: int) -> None:
    found = list(WindowSpec(n * step, step).windows_of(time, time + 1))
    assert len(found) == n
    assert all(w.start_ms <= time < w.end_ms and w.start_ms % step == 0 and w.end_ms - w.start_ms == n * step for w in found)
    assert [w.end_ms for w in found] == sorted({w.end_ms for w in found})


@given(STEP, st.integers(1, 6), st.integers(-200, 200), st.integers(1, 120))
def test_the_windows_of_a_span_are_those_that_overlap_it(step: int, n: int, start: int, length: int) -> None:
    size = n * step
    spec = WindowSpec(size, step)
    found = [w.start_ms for w in spec.windows_of(start, start + length)]
    assert found == [s for s in range(-400 * step, 400 * step, step) if s < start + length and s + size > start]


def test_ends_are_exclusive_and_starts_inclusive() -> None:
    """
    [0 . . . 10)[10 . . . 20)
    """
    spec = WindowSpec(10, 10)
    assert [w.start_ms for w in spec.windows_of(9, 10)] == [0]
    assert [w.start_ms for w in spec.windows_of(10, 11)] == [10]
    assert [w.start_ms for w in spec.windows_of(0, 20)] == [0, 10]
    assert [w.start_ms for w in spec.windows_of(-1, 0)] == [-10]


def test_the_next_window_lies_a_step_further() -> None:
    window = Window(end_ms=30, size_ms=20, step_ms=5)
    assert window.spec.after(window) == Window(end_ms=35, size_ms=20, step_ms=5)
    assert (window.start_ms, window.spec) == (10, WindowSpec(20, 5))


def test_windows_are_in_order_of_their_end_shorter_ones_first() -> None:
    found = [Window(30, 30, 10), Window(20, 10, 10), Window(30, 10, 10)]
    assert sorted(found) == [Window(20, 10, 10), Window(30, 10, 10), Window(30, 30, 10)]


def test_kinds() -> None:
    assert (WindowSpec(10, 10).kind, WindowSpec(30, 10).kind) == ("tumbling", "hopping")


def test_a_pane_divides_every_size_and_step() -> None:
    assert pane_size_ms([WindowSpec(60, 60), WindowSpec(90, 30), WindowSpec(20, 20)]) == 10
    assert pane_size_ms([WindowSpec(7, 7)]) == 7


@pytest.mark.parametrize(
    ("ms", "text"),
    [(86_400_000, "1d"), (3_600_000, "1h"), (90_000, "90s"), (60_000, "1m"), (1_000, "1s"), (999, "999ms"), (172_800_000, "2d")],
)
def test_a_length_of_time_is_told_in_the_largest_unit_that_divides_it(ms: int, text: str) -> None:
    assert duration_text(ms) == text
