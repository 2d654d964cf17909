"""The compiled part (native/): what it reads for certain, what it leaves to others, and that it never reads beyond its bytes."""

from __future__ import annotations

import json
import random
import struct
from decimal import Decimal, localcontext
from typing import Any

import msgspec
import numpy as np
import pytest

from monitor.columns import Coded
from monitor.formats.native import NativeFormat
from monitor.layout import Layout, layout_of
from monitor.ports import StoredRecord
from monitor.table_reader import FORGET, SPARED
from monitor.table_rows import TableRows
from tests.native import needs_native
from tests.properties.test_native_format import category, number

pytestmark = needs_native

EVENT = (
    b'{"id":"r-1","model":"m","version":7,"time":1700000000000,"features":{"age":1.5,"city":"K\xc3\xb6ln","new":[1,{"a":null}]},'
    b'"prediction":"paid","tags":{"a":"b"},"score":-0.25e-1}'
)
MAX_BYTES = 1 << 20
LAYOUT = layout_of([number("age"), category("city", "string")])


def parser(event: list[tuple[str, int, int]], features: list[tuple[str, int, int]] | None = None) -> Any:
    from monitor_native.columns import Parser

    return Parser(event, features or [])


def parse(made: Any, values: list[Any], n: tuple[int, int, int], max_bytes: int = MAX_BYTES) -> Any:
    """Return numbers, codes, integers, outcomes and objects."""
    arrays = [np.zeros((k, len(values)), kind) for k, kind in zip(n, (np.float64, np.int32, np.int64), strict=True)]
    outcomes = np.zeros(len(values), np.uint8)
    objects = made.parse(values, max_bytes, *arrays, outcomes)
    return *arrays, outcomes, objects


def whole_event() -> Any:
    from monitor_native import columns as native

    event = [
        ("id", native.TEXT, 0),
        ("model", native.TOKEN, 0),
        ("version", native.TOKEN, 1),
        ("time", native.INTEGER, 0),
        ("features", native.FEATURES, 0),
        ("prediction", native.SKIPPED, 0),
        ("score", native.NUMBER, 0),
        ("tags", native.RAW, 0),
    ]
    return parser(event, [("age", native.NUMBER, 1), ("city", native.TOKEN, 2)])


def read_numbers(texts: list[bytes]) -> tuple[Any, Any]:
    from monitor_native import columns as native

    numbers, _, _, outcomes, _ = parse(parser([("x", native.NUMBER, 0)]), [b'{"x":' + text + b"}" for text in texts], (1, 0, 0))
    return numbers[0], outcomes & native.ODD != 0


def expected_numbers(texts: list[bytes]) -> tuple[Any, Any]:
    found, odd = np.zeros(len(texts)), np.zeros(len(texts), bool)
    for i, text in enumerate(texts):
        try:
            found[i] = msgspec.json.decode(text, type=float)
        except msgspec.MsgspecError:
            odd[i] = True
    return found, odd


SPECIAL = (
    b"-0 0 -0.0 0e999 1e400 -1e400 1e308 1.7976931348623159e308 5e-324 2.5e-324 2.2250738585072011e-308 1e-400 18446744073709551615 "
    b"18446744073709551616 9007199254740993 9007199254740992.5 01 1. .5 +1 1e 1e+ --1 0x10 1_000 123456789012345678901234567890 "
    b"0.1000000000000000055511151231257827 1E5 1e05 - 1e99999999999 0.00000000000000000000000000000000000001 -0e0 1.0e-0"
).split()


def random_numbers(dice: random.Random, n: int) -> list[bytes]:
    texts = []
    for _ in range(n):
        kind = dice.randrange(6)
        if kind == 0:  # any double
            (value,) = struct.unpack("d", struct.pack("Q", dice.getrandbits(64)))
            text = repr(value if abs(value) < float("inf") else 1.0)
        elif kind == 1:
            text = repr(dice.gauss(0, 1) * 10 ** dice.randint(-5, 5))
        elif kind == 2:
            text = f"{dice.getrandbits(dice.randint(1, 70))}e{dice.randint(-90, 90)}"
        elif kind == 3:
            text = f"{dice.gauss(0, 1):.{dice.randint(0, 25)}f}"
        elif kind == 4:  # in the middle between two doubles
            with localcontext(prec=60):
                power, odd = dice.randint(-30, 30), Decimal((1 << 53) + 2 * dice.getrandbits(52) + 1)
                text = str(odd * 2**power if power >= 0 else odd / 2**-power).replace("E+", "e")
        else:
            text = "".join(dice.choice("0123456789.eE+-") for _ in range(dice.randint(1, 8)))
        texts.append(text.encode())
    return texts


def test_numbers_are_those_of_a_decoder_bit_by_bit_and_what_is_none_is_odd() -> None:
    texts = list(SPECIAL) + random_numbers(random.Random(1), 60_000)
    (found, odd), (expected, is_none) = read_numbers(texts), expected_numbers(texts)
    assert [texts[i] for i in np.flatnonzero(odd != is_none)] == []
    differ = (found.view(np.int64) != expected.view(np.int64)) & ~odd
    assert [(texts[i], found[i], expected[i]) for i in np.flatnonzero(differ)] == []


def test_an_event_is_read_into_its_columns() -> None:
    made = whole_event()
    numbers, codes, integers, outcomes, (ids, tags) = parse(made, [EVENT, EVENT.replace(b"Ko", b"K")], (2, 3, 1))
    assert numbers[:, 0].tolist() == [-0.025, 1.5]
    assert [made.tokens[column][code] for column, code in enumerate(codes[:, 0])] == [b'"m"', b"7", '"Köln"'.encode()]
    assert (integers[0].tolist(), ids, tags) == ([1_700_000_000_000] * 2, [b"r-1"] * 2, [b'{"a":"b"}'] * 2)
    assert outcomes.tolist() == [2, 2]  # it has more features; no text that was not looked into is beyond ASCII


def test_what_is_absent_or_null_is_told_apart() -> None:
    numbers, codes, _, outcomes, (ids, tags) = parse(
        whole_event(),
        [b'{"time":1,"features":{}}', b'{"time":1,"features":{"age":null,"city":null},"id":null,"tags":null,"score":"high"}'],
        (2, 3, 1),
    )
    assert outcomes.tolist() == [0, 0]
    assert repr(numbers.tolist()) == "[[inf, -inf], [inf, nan]]"
    assert codes[2].tolist() == [0, 1]
    assert (ids, tags) == ([None, None], [None, b"null"])


@pytest.mark.parametrize(
    "odd",
    [
        EVENT[:-1],
        EVENT + b" 1",
        b"\xef\xbb\xbf" + EVENT,
        EVENT.replace(b'"id"', b'"time":1,"id"'),
        EVENT.replace(b'"time":1700000000000,', b""),
        EVENT.replace(b"1700000000000", b"1.0"),
        EVENT.replace(b"1700000000000", b"01"),
        EVENT.replace(b"1700000000000", b"9223372036854775808"),
        EVENT.replace(b'"r-1"', b'"r\\u002d1"'),
        EVENT.replace(b'"r-1"', b"1"),
        EVENT.replace(b'"paid"', b'"pa\\id"'),
        EVENT.replace(b'"paid"', b"[[[[[[[[[1]]]]]]]]]"),
        EVENT.replace(b'"paid"', b"treu"),
        EVENT.replace(b'"paid"', b"{,}"),
        EVENT.replace(b'"paid"', b'"pa\x1fid"'),
        EVENT.replace(b"1.5", b'"NaN"'),
        EVENT.replace(b"1.5", b"[1]"),
        EVENT.replace(b'"city"', b'"c\\u0069ty"'),
        EVENT.replace(b'"city"', b'"age"'),
        b"",
        None,
        b"[]",
        b"{}",
        b"null",
    ],
)
def test_what_is_not_as_every_parser_reads_it_is_odd(odd: bytes | None) -> None:
    before, between, behind = parse(whole_event(), [EVENT, odd, EVENT], (2, 3, 1))[3].tolist()
    assert (before, between & 1, behind) == (2, 1, 2)


def test_every_beginning_of_an_event_is_odd_and_so_is_one_that_is_too_long() -> None:
    values = [EVENT[:n] for n in range(len(EVENT))]
    assert (parse(whole_event(), values, (2, 3, 1))[3] & 1).all()
    assert parse(whole_event(), [EVENT], (2, 3, 1), max_bytes=len(EVENT) - 1)[3].tolist() == [1]


def test_random_bytes_in_place_of_others_are_read_as_a_decoder_reads_them_or_are_odd() -> None:
    dice, wanted = random.Random(2), msgspec.json.Decoder(dict[str, msgspec.Raw])
    values = []
    for _ in range(30_000):
        at, n = dice.randrange(len(EVENT)), dice.randrange(3)
        new = bytes(dice.choice(b'{}[]",: \n\x00019eE+-.ntfu\xc3\xff') for _ in range(dice.randrange(3)))
        values.append(EVENT[:at] + new + EVENT[at + n :])
    outcomes = parse(whole_event(), values, (2, 3, 1))[3]
    assert 1_000 < np.count_nonzero(outcomes & 1 == 0) < 20_000
    for value in [values[i] for i in np.flatnonzero(outcomes & 1 == 0)]:
        assert wanted.decode(value)


def test_texts_beyond_ascii_that_are_not_looked_into_are_told_of() -> None:
    values = [EVENT.replace(b"r-1", b"\xc3\xa9"), EVENT.replace(b"paid", b"\xff"), EVENT]
    assert parse(whole_event(), values, (2, 3, 1))[3].tolist() == [6, 6, 2]


def test_fields_in_any_order_are_read_alike() -> None:
    dice, document = random.Random(3), json.loads(EVENT)
    for _ in range(50):
        names, features = list(document), list(document["features"].items())
        dice.shuffle(names)
        dice.shuffle(features)
        value = json.dumps({name: document[name] for name in names} | {"features": dict(features)}, indent=dice.choice([None, 1]))
        numbers, _, integers, outcomes, _ = parse(whole_event(), [value.encode()], (2, 3, 1))
        assert (numbers[:, 0].tolist(), integers[0, 0], outcomes[0] & 3) == ([-0.025, 1.5], 1_700_000_000_000, 2)


def test_arrays_of_another_shape_and_columns_that_are_not_there_are_refused() -> None:
    from monitor_native import columns as native

    with pytest.raises(ValueError, match="shape"):
        parse(whole_event(), [EVENT], (1, 3, 1))
    with pytest.raises(ValueError, match="columns of kind"):
        parser([("x", native.NUMBER, 1)])
    with pytest.raises(ValueError, match="unknown"):
        parser([("x", 9, 0)])
    with pytest.raises(TypeError):
        parse(whole_event(), ["text"], (2, 3, 1))
    with pytest.raises(IndexError):
        whole_event().forget(3)


def records(cities: list[str], first: int = 0) -> list[StoredRecord]:
    bodies = [json.dumps({"model": "m", "time": 1, "features": {"age": i, "city": city}}) for i, city in enumerate(cities)]
    return [StoredRecord(first + i, 1, body.encode()) for i, body in enumerate(bodies)]


def read(form: NativeFormat, found: list[StoredRecord], layout: Layout = LAYOUT) -> tuple[int, list[object]]:
    """Return how many events were read as a table, and the column of categories."""
    batch = form.decode(found)
    columns = form.read(layout, batch.keys, batch.payloads, batch.offsets).columns
    return len(batch.payloads.table) if isinstance(batch.payloads, TableRows) else 0, list(columns.categories[0])


def test_texts_that_never_repeat_are_forgotten_and_read_all_the_same() -> None:
    form, names = NativeFormat(), [f"city {i}" for i in range(6 * FORGET)]
    for first in range(0, len(names), 1_000):
        part = names[first : first + 1_000]
        n_in_table, cities = read(form, records(part))
        assert cities == part
        assert n_in_table >= (0.99 * len(part) if first else 0)  # a few find no place among so many
    (known,) = {id(known.table): known.table for known in form._known.values()}.values()
    assert known is not None and len(known._values[-1]) <= 2 * FORGET


def test_a_text_that_nobody_else_could_read_makes_its_events_odd_each_time() -> None:
    form, bad = NativeFormat(), records(["DE", "?", "FR"])
    bad[1] = StoredRecord(1, 1, (bad[1].value or b"").replace(b"?", b"\\ud8"))
    read(form, records(["DE"]))
    for _ in range(2):
        batch = form.decode(bad)
        assert [offset for offset, _ in batch.rejections] == [1]
        assert batch.offsets.tolist() == [0, 2]


def test_where_many_events_are_odd_some_batches_are_not_tried() -> None:
    form, odd = NativeFormat(), records(["DE", "FR"])
    read(form, odd)
    odd[1] = StoredRecord(1, 1, (odd[1].value or b"").replace(b'"age": 1', b'"age": "NaN"'))
    found = [read(form, odd) for _ in range(SPARED + 2)]
    assert [n for n, _ in found] == [1] + [0] * (SPARED - 1) + [1, 0]
    assert all(cities == ["DE", "FR"] for _, cities in found)


def test_categories_are_codes_as_far_as_they_repeat() -> None:
    form = NativeFormat()
    read(form, records(["DE"]))
    batch = form.decode(records(["FR", "DE", "FR"]))
    (column,) = form.read(LAYOUT, batch.keys, batch.payloads, batch.offsets).columns.categories
    assert isinstance(column, Coded)
    assert list(column) == ["FR", "DE", "FR"]


def test_without_the_compiled_part_events_are_read_one_by_one() -> None:
    form = NativeFormat(in_tables=False)
    assert [read(form, records(["DE", "FR"])) for _ in range(2)] == [(0, ["DE", "FR"])] * 2


def test_models_of_another_shape_among_many_of_one_are_read_alike() -> None:
    """Half of the models, or more, have one shape: theirs is what a batch is read as."""
    other = layout_of([number("income")])
    body = {"model": "other", "time": 1, "features": {"income": 2, "age": "?"}}
    found = [*records(["DE", "FR"]), StoredRecord(2, 1, json.dumps(body).encode())]
    form = NativeFormat()
    for _ in range(3):
        batch = form.decode(found)
        assert batch.keys == [("m", "1"), ("other", "1")]
        (mine, theirs), named = (np.flatnonzero(batch.key_index == i) for i in (0, 1)), batch.keys
        assert list(form.read(LAYOUT, named[:1], batch.payloads.take(mine), batch.offsets[mine]).columns.categories[0]) == [
            "DE",
            "FR",
        ]
        assert form.read(other, named[1:], batch.payloads.take(theirs), batch.offsets[theirs]).columns.numbers.tolist() == [[2.0]]
    assert isinstance(batch.payloads, TableRows)
