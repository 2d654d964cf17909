"""A profile by segments is a profile of each segment's rows; blocks of it are parts of the same sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.columns import ColumnBatch, specials_of
from monitor.features import CategoryFeature
from monitor.layout import Layout, layout_of
from monitor.profiles import Profile
from monitor.segments import Key, Segmentation
from tests.shapes import number_feature_of

FEATURES = [
    number_feature_of("x", np.random.default_rng(0).normal(3, 2, 3_000)),
    number_feature_of("y", np.random.default_rng(1).integers(0, 5, 3_000).astype(float)),
    CategoryFeature(name="c", values=("a", "b", "d")),
]
BY_C = Segmentation((Key(name="c"),), (("a",), ("d",)))
CROSS = Segmentation((Key(name="c"), Key(name="x", op=">", operand=3.0)), (("a", "true"), ("b", "false")))
BY_TAG = Segmentation((Key(name="tags.t"),), (("u",),))
LAYOUT = layout_of(FEATURES, segmentations=[BY_C, CROSS, BY_TAG])
PLAIN = Layout(LAYOUT.features)

values = st.floats(allow_nan=True, allow_infinity=False, width=32) | st.sampled_from([3.0, 1e300, -0.0])
rows = st.lists(
    st.tuples(values, values, st.sampled_from(["a", "b", "d", "new", None]), st.sampled_from(["u", "w", None])), max_size=30
)
Row = tuple[float, float, str | None, str | None]


def counted(layout: Layout, data: list[Row], blocks: list[int] | None = None) -> Profile:
    profile = Profile(layout)
    add(profile, data, blocks)
    return profile


def add(profile: Profile, data: list[Row], blocks: list[int] | None = None) -> None:
    numbers = np.array([[row[0] for row in data], [row[1] for row in data]], np.float64).reshape(2, -1)
    batch = ColumnBatch(len(data), numbers, specials_of(numbers), [[row[2] for row in data]], tags=[[row[3] for row in data]])
    profile.update(batch, blocks)


def segment_of(row: Row) -> list[str]:
    """By plain ifs."""
    x, _, c, t = row
    big = None if not np.isfinite(x) else x > 3
    cross = "c=a, x > 3" if c == "a" and big else "c=b, not x > 3" if c == "b" and big is False else "c=(other), x > 3=(other)"
    return ["all", f"c={c}" if c in ("a", "d") else "c=(other)", cross, "tags.t=u" if t == "u" else "tags.t=(other)"]


@given(rows)
@settings(max_examples=150)
def test_each_segment_is_the_profile_of_its_own_rows(data: list[Row]) -> None:
    profile = counted(LAYOUT, data)
    for i, name in enumerate(LAYOUT.segments):
        own = counted(PLAIN, [row for row in data if name in segment_of(row)])
        assert profile.rows[i] == own.n
        assert profile.counts[i].tolist() == own.counts[0].tolist()
        assert profile.sums[i].tolist() == own.sums[0].tolist()
        assert profile.minimum[i].tolist() == own.minimum[0].tolist()
        assert profile.maximum[i].tolist() == own.maximum[0].tolist()


@given(rows, st.integers(0, 30))
def test_blocks_are_parts_of_one_sum_and_may_be_counted_apart(data: list[Row], cut: int) -> None:
    whole = counted(LAYOUT, data).to_bytes()
    blocks = range(len(LAYOUT.blocks))
    again = Profile(LAYOUT)
    for block in blocks:
        again.add_block(counted(LAYOUT, data).block_bytes(block))
    assert again.to_bytes() == whole
    behind = counted(LAYOUT, data[:cut], [0])  # a crash left the first block ahead of the others
    add(behind, data[:cut], list(blocks)[1:])
    add(behind, data[cut:])
    assert behind.to_bytes() == whole


@pytest.mark.parametrize("seed", range(5))
def test_batching_does_not_matter(seed: int) -> None:
    dice = np.random.default_rng(seed)
    data = [
        (float(dice.normal(3, 2)), float(dice.integers(5)), dice.choice(["a", "b", "d", "e"]), dice.choice(["u", "v"]))
        for _ in range(500)
    ]
    parts = Profile(LAYOUT)
    for part in np.array_split(np.arange(500), 7):
        add(parts, [data[i] for i in part])
    assert parts.to_bytes() == counted(LAYOUT, data).to_bytes()
