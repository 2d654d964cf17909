"""Counts as LEB128: by the compiled part and without it the same bytes, and the same counts from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.sketches import varint
from tests.native import needs_native

TYPES = (np.uint8, np.uint16, np.int32, np.uint32, np.int64, np.uint64)

counts_of = st.sampled_from([7, 8, 14, 15, 21, 62]).flatmap(lambda bits: st.lists(st.integers(0, (1 << bits) - 1), max_size=50))


@pytest.fixture(scope="module", autouse=True, params=[pytest.param(True, marks=needs_native), False])
def _with_or_without_the_compiled_part(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if not request.param:
            patch.setattr(varint, "native", None)
        yield


def leb128(count: int) -> bytes:
    low, rest = count & 0x7F, count >> 7
    return bytes([low | 0x80]) + leb128(rest) if rest else bytes([low])


@given(counts_of)
def test_counts_of_any_type_are_leb128_and_come_back(counts: list[int]) -> None:
    for dtype in TYPES:
        if max(counts, default=0) <= np.iinfo(dtype).max:
            array: np.ndarray[Any, Any] = np.array(counts, dtype)
            data = varint.encode(array)
            assert data == b"".join(map(leb128, counts))
            assert varint.encode(np.repeat(array, 2)[::2]) == data  # with gaps in memory
            assert varint.decode(data, len(counts)).tolist() == counts


@given(counts_of, st.integers(-2, 2), st.integers(0, 3))
@example([300], 0, 1)
@example([], 1, 0)
def test_bytes_of_more_or_fewer_counts_are_refused(counts: list[int], more: int, cut: int) -> None:
    data = varint.encode(np.array(counts, np.int64))
    data = data[: len(data) - cut]
    n = max(0, len(counts) + more)
    is_exact = sum(byte < 0x80 for byte in data) == n and (not data or data[-1] < 0x80)
    if is_exact:
        assert len(varint.decode(data, n)) == n
    else:
        with pytest.raises(ValueError, match="counts"):
            varint.decode(data, n)
