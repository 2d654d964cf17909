"""A sample of ids is a function of the ids, and its ratio of duplicates is the truth within its stated error."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.sketches.id_sample import IdSample
from tests.native import needs_native

ids = st.lists(st.integers(0, 30).map(lambda i: b"id-%d" % i) | st.binary(max_size=3), max_size=80)


def sample_of(data: list[bytes], bound: int = 8) -> IdSample:
    sample = IdSample(bound)
    sample.add(data)
    return sample


@given(ids, st.randoms(use_true_random=False), st.integers(1, 5), st.integers(1, 7))
def test_any_partitioning_order_and_batching_gives_the_same_bytes(data: list[bytes], dice: object, n: int, size: int) -> None:
    whole = sample_of(data).to_wire()
    shuffled = list(data)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    total = IdSample(8)
    for part in (shuffled[i::n] for i in range(n)):
        sample = IdSample(8)
        for start in range(0, len(part), size):
            sample.add(part[start : start + size])
        total.merge(sample)
    assert total.to_wire() == whole


@given(ids, st.integers(1, 40))
def test_kept_ids_have_their_whole_counts(data: list[bytes], bound: int) -> None:
    every = Counter(data)
    wire = np.frombuffer(sample_of(data, bound).to_wire(), np.uint8).reshape(2, 8, -1)
    counts = (wire[1].astype(np.int64) << (8 * np.arange(8))[:, None]).sum(axis=0)
    assert len(counts) == min(bound, len(every))
    assert not Counter(counts.tolist()) - Counter(every.values())


@given(ids, ids)
def test_merging_leaves_the_other_as_it_was(left: list[bytes], right: list[bytes]) -> None:
    one, two = sample_of(left), sample_of(right)
    before = two.to_wire()
    one.merge(two)
    assert two.to_wire() == before
    assert one.to_wire() == sample_of(left + right).to_wire()


@given(ids, ids)
def test_a_sample_that_was_stored_goes_on_as_if_it_were_not(first: list[bytes], then: list[bytes]) -> None:
    again = IdSample.from_wire(sample_of(first).to_wire(), 8)
    again.add(then)
    assert again.to_wire() == sample_of(first + then).to_wire()


@given(ids)
def test_few_ids_are_counted_exactly(data: list[bytes]) -> None:
    ratio, error = sample_of(data, bound=1_000).duplicates()
    assert error == 0.0
    assert ratio == ((len(data) - len(set(data))) / len(data) if data else 0.0)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("form", ["%d", "order-%08d", "00000000-0000-4000-8000-%012d"])
def test_the_ratio_is_right_within_its_stated_error(share: float, form: str) -> None:
    """300 samples of 2,000 distinct ids that follow one another, a share of them repeated: |z| > 3 in at most 2 %, and no bias."""
    dice = np.random.default_rng(1)
    scores = []
    for trial in range(300):
        distinct = [(form % (trial * 2_000 + i)).encode() for i in range(2_000)]
        repeated = [key for key in distinct if dice.random() < share]
        ratio, error = sample_of(distinct + repeated, 256).duplicates()
        scores.append((ratio - len(repeated) / (2_000 + len(repeated))) / error)
    assert error > 0
    assert sum(abs(z) > 3 for z in scores) <= 6
    assert abs(np.mean(scores)) < 0.4


def test_a_repeat_of_many_times_is_seen_in_the_counts() -> None:
    data = [b"%d" % (i // 5) for i in range(10_000)]  # every id five times
    assert sample_of(data, 256).duplicates()[0] == pytest.approx(0.8)


def test_what_is_no_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="17 bytes are no sample of ids"):
        IdSample.from_wire(bytes(17))
    with pytest.raises(ValueError, match="at most 2"):
        IdSample.from_wire(sample_of([b"a", b"b", b"c"]).to_wire(), bound=2)
    with pytest.raises(ValueError, match="cannot be merged"):
        IdSample(4).merge(IdSample(8))


@needs_native
@given(st.lists(st.binary(max_size=40) | st.integers(120, 300).map(bytes), max_size=20))
def test_the_compiled_part_hashes_as_zlib_and_hashlib_do(data: list[bytes]) -> None:
    from monitor_native import ids as native

    crcs, digests = np.empty(len(data), np.uint32), np.empty(len(data), np.uint32)
    native.crcs(data, crcs)
    native.blake2b_32(data, digests)
    assert crcs.tolist() == list(map(crc32, data))
    assert digests.tolist() == [int.from_bytes(blake2b(one, digest_size=4).digest(), "big") for one in data]
    for text, hashed in ((None, native.crcs), ("text", native.blake2b_32)):
        no_bytes: Any = [text]
        with pytest.raises(TypeError):
            hashed(no_bytes, np.empty(1, np.uint32))
    with pytest.raises(ValueError, match="texts"):
        native.crcs([*data, b""], crcs)
