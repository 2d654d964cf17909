"""Registers are a function of the set of values; their estimate has the stated error."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import cramjam
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.sketches.hyperloglog import RELATIVE_STANDARD_ERROR, HyperLogLog

hashes = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 40).map(lambda i: i * 0x9E3779B97F4A7C15 % 2**64), max_size=60)


def sketch_of(values: list[int], lg_k: int = 12) -> HyperLogLog:
    sketch = HyperLogLog(lg_k)
    sketch.add(np.array(values, np.uint64))
    return sketch


@given(hashes, st.randoms(use_true_random=False), st.integers(1, 5))
def test_any_partitioning_order_and_repetition_gives_the_same_bytes(values: list[int], dice: object, n: int) -> None:
    whole = sketch_of(values).to_wire()
    shuffled = [*values, *values[:7]]
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    parts = [sketch_of(shuffled[i::n]) for i in range(n)]
    for order in itertools.islice(itertools.permutations(parts), 3):
        total = HyperLogLog()
        for part in order:
            total.merge(part)
        assert total.to_wire() == whole


@given(hashes, st.integers(4, 12))
def test_registers_are_those_of_a_plain_loop(values: list[int], lg_k: int) -> None:
    registers = [0] * (1 << lg_k)
    for value in values:
        bits = f"{value:064b}"
        rest = bits[12:]
        first_one = rest.index("1") + 1 if "1" in rest else len(rest) + 1
        registers[int(bits[:lg_k], 2)] = max(registers[int(bits[:lg_k], 2)], first_one)
    wire = sketch_of(values, lg_k).to_wire()
    if len(wire) == len(registers):
        assert list(wire) == registers
        return
    used = [i for i, register in enumerate(registers) if register]
    low, high, found = np.frombuffer(wire, np.uint8).reshape(3, -1)
    assert [a + 256 * b for a, b in zip(low.tolist(), high.tolist(), strict=True)] == used
    assert found.tolist() == [registers[i] for i in used]


@given(st.integers(0, 3_000), st.integers(0, 2**32 - 1))
def test_what_was_stored_goes_on_as_if_it_were_not(n: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 2**64, n, np.uint64)
    one = HyperLogLog()
    one.add(values)
    again = HyperLogLog.from_wire(one.to_wire())
    assert again.to_wire() == one.to_wire()
    assert again.estimate() == one.estimate()
    again.add(values[: n // 2])
    assert again.to_wire() == one.to_wire()


@pytest.mark.parametrize("n", [10, 1_000, 100_000, 1_000_000])
def test_the_estimate_is_within_four_standard_errors_of_the_exact_count(n: int) -> None:
    values = np.random.default_rng(n).integers(0, 2**64, n, np.uint64)
    sketch = HyperLogLog()
    for part in np.array_split(values, 7):
        sketch.add(part)
    exact = len(np.unique(values))
    assert sketch.estimate() == pytest.approx(exact, rel=4 * RELATIVE_STANDARD_ERROR)


@pytest.mark.parametrize("n", [100, 5_000, 12_000, 50_000])
def test_the_root_mean_square_error_is_at_most_seventeen_in_a_thousand_and_there_is_no_bias(n: int) -> None:
    dice = np.random.default_rng(3)
    errors = []
    for _ in range(600):
        sketch = HyperLogLog()
        sketch.add(dice.integers(0, 2**64, n, np.uint64))
        errors.append(sketch.estimate() / n - 1)
    assert np.sqrt(np.mean(np.square(errors))) <= 0.017
    assert abs(np.mean(errors)) <= 4 * RELATIVE_STANDARD_ERROR / np.sqrt(600)


@given(st.sampled_from([0, 50]).flatmap(lambda low: st.lists(st.integers(low, 53), min_size=16, max_size=16)), st.integers(4, 6))
def test_the_estimate_is_ertls_formula(values: list[int], lg_k: int) -> None:
    """Equations 13, 14 and 15 of arXiv:1702.01284 as series, registers that are full among them."""
    m, q = 1 << lg_k, 52
    registers = [*values, *[0] * (m - 16)]
    sketch = HyperLogLog.from_wire(bytes(registers), lg_k)
    if not any(register <= q for register in registers):
        return
    counts = [registers.count(k) for k in range(q + 2)]
    empty, rest = Fraction(counts[0], m), 1 - counts[q + 1] / m
    sigma = math.inf if empty == 1 else float(empty + sum(empty ** (2**k) * 2 ** (k - 1) for k in range(1, 12)))
    tau = (1 - rest - sum((1 - rest ** (2.0**-k)) ** 2 * 2.0**-k for k in range(1, 60))) / 3
    weights = m * sigma + sum(n * 2.0**-k for k, n in enumerate(counts[1 : q + 1], 1)) + m * tau * 2.0**-q
    assert sketch.estimate() == pytest.approx(m * m / (2 * math.log(2) * weights), rel=1e-9)


def test_few_values_are_stored_in_few_bytes_and_many_in_two_kilobytes() -> None:
    sizes = {}
    for n in (0, 1, 20, 256, 1_000, 1_000_000):
        sketch = HyperLogLog()
        sketch.add(np.random.default_rng(n).integers(0, 2**64, n, np.uint64))
        sizes[n] = len(cramjam.zstd.compress(sketch.to_wire(), level=3))
    assert sizes[0] <= 12
    assert sizes[20] <= 80
    assert sizes[256] <= 700
    assert max(sizes.values()) <= 2_200


def test_what_is_no_sketch_is_refused() -> None:
    with pytest.raises(ValueError, match="5 bytes are no registers"):
        HyperLogLog.from_wire(b"12345")
    with pytest.raises(ValueError, match="771 bytes are no registers"):
        HyperLogLog.from_wire(bytes(3 * 257))
    with pytest.raises(ValueError, match="cannot be merged"):
        HyperLogLog(4).merge(HyperLogLog(5))
