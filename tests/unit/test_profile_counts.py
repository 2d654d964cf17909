"""Counts of a profile take the bytes that the largest of them needs, and are the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.columns import ColumnBatch
from monitor.features import CategoryFeature
from monitor.layout import Layout
from monitor.profiles import Profile
from monitor.segments import Key, Segmentation

LAYOUT = Layout((CategoryFeature(name="c", values=("a", "b")),))
SPLIT = Layout(LAYOUT.features, (Segmentation((Key(name="c"),), (("a",), ("b",))),))
A = 7  # the cell of "a", behind the special cells


def rows(n: int) -> ColumnBatch:
    return ColumnBatch(n, np.zeros((0, n)), None, [["a"] * n])


@pytest.mark.parametrize("layout", [LAYOUT, SPLIT])
def test_a_count_that_does_not_fit_any_more_is_widened(layout: Layout) -> None:
    profile = Profile(layout)
    profile.update(rows(65_535))
    few = profile.held_bytes
    profile.update(rows(1))
    assert profile.held_bytes > few
    assert profile.counts[0].tolist() == [0] * A + [65_536, 0, 0]
    assert profile.counts_of(0).sum() == profile.n == 65_536
    assert profile.summary("c").values.tolist() == [65_536, 0, 0]


def test_blocks_and_profiles_of_any_width_add_up() -> None:
    narrow, wide = Profile(LAYOUT), Profile(LAYOUT)
    narrow.update(rows(40_000))
    wide.counts[0, A] = (1 << 40) + 7
    data = narrow.to_bytes()
    assert Profile.from_bytes(data, LAYOUT).to_bytes() == data
    for added in (narrow, wide):
        total = Profile(LAYOUT)
        for _ in range(2):
            total.merge(added)
        total.add_block(data)
        expected = 2 * int(added.counts_of(0)[A]) + 40_000
        assert total.counts_of(0)[A] == total.summary("c").values[0] == expected
        assert Profile.from_bytes(total.to_bytes(), LAYOUT).counts[0, A] == expected


def test_counts_can_be_written_to_once_they_were_asked_for() -> None:
    profile = Profile(LAYOUT)
    profile.update(rows(3))
    profile.counts[0, A] += 1 << 33
    profile.update(rows(2))
    assert profile.counts[0, A] == (1 << 33) + 5
    assert profile.counts.dtype == np.int64


def test_a_copy_of_a_segments_counts_is_not_the_profiles_own() -> None:
    profile = Profile(LAYOUT)
    profile.update(rows(3))
    profile.counts_of(0)[A] = 9
    assert profile.counts_of(0)[A] == 3
