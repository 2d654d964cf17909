"""References from files: types, edges and counts, whatever the file's form and the order of its rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from monitor.errors import InputError
from monitor.files import ColumnOptions, EventFile
from monitor.layout import CategoryFeature, NumberFeature
from monitor.reference import Reference
from monitor.reference_build import FeatureOptions, build_reference, number_feature

OPTIONS = ColumnOptions(time="time", prediction="pred", score="score", label="label", id="id", exclude=("note",))


def table(n: int = 3_000) -> pa.Table:
    dice = np.random.default_rng(4)
    return pa.table(
        {
            "id": [f"r{i}" for i in range(n)],
            "time": 1_735_689_600_000 + np.arange(n) * 60_000,
            "age": dice.integers(18, 90, n),
            "income": pa.array(dice.lognormal(10, 1, n), mask=dice.random(n) < 0.1),
            "mostly_zero": np.where(dice.random(n) < 0.4, 0.0, dice.normal(size=n)),
            "constant": np.ones(n),
            "country": dice.choice(["DE", "FR", "US"], n),
            "flag": dice.random(n) < 0.3,
            "empty": pa.array([None] * n, pa.string()),
            "note": ["x"] * n,
            "pred": dice.choice(["yes", "no"], n),
            "score": dice.random(n),
            "label": dice.choice(["yes", "no"], n),
        }
    )


def build(path: Path, **features: FeatureOptions) -> Reference:
    return build_reference(path, "m", "1", OPTIONS, features)


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    pa.parquet.write_table(table(), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def test_every_form_and_order_of_the_same_rows_gives_the_same_reference(tmp_path: Path, parquet: Path) -> None:
    rows = table()
    pa.csv.write_csv(rows, tmp_path / "t.csv")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    shuffled = rows.take(np.random.default_rng(1).permutation(len(rows)))
    pa.parquet.write_table(shuffled, tmp_path / "shuffled.parquet")
    (tmp_path / "t.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows.to_pylist()))
    names = ("t.csv", "t.csv.gz", "shuffled.parquet", "t.ndjson")
    assert {build(tmp_path / name).sha256 for name in names} == {build(parquet).sha256}


def test_kinds_are_inferred_and_what_is_no_feature_is_left_out(parquet: Path) -> None:
    made = build(parquet)
    kinds = {f.name: type(f) for f in made.layout.features}
    assert kinds == {
        "@prediction": CategoryFeature,
        "@score": NumberFeature,
        "age": NumberFeature,
        "constant": CategoryFeature,
        "country": CategoryFeature,
        "flag": CategoryFeature,
        "income": NumberFeature,
        "mostly_zero": NumberFeature,
    }
    assert made.record.warnings == ["column empty: no values, left out"]
    assert sum(made.record.labels.values()) == made.record.rows == 3_000
    assert made.record.time_range_ms == (1_735_689_600_000, 1_735_689_600_000 + 2_999 * 60_000)


def test_counts_and_edges_agree_with_numpy(parquet: Path) -> None:
    made, rows = build(parquet), table()
    income = rows["income"].drop_null().to_numpy()
    summary = made.profile.summary("income")
    assert (summary.n, summary.missing) == (len(income), 3_000 - len(income))
    assert (summary.minimum, summary.maximum) == (income.min(), income.max())
    feature = made.layout.features[made.layout.index["income"]]
    assert isinstance(feature, NumberFeature)
    assert feature.reported == tuple(np.quantile(income, np.arange(1, 10) / 10, method="inverted_cdf"))
    assert set(np.quantile(income, np.arange(1, 128) / 128, method="inverted_cdf")) <= set(feature.edges)


def test_an_atom_has_a_cell_of_its_own(parquet: Path) -> None:
    made = build(parquet)
    feature = made.layout.features[made.layout.index["mostly_zero"]]
    assert isinstance(feature, NumberFeature)
    zeros = int((table()["mostly_zero"].to_numpy() == 0).sum())
    assert made.profile.summary("mostly_zero").values[feature.edges.index(0.0)] == zeros


@pytest.mark.parametrize("name", ["age", "income", "mostly_zero", "constant"])
def test_a_column_too_large_to_sort_is_searched_and_gives_the_same(tmp_path: Path, name: str) -> None:
    values = np.asarray(table()[name].drop_null(), np.float64)
    values.tofile(tmp_path / "spool")
    assert number_feature(name, tmp_path / "spool", sort_bytes=0) == number_feature(name, tmp_path / "spool")


def test_what_the_user_says_goes_over_what_is_inferred(parquet: Path) -> None:
    made = build(parquet, age=FeatureOptions(kind="category", max_categories=10), country=FeatureOptions(pii="drop"))
    age = made.layout.features[made.layout.index["age"]]
    assert isinstance(age, CategoryFeature)
    assert (len(age.values), len(age.other), age.value_type) == (10, 62, "number")
    assert made.profile.summary("age").values[-1] > 0
    assert made.profile.summary("age").never_seen == 0
    assert "country" not in made.layout.index


def test_no_raw_row_is_in_the_record_and_it_is_small(parquet: Path) -> None:
    data = build(parquet).to_bytes()
    assert b"r17" not in data
    assert len(data) < 64_000 / 100 * 8 * 10


def test_a_reference_comes_back_and_a_changed_one_is_refused(parquet: Path) -> None:
    made = build(parquet)
    again = Reference.from_bytes(made.effective_from(5).to_bytes())
    assert (again.sha256, again.effective_from_ms) == (made.sha256, 5)
    assert again.profile.to_bytes() == made.profile.to_bytes()
    with pytest.raises(InputError, match="build it again"):
        Reference.from_bytes(made.to_bytes().replace(b'"rows":3000', b'"rows":3001'))
    with pytest.raises(InputError, match="not a reference file"):
        Reference.from_bytes(b"{}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.csv", None, "no such file"),
        ("t.xlsx", b"x", "reads .csv, .csv.gz, .parquet and .ndjson"),
        ("t.csv", b"time,pred,score,label,id,note\n", "no rows"),
        ("t.csv", b"tine,pred,score,label,id\n1,a,1,x,y\n", "did you mean 'tine'"),
        ("t.ndjson", b"{\n", "t.ndjson:1: not JSON"),
        ("t.ndjson", b"[]\n", "t.ndjson:1: the line is an array"),
    ],
)
def test_an_unusable_file_is_told_in_a_sentence(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        build(tmp_path / name)


def test_rows_of_a_table_become_events_typed_as_the_reference_wants(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("time,zip,flag,x\n" + "".join(f"{i},{i % 3},true,{i}\n" for i in range(50)))
    options = ColumnOptions(time="time")
    made = build_reference(tmp_path / "train.csv", "m", "7", options, {"zip": FeatureOptions(kind="category")})
    (tmp_path / "new.csv").write_text("time,zip,flag,x,partition,record_timestamp\n5,2,true,1.5,1,9\n6,zz,,2,1,9\n")
    rows = EventFile(tmp_path / "new.csv", options, "m", "7", made.layout)
    assert (rows.has_partitions, rows.has_record_timestamps) == (True, True)
    found = list(rows)
    assert [(p, r.offset, r.timestamp) for p, r in found] == [(1, 0, 9), (1, 1, 9)]
    assert json.loads(found[0][1].value or b"") == {
        "model": "m",
        "version": "7",
        "time": 5,
        "features": {"zip": 2.0, "flag": True, "x": 1.5},
    }
    assert json.loads(found[1][1].value or b"")["features"] == {"zip": "zz", "flag": None, "x": 2.0}


def test_native_lines_pass_as_they_are(tmp_path: Path) -> None:
    lines = [b'{"model": "m",  "time": 1, "features": {"x": 1}, "partition": 2}', b"not json", b"{}"]
    (tmp_path / "e.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    found = list(EventFile(tmp_path / "e.ndjson", ColumnOptions(), None, None, None))
    assert [(p, r.offset, r.value) for p, r in found] == [(2, 0, lines[0]), (0, 0, lines[1]), (0, 1, lines[2])]
