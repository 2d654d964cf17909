"""A profile is a monoid: merging is exact, whatever the order, the batching and the partitioning."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from monitor.columns import ColumnBatch, NoValue, specials_of
from monitor.errors import StateMismatch, UnknownCodec
from monitor.features import CategoryFeature
from monitor.layout import Layout, layout_of
from monitor.profiles import Profile, merge_all
from monitor.sketches import bounded
from monitor.sketches.moments import exact_sums, mean_std, scale_of
from tests.shapes import number_feature_of

REFERENCE = np.random.default_rng(0).normal(3, 2, 3_000)
LAYOUT = layout_of([number_feature_of("x", REFERENCE), CategoryFeature(name="c", values=("a", "b"))])

values = st.floats(allow_nan=True, allow_infinity=True, width=64) | st.sampled_from([0.0, -0.0, 1e300, -1e300, 3.0, 5e-324])
rows = st.lists(st.tuples(values, st.sampled_from(["a", "b", "new", "other", None, NoValue.ABSENT])), max_size=40)


def profile_of(data: list[tuple[float, object]]) -> Profile:
    profile = Profile(LAYOUT)
    numbers = np.array([[x for x, _ in data]], np.float64).reshape(1, -1)
    profile.update(ColumnBatch(len(data), numbers, specials_of(numbers), [[c for _, c in data]]))
    return profile


@given(rows, st.randoms(use_true_random=False), st.integers(1, 5))
@settings(max_examples=150)
def test_any_partitioning_in_any_order_gives_the_same_bytes(data: list[tuple[float, object]], dice: object, n: int) -> None:
    whole = profile_of(data).to_bytes()
    shuffled = list(data)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    parts = [profile_of(shuffled[i::n]) for i in range(n)]
    for order in itertools.islice(itertools.permutations(parts), 3):
        assert merge_all(list(order), LAYOUT).to_bytes() == whole


@given(rows, rows)
def test_merging_adds_and_leaves_the_other_as_it_was(left: list[tuple[float, object]], right: list[tuple[float, object]]) -> None:
    one, two = profile_of(left), profile_of(right)
    before = two.to_bytes()
    one.merge(two)
    assert two.to_bytes() == before
    assert one.to_bytes() == profile_of(left + right).to_bytes()


@given(rows)
def test_bytes_say_everything(data: list[tuple[float, object]]) -> None:
    profile = profile_of(data)
    again = Profile.from_bytes(profile.to_bytes(), LAYOUT)
    assert again.to_bytes() == profile.to_bytes()
    found, expected = again.summary("x"), profile.summary("x")
    assert found.values.tolist() == expected.values.tolist()
    assert replace(found, values=expected.values) == expected


def test_bytes_of_another_version_or_layout_are_refused() -> None:
    data = profile_of([(1.0, "a")]).to_bytes()
    with pytest.raises(UnknownCodec, match="codec version 9"):
        Profile.from_bytes(b"\x09" + data[1:], LAYOUT)
    with pytest.raises(StateMismatch):
        Profile.from_bytes(data, Layout())
    with pytest.raises(StateMismatch, match="cannot merge"):
        Profile(Layout()).merge(profile_of([]))


@pytest.mark.parametrize(
    "data",
    [
        np.random.default_rng(1).normal(5, 2, 20_000),
        np.random.default_rng(2).lognormal(0, 1, 20_000),
        np.random.default_rng(3).standard_t(2, 20_000),
        np.random.default_rng(4).integers(0, 90, 20_000).astype(float),
        np.full(1_000, 0.1),
        np.array([7.0]),
    ],
)
def test_moments_agree_with_numpy(data: np.ndarray) -> None:
    centre, exponent = scale_of(float(data.mean()), float(data.std()) or 1.0)
    mean, std = mean_std(len(data), *exact_sums(data, centre, exponent), centre, exponent)
    assert mean == pytest.approx(data.mean(), rel=1e-9, abs=1e-9)
    assert std == pytest.approx(data.std(), rel=1e-9, abs=1e-9)


def test_a_constant_has_no_spread_at_all() -> None:
    centre, exponent = scale_of(12.0, 5.0)
    assert mean_std(3, *exact_sums(np.full(3, 0.1), centre, exponent), centre, exponent)[1] == 0.0


@given(st.lists(st.dictionaries(st.integers(0, 200), st.integers(1, 9)), max_size=6), st.integers(1, 20))
def test_bounded_counts_of_kept_keys_are_complete(parts: list[dict[int, int]], bound: int) -> None:
    kept = bounded.merged([bounded.smallest(part, bound) for part in parts], bound)
    total: dict[int, int] = {}
    for part in parts:
        for key, count in part.items():
            total[key] = total.get(key, 0) + count
    assert kept == bounded.smallest(total, bound)


def test_cells_and_range_agree_with_numpy() -> None:
    dice = np.random.default_rng(5)
    data = np.concatenate((dice.normal(3, 2, 5_000), dice.normal(3, 40, 200)))
    numbers = data[None, :]
    profile = Profile(LAYOUT)
    profile.update(ColumnBatch(len(data), numbers, None, [["a"] * len(data)]))
    feature = dict((f.name, f) for f in LAYOUT.features)["x"]
    deciles = np.unique(np.quantile(REFERENCE, np.arange(1, 10) / 10, method="inverted_cdf"))
    assert feature.reported == tuple(deciles)  # type: ignore[union-attr]
    groups = feature.reported_groups()
    counts = np.bincount(groups, weights=profile.summary("x").values)
    expected = np.histogram(data, np.concatenate(([-math.inf], np.nextafter(deciles, math.inf), [math.inf])))[0]
    assert counts.tolist() == expected.tolist()
    summary = profile.summary("x")
    assert (summary.minimum, summary.maximum) == (data.min(), data.max())
