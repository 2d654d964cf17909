"""What a profile keeps of values outside a dictionary: exact parts in any order, the others in the order of the log."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.columns import ColumnBatch, NoValue
from monitor.features import CategoryFeature
from monitor.hash_key import HashKey
from monitor.layout import Layout, layout_of
from monitor.profiles import Profile, merge_all
from monitor.sketches.hyperloglog import HyperLogLog

KEY = HashKey("a secret of the tests")
KNOWN, OTHERS = ("a", "b"), ("o1", "o2", "o3")


def layout(key: HashKey = KEY, *, keep_values: bool = False) -> Layout:
    other = tuple(sorted(map(key_of, OTHERS)))
    return layout_of([CategoryFeature(name="c", values=KNOWN, other=other, hash_key=key.id, keep_values=keep_values)], key)


def key_of(text: str) -> int:
    """The hash by its definition: blake2b of 8 bytes, keyed with blake2b of the secret."""
    key = blake2b(KEY.secret.encode(), digest_size=32, person=b"monitor key").digest()
    return int.from_bytes(blake2b(text.encode(), digest_size=8, key=key).digest(), "big")


@st.composite
def streams(draw: st.DrawFn) -> list[object]:
    """Up to 600 rows of which some 150 are different new values, a few of them frequent."""
    dice = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    new = [f"new-{i}" for i in (dice.zipf(draw(st.sampled_from([1.1, 1.5, 3.0])), draw(st.integers(0, 500))) % 1_000).tolist()]
    rows: list[object] = [*new, *draw(st.lists(st.sampled_from([*KNOWN, *OTHERS, None, NoValue.WRONG_TYPE]), max_size=100))]
    dice.shuffle(rows)  # type: ignore[arg-type]
    return rows


def profile_of(rows: list[object], of: Layout, cuts: list[int] | None = None) -> Profile:
    profile, start = Profile(of), 0
    for cut in [*sorted(cuts or []), len(rows)]:
        part = rows[start:cut]
        profile.update(ColumnBatch(len(part), np.empty((0, len(part))), None, [part]))
        start = max(start, cut)
    return profile


def new_values(rows: list[object]) -> Counter[str]:
    return Counter(row for row in rows if isinstance(row, str) and row not in (*KNOWN, *OTHERS))


LAYOUT, NAMING = layout(), layout(keep_values=True)


@given(streams(), st.lists(st.integers(0, 600), max_size=8), st.sampled_from([LAYOUT, NAMING]))
@settings(max_examples=60)
def test_batches_of_the_same_log_give_the_same_bytes(rows: list[object], cuts: list[int], of: Layout) -> None:
    assert profile_of(rows, of, cuts).to_bytes() == profile_of(rows, of).to_bytes()


@given(streams(), st.randoms(use_true_random=False), st.integers(1, 5), st.integers(0, 600))
@settings(max_examples=60)
def test_any_partitioning_order_and_late_split_gives_the_same_counts_hashes_and_registers(
    rows: list[object], dice: object, n: int, cut: int
) -> None:
    whole = profile_of(rows, LAYOUT)
    dice.shuffle(rows)  # type: ignore[attr-defined]
    on_time, late = rows[:cut], rows[cut:]
    parts = [*(profile_of(on_time[i::n], LAYOUT) for i in range(n)), profile_of(late, LAYOUT)]
    dice.shuffle(parts)  # type: ignore[attr-defined]
    total = merge_all(parts, LAYOUT)
    for profile in (total, whole):
        profile.outside[0].forget_order()
    assert total.to_bytes() == whole.to_bytes()


@given(streams(), st.integers(1, 5))
@settings(max_examples=60)
def test_kept_hashes_are_exact_and_frequent_values_are_within_their_error(rows: list[object], n: int) -> None:
    exact = {key_of(text): count for text, count in new_values(rows).items()}
    total = merge_all([profile_of(rows[i::n], LAYOUT) for i in range(n)], LAYOUT)
    outside = total.outside[0]
    assert outside.kept == {key: exact[key] for key in sorted(exact)[:64]}
    assert all(count <= exact[key] <= count + outside.hitters.error for key, count in outside.hitters.counts.items())
    assert all(count <= outside.hitters.error for key, count in exact.items() if key not in outside.hitters.counts)
    for one in outside.most_frequent(10):
        assert one.rows <= exact[one.hash] <= one.rows + one.error
        assert one.rows >= max((c for key, c in exact.items() if key not in outside.hitters.counts), default=0)


@given(streams())
@settings(max_examples=40)
def test_registers_are_of_others_and_new_values_and_of_nothing_else(rows: list[object]) -> None:
    expected = HyperLogLog()
    outside = {row for row in rows if isinstance(row, str)} - set(KNOWN)
    expected.add(np.array([key_of(text) for text in outside], np.uint64))
    profile = profile_of(rows, LAYOUT)
    assert profile.outside[0].to_wire().registers == expected.to_wire()
    assert profile.summary("c").distinct == len(set(rows) & set(KNOWN)) + round(expected.estimate())


@given(streams(), streams(), st.sampled_from([LAYOUT, NAMING]))
@settings(max_examples=40)
def test_a_profile_that_was_stored_goes_on_as_if_it_were_not(first: list[object], then: list[object], of: Layout) -> None:
    again = Profile.from_bytes(profile_of(first, of).to_bytes(), of)
    again.update(ColumnBatch(len(then), np.empty((0, len(then))), None, [then]))
    assert again.to_bytes() == profile_of(first + then, of).to_bytes()


@given(streams(), streams())
@settings(max_examples=40)
def test_texts_are_kept_of_what_has_a_counter_and_only_where_they_may(left: list[object], right: list[object]) -> None:
    for of in (LAYOUT, NAMING):
        one = profile_of(left, of)
        one.merge(profile_of(right, of))
        outside = one.outside[0]
        texts = {key_of(text): text for text in new_values(left + right)}
        assert outside.texts == ({key: texts[key] for key in outside.hitters.counts} if of is NAMING else {})


@pytest.mark.parametrize("n", [10, 1_000, 100_000])
def test_the_number_of_different_values_is_right_to_four_standard_errors(n: int) -> None:
    rows: list[object] = [*KNOWN, *(f"value {i}" for i in range(n - 2))]
    profile = profile_of(rows * 2, layout_of([CategoryFeature(name="c", values=KNOWN)]), list(range(0, 2 * n, 5_000)))
    assert profile.summary("c").distinct == pytest.approx(n, rel=4 * 0.01625)


def test_a_hundred_thousand_values_cost_three_kilobytes_and_no_list_of_them() -> None:
    rows: list[object] = [f"value {i}" for i in range(100_000)]
    profile = profile_of(rows, LAYOUT, list(range(0, 100_000, 1_000)))
    outside = profile.outside[0]
    assert (len(outside.kept), len(outside.hitters.counts) <= 64, outside.texts) == (64, True, {})
    assert len(profile.to_bytes()) <= 3_500


def test_long_texts_are_cut_at_64_characters() -> None:
    profile = profile_of(["x" * 63 + "é" * 50], NAMING)
    assert [one.text for one in profile.outside[0].most_frequent(1)] == ["x" * 63 + "é"]


def test_what_merges_with_an_unknown_number_is_unknown() -> None:
    unknown = profile_of(["x"], LAYOUT)
    unknown.outside[0].registers = None
    for order in ([unknown, profile_of(["y"], LAYOUT)], [profile_of(["y"], LAYOUT), unknown]):
        total = merge_all(order, LAYOUT)
        assert total.summary("c").distinct is None
        again = Profile.from_bytes(total.to_bytes(), LAYOUT)
        again.update(ColumnBatch(1, np.empty((0, 1)), None, [["z"]]))
        assert again.summary("c").distinct is None


def test_a_layout_counts_with_its_own_key_only() -> None:
    features = layout().features
    with pytest.raises(ValueError, match="was given key ''"):
        profile_of(["x"], Layout(features))
    with pytest.raises(ValueError, match="a layout of hash key"):
        profile_of(["x"], Layout(features, hash_key=HashKey("another secret")))
    assert layout(HashKey()).sha256 != layout().sha256
