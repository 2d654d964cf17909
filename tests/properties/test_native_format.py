"""Native events, read fast: equal to reading them one by one with Python, whatever was read before and however it was cut."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from monitor.columns import ColumnBatch, DecodedBatch, NoValue, Special
from monitor.events import RejectionReason
from monitor.feature_reader import OFTEN
from monitor.features import CategoryFeature, Feature, NumberFeature, canonical, source_of
from monitor.formats.native import INSPECT_EVERY, NativeFormat
from monitor.formats.native_label import NativeLabelFormat
from monitor.layout import Layout, layout_of
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import LATENCY, PREDICTION, SCORE
from monitor.views import alphabet, moment_ms, token_hash, tokens, views_of, vocabulary_bytes

OUTPUTS = {PREDICTION: "prediction", SCORE: "score", LATENCY: "latency_ms"}
NAMES = ["age", "income", "country", "zip", "flag", "f0", "", 'weird "name"|é\n', "@x"]
FIELDS = ["model", "version", "time", "features", "prediction", "score", "latency_ms", "tick", "id"]


def number(name: str) -> NumberFeature:
    return NumberFeature(
        name=name, edges=(0.0, 1.0, 2.0), reported=(0.0, 1.0), minimum=0.0, maximum=2.0, centre=0.0, exponent=-30
    )


def category(name: str, value_type: Any) -> CategoryFeature:
    values = {"string": ("DE", "FR", ""), "number": ("2", "6", "1.5"), "boolean": ("false", "true")}
    return CategoryFeature(name=name, values=values[value_type], value_type=value_type)


VOCABULARY = ("de", "é", "2", "true")


def view(kind: Any, unit: Any, made: Feature) -> Feature:
    if not isinstance(made, NumberFeature):
        return structs.replace(made, values=("latin", "empty")) if made.view else made
    edges = {"edges": (0.0, 1.0), "reported": (1.0,), "exponent": -30}
    known = vocabulary_bytes(map(token_hash, VOCABULARY)) if made.view == "unseen_ratio" else b""
    return structs.replace(made, unit=unit if kind == "timestamp" else None, vocabulary=known, **edges)


RICH = [("identifier", None), ("text", None), ("list", None), *(("timestamp", unit) for unit in ("iso8601", "s", "ms", "ns"))]
"""Kinds of which views are counted, and the unit of a timestamp."""


def any_group(name: str) -> st.SearchStrategy[list[Feature]]:
    """Features of the layout that read the same name of an event."""
    plain: list[list[Feature]] = [[number(name)], *([category(name, t)] for t in ("string", "number", "boolean"))]
    if name in ("@confidence", "@score[a]", "@score[é]"):
        return st.just([number(name)])
    rich = [[view(kind, unit, v) for v in views_of(name, kind)] for kind, unit in RICH]
    of_numbers = [view("identifier", None, v) for v in views_of(name, "identifier", value_type="number")]
    return st.sampled_from([*plain, *rich, of_numbers])


def layouts_of(names: Sequence[str]) -> st.SearchStrategy[Layout]:
    """Layouts of some features, and of outputs."""
    return (
        st.lists(st.sampled_from([*names, *OUTPUTS, "@confidence", "@score[a]", "@score[é]"]), unique=True, max_size=7)
        .flatmap(lambda names: st.tuples(*map(any_group, names)))
        .map(lambda groups: layout_of(itertools.chain(*groups)))
    )


layouts = layouts_of(NAMES)
moments = st.sampled_from(["2025-01-31", "1970-01-01T00:00:00.5Z", "2025-02-30", "20250101", "9999-12-31T23:59:59+00:00", 10**18])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 8)
    | st.sampled_from(
        [0.5, 1.5, 2.0, -0.0, 1e308, 5e-324, 10**25, -(10**25), 10**400, 2**53 + 1, "DE", "XX", "", "é", "\x00", "2", "true"]
    )
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
    | moments
)
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(max_size=2), scalars, max_size=2)
# Half of the values fit a number and a string feature, so that the fast path is taken too.
features = st.dictionaries(st.sampled_from(NAMES), st.floats(0, 3) | st.integers(0, 3)) | st.dictionaries(
    st.sampled_from(NAMES), values
)
events = st.fixed_dictionaries(
    {"model": st.sampled_from(["a", "a", "a", "b"]), "time": st.just(1_000), "features": features},
    optional={name: scalars for name in ("prediction", "score", "latency_ms")}
    | {"scores": st.dictionaries(st.sampled_from(["a", "b", "é"]), st.floats(0, 1) | scalars, max_size=3) | values},
)


def records(documents: Sequence[object], first: int = 0) -> list[StoredRecord]:
    return [StoredRecord(first + i, 5_000, json.dumps(d, ensure_ascii=i % 2 == 0).encode()) for i, d in enumerate(documents)]


def plain_value(event: dict[str, Any], feature: Feature, value_type: str) -> object:
    """What a cell holds, by the letter of the definition: a float, a category's value, or a marker. value_type: of an identifier."""
    source = source_of(feature)
    if source == "@confidence" or source.startswith("@score["):
        return plain_score(event, source)
    place = event if source in OUTPUTS else event["features"]
    name = OUTPUTS.get(source, source)
    value = place.get(name)
    if value is None:
        return "missing" if name in place else "absent"
    if name in ("score", "latency_ms") and place is event:  # numbers on the wire, whatever the layout says
        value = float(value) if is_double(value) else "wrong type"
    if feature.source_kind is None and isinstance(feature, NumberFeature):
        return float(value) if is_double(value) else "wrong type"
    if value == "wrong type" or (source == PREDICTION and isinstance(value, list | dict)):
        return "wrong type"
    if isinstance(feature, CategoryFeature) and feature.view is None:
        return fitting(value, feature.value_type)
    return plain_view(event, value, feature, value_type)


def fitting(value: object, value_type: str) -> object:
    types: dict[str, tuple[type, ...]] = {"string": (str,), "number": (int, float), "boolean": (bool,)}
    return value if type(value) in types[value_type] else "wrong type"


def plain_view(event: dict[str, Any], value: Any, feature: Feature, value_type: str) -> object:
    if feature.source_kind == "identifier":
        fits = fitting(value, value_type)
        return "wrong type" if fits == "wrong type" else float(len(canonical(value)))
    if feature.source_kind == "list":
        return float(len(value)) if isinstance(value, list) else "wrong type"
    if feature.source_kind == "timestamp":
        assert isinstance(feature, NumberFeature) and feature.unit is not None
        if fitting(value, "string" if feature.unit == "iso8601" else "number") == "wrong type":
            return "wrong type"
        moment = moment_ms(value, feature.unit)
        return (event["time"] - moment) / 1_000 if abs(moment) < float("inf") else "wrong type"
    if not isinstance(value, str):
        return "wrong type"
    words = tokens(value)
    unseen = [word for word in words if token_hash(word) not in set(map(token_hash, VOCABULARY))]
    return {
        "length": float(len(value)),
        "alphabet": alphabet(value),
        "unseen_ratio": len(unseen) / len(words) if words else 0.0,
    }[str(feature.view)]


def plain_score(event: dict[str, Any], source: str) -> object:
    scores = event.get("scores")
    if source != "@confidence":
        if scores is None:
            return "missing" if "scores" in event else "absent"
        if not isinstance(scores, dict):
            return "wrong type"
        found = scores.get(source[7:-1], "absent")
        return found if found == "absent" else "missing" if found is None else float(found) if is_double(found) else "wrong type"
    if scores is None:
        score = event.get("score")
        return (
            float(score)
            if is_double(score)
            else "wrong type"
            if score is not None
            else "missing"
            if "score" in event
            else "absent"
        )
    if not isinstance(scores, dict):
        return "wrong type"
    numbers = [float(value) for value in scores.values() if is_double(value)]
    return max(numbers) if numbers else "wrong type" if any(v is not None for v in scores.values()) else "missing"


def is_double(value: object) -> bool:
    try:
        return type(value) in (int, float) and abs(float(value)) >= 0  # type: ignore[arg-type]
    except OverflowError:
        return False


def cells(layout: Layout, columns: ColumnBatch) -> list[list[object]]:
    """The same from columns, by feature in the layout's order."""
    special = {Special.MISSING: "missing", Special.ABSENT: "absent", Special.WRONG_TYPE: "wrong type"}
    marker: dict[object, object] = {None: "missing", NoValue.ABSENT: "absent", NoValue.WRONG_TYPE: "wrong type"}
    found: dict[int, list[object]] = {}
    for row, (position, _) in enumerate(layout.numbers):
        codes = np.zeros(columns.n, np.uint8) if columns.specials is None else columns.specials[row]
        found[position] = [
            value if code == 0 else special[Special(code)]
            for value, code in zip(columns.numbers[row].tolist(), codes.tolist(), strict=True)
        ]
    for column, (position, _) in zip(columns.categories, layout.categories, strict=True):
        found[position] = [marker.get(value, value) for value in column]
    return [found[position] for position in range(len(layout.features))]


def same(left: object, right: object) -> bool:
    return (type(left) is type(right) or {type(left), type(right)} == {int, float}) and left == right


def by_model(batch: DecodedBatch, layout: Layout, form: NativeFormat) -> dict[str, tuple[list[int], ColumnBatch]]:
    found = {}
    for i, (model, _) in enumerate(batch.keys):
        at = np.flatnonzero(batch.key_index == i)
        payloads = [batch.payloads[j] for j in at.tolist()]
        found[model] = batch.offsets[at].tolist(), form.columns(layout, payloads, batch.offsets[at])
    return found


def check(layout: Layout, form: NativeFormat, documents: Sequence[dict[str, Any]], first: int) -> None:
    batch = form.decode(records(documents, first))
    assert batch.rejections == batch.ticks == []
    assert batch.offsets.tolist() == list(range(first, first + len(documents)))
    for offsets, columns in by_model(batch, layout, form).values():
        mine = [documents[o - first] for o in offsets]
        for feature, column in zip(layout.features, cells(layout, columns), strict=True):
            group = [f for f in layout.features if source_of(f) == source_of(feature)]
            value_type = next((f.value_type for f in group if isinstance(f, CategoryFeature) and f.view is None), "")
            expected = [plain_value(event, feature, value_type) for event in mine]
            assert all(map(same, column, expected)), (feature.name, column, expected)
        inspected = [event for o, event in zip(offsets, mine, strict=True) if o % INSPECT_EVERY == 0]
        known = {source_of(feature) for feature in layout.features} - {
            *OUTPUTS,
            "@confidence",
            "@score[a]",
            "@score[é]",
        }
        assert columns.inspected == len(inspected)
        assert columns.unexpected == Counter(name for event in inspected for name in event["features"] if name not in known)
        profile = Profile(layout)
        profile.update(columns)
        assert profile.n == len(mine)


@given(layouts, layouts, st.lists(st.tuples(st.booleans(), st.lists(events, max_size=5)), max_size=5))
def test_columns_hold_what_plain_python_finds(
    one: Layout, other: Layout, fetches: list[tuple[bool, list[dict[str, Any]]]]
) -> None:
    form = NativeFormat()
    for i, (is_other, documents) in enumerate(fetches):  # whatever layout the fetch before was folded with
        check(other if is_other else one, form, documents, first=INSPECT_EVERY * i)


@given(layouts, st.lists(events, min_size=1, max_size=3), st.lists(events, max_size=3))
def test_features_that_are_often_of_a_wrong_type_are_read_alike(
    layout: Layout, documents: list[dict[str, Any]], later: list[dict[str, Any]]
) -> None:
    form = NativeFormat()
    for _ in range(2):
        check(layout, form, documents * OFTEN, first=0)
    check(layout, form, later + documents, first=0)


@given(layouts, st.lists(events, min_size=1, max_size=8), st.integers(0, 8))
def test_no_cut_into_fetches_shows(layout: Layout, documents: list[dict[str, Any]], cut: int) -> None:
    log = records([event | {"model": "a"} for event in documents])
    found = []
    for parts in ([log], [log[:cut], log[cut:]], [[record] for record in log]):
        form = NativeFormat()
        payloads: list[object] = []
        for part in parts:
            payloads += form.decode(part).payloads
            form.columns(layout, payloads, np.arange(len(payloads)))
        columns = form.columns(layout, payloads, np.arange(len(log)))
        profile = Profile(layout)
        profile.update(columns)
        found.append((profile.to_bytes(), columns.inspected, columns.unexpected))
    assert found[0] == found[1] == found[2]


def accounted(form: NativeFormat | NativeLabelFormat, log: list[StoredRecord]) -> DecodedBatch:
    batch = form.decode(log)
    offsets = [*batch.offsets.tolist()] + [o for part in (batch.ticks, batch.labels, batch.rejections) for o, _ in part]
    assert sorted(offsets) == [record.offset for record in log]
    return batch


def bend(event: object, cut: int, junk: bytes) -> bytes:
    text = json.dumps(event).encode()
    return text[:cut] + junk + text[cut + len(junk) :]


bent = st.builds(bend, events, st.integers(0, 120), st.binary(min_size=1, max_size=3))
odd = st.dictionaries(st.sampled_from(FIELDS), values).map(lambda d: json.dumps(d).encode())


@pytest.mark.parametrize("make", [NativeFormat, NativeLabelFormat])
@given(log=st.lists(st.none() | st.binary(max_size=40) | bent | odd | events.map(lambda e: json.dumps(e).encode()), max_size=8))
def test_whatever_the_bytes_every_record_is_accounted_for_and_nothing_raises(make: Any, log: list[bytes | None]) -> None:
    layout = layout_of([number("age"), number(SCORE), category("country", "string"), category("zip", "number")])
    form = make()
    for _ in range(2):
        batch = accounted(form, [StoredRecord(i, 0, value) for i, value in enumerate(log)])
        columns = form.columns(layout, batch.payloads, batch.offsets)
        profile = Profile(layout)
        profile.update(columns)
        assert profile.n == len(batch.offsets)
        for offset in batch.offsets.tolist():
            assert is_json(log[offset])
        for offset, why in batch.rejections:
            if why.reason == RejectionReason.MALFORMED_JSON:
                assert not is_json(log[offset]) or has_lone_surrogate(log[offset])


def is_json(value: bytes | None) -> bool:
    """By another parser."""
    try:
        json.loads((value or b"").removeprefix(b"\xef\xbb\xbf").decode(), parse_constant=refuse)
    except ValueError:
        return False
    return True


def has_lone_surrogate(value: bytes | None) -> bool:
    """Whether an escape stands for half a character: some parsers refuse it, Python's does not."""
    try:
        json.dumps(json.loads(value or b""), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def refuse(constant: str) -> None:
    raise ValueError(constant)
