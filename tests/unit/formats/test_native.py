"""Native events: every reason for a rejection, every special value, and never an exception."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.columns import Special
from monitor.formats.native import INSPECT_EVERY, NativeFormat
from monitor.formats.native_label import NativeLabelFormat
from monitor.layout import CategoryFeature, Layout, NumberFeature, layout_of
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import PREDICTION, SCORE


def number(name: str) -> NumberFeature:
    return NumberFeature(
        name=name, edges=(0.0, 1.0, 2.0), reported=(0.0, 1.0), minimum=0.0, maximum=2.0, centre=0.0, exponent=-30
    )


LAYOUT = layout_of(
    [
        number("age"),
        number("weird name|é"),
        number(SCORE),
        CategoryFeature(name="country", values=("DE", "FR")),
        CategoryFeature(name="zip", values=("10", "20"), value_type="number"),
        CategoryFeature(name="flag", values=("false", "true"), value_type="boolean"),
        CategoryFeature(name=PREDICTION, values=("yes", "no")),
    ]
)


def event(**fields: object) -> bytes:
    return json.dumps({"model": "m", "time": 1_000, "features": {}} | fields).encode()


def one(value: bytes | None, **options: object) -> object:
    batch = NativeFormat(**options).decode([StoredRecord(0, 5_000, value)])  # type: ignore[arg-type]
    if batch.rejections:
        why = batch.rejections[0][1]
        return why.reason.value, why.pointer
    return ("tick", batch.ticks[0][1]) if batch.ticks else (batch.keys[0], int(batch.times_ms[0]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ("empty", "")),
        (b"", ("empty", "")),
        (b" " * (1 << 21), ("too_large", "")),
        (b'{"model": "\xff"}', ("bad_encoding", "")),
        (event(features={"a": "x"}).replace(b'"x"', b'"\xff"'), ("bad_encoding", "")),
        (b'{"model": ', ("malformed_json", "")),
        (b'{"model": NaN}', ("malformed_json", "")),
        (b"[" * 100_000, ("not_an_object", "")),
        (b"[]", ("not_an_object", "")),
        (b"null", ("not_an_object", "")),
        (b'{"model": "m", "time": 1}', ("missing_field", "features")),
        (event(features=None), ("missing_field", "features")),
        (event(model=None), ("missing_field", "model")),
        (event(features=[]), ("wrong_type", "features")),
        (event(model=7), ("wrong_type", "model")),
        (event(time="1"), ("wrong_type", "time")),
        (event(time=True), ("wrong_type", "time")),
        (event(time=1.5), ("wrong_type", "time")),
        (event(version=[]), ("wrong_type", "version")),
        (event(model="a|b"), ("invalid_name", "model")),
        (event(version=""), ("invalid_name", "version")),
        (event(time=10**18), ("invalid_time", "time")),
        (event(time=10**30), ("invalid_time", "time")),
        (b'{"tick": "soon"}', ("wrong_type", "tick")),
        (b'{"tick": 77}', ("tick", 77)),
        (event(), (("m", "1"), 1_000)),
        (event(version=7), (("m", "7"), 1_000)),
        (event(version=None), (("m", "1"), 1_000)),
        (event(score="high", prediction=[1]), (("m", "1"), 1_000)),
        (b"\xef\xbb\xbf" + event(), (("m", "1"), 1_000)),
        (event(features={"a": "é"}), (("m", "1"), 1_000)),
    ],
)
def test_each_record_is_an_event_a_tick_or_has_a_reason(value: bytes | None, expected: object) -> None:
    assert one(value) == expected


@pytest.mark.parametrize(
    ("unit", "time", "ms"),
    [
        ("s", 1.5, 1_500),
        ("s", 2, 2_000),
        ("us", 1_700, 1),
        ("ns", 1_700_000, 1),
        ("iso8601", "1970-01-01T00:00:01Z", 1_000),
        ("iso8601", "1970-01-01T01:00:01+01:00", 1_000),
    ],
)
def test_times_come_in_the_declared_unit(unit: str, time: object, ms: int) -> None:
    assert one(event(time=time), time_unit=unit) == (("m", "1"), ms)


def test_an_iso_time_without_offset_is_no_time() -> None:
    assert one(event(time="1970-01-01T00:00:01"), time_unit="iso8601") == ("invalid_time", "time")


def test_the_time_may_stand_in_another_field() -> None:
    assert one(json.dumps({"model": "m", "ts": 3, "features": {}}).encode(), time_field="ts") == (("m", "1"), 3)


def columns_of(features: list[dict[str, object]], **fields: object) -> Profile:
    form = NativeFormat()
    batch = form.decode([StoredRecord(i + 1, 0, event(features=f, **fields)) for i, f in enumerate(features)])
    profile = Profile(LAYOUT)
    profile.update(form.columns(LAYOUT, batch.payloads, batch.offsets))
    return profile


def special(profile: Profile, name: str, kind: Special) -> int:
    return int(profile.counts[0, LAYOUT.special_cell(LAYOUT.index[name], kind)])


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("age", None, Special.MISSING),
        ("age", "41", Special.WRONG_TYPE),
        ("age", True, Special.WRONG_TYPE),
        ("age", [], Special.WRONG_TYPE),
        ("age", 10**400, Special.WRONG_TYPE),
        ("weird name|é", None, Special.MISSING),
        ("country", None, Special.MISSING),
        ("country", "XX", Special.NEVER_SEEN),
        ("country", 7, Special.WRONG_TYPE),
        ("zip", 30, Special.NEVER_SEEN),
        ("zip", "10", Special.WRONG_TYPE),
        ("flag", "true", Special.WRONG_TYPE),
    ],
)
def test_a_bad_value_costs_its_feature_and_nothing_else(name: str, value: object, kind: Special) -> None:
    good = {"age": 1, "weird name|é": 1.5, "country": "DE", "zip": 10, "flag": True}
    profile = columns_of([good | {name: value}])
    assert special(profile, name, kind) == 1
    for other in set(good) - {name}:
        assert profile.summary(other).n == 1


def test_a_feature_left_out_is_absent_not_missing() -> None:
    profile = columns_of([{}])
    for name in ("age", "country"):
        assert special(profile, name, Special.ABSENT) == 1
        assert special(profile, name, Special.MISSING) == 0


def test_outputs_are_features_of_their_own() -> None:
    profile = columns_of([{}], prediction="yes", score=1.5)
    assert profile.summary(PREDICTION).values.tolist() == [1, 0, 0]
    assert profile.summary(SCORE).mean == pytest.approx(1.5)
    assert special(columns_of([{}], prediction=7, score="x"), PREDICTION, Special.WRONG_TYPE) == 1
    assert special(columns_of([{}], score="x"), SCORE, Special.WRONG_TYPE) == 1
    assert special(columns_of([{}]), SCORE, Special.ABSENT) == 1
    assert special(columns_of([{}], score=None), SCORE, Special.MISSING) == 1


def test_unexpected_names_are_seen_on_the_share_of_offsets_that_the_log_decides() -> None:
    form = NativeFormat()
    n = 3 * INSPECT_EVERY
    batch = form.decode([StoredRecord(i, 0, event(features={"new": 1})) for i in range(n)])
    found = form.columns(LAYOUT, batch.payloads, batch.offsets)
    assert (found.inspected, found.unexpected) == (3, {"new": 3})


def test_labels_are_accepted_and_bad_ones_refused() -> None:
    values = [b'{"id": "a", "model": "m", "label": 1, "time": 5}', b"{}", b"", b"{", b'{"tick": 5}']
    batch = NativeLabelFormat().decode([StoredRecord(i, 0, v) for i, v in enumerate(values)])
    assert batch.labels == [(0, "m")]
    assert batch.ticks == [(4, 5)]
    assert [why.reason.value for _, why in batch.rejections] == ["wrong_type", "empty", "malformed_json"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.binary(max_size=60) | st.none(), max_size=8))
def test_no_bytes_raise(values: list[bytes | None]) -> None:
    batch = NativeFormat().decode([StoredRecord(i, 0, v) for i, v in enumerate(values)])
    assert len(batch.offsets) + len(batch.rejections) + len(batch.ticks) == len(values)


@given(st.lists(st.dictionaries(st.sampled_from(["age", "country", "zip", "flag", "x"]), json_values), min_size=1, max_size=6))
def test_no_features_raise_and_columns_agree_with_a_plain_loop(features: list[dict[str, object]]) -> None:
    profile = columns_of(features)
    numbers = [v for f in features if type(v := f.get("age")) in (int, float) and abs(float(v)) < math.inf] if _fits(features) else None
    if numbers is not None:
        assert profile.summary("age").n == len(numbers)
    countries = [f.get("country") for f in features]
    assert profile.summary("country").n == sum(isinstance(c, str) for c in countries)
    assert special(profile, "country", Special.ABSENT) == sum("country" not in f for f in features)


def _fits(features: list[dict[str, object]]) -> bool:
    """JSON integers beyond 64 bits are decoded in more than one way; they have a case of their own above."""
    return all(not isinstance(v, int) or abs(v) < 1 << 63 for f in features for v in f.values())


def test_a_layout_without_features_takes_any_event() -> None:
    form = NativeFormat()
    batch = form.decode([StoredRecord(0, 0, event(features={"a": 1}))])
    found = form.columns(Layout(), batch.payloads, batch.offsets)
    assert (found.n, found.numbers.shape) == (1, (0, 1))
    assert np.isfinite(found.numbers).all()
    assert msgspec.json.decode(batch.payloads[0].features) == {"a": 1}  # type: ignore[attr-defined]
