"""Events read as tables, by the compiled part: equal to reading them one by one, whatever they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from monitor.columns import ColumnBatch, Said
from monitor.event_envelope import NO_MORE
from monitor.event_time import TimeUnit
from monitor.features import source_of
from monitor.formats.native import INSPECT_EVERY, NativeFormat
from monitor.layout import Layout, layout_of
from monitor.ports import StoredRecord
from monitor.segments import Key, Segmentation
from monitor.table_rows import TableRows
from tests.native import needs_native
from tests.properties.test_native_format import NAMES as ALL_NAMES
from tests.properties.test_native_format import layouts_of, number, scalars, values

pytestmark = needs_native

NAMES = [name for name in ALL_NAMES if '"' not in name]
"""With another one in its layout a model's events are read one by one."""

layouts = layouts_of(NAMES)

TIMES: dict[TimeUnit, list[Any]] = {
    "ms": [1_000, -5, 0, 10**18, 10**19, 10**400, 1.0, "1000", None],
    "ns": [1_700_000_000_000_000_000, 10**19, 5],
    "s": [1, 1.5, -0.0, 1e300, 10**400, None, "1"],
    "iso8601": ["2025-01-31T10:00:00Z", "2025-01-31", "", 5, None],
}
finite = st.floats(allow_nan=False, allow_infinity=False)
usual = {
    "id": st.text(max_size=3),
    "version": st.sampled_from(["1", "7", 7, None]),
    "prediction": st.sampled_from(["paid", 1, 1.0, True, None]),
    "score": finite | st.none(),
    "latency_ms": finite | st.integers(-3, 3),
    "scores": st.dictionaries(st.sampled_from(["a", "b", "é"]), st.floats(0, 1), max_size=3),
    "tags": st.dictionaries(st.sampled_from(["region", "é"]), st.sampled_from(["eu", "us", "\n"]), max_size=2),
    "schema": st.sampled_from(["v1", "v2", 1, 1.0, True, None]),
    "sample_rate": st.sampled_from([0.5, 1, 1.0, None]),
    "more": scalars,
}
odd = dict.fromkeys([*usual, "producer", "status"], values) | {
    "tick": st.just(5),
    "version": st.sampled_from([True, "", "a b", "é"]) | values,
}


def documents(unit: TimeUnit) -> st.SearchStrategy[dict[str, Any]]:
    """Three of four are as events are meant to be."""
    number_or_text = finite | st.integers(-3, 3) | st.sampled_from(["DE", "é", None])
    meant = st.fixed_dictionaries(
        {
            "model": st.sampled_from("ab"),
            "time": st.just(TIMES[unit][0]),
            "features": st.dictionaries(st.sampled_from(NAMES), number_or_text),
        },
        optional=usual,
    )
    any_name = st.sampled_from([*NAMES, "unheard of"])
    other = st.fixed_dictionaries(
        {
            "model": st.sampled_from(["a", "é", "", None, 1, " "]),
            "time": st.sampled_from(TIMES[unit]),
            "features": st.dictionaries(any_name, values) | values,
        },
        optional=odd,
    )
    return st.one_of(meant, meant, meant, other)


@st.composite
def wires(draw: st.DrawFn, unit: TimeUnit) -> bytes:
    """An event as JSON, of some order, with some white space; now and then with bytes out of place."""
    document = draw(documents(unit))
    names = draw(st.permutations(list(document)))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r")]))
    text = json.dumps({name: document[name] for name in names}, ensure_ascii=draw(st.booleans()), separators=separators)
    text = text.replace('"NaN"', draw(st.sampled_from(['"NaN"', '"-Infinity"', "NaN"])))
    data = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 5)) == 0:
        at, n = draw(st.integers(0, len(data))), draw(st.integers(0, 2))
        data = (
            data[:at]
            + draw(st.binary(max_size=3) | st.sampled_from([b",", b'"', b"0", b"}", b"\\", b"e5", b"\\u00e9"]))
            + data[at + n :]
        )
    return data


tagged = st.sampled_from(NAMES[:2]).map(
    lambda name: layout_of([number(name)], segmentations=[Segmentation((Key(name="tags.region"),), (("eu",), ("us",)))])
)


def specials(columns: ColumnBatch) -> Any:
    return np.zeros(columns.numbers.shape, np.uint8) if columns.specials is None else columns.specials


def by_row(said: Said, n: int) -> tuple[list[Any], list[list[Any]]]:
    ids = [one if one is not msgspec.UNSET else None for one in said.ids]
    return ids, [list(column) for column in said.more or ([absent] * n for absent in NO_MORE)]


def check_alike(layout: Layout, fast: NativeFormat, plain: NativeFormat, records: Sequence[StoredRecord]) -> bool:
    """Compare all that two formats say of a fetch; return whether the first one has read any of it as a table."""
    left, right = fast.decode(records), plain.decode(records)
    for name in ("offsets", "times_ms", "record_ms", "key_index"):
        assert getattr(left, name).tolist() == getattr(right, name).tolist(), name
    assert left.keys == right.keys
    assert left.ticks == right.ticks
    assert sorted(left.rejections) == sorted(right.rejections)
    n = len(left.offsets)
    assert fast.ids(left.payloads) == plain.ids(right.payloads)
    assert list(map(repr, fast.rows(left.payloads))) == list(map(repr, plain.rows(right.payloads)))
    if n:
        one, other = (form.read(layout, b.keys, b.payloads, b.offsets) for form, b in ((fast, left), (plain, right)))
        assert (specials(one.columns) == specials(other.columns)).all()
        are_values = specials(other.columns) == 0
        assert one.columns.numbers[are_values].tobytes() == other.columns.numbers[are_values].tobytes()
        for mine, theirs in zip(
            (*one.columns.categories, *one.columns.tags), (*other.columns.categories, *other.columns.tags), strict=True
        ):
            assert list(map(repr, mine)) == list(map(repr, theirs))
        assert one.said is not None and other.said is not None
        assert repr(by_row(one.said, n)) == repr(by_row(other.said, n))
        assert one.said.has_ids == other.said.has_ids
        assert one.inspected.tolist() == other.inspected.tolist()
        assert one.unexpected == other.unexpected
        part = np.arange(0, n, 2)
        halves = [
            form.read(layout, b.keys, b.payloads.take(part), b.offsets[part]).columns
            for form, b in ((fast, left), (plain, right))
        ]
        assert (specials(halves[0]) == specials(halves[1])).all()
    return isinstance(left.payloads, TableRows)


@pytest.fixture(autouse=True)
def never_spared() -> Iterator[None]:
    with patch("monitor.table_reader.SPARED", 0):
        yield


@pytest.mark.parametrize("unit", TIMES)
@given(data=st.data())
def test_a_table_holds_what_events_read_one_by_one_do(unit: TimeUnit, data: st.DataObject) -> None:
    layout = data.draw(layouts | tagged)
    fast, plain = NativeFormat(time_unit=unit), NativeFormat(time_unit=unit, in_tables=False)
    first = StoredRecord(1, 5_000, json.dumps({"model": "a", "time": TIMES[unit][0], "features": {}}).encode())
    n = 0
    for _ in range(data.draw(st.integers(1, 3))):
        check_alike(layout, fast, plain, [first])  # from here on it is known what events of this model are read as
        values = data.draw(st.lists(wires(unit), min_size=1, max_size=8))
        found = [StoredRecord(n + i, 5_000, value) for i, value in enumerate(values)]
        n += INSPECT_EVERY
        event(f"as a table: {check_alike(layout, fast, plain, found)}")


def test_most_events_are_read_as_tables() -> None:
    """Or the comparison above would be one of equals."""
    layout = layout_of([number("age"), number("income")])
    fast, plain = NativeFormat(), NativeFormat(in_tables=False)
    found = [json.dumps({"model": "a", "time": 1, "features": {"age": i, "income": None}}).encode() for i in range(9)]
    records = [StoredRecord(i, 5, value) for i, value in enumerate(found)]
    assert [check_alike(layout, fast, plain, records) for _ in range(3)] == [False, True, True]
    table = fast.decode(records).payloads
    assert isinstance(table, TableRows) and len(table.table) == 9
    assert {source_of(feature) for feature in layout.features} == {"age", "income"}
