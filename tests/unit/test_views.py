"""What is counted of texts, lists, timestamps and scores by class."""

from __future__ import annotations

import json
import zlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from monitor.columns import NoValue, Special
from monitor.events import RejectionReason
from monitor.feature_reader import FeatureReader, scores_of
from monitor.features import Feature, NumberFeature
from monitor.formats.native import NativeFormat
from monitor.layout import Layout, layout_of
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.views import (
    ALPHABETS,
    HEAD_CHARS,
    TOKEN_BITS,
    alphabet,
    confidence,
    moment_ms,
    number_view,
    token_hash,
    tokens,
    views_of,
    vocabulary_bytes,
)

ABSENT, WRONG = NoValue.ABSENT, NoValue.WRONG_TYPE


def view(kind: Any, name: str, **changes: Any) -> NumberFeature:
    found = next(v for v in views_of("x", kind) if v.view == name)
    assert isinstance(found, NumberFeature)
    return msgspec.structs.replace(found, **changes)


# Texts.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        (" \t\n\u00a0", "empty"),
        ("42", "digits"),
        ("+49 (30) 123-456", "digits"),
        ("٣٤", "digits"),
        ("hello", "latin"),
        ("Größe ÆØÅ ǅ ﬀ"[:12], "latin"),
        ("Ｆｕｌｌ", "latin"),
        ("v2", "latin"),
        ("привет 7", "other"),
        ("東京", "other"),
        ("עברית", "other"),
        ("Αθήνα Athens", "mixed"),
        ("...!?", "symbols"),
        ("😀👍🏽", "symbols"),
        ("_", "symbols"),
        ("<p>hi</p>", "markup"),
        ("a<br/>b", "markup"),
        ("<!-- x -->", "markup"),
        ("Tom &amp; Jerry", "markup"),
        ("&#228;", "markup"),
        ("1 < 2 > 0", "digits"),
        ("a < b & c > d", "latin"),
        ("AT&T;", "markup"),
        ("x" * HEAD_CHARS + "ж", "latin"),
        ("x" * (HEAD_CHARS - 1) + "ж", "mixed"),
    ],
)
def test_a_text_has_one_alphabet(text: str, expected: str) -> None:
    assert alphabet(text) == expected
    assert expected in ALPHABETS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Hello, WORLD! x_1", ["hello", "world", "x_1"]),
        ("naïve café", ["naïve", "café"]),
        ("機械學習 ok カナ", ["機", "械", "學", "習", "ok", "カ", "ナ"]),
        ("ab中cd", ["ab", "中", "cd"]),
        ("😀 - ?", []),
    ],
)
def test_words_are_runs_of_letters_and_digits_and_each_chinese_sign_is_one(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_only_the_head_of_a_long_text_is_taken_apart_and_its_length_is_exact() -> None:
    text = "ab " * 400_000  # 1.2 MB
    assert len(tokens(text)) == -(-HEAD_CHARS // 3)
    found = number_view(view("text", "length"), [text, "😀é", "e\u0301"], np.zeros)
    assert found.tolist() == [1_200_000, 2, 2]


def test_the_share_of_unseen_words_is_that_of_a_plain_set() -> None:
    dice = np.random.default_rng(1)
    known = {f"w{i}" for i in range(5_000)}
    texts = [" ".join(f"w{i}" for i in dice.integers(0, 50_000, dice.integers(0, 30))) for _ in range(400)]
    hashes = {zlib.crc32(word.encode()) % (1 << TOKEN_BITS) for word in known}
    data = vocabulary_bytes(hashes)
    assert len(data) < 2.1 * len(hashes)
    expected = []
    for text in texts:
        words = text.split()
        unseen = [w for w in words if zlib.crc32(w.encode()) % (1 << TOKEN_BITS) not in hashes]
        expected.append(len(unseen) / len(words) if words else 0.0)
    assert number_view(view("text", "unseen_ratio", vocabulary=data), texts, np.zeros).tolist() == expected
    truly = [sum(w not in known for w in t.split()) / len(t.split()) for t in texts if t]
    assert abs(np.mean(truly) - np.mean([e for e, t in zip(expected, texts, strict=True) if t])) < 0.002


@pytest.mark.parametrize("hashes", [[], [0], [0, 1, (1 << TOKEN_BITS) - 1], [7, 7, 3]])
def test_a_vocabulary_of_any_size_is_read_back(hashes: list[int]) -> None:
    words = {h: next(w for w in map(str, range(50_000_000)) if token_hash(w) == h) for h in hashes if h in (3, 7)}
    found = view("text", "unseen_ratio", vocabulary=vocabulary_bytes(hashes))
    assert [number_view(found, [w], np.zeros).tolist() for w in words.values()] == [[0.0]] * len(words)
    assert number_view(found, ["unheard"], np.zeros).tolist() == [float(token_hash("unheard") not in hashes)]


# Timestamps.


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("2025-01-31", "iso8601", datetime(2025, 1, 31, tzinfo=UTC)),
        ("2025-01-31 13:00", "iso8601", datetime(2025, 1, 31, 13, tzinfo=UTC)),
        ("2025-01-31T13:00:00.123456Z", "iso8601", datetime(2025, 1, 31, 13, 0, 0, 123_000, tzinfo=UTC)),
        ("2025-01-31T13:00:00-05:00", "iso8601", datetime(2025, 1, 31, 18, tzinfo=UTC)),
        (1_738_328_400, "s", datetime(2025, 1, 31, 13, tzinfo=UTC)),
        (1_738_328_400.5, "s", datetime(2025, 1, 31, 13, 0, 0, 500_000, tzinfo=UTC)),
        (1_738_328_400_000.0, "ms", datetime(2025, 1, 31, 13, tzinfo=UTC)),
        (1_738_328_400_000_000, "us", datetime(2025, 1, 31, 13, tzinfo=UTC)),
        (1_738_328_400_000_000_000, "ns", datetime(2025, 1, 31, 13, tzinfo=UTC)),
    ],
)
def test_a_timestamp_is_read_as_the_reference_had_it(value: Any, unit: Any, expected: datetime) -> None:
    assert moment_ms(value, unit) == expected.timestamp() * 1_000


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        ("", "iso8601"),
        ("20250131", "iso8601"),
        ("2025-W05-5", "iso8601"),
        ("2025-02-30", "iso8601"),
        ("31.01.2025", "iso8601"),
        ("2025-01-31T25:00", "iso8601"),
        ("2025-01-31 soon", "iso8601"),
        ("0001-01-01T00:00:00+23:59", "iso8601"),
        ("9999-12-31T23:59:59-23:59", "iso8601"),
        ("1066-10-14", "iso8601"),
        (10**30, "ns"),
        (10**400, "s"),
        (1e300, "s"),
        (-(10**15), "ms"),
    ],
)
def test_what_is_no_time_of_the_years_1900_to_9999_is_of_a_wrong_type(value: Any, unit: Any) -> None:
    assert moment_ms(value, unit) == -np.inf


def test_an_age_is_the_seconds_from_the_timestamp_to_the_event() -> None:
    feature = view("timestamp", "age_s")
    values = ["1970-01-01T00:00:01Z", "1970-01-01T00:00:10.250", None, ABSENT, WRONG, "soon"]
    found = number_view(feature, values, lambda: np.full(6, 5_000))
    assert found[:2].tolist() == [4.0, -5.25]
    assert np.isnan(found[2])
    assert found[3:].tolist() == [np.inf, -np.inf, -np.inf]


# Scores by class.


@pytest.mark.parametrize(
    ("scores", "score", "expected"),
    [
        ({"a": 0.25, "b": 0.75}, 0.9, 0.75),
        ({"a": None, "b": 0.5}, 0.9, 0.5),
        ({"a": None}, 0.9, None),
        ({}, 0.9, None),
        ({"a": WRONG, "b": 0.5}, 0.9, 0.5),
        ({"a": WRONG, "b": None}, 0.9, WRONG),
        (None, 0.9, 0.9),
        (msgspec.UNSET, 0.9, 0.9),
        (msgspec.UNSET, msgspec.UNSET, msgspec.UNSET),
        (WRONG, 0.9, WRONG),
        ([0.5], 0.9, WRONG),
    ],
)
def test_confidence_is_the_largest_score_or_the_only_one(scores: object, score: object, expected: object) -> None:
    assert confidence(scores, score) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"scores": {"a": 1, "b": 0.5, "c": None}}, {"a": 1.0, "b": 0.5, "c": None}),
        ({"scores": {"a": "high", "b": 0.5, "c": True, "d": 10**400}}, {"a": WRONG, "b": 0.5, "c": WRONG, "d": WRONG}),
        ({"scores": None}, None),
        ({"scores": [1]}, WRONG),
        ({"scores": 0.5}, WRONG),
        ({}, msgspec.UNSET),
    ],
)
def test_scores_are_read_from_an_event_one_by_one_where_one_is_no_number(record: object, expected: object) -> None:
    assert scores_of(json.dumps(record).encode()) == expected
    assert scores_of(b"\xef\xbb\xbf" + json.dumps(record).encode()) == expected


# Hostile values: one costs its own feature and nothing else.

LAYOUT = layout_of([v for kind in ("text", "identifier", "list", "timestamp") for v in views_of(kind, kind)])  # type: ignore[arg-type]
GOOD = {"text": "a b", "identifier": "u-1", "list": [1, [2], {"k": None}], "timestamp": "1970-01-01"}


def row(document: dict[str, Any]) -> dict[str, object]:
    layout = Layout(tuple(placed(f) for f in LAYOUT.features))
    reader = FeatureReader(layout)
    columns = reader.columns(
        [reader.read(msgspec.Raw(json.dumps(document).encode()))], [None], times_ms=lambda: np.array([9_000])
    )
    found: dict[str, object] = {}
    for i, (_, number) in enumerate(layout.numbers):
        special = Special.VALUE if columns.specials is None else Special(columns.specials[i, 0])
        found[number.name] = columns.numbers[i, 0] if special == Special.VALUE else special.name
    for (_, category), column in zip(layout.categories, columns.categories, strict=True):
        found[category.name] = column[0]
    Profile(layout).update(columns)
    return found


def placed(feature: Feature) -> Feature:
    return msgspec.structs.replace(feature, edges=(0.0,), reported=(0.0,)) if isinstance(feature, NumberFeature) else feature


EXPECTED = {
    "text#length": 3, "text#alphabet": "latin", "text#unseen_ratio": 1.0, "identifier": "u-1", "identifier#length": 3,
    "list#length": 3, "timestamp#age_s": 9.0,
}  # fmt: skip


def test_good_values_are_counted() -> None:
    assert row(GOOD) == EXPECTED


@pytest.mark.parametrize("value", [True, 7, 1e308, 10**400, {"a": 1}, [["x"]] * 3, "x" * 1_000_000, "😀" * 10])
@pytest.mark.parametrize("name", GOOD)
def test_a_hostile_value_costs_its_own_feature_and_nothing_else(name: str, value: Any) -> None:
    found = row(GOOD | {name: value})
    others = {key: v for key, v in EXPECTED.items() if key.partition("#")[0] != name}
    assert {key: found[key] for key in others} == others
    fits = isinstance(value, list) if name == "list" else isinstance(value, str)
    mine = {key: v for key, v in found.items() if key.partition("#")[0] == name}
    if name == "timestamp" or not fits:
        assert set(mine.values()) <= {"WRONG_TYPE", WRONG}
    else:
        assert not set(map(str, mine.values())) & {"WRONG_TYPE", str(WRONG)}
        if f"{name}#length" in mine:
            assert mine[f"{name}#length"] == len(value)


@pytest.mark.parametrize(("change", "special", "marker"), [({}, "ABSENT", ABSENT), (None, "MISSING", None)])
def test_every_view_counts_what_is_absent_or_null(change: object, special: str, marker: object) -> None:
    found = row({} if change is not None else dict.fromkeys(GOOD))
    assert set(found.values()) == {special, marker}


def test_a_list_that_is_deep_or_long_is_one_of_its_length() -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    assert row({"list": [deep, deep]})["list#length"] == 2
    assert row({"list": [0] * 200_000})["list#length"] == 200_000
    assert row({"list": []})["list#length"] == 0


@pytest.mark.parametrize("half", ["\ud800", "a\udfffb", "\ud800\u0041"])
@pytest.mark.parametrize("name", GOOD)
def test_half_a_character_is_no_json_and_rejects_its_own_record_only(name: str, half: str) -> None:
    form = NativeFormat()
    layout = Layout(tuple(placed(f) for f in LAYOUT.features))
    events = [{"model": "m", "time": 9_000, "features": GOOD | ({name: half} if i == 1 else {})} for i in range(3)]
    for _ in range(2):
        batch = form.decode([StoredRecord(i, 0, json.dumps(event).encode()) for i, event in enumerate(events)])
        assert [(offset, why.reason) for offset, why in batch.rejections] == [(1, RejectionReason.MALFORMED_JSON)]
        assert form.columns(layout, batch.payloads, batch.offsets).n == 2
