"""Native events: every reason for a rejection, every special value, and never an exception."""

from __future__ import annotations

import json

import numpy as np
import pytest

from monitor.columns import Envelope, Names, NoValue, Special
from monitor.features import CategoryFeature, NumberFeature
from monitor.formats.native import INSPECT_EVERY, MAX_NAME_CHARS, NativeFormat
from monitor.json_objects import MAX_DEPTH
from monitor.layout import Layout, layout_of
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import LATENCY, PREDICTION, SCORE


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


COUNTRY = [feature.name for _, feature in LAYOUT.categories].index("country")


def event(**fields: object) -> bytes:
    return json.dumps({"model": "m", "time": 1_000, "features": {}} | fields).encode()


def nested(depth: int) -> object:
    """Lists in lists."""
    found: object = []
    for _ in range(depth - 1):
        found = [found]
    return found


def one(value: bytes | None, **options: object) -> object:
    batch = NativeFormat(**options).decode([StoredRecord(0, 5_000, value)])  # type: ignore[arg-type]
    if batch.rejections:
        why = batch.rejections[0][1]
        return why.reason.value, why.pointer
    return ("tick", batch.ticks[0][1]) if batch.ticks else (batch.keys[0], int(batch.times_ms[0]))


KINDS: list[tuple[bytes | None, object]] = [
    (None, ("empty", "")),
    (b"", ("empty", "")),
    (b" " * (1 << 21), ("too_large", "")),
    (event(note="x" * (1 << 20)), ("too_large", "")),
    (event(note="x" * ((1 << 20) - len(event(note="")))), (("m", "1"), 1_000)),
    (event(note="x" * ((1 << 20) - len(event(note="")) + 1)), ("too_large", "")),
    (b'{"model": "\xff"}', ("bad_encoding", "")),
    (event(features={"a": "x"}).replace(b'"x"', b'"\xff"'), ("bad_encoding", "")),
    (b'{"model": ', ("malformed_json", "")),
    (b'{"model": NaN}', ("malformed_json", "")),
    (b'{"model": "a\\q"}', ("malformed_json", "")),
    (b'{"model": "\\ud800"}', ("malformed_json", "")),
    (b'{"model": "m",}', ("malformed_json", "")),
    (event() + b"x", ("malformed_json", "")),
    (event(features={"a": "x"}).replace(b"x", b"\\x"), ("malformed_json", "")),
    (b"\xef\xbb\xbf", ("malformed_json", "")),
    (b"\xef\xbb\xbf\xef\xbb\xbf" + event(), ("malformed_json", "")),
    (b"[" * 100_000, ("malformed_json", "")),
    (b"[1, 2", ("malformed_json", "")),
    (event(deep=nested(MAX_DEPTH)), ("malformed_json", "")),
    (event(deep=nested(MAX_DEPTH - 1)), (("m", "1"), 1_000)),
    (event(flat=[[]] * 600, text="[" * 600), (("m", "1"), 1_000)),
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
    (event(version=10**200), ("invalid_name", "version")),
    (event(model="a\n"), ("invalid_name", "model")),
    (event(model="a|b", time=10**18), ("invalid_name", "model")),
    (b"{}", ("missing_field", "model")),
    (b'{"model": "m", "features": {}}', ("missing_field", "time")),
    (event(features="{}"), ("wrong_type", "features")),
    (event(time=253_402_300_799_999), (("m", "1"), 253_402_300_799_999)),
    (event(time=253_402_300_800_000), ("invalid_time", "time")),
    (event(time=-2_208_988_800_000), (("m", "1"), -2_208_988_800_000)),
    (event(time=-2_208_988_800_001), ("invalid_time", "time")),
    (b'{"tick": "soon"}', ("wrong_type", "tick")),
    (b'{"tick": null}', ("missing_field", "tick")),
    (b'{"tick": 1e30}', ("wrong_type", "tick")),
    (b'{"tick": 1000000000000000000000000000000}', ("invalid_time", "tick")),
    (b'{"tick": 77, "model": "m"}', ("missing_field", "time")),
    (event(tick=77), (("m", "1"), 1_000)),
    (b'{"tick": 77}', ("tick", 77)),
    (event(), (("m", "1"), 1_000)),
    (event(version=7), (("m", "7"), 1_000)),
    (event(version=None), (("m", "1"), 1_000)),
    (event(score="high", prediction=[1]), (("m", "1"), 1_000)),
    (b"\xef\xbb\xbf" + event(), (("m", "1"), 1_000)),
    (event(features={"a": "é"}), (("m", "1"), 1_000)),
]


@pytest.mark.parametrize(("value", "expected"), KINDS)
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


def row_of(name: str) -> int:
    return [feature.name for _, feature in LAYOUT.numbers].index(name)


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


def test_a_layout_without_features_takes_any_event() -> None:
    form = NativeFormat()
    batch = form.decode([StoredRecord(0, 0, event(features={"a": 1}))])
    found = form.columns(Layout(), batch.payloads, batch.offsets)
    assert (found.n, found.numbers.shape) == (1, (0, 1))
    assert np.isfinite(found.numbers).all()
    assert (found.inspected, found.unexpected) == (1, {"a": 1})


def test_a_batch_of_all_kinds_is_sorted_out_as_its_records_are_one_by_one() -> None:
    values = [value for value, _ in KINDS for _ in range(2)]
    form = NativeFormat()
    for _ in range(2):  # the second time the format knows the layout, and reads ahead
        batch = form.decode([StoredRecord(7 + i, 5_000, value) for i, value in enumerate(values)])
        found: dict[int, object] = {o: (why.reason.value, why.pointer) for o, why in batch.rejections}
        found |= {o: ("tick", ms) for o, ms in batch.ticks}
        keys = [batch.keys[i] for i in batch.key_index.tolist()]
        found |= dict(zip(batch.offsets.tolist(), zip(keys, batch.times_ms.tolist(), strict=True), strict=True))
        assert [found[o] for o in sorted(found)] == [expected for _, expected in KINDS for _ in range(2)]
        assert batch.record_ms.tolist() == [5_000] * len(batch.offsets)
        for offsets in (batch.offsets.tolist(), [o for o, _ in batch.rejections], [o for o, _ in batch.ticks]):
            assert offsets == sorted(offsets)
        form.columns(LAYOUT, batch.payloads, batch.offsets)
        form.decode([StoredRecord(0, 0, event())])


def test_keys_are_those_of_accepted_events_in_order_of_appearance() -> None:
    values = [event(model="late", time=10**18), event(model="b", version=2), event(model="a"), event(model="b", version="2")]
    batch = NativeFormat().decode([StoredRecord(i, 0, value) for i, value in enumerate(values)])
    assert batch.keys == [("b", "2"), ("a", "1")]
    assert batch.key_index.tolist() == [0, 1, 0]


def test_no_records_are_an_empty_batch() -> None:
    batch = NativeFormat().decode([])
    assert (len(batch.offsets), batch.keys, batch.payloads, batch.rejections) == (0, [], [], [])
    found = NativeFormat().columns(LAYOUT, [], batch.offsets)
    assert (found.n, found.numbers.shape, found.inspected) == (0, (3, 0), 0)


def test_of_equal_names_the_last_counts() -> None:
    values = [
        b'{"model": 5, "model": "m", "time": "x", "time": 1000, "features": {"age": "x", "age": 1, "country": 1, "country": "DE"}}',
        b'{"model": "m", "time": 1000, "features": {"age": 1, "age": "x"}}',
    ]
    form = NativeFormat()
    batch = form.decode([StoredRecord(i, 0, value) for i, value in enumerate(values)])
    found = form.columns(LAYOUT, batch.payloads, batch.offsets)
    assert found.specials is not None
    assert found.specials[row_of("age")].tolist() == [Special.VALUE, Special.WRONG_TYPE]
    assert found.numbers[row_of("age"), 0] == 1.0
    assert list(found.categories[COUNTRY]) == ["DE", NoValue.ABSENT]


def test_a_number_that_no_double_holds_is_of_a_wrong_type() -> None:
    value = event(features={"age": 0, "country": "DE"}).replace(b": 0", b": 1e999")
    form = NativeFormat()
    batch = form.decode([StoredRecord(1, 0, value)])
    found = form.columns(LAYOUT, batch.payloads, batch.offsets)
    assert found.specials is not None
    assert found.specials[row_of("age")].tolist() == [Special.WRONG_TYPE]
    assert list(found.categories[COUNTRY]) == ["DE"]


def test_long_names_that_nobody_expects_are_cut() -> None:
    form = NativeFormat()
    batch = form.decode([StoredRecord(0, 0, event(features={"x" * 10_000: 1, "x" * 9_999: 1}))])
    assert form.columns(LAYOUT, batch.payloads, batch.offsets).unexpected == {"x" * MAX_NAME_CHARS: 1}


def envelope_of(*values: bytes) -> Envelope:
    form = NativeFormat()
    batch = form.decode([StoredRecord(i, 5_000, value) for i, value in enumerate(values)])
    assert not batch.rejections
    found = form.columns(LAYOUT, batch.payloads, batch.offsets).envelope
    assert found is not None
    return found


def texts(names: Names | None) -> list[str | None]:
    assert names is not None and names.codes is not None
    return [names.distinct[code] for code in names.codes.tolist()]


def test_the_envelope_says_what_events_say() -> None:
    full = {"id": "r-ü", "schema": "s-1", "producer": "host-1", "status": "ok", "sample_rate": 0.25}
    found = envelope_of(event(**full), event(), event(**full | {"schema": None, "sample_rate": 1}))
    assert list(found.ids) == ["r-ü".encode()] * 2
    assert texts(found.schemas) == ["s-1", None, None]
    assert (texts(found.producers), texts(found.statuses)) == (["host-1", None, "host-1"], ["ok", None, "ok"])
    assert (found.sample_rates.tolist(), found.wrong_type) == ([0.25, 1.0], {})


def test_events_without_optional_fields_have_none() -> None:
    found = envelope_of(event(), event(id=None))
    assert (list(found.ids), found.schemas, found.producers, found.statuses, found.wrong_type) == ([], None, None, None, {})
    assert found.sample_rates.tolist() == []


@pytest.mark.parametrize("name", ["id", "schema", "producer", "status", "sample_rate"])
@pytest.mark.parametrize("value", [True, ["x"], {"x": 1}, 10**400])
def test_an_optional_field_of_a_wrong_type_marks_and_does_not_reject(name: str, value: object) -> None:
    found = envelope_of(event(**{name: value}), event(id="r-1", schema="s-1"))
    assert found.wrong_type == {name: 1}
    assert list(found.ids) == [b"r-1"]
    assert texts(found.schemas) == [None, "s-1"]


@pytest.mark.parametrize("rate", [0, -0.5, 1.5, 1e-7, 2, "0.5", 1e308])
def test_a_sample_rate_that_cannot_be_is_marked(rate: object) -> None:
    found = envelope_of(event(sample_rate=rate), event(sample_rate=0.5))
    assert (found.sample_rates.tolist(), found.wrong_type) == ([0.5], {"sample_rate": 1})


@pytest.mark.parametrize("text", [b'"sample_rate": 1e999', b'"sample_rate": [1e999]'])
def test_a_number_that_no_double_holds_is_marked(text: bytes) -> None:
    found = envelope_of(b'{"model": "m", "time": 1000, "features": {}, ' + text + b"}")
    assert found.wrong_type == {"sample_rate": 1}


@pytest.mark.parametrize("is_often", [False, True])
def test_quoted_numbers_that_are_not_finite_are_what_they_say(is_often: bool) -> None:
    texts = ["NaN", "Infinity", "-Infinity", "nan", "NaN ", "Inf", 'x "NaN"'] * (20 if is_often else 1)
    form = NativeFormat()
    values = [event(features={"age": text, "country": "NaN", "weird name|é": text}, score=text) for text in texts]
    batch = form.decode([StoredRecord(i, 5_000, value) for i, value in enumerate(values)])
    expected = {"NaN": Special.NAN, "Infinity": Special.POS_INF, "-Infinity": Special.NEG_INF}
    for _ in range(2):  # the second time with the reader that takes any type
        columns = form.columns(LAYOUT, batch.payloads, batch.offsets)
        assert columns.specials is not None
        for row in columns.specials.tolist():
            assert row == [expected.get(text, Special.WRONG_TYPE) for text in texts]
        profile = Profile(LAYOUT)
        profile.update(columns)
        summary = profile.summary("age")
        assert (summary.nan, summary.infinite, summary.n) == (len(texts) // 7, 2 * len(texts) // 7, 0)
        assert profile.summary("country").never_seen == len(texts)


@pytest.mark.parametrize("status", ["ok", 7])
def test_what_all_events_say_is_said_once(status: object) -> None:
    found = envelope_of(*[event(status=status, sample_rate=0.5)] * 3)
    assert found.sample_rates.tolist() == [0.5] * 3
    assert found.statuses == (Names(["ok"], None) if status == "ok" else None)
    assert found.wrong_type == ({} if status == "ok" else {"status": 3})


def test_a_rate_of_one_is_none_where_it_is_true() -> None:
    found = envelope_of(event(sample_rate=1.0), event(sample_rate=True), event(sample_rate=1))
    assert (found.sample_rates.tolist(), found.wrong_type) == ([1.0, 1.0], {"sample_rate": 1})


class TestRows:
    """What a discovery is told of an event."""

    def rows(self, *values: bytes) -> list[dict[str, object]]:
        wire = NativeFormat()
        return wire.rows(wire.decode([StoredRecord(i, 5_000, value) for i, value in enumerate(values)]).payloads)

    def test_values_are_as_json_has_them_and_outputs_stand_under_their_names(self) -> None:
        features = {"a": 1, "b": 1.5, "c": "x", "d": True, "e": None, "f": [1], "g": {"h": 2}}
        assert self.rows(event(features=features, score=0.25, prediction="yes", latency_ms=None)) == [
            features | {SCORE: 0.25, PREDICTION: "yes", LATENCY: None}
        ]

    def test_a_value_that_cannot_be_read_costs_only_itself(self) -> None:
        raw = event(features={"a": 7, "b": 2}).replace(b": 7", b": 1e999")
        assert self.rows(raw) == [{"a": NoValue.WRONG_TYPE, "b": 2}]

    def test_an_output_of_a_wrong_type_is_one(self) -> None:
        assert self.rows(event(score="high")) == [{SCORE: NoValue.WRONG_TYPE}]

    def test_features_cannot_pose_as_outputs(self) -> None:
        assert self.rows(event(features={SCORE: 1, "a": 2})) == [{"a": 2}]

    def test_events_that_were_read_with_a_layout_show_everything_too(self) -> None:
        wire = NativeFormat()
        records = [StoredRecord(i, 5_000, event(features={"age": 1.5, "more": "x"})) for i in range(2)]
        wire.columns(LAYOUT, wire.decode(records).payloads, np.arange(2))
        assert wire.rows(wire.decode(records).payloads) == [{"age": 1.5, "more": "x"}] * 2
