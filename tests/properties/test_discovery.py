"""A discovery is a monoid: the same bytes whatever the order, the batching and the partitioning; and its counts are those of plain loops."""

from __future__ import annotations

import base64
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import UnknownCodec
from monitor.learning import discovery
from monitor.learning import features as feature_discovery
from monitor.learning.discovery import MAX_NAMES, Discovery
from monitor.learning.features import budget
from monitor.sketches.bounded import key_hash

Row = dict[str, object]

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-3, 3) | st.sampled_from([10**400, 0, -0.0, 2**70])
values = (
    numbers
    | st.text(max_size=3)
    | st.booleans()
    | st.none()
    | st.lists(st.just(1), max_size=3)
    | st.sampled_from(["2025-01-31", "a b"])
    | st.text(min_size=60, max_size=70)
)
rows = st.lists(st.dictionaries(st.sampled_from(["a", "b", "c", "@score"]), values), max_size=40)


def discovery_of(data: list[Row], size: int = 1_000, **kwargs: bool) -> Discovery:
    found = Discovery()
    for start in range(0, len(data), size):
        found.update(data[start : start + size], **kwargs)
    return found


def merged(parts: list[Discovery]) -> Discovery:
    total = Discovery()
    for part in parts:
        total.merge(Discovery.from_bytes(part.to_bytes()))
    return total


def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a handful of rows exceeds."""
    monkeypatch.setattr(feature_discovery, "FULL_BUDGET", feature_discovery.Budget(600, 300, 3, 20))
    monkeypatch.setattr(feature_discovery, "FULL_UP_TO", 1)
    monkeypatch.setattr(discovery, "MAX_NAMES", 2)


@pytest.mark.parametrize("is_small", [False, True])
@given(data=rows, dice=st.randoms(use_true_random=False), n=st.integers(1, 5))
@settings(max_examples=150)
def test_any_partitioning_in_any_order_gives_the_same_bytes(is_small: bool, data: list[Row], dice: object, n: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if is_small:
            small_bounds(patch)
        whole = discovery_of(data).to_bytes()
        shuffled = list(data)
        dice.shuffle(shuffled)  # type: ignore[attr-defined]
        parts = [discovery_of(shuffled[i::n], size=1 + i) for i in range(n)]
        assert merged(parts).to_bytes() == whole
        pairs = [merged(parts[i : i + 2]) for i in range(0, n, 2)]
        assert merged(pairs[::-1]).to_bytes() == whole


@given(data=rows, more=rows)
def test_merging_leaves_the_other_as_it_was(data: list[Row], more: list[Row]) -> None:
    one, two = discovery_of(data), discovery_of(more)
    before = two.to_bytes()
    one.merge(two)
    one.update(data)
    assert two.to_bytes() == before


@given(data=rows)
def test_counts_by_type_are_those_of_a_plain_loop(data: list[Row]) -> None:
    found = discovery_of(data)
    assert found.rows == len(data)
    for name in {name for row in data for name in row}:
        column = [row[name] for row in data if name in row]
        feature = found.features[name]
        is_number = [type(v) in (int, float) and abs(v) <= sys.float_info.max for v in column]  # type: ignore[operator, arg-type]
        strings = Counter(v for v in column if isinstance(v, str))
        assert feature.n == len(column)
        assert feature.numbers.n == sum(is_number)
        assert feature.strings == strings.total()
        assert (feature.trues, feature.falses) == (sum(v is True for v in column), sum(v is False for v in column))
        assert feature.nulls == column.count(None)
        assert feature.list_lengths.n == sum(isinstance(v, list) for v in column)
        assert feature.lengths.first == sum(len(text) * n for text, n in strings.items()) << 1126
        assert feature.words == sum(len(text.split()) * n for text, n in strings.items())
        assert feature.is_iso == (set(strings) <= {"2025-01-31"})
        assert feature.values == {key_hash(text): n for text, n in strings.items()}
        assert feature.texts == {key_hash(text): text for text in strings if len(text) <= 64}


def test_large_streams_over_partitions_agree_too() -> None:
    dice = np.random.default_rng(0)
    data: list[Row] = [
        {"x": float(x), "k": int(k), "id": f"user-{i}", "c": f"c{k % 40}"}
        for i, (x, k) in enumerate(zip(dice.standard_t(2, 12_000), dice.integers(0, 3_000, 12_000), strict=True))
    ]
    whole = discovery_of(data)
    order = dice.permutation(len(data))
    parts = [discovery_of([data[i] for i in order[p::8]], size=77 + p) for p in range(8)]
    assert merged(parts).to_bytes() == whole.to_bytes()
    assert not whole.features["x"].numbers.cells.is_exact


class TestBounds:
    def test_of_more_names_those_with_the_smallest_hashes_are_kept_with_complete_counts(self) -> None:
        names = [f"f{i}" for i in range(700)]
        found = merged([discovery_of([{name: 1} for name in names[i::3] for _ in range(2)], size=10) for i in range(3)])
        kept = sorted(names, key=key_hash)[:MAX_NAMES]
        assert set(found.features) == set(kept)
        assert {feature.n for feature in found.features.values()} == {2}
        assert found.has_more_names

    def test_outputs_are_kept_beside_any_number_of_names(self) -> None:
        found = discovery_of([{f"f{i}": 1, "@score": 0.5} for i in range(700)])
        assert found.features["@score"].n == 700

    def test_a_long_name_is_not_kept_and_said(self) -> None:
        found = discovery_of([{"x" * 129: 1, "y": 2}])
        assert (set(found.features), found.has_more_names) == ({"y"}, True)

    def test_how_many_different_values_there_are_is_known_within_the_stated_error(self) -> None:
        ratios = []
        for seed in range(40):
            found = discovery_of([{"id": f"{seed}-{i}"} for i in range(4_000)])
            assert len(found.features["id"].values) == 256
            ratios.append(found.features["id"].n_distinct / 4_000)
        error = float(np.sqrt(np.mean((np.array(ratios) - 1) ** 2)))
        assert 0.75 < error / (1 / np.sqrt(254)) < 1.3
        assert abs(np.mean(ratios) - 1) < 0.04

    def test_256_values_are_known_and_257_are_not(self) -> None:
        full = discovery_of([{"c": f"v{i}"} for i in range(256)] * 2).features["c"]
        assert (full.has_all_values, full.n_distinct, len(full.texts or ())) == (True, 256, 256)
        over = discovery_of([{"c": f"v{i}"} for i in range(257)] * 2).features["c"]
        assert (over.has_all_values, len(over.values), over.texts) == (False, 256, None)

    def test_texts_beyond_the_budget_are_known_by_hash_only(self) -> None:
        found = discovery_of([{"c": f"{i:060d}"} for i in range(103)]).features["c"]
        assert (found.texts, found.has_all_values) == (None, True)
        assert len(discovery_of([{"c": f"{i:060d}"} for i in range(102)]).features["c"].texts or ()) == 102

    def test_what_a_budget_allows_fits_into_a_message(self) -> None:
        full = budget(1)
        at_most = (full.cell_bits + 2 * full.length_bits) // 8 + full.n_values * (8 + 5) + full.text_bytes
        assert feature_discovery.FULL_UP_TO * at_most < 0.95 * (1 << 20)

    def test_bytes_are_few_whatever_comes(self) -> None:
        dice = np.random.default_rng(3)
        wide = discovery_of([{f"f{i}": float(x) for i, x in enumerate(row)} for row in dice.lognormal(0, 50, (400, 600))], 100)
        assert len(wide.to_bytes()) < 1_500_000
        usual = discovery_of([{f"f{i}": float(x) for i, x in enumerate(row)} for row in dice.normal(0, 1, (5_000, 10))])
        assert len(usual.to_bytes()) / 10 < 1_000
        assert budget(512).n_values == 32


class TestPrivacy:
    def test_texts_are_not_kept_where_they_may_not(self) -> None:
        secret = "someone@example.org"
        data = discovery_of([{"mail": secret}], keep_texts=False)
        assert data.features["mail"].texts is None
        assert data.features["mail"].values == {key_hash(secret): 1}

    def test_one_part_that_may_not_keep_texts_decides_for_all(self) -> None:
        open_, closed = discovery_of([{"c": "a"}]), discovery_of([{"c": "b"}], keep_texts=False)
        for parts in ([open_, closed], [closed, open_]):
            assert merged(parts).features["c"].texts is None

    def test_of_a_hashed_feature_no_text_is_kept(self) -> None:
        found = Discovery()
        found.update([{"mail": "x", "y": "open"}], hashed=frozenset({"mail"}))
        assert (found.features["mail"].texts, found.features["y"].texts) == (None, {key_hash("open"): "open"})

    def test_a_feature_that_is_left_out_leaves_no_trace(self) -> None:
        found = Discovery()
        found.update([{"mail": "x", "y": 1}], left_out=frozenset({"mail"}))
        without = discovery_of([{"y": 1}])
        assert found.to_bytes() == without.to_bytes()


def test_bytes_of_another_version_are_refused() -> None:
    with pytest.raises(UnknownCodec, match="codec version 9"):
        Discovery.from_bytes(b"\x09" + Discovery().to_bytes()[1:])


def test_bytes_of_version_1_can_be_read() -> None:
    stored = (
        "ASi1L/1gYgD1BQByiB8nkDtjyDaQ6ovodvNIQjeLRw9YEwsY/ZBREUepvltzkOTsmzDAyKYUloGfgTj5+ZMHt87NNuDwEyHRaz02isZv"
        "LjwptxUCk9gnGKhDoeJF6JmtobSu80wJu9pOqkjfa+2c9jEQJ+0nBJyUWTlwq33Y+aL3taYGQ3LEy0XJAlUcAJAcYk0Al8C4h1UuntXO"
        "OBhlDwyDaywkgIwwsDjIBlrAYfAsZAN7YBgIAsYBwiATTzj+UmFYyoKLDiAM"
    )
    expected = discovery_of([{"x": 1.5, "c": "a", "@score": 0.25, "l": [1, 2]}, {"x": -2, "c": None}, {"x": 0, "f": True}])
    assert Discovery.from_bytes(base64.b64decode(stored)).to_bytes() == expected.to_bytes()
