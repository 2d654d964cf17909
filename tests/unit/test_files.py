"""Files of rows: what their columns are, what their values are, and the events they become."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from monitor.columns import Special
from monitor.errors import InputError
from monitor.features import CategoryFeature
from monitor.files import ColumnOptions, EventFile, open_table, times_ms
from monitor.files.rows import NO_VALUES
from monitor.formats.native import NativeFormat
from monitor.layout import Layout, layout_of
from monitor.profiles import Profile
from monitor.reference_build import build_reference
from tests.shapes import number_feature_of

NONE = ColumnOptions()
TIME = ColumnOptions(time="time")
Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(name: str, content: str | bytes) -> Path:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return put


def values(path: Path, options: ColumnOptions = NONE) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for batch in open_table(path, options).batches():
        for name, array in batch.arrays.items():
            found.setdefault(name, []).extend(array.to_pylist())
    return found


def events(path: Path, options: ColumnOptions = TIME, layout: Layout | None = None) -> list[dict[str, Any]]:
    return [orjson.loads(record.value or b"") for _, record in EventFile(path, options, "m", "7", layout)]


# Kinds of columns in a CSV file.


@pytest.mark.parametrize(
    ("texts", "kind", "found"),
    [
        (["1", "2"], "number", [1, 2]),
        (["1", "2.5"], "number", [1.0, 2.5]),
        (["1", ""], "number", [1, None]),
        (["1", "NA", "nan", "NULL", "None"], "number", [1, None, None, None, None]),
        ([" 1", "2 "], "number", [1, 2]),
        (["1e3", "-.5"], "number", [1000.0, -0.5]),
        (["0.5", "0"], "number", [0.5, 0.0]),
        (["-0.0"], "number", [0.0]),
        (["true", "False", "TRUE", ""], "boolean", [True, False, True, None]),
        (["true", "1"], "string", ["true", "1"]),
        (["007", "8"], "string", ["007", "8"]),
        (["0x10"], "string", ["0x10"]),
        (["1.5", "007"], "string", ["1.5", "007"]),
        (["1", "b"], "string", ["1", "b"]),
        (["NA", "US", ""], "string", ["NA", "US", None]),
        (["1,5"], "string", ["1,5"]),
        (["", ""], NO_VALUES, [None, None]),
        (["NA", ""], NO_VALUES, [None, None]),
        (["two\nlines", "x"], "string", ["two\nlines", "x"]),
        (["12345678901234567890123"], "number", [1.2345678901234568e22]),
    ],
)
def test_the_kind_of_a_csv_column_comes_from_all_its_values(
    write: Write, texts: list[str], kind: str, found: list[object]
) -> None:
    path = write("t.csv", "x,other\n" + "".join(f'"{text}",a\n' for text in texts))
    assert open_table(path, ColumnOptions()).kinds["x"] == kind
    assert values(path)["x"] == found


def test_a_late_value_of_another_kind_is_seen_wherever_it_lies(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.files.delimited.BLOCK_BYTES", 64)
    rows = ["1"] * 200
    for late, kind in (("2.5", "number"), ("x", "string"), ("012", "string")):
        for order in ([*rows, late], [late, *rows]):
            path = write("t.csv", "x\n" + "\n".join(order) + "\n")
            assert open_table(path, ColumnOptions()).kinds["x"] == kind
            assert len(values(path)["x"]) == 201


def test_compressed_files_and_byte_order_marks_are_read(write: Write) -> None:
    assert values(write("t.csv.gz", gzip.compress(b"x\n1\n"))) == {"x": [1]}
    assert values(write("t.csv", b"\xef\xbb\xbfx\n1\n")) == {"x": [1]}
    assert values(write("t.ndjson.gz", gzip.compress(b'{"x": 1}\n'))) == {"x": [1]}
    assert values(write("t.ndjson", b'\xef\xbb\xbf{"x": 1}\n\n{"x": 2}')) == {"x": [1, 2]}


def test_columns_of_parquet_have_the_types_of_the_schema(tmp_path: Path) -> None:
    table = pa.table(
        {
            "i": pa.array([1, None], pa.int8()),
            "f": pa.array([0.5, float("nan")]),
            "d": pa.array([Decimal("1.00"), Decimal("2.50")]),
            "s": pa.array(["a", None]).dictionary_encode(),
            "b": [True, None],
            "nothing": pa.nulls(2),
            "when": pa.array([0, 1], pa.timestamp("us")),
            "list": [[1], [2]],
            "bytes": [b"a", b"b"],
            "__index_level_0__": [0, 1],
        }
    )
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    opened = open_table(tmp_path / "t.parquet", ColumnOptions())
    assert dict(opened.kinds) == {
        "i": "number",
        "f": "number",
        "d": "number",
        "s": "string",
        "b": "boolean",
        "nothing": NO_VALUES,
        "when": "timestamp",
        "list": "list",
    }
    assert opened.left_out == (
        "column bytes: binary is not a kind of feature, left out",
        "column __index_level_0__: it has no name and is taken for a row index, left out",
    )
    (batch,) = opened.batches()
    assert batch.arrays["s"].to_pylist() == ["a", None]
    assert batch.arrays["d"].to_pylist() == [1.0, 2.5]


def test_json_values_of_another_type_than_most_are_wrong_typed_and_keys_left_out_are_absent(write: Write) -> None:
    lines = [
        {"x": 1, "c": "a"},
        {"x": 2.5, "c": 7},
        {"x": "3", "c": None},
        {"c": "b"},
        {"x": None, "c": "b"},
        {"x": True, "c": []},
    ]
    path = write("t.ndjson", "".join(json.dumps(line) + "\n" for line in lines))
    opened = open_table(path, ColumnOptions())
    assert dict(opened.kinds) == {"x": "number", "c": "string"}
    (batch,) = opened.batches()
    assert batch.arrays["x"].to_pylist() == [1.0, 2.5, None, None, None, None]
    wrong, absent, value = Special.WRONG_TYPE, Special.ABSENT, Special.VALUE
    assert batch.specials["x"].tolist() == [value, value, wrong, absent, value, wrong]
    assert batch.specials["c"].tolist() == [value, wrong, value, value, value, wrong]
    assert len(opened.left_out) == 2
    assert "column x: 2 values are not of the type of the others" in opened.left_out[0]


def test_of_native_events_only_features_are_features_and_ticks_and_labels_are_no_rows(write: Write) -> None:
    event = {"model": "m", "time": 5, "id": "r", "status": "ok", "score": 0.5, "prediction": "yes", "latency_ms": 3.0}
    lines = [
        {"tick": 1},
        event | {"features": {"time": 7, "x": 1, "partition": 3}},
        {"id": "r", "model": "m", "label": "no", "time": 9},
    ]
    path = write("t.ndjson", "".join(json.dumps(line) + "\n" for line in lines))
    opened = open_table(path, ColumnOptions())
    assert dict(opened.features) == {
        "time": "time",
        "x": "x",
        "partition": "partition",
        "@prediction": "prediction",
        "@score": "score",
        "@latency_ms": "latency_ms",
    }
    assert dict(opened.roles) == {"time": "time", "id": "id", "model": "model"}
    found = values(path)
    assert (found["time"], found["@role:time"], found["partition"], found["@score"]) == ([7], [5], [3], [0.5])


def test_integers_beyond_64_bits_become_doubles(write: Write) -> None:
    assert values(write("t.ndjson", '{"x": 1}\n{"x": 99999999999999999999}\n'))["x"] == [1.0, 1e20]


# What cannot be read.


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "the file is empty"),
        ("t.csv", "\n", "its first line must hold the names"),
        ("t.csv", "x\n", "the file has no rows"),
        ("t.ndjson", "\n\n", "the file has no rows"),
        ("t.xlsx", "x", "reads .csv, .csv.gz, .parquet and .ndjson, not .xlsx"),
        ("t", "x", "not a file without a suffix"),
        ("t.csv", "a;b\n1;2\n", "separated by semicolons; write the file with commas"),
        ("t.csv", "a\tb\n1\t2\n", "separated by tabs"),
        ("t.csv", "a,a\n1,2\n", "more than one column is called 'a'"),
        ("t.csv", "a,b\n1,2\nsecret,2,3\n", r"Expected 2 columns, got 3; every row must have as many fields as the header"),
        ("t.csv", b"a\n\xff\n", "save the file as UTF-8"),
        ("t.csv", "@score,b\n1,2\n", "names that begin with @ are taken"),
        ("t.csv.gz", b"not gzip", "t.csv.gz: "),
        ("t.parquet", b"not parquet", "t.parquet: "),
        ("t.ndjson", '{"a": 1}\n{"a": NaN}\n', "t.ndjson:2: not JSON.*NaN is written null"),
        ("t.json", '[{"a": 1}]', "the line is an array: write one object per line"),
        ("t.ndjson", "7\n", "the line is not an object"),
    ],
)
def test_an_unusable_file_is_told_in_a_sentence_without_its_values(
    write: Write, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        values(write(name, content))
    assert "secret" not in str(caught.value)


def test_a_row_longer_than_a_block_is_told(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("t.csv", "x\n1\n" + "9" * 500 + "\n1\n")
    monkeypatch.setattr("monitor.files.delimited.BLOCK_BYTES", 64)
    with pytest.raises(InputError, match="or a quote is never closed"):
        values(path)


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_table(tmp_path / "t.csv", TIME)
    with pytest.raises(InputError, match="a directory"):
        open_table(tmp_path, TIME)
    with pytest.raises(InputError, match="no such file"):
        EventFile(tmp_path / "t.ndjson", TIME, "m", None, None)


def test_all_unknown_columns_are_told_at_once_with_near_misses_and_what_there_is(write: Write) -> None:
    path = write("t.csv", "Time,age,prediction\n1,2,3\n")
    with pytest.raises(InputError) as caught:
        open_table(path, ColumnOptions(time="time", prediction="pred", exclude=("agee",)))
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[2] for line in lines[:3]] == [
        "no column 'time' (--time-column); did you mean 'Time'?",
        "no column 'pred' (--prediction-column)",
        "no column 'agee' (--exclude); did you mean 'age'?",
    ]
    assert lines[3] == "it has: Time, age, prediction"


# Times.

JANUARY_MS = 1_735_689_600_000


@pytest.mark.parametrize(
    ("column", "unit", "found"),
    [
        (pa.array([JANUARY_MS, None]), "ms", [JANUARY_MS, None]),
        (pa.array([1_735_689_600]), "s", [JANUARY_MS]),
        (pa.array([1_735_689_600.5]), "s", [JANUARY_MS + 500]),
        (pa.array([JANUARY_MS * 1_000 + 999]), "us", [JANUARY_MS]),
        (pa.array([JANUARY_MS * 1_000_000 - 1]), "ns", [JANUARY_MS - 1]),
        (pa.array([-1.5]), "ms", [-2]),
        (pa.array(["2025-01-01", "2025-01-01T00:00:00", "2025-01-01 00:00:00Z", None]), "ms", [JANUARY_MS] * 3 + [None]),
        (pa.array(["2025-01-01T01:00:00+01:00", "1735689600", "20250101"]), "s", [JANUARY_MS] * 3),
        (pa.array([date(2025, 1, 1)]), "ms", [JANUARY_MS]),
        (pa.array([datetime(2025, 1, 1)]), "ms", [JANUARY_MS]),  # noqa: DTZ001 - a time without an offset is meant
        (pa.array([datetime(2025, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))]), "ms", [JANUARY_MS]),
        (pa.array([datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)]), "ms", [-1]),
        (pa.nulls(2), "ms", [None, None]),
    ],
)
def test_times_become_epoch_milliseconds_rounded_down_and_are_utc_without_an_offset(
    column: Any, unit: Any, found: list[object]
) -> None:
    assert times_ms(column, unit).to_pylist() == found


@pytest.mark.parametrize(
    ("column", "unit", "message"),
    [
        (pa.array([1_735_689_600_000_000]), "ms", "no time of the years 1900 to 9999 in ms; with --time-unit us it is"),
        (pa.array([1_735_689_600_000]), "s", "with --time-unit ms it is"),
        (pa.array([1e300]), "ms", "1e\\+300 is no time"),
        (pa.array(["01/02/2025"]), "ms", "'01/02/2025' is not an ISO 8601 time, such as"),
        (pa.array([True]), "ms", "True is not a time"),
    ],
)
def test_what_is_no_time_is_told_with_what_to_do(column: Any, unit: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        times_ms(column, unit)


# Events.

TYPED = layout_of(
    [
        number_feature_of("n", np.arange(50.0)),
        CategoryFeature(name="code", values=("7", "8"), value_type="number"),
        CategoryFeature(name="zip", values=("007", "12", "1.50")),
        CategoryFeature(name="flag", values=("true", "false"), value_type="boolean"),
        CategoryFeature(name="@prediction", values=("1", "0")),
    ]
)


def test_values_of_a_csv_row_get_the_types_of_the_reference(write: Write) -> None:
    path = write("t.csv", "time,n,code,zip,flag,answer\n5,1,7,12,1,0\n6,2.5,8,1.50,false,1\n,NA,x,,,\n8,abc,,12,maybe,1\n")
    found = events(path, ColumnOptions(time="time", prediction="answer"), TYPED)
    assert [event["features"] for event in found] == [
        {"n": 1.0, "code": 7.0, "zip": "12", "flag": True},
        {"n": 2.5, "code": 8.0, "zip": "1.50", "flag": False},
        {"n": None, "code": "x", "zip": None, "flag": None},
        {"n": "abc", "code": None, "zip": "12", "flag": "maybe"},
    ]
    assert [event.get("time") for event in found] == [5, 6, None, 8]
    assert [event["prediction"] for event in found] == ["0", "1", None, "1"]
    assert {(event["model"], event["version"]) for event in found} == {("m", "7")}


def test_json_rows_keep_their_types_and_the_keys_they_have(write: Write) -> None:
    path = write("t.ndjson", '{"time": 5, "zip": 12, "n": "1"}\n{"time": "1970-01-01T00:00:01Z", "flag": null, "id": 3}\n')
    found = events(path, ColumnOptions(time="time", id="id"), TYPED)
    assert found[0]["features"] == {"zip": 12, "n": "1"}
    assert found[1] == {"model": "m", "version": "7", "id": "3", "time": 1_000, "features": {"flag": None}}


def test_model_version_and_id_come_from_their_columns(write: Write) -> None:
    path = write("t.csv", "time,model,v,id,x\n1,a,2,r1,5\n2,,,,6\n")
    found = events(path, ColumnOptions(time="time", model="model", version="v", id="id"))
    assert found == [
        {"model": "a", "version": "2", "id": "r1", "time": 1, "features": {"x": 5}},
        {"model": "m", "version": "7", "time": 2, "features": {"x": 6}},
    ]


def test_not_a_number_and_infinity_become_null_and_a_column_without_values_stays(tmp_path: Path) -> None:
    pa.parquet.write_table(
        pa.table({"time": [1, 2], "x": [float("nan"), float("inf")], "y": pa.nulls(2)}), tmp_path / "t.parquet"
    )
    assert [event["features"] for event in events(tmp_path / "t.parquet")] == [{"x": None, "y": None}] * 2


def test_offsets_count_by_partition_and_a_file_can_be_read_again(write: Write) -> None:
    path = write("t.csv", "time,x,partition,record_timestamp\n1,1,1,9\n2,1,0,9\n3,1,1,\n4,1,,1970-01-01T00:00:01\n")
    file = EventFile(path, TIME, "m", None, None)
    assert (file.has_partitions, file.has_record_timestamps, file.is_native) == (True, True, False)
    found = [(p, r.offset, r.timestamp) for p, r in file]
    assert found == [(1, 0, 9), (0, 0, 9), (1, 1, 1 << 61), (0, 1, 1_000)]
    assert [(p, r.offset, r.timestamp) for p, r in file] == found
    assert all("partition" not in orjson.loads(r.value or b"")["features"] for _, r in file)


def test_native_lines_pass_byte_for_byte_with_their_places(write: Write) -> None:
    lines = [
        b"[]",
        b'{"model": "m",  "time": 1, "features": {"x": 1.50}, "partition": 2, "record_timestamp": 7, "record_timestamp_type": 1}',
        b"not json",
        b"",
        b'{"tick": 9, "partition": 2, "record_timestamp": "soon"}',
    ]
    file = EventFile(write("e.ndjson", b"\n".join(lines) + b"\n"), ColumnOptions(), None, None, None)
    assert (file.has_partitions, file.has_record_timestamps, file.is_native) == (True, True, True)
    found = list(file)
    assert [record.value for _, record in found] == lines
    assert [(p, r.offset) for p, r in found] == [(0, 0), (2, 0), (0, 1), (0, 2), (0, 3)]
    assert [(r.timestamp, r.timestamp_type) for _, r in found][1] == (7, 1)


@pytest.mark.parametrize(
    ("options", "model", "content", "message"),
    [
        (ColumnOptions(), "m", "time,x\n1,2\n", "with --time-column"),
        (TIME, None, "time,x\n1,2\n", "with --model or --model-column"),
        (TIME, "m", "time,x\nyesterday,2\n", "'yesterday' is not an ISO 8601 time"),
        (TIME, "m", "time,x\n1e30,2\n", "is no time of the years"),
        (TIME, "m", "time,x,partition\n1,2,a\n", "'a' is no partition"),
        (ColumnOptions(time="when"), "m", "time,x\n1,2\n", "no column 'when'"),
    ],
)
def test_rows_that_cannot_become_events_are_told(
    write: Write, options: ColumnOptions, model: str | None, content: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        list(EventFile(write("t.csv", content), options, model, None, None))


@pytest.mark.parametrize("form", ["csv", "parquet", "ndjson", "native"])
def test_a_file_counts_the_same_through_the_reference_and_through_the_wire(tmp_path: Path, form: str) -> None:
    dice = np.random.default_rng(2)
    n = 2_000
    table = pa.table(
        {
            "time": JANUARY_MS + np.arange(n),
            "x": pa.array(dice.normal(size=n), mask=dice.random(n) < 0.05),
            "steps": dice.poisson(40, n),
            "code": dice.choice([1, 2, 50], n),
            "zip": [f"{i:05d}" for i in dice.integers(0, 300, n)],
            "country": pa.array(dice.choice(["NA", "DE"], n), mask=dice.random(n) < 0.1),
            "flag": dice.random(n) < 0.5,
            "score": dice.random(n),
            "answer": dice.choice(["yes", "no"], n),
        }
    )
    path = tmp_path / ("t.ndjson" if form == "native" else f"t.{form}")
    rows = table.to_pylist()
    if form == "csv":
        pa.csv.write_csv(table, path)
    elif form == "parquet":
        pa.parquet.write_table(table, path)
    else:
        if form == "native":
            names = {"time": "time", "score": "score", "answer": "prediction"}
            rows = [
                {"model": "m", "features": {k: v for k, v in row.items() if k not in names}} | {names[k]: row[k] for k in names}
                for row in rows
            ]
            rows[3]["features"]["x"] = "not a number"
            del rows[4]["features"]["country"]
            rows[5]["features"]["flag"] = 1
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    options = ColumnOptions() if form == "native" else ColumnOptions(time="time", score="score", prediction="answer")
    reference = build_reference(path, "m", "1", options)
    records = [record for _, record in EventFile(path, options, "m", "1", reference.layout)]
    wire = NativeFormat()
    decoded = wire.decode(records)
    assert not decoded.rejections
    profile = Profile(reference.layout)
    profile.update(wire.columns(reference.layout, decoded.payloads, decoded.offsets))
    assert profile.counts.tolist() == reference.profile.counts.tolist()
    assert profile.sums.tolist() == reference.profile.sums.tolist()
    assert profile.minimum.tolist() == reference.profile.minimum.tolist()
    assert not any(profile.unexpected)
