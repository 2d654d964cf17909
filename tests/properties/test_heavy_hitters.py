"""Counters are a function of the keys' order alone, and the true counts lie within their stated bound."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.sketches.heavy_hitters import HeavyHitters

keys = st.lists(st.integers(0, 12) | st.integers(0, 200), max_size=120)


def hitters_of(stream: list[int], bound: int, cuts: list[int] | None = None) -> HeavyHitters:
    hitters = HeavyHitters(bound)
    start = 0
    for cut in sorted(cuts or []):
        hitters.add(stream[start:cut])
        start = max(start, cut)
    hitters.add(stream[start:])
    return hitters


def assert_within_bound(hitters: HeavyHitters, stream: list[int], bound: int) -> None:
    exact = Counter(stream)
    assert len(hitters.counts) <= bound
    assert all(0 < n <= exact[key] <= n + hitters.error for key, n in hitters.counts.items())
    assert all(n <= hitters.error for key, n in exact.items() if key not in hitters.counts)
    assert (bound + 1) * hitters.error <= len(stream) - sum(hitters.counts.values())


@given(keys, st.integers(1, 10), st.lists(st.integers(0, 120), max_size=6))
def test_batches_of_the_same_order_give_the_same_counters(stream: list[int], bound: int, cuts: list[int]) -> None:
    assert hitters_of(stream, bound, cuts).to_wire() == hitters_of(stream, bound).to_wire()


@given(keys, st.integers(1, 10))
def test_true_counts_lie_within_the_stated_error(stream: list[int], bound: int) -> None:
    assert_within_bound(hitters_of(stream, bound), stream, bound)


@given(st.lists(keys, min_size=1, max_size=5), st.integers(1, 10))
def test_true_counts_lie_within_the_stated_error_after_merging(parts: list[list[int]], bound: int) -> None:
    total = HeavyHitters(bound)
    for part in parts:
        one = hitters_of(part, bound)
        before = one.to_wire()
        total.merge(one)
        assert one.to_wire() == before
    assert_within_bound(total, [key for part in parts for key in part], bound)


@given(keys, st.integers(1, 10))
def test_a_counter_that_cancels_out_is_the_textbook_loop(stream: list[int], bound: int) -> None:
    counts: dict[int, int] = {}
    for key in stream:
        if key in counts or len(counts) < bound:
            counts[key] = counts.get(key, 0) + 1
            continue
        for other in list(counts):
            counts[other] -= 1
            if not counts[other]:
                del counts[other]
    assert hitters_of(stream, bound).counts == counts


@given(st.lists(st.integers(0, 9), max_size=60), st.randoms(use_true_random=False), st.integers(1, 4))
def test_few_keys_are_counted_exactly_in_any_order_and_partitioning(stream: list[int], dice: object, n: int) -> None:
    dice.shuffle(stream)  # type: ignore[attr-defined]
    total = HeavyHitters(10)
    for i in range(n):
        total.merge(hitters_of(stream[i::n], 10))
    assert total.to_wire() == (dict(sorted(Counter(stream).items())), 0)


def test_a_key_above_one_part_in_sixty_five_is_found_among_a_hundred_thousand_others() -> None:
    dice = np.random.default_rng(2)
    stream = [*range(1, 100_001), *[0] * 1_700]
    dice.shuffle(stream)
    hitters = hitters_of(stream, 64)
    assert hitters.counts[0] + hitters.error >= 1_700
    assert hitters.error <= len(stream) / 65


@pytest.mark.parametrize(
    ("stream", "counts", "error"), [([], {}, 0), ([5], {5: 1}, 0), ([1, 2, 3], {}, 1), ([1, 2, 3, 4], {4: 1}, 1)]
)
def test_edges(stream: list[int], counts: dict[int, int], error: int) -> None:
    assert hitters_of(stream, 2).to_wire() == (counts, error)
