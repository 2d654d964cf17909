"""References from files: types, edges and counts, whatever the file's form and the order of its rows."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from monitor.errors import InputError
from monitor.features import CategoryFeature, Feature, NumberFeature, kind_of
from monitor.files import ColumnOptions
from monitor.hash_key import HashKey
from monitor.reference import Reference
from monitor.reference_build import FeatureOptions, build_reference, gather, number_feature

KEY = HashKey("a secret of the tests")
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
    up_to = {int((income <= edge).sum()) for edge in feature.edges}
    tails = [1 / part for part in (256, 512, 1024, 2048) if part <= len(income)]
    assert len(tails) >= 3
    shares = [*(np.arange(1, 128) / 128), *tails, *(1 - share for share in tails)]
    quantiles = np.quantile(income, shares, method="inverted_cdf")
    assert {int((income <= quantile).sum()) for quantile in quantiles} <= up_to
    assert np.median([len(repr(edge)) for edge in feature.edges if income.min() < edge < income.max()]) < 9


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


def write(path: Path, **columns: Sequence[object]) -> Path:
    pa.parquet.write_table(pa.table(columns), path)
    return path


def feature_of(made: Reference, name: str) -> Feature:
    return made.layout.features[made.layout.index[name]]


# Numbers that are codes.


@pytest.mark.parametrize(
    ("values", "dictionary"),
    [
        ([0, 1] * 50, ("0", "1")),
        ([1.0, 0.0, None, 1.0] * 25, ("1", "0")),
        ([-1, 2, 2] * 40, ("2", "-1")),
        (list(range(20)) * 10, tuple(sorted(map(str, range(20))))),
        ([7] * 10, ("7",)),
        (list(range(20)) * 9, None),
        (list(range(21)) * 50, None),
        ([0.5, 1.0] * 50, None),
        ([7] * 9, None),
    ],
)
def test_few_whole_numbers_with_enough_rows_are_codes(
    tmp_path: Path, values: list[float], dictionary: tuple[str, ...] | None
) -> None:
    made = build_reference(write(tmp_path / "t.parquet", x=values), "m", "1", ColumnOptions())
    feature = feature_of(made, "x")
    if dictionary is None:
        assert isinstance(feature, NumberFeature)
    else:
        assert isinstance(feature, CategoryFeature)
        assert (feature.values, feature.value_type, feature.other) == (dictionary, "number", ())
        assert made.profile.summary("x").values.tolist() == [*(values.count(int(v)) for v in dictionary), 0]
    as_number = build_reference(tmp_path / "t.parquet", "m", "1", ColumnOptions(), {"x": FeatureOptions(kind="number")})
    assert isinstance(feature_of(as_number, "x"), NumberFeature)


def test_codes_too_are_bounded_by_max_categories(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", x=[1, 2, 2, 3, 3, 3] * 10)
    made = build_reference(path, "m", "1", ColumnOptions(), {"x": FeatureOptions(max_categories=2)})
    feature = feature_of(made, "x")
    assert isinstance(feature, CategoryFeature)
    assert (feature.values, len(feature.other)) == (("3", "2"), 1)
    assert made.profile.summary("x").values.tolist() == [30, 20, 10]


# Categories.


def test_the_dictionary_holds_the_most_frequent_values_ties_by_text_and_knows_the_others(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", c=["b", "a", "c", "c", "d", None])
    made = build_reference(path, "m", "1", ColumnOptions(), {"c": FeatureOptions(max_categories=2)})
    feature = feature_of(made, "c")
    assert isinstance(feature, CategoryFeature)
    assert feature.values == ("c", "a")
    assert len(feature.other) == 2
    summary = made.profile.summary("c")
    assert (summary.values.tolist(), summary.missing, summary.never_seen) == ([2, 1, 2], 1, 0)


def test_beyond_the_bound_of_known_others_values_count_as_never_seen_and_the_record_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "MAX_OTHER", 5)
    path = write(tmp_path / "t.parquet", c=[f"v{i}" for i in range(20)])
    made = build_reference(path, "m", "1", ColumnOptions(), {"c": FeatureOptions(max_categories=10)})
    summary = made.profile.summary("c")
    assert (summary.values.sum(), summary.never_seen) == (15, 5)
    assert made.record.warnings == [
        "column c: 10 values beyond the dictionary; 5 of them are known, the rest count as never seen"
    ]


def test_a_reference_is_the_same_for_any_order_of_rows_though_many_values_are_beyond_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "MAX_OTHER", 5)
    values = [f"v{i % 300}" for i in range(900)]
    options = {"c": FeatureOptions(kind="category", max_categories=10, keep_values=True)}
    made = [
        build_reference(write(tmp_path / f"{i}.parquet", c=column), "m", "1", ColumnOptions(), options, hash_key=KEY)
        for i, column in enumerate((values, values[::-1], sorted(values)))
    ]
    assert len({reference.sha256 for reference in made}) == 1
    assert made[0].profile.summary("c").distinct == pytest.approx(300, rel=4 * 0.01625)
    feature = feature_of(made[0], "c")
    assert isinstance(feature, CategoryFeature)
    assert (feature.hash_key, feature.keep_values) == (KEY.id, True)
    assert feature.other == tuple(sorted(KEY.hashes(sorted(set(values) - set(feature.values))).tolist())[:5])


def test_a_category_of_too_many_values_is_left_out_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet", half=[f"h{i % 1_000}" for i in range(2_000)])
    for bound, value in (("MAX_DISTINCT", 500), ("MAX_TEXT", 1_500)):
        with monkeypatch.context() as bounded:
            bounded.setattr(gather, bound, value)
            assert kind_of(feature_of(build_reference(path, "m", "1", ColumnOptions()), "half")) == "identifier"
            with pytest.raises(InputError, match="too many different values for a category; `kind: identifier` keeps it"):
                build_reference(path, "m", "1", ColumnOptions(), {"half": FeatureOptions(kind="category")})


# What is counted, and what is said.


def test_what_is_no_finite_number_is_counted_beside_the_cells_and_is_never_an_edge(tmp_path: Path) -> None:
    values = [*np.linspace(0, 1, 100).tolist(), None, None, float("nan"), float("inf"), float("inf"), float("-inf")]
    made = build_reference(write(tmp_path / "t.parquet", x=values), "m", "1", ColumnOptions())
    summary = made.profile.summary("x")
    assert (summary.n, summary.missing, summary.nan, summary.infinite) == (100, 2, 1, 3)
    assert (summary.minimum, summary.maximum) == (0.0, 1.0)
    feature = feature_of(made, "x")
    assert isinstance(feature, NumberFeature)
    assert np.isfinite(feature.edges).all()
    (warning,) = made.record.warnings
    assert warning.startswith("column x: 1 NaN and 3 infinite values; JSON has neither")


def test_an_empty_field_and_the_word_nan_of_a_csv_file_are_missing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n" + "1.5,a\n,b\nNaN,b\n2.5,\n")
    made = build_reference(tmp_path / "t.csv", "m", "1", ColumnOptions())
    summary = made.profile.summary("x")
    assert (summary.n, summary.missing, summary.nan) == (2, 2, 0)
    assert made.profile.summary("y").missing == 1
    assert made.record.warnings == []


def test_a_text_in_a_column_that_must_be_of_numbers_is_of_a_wrong_type(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('x\n1\n2\noops\n""\n')
    made = build_reference(tmp_path / "t.csv", "m", "1", ColumnOptions(), {"x": FeatureOptions(kind="number")})
    summary = made.profile.summary("x")
    assert (summary.n, summary.wrong_type, summary.missing) == (2, 1, 1)


def test_only_the_rows_of_this_model_and_version_are_taken_where_events_name_them(tmp_path: Path) -> None:
    rows = [("a", "1"), ("a", "2"), ("b", None), ("a", None)] * 5
    events = [{"model": m, "time": i, "features": {"x": i}} | ({"version": v} if v else {}) for i, (m, v) in enumerate(rows)]
    (tmp_path / "e.ndjson").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert build_reference(tmp_path / "e.ndjson", "a", "1", ColumnOptions()).record.rows == 10
    assert build_reference(tmp_path / "e.ndjson", "a", "2", ColumnOptions()).record.time_range_ms == (1, 17)
    with pytest.raises(InputError, match="no rows of model c version 1; it has model a, model b, version 2"):
        build_reference(tmp_path / "e.ndjson", "c", "1", ColumnOptions())


def test_many_labels_are_left_out_and_a_score_must_be_a_number(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", x=[0.5 * i for i in range(1_001)], label=list(range(1_001)), score=["a"] * 1_001)
    made = build_reference(path, "m", "1", ColumnOptions(label="label", prediction="score"))
    assert made.record.labels == {}
    assert made.record.warnings == ["column label: more than 1,000 different labels, their counts are left out"]
    with pytest.raises(InputError, match="column 'score' holds string values; it must hold numbers to be the score"):
        build_reference(path, "m", "1", ColumnOptions(score="score"))


def test_a_prediction_is_a_class_or_a_number_and_a_score_always_a_number(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", answer=[0, 1] * 50, value=[0.5 * i for i in range(100)])
    classes = build_reference(path, "m", "1", ColumnOptions(prediction="answer", score="value"))
    assert [type(f) for f in classes.layout.features] == [CategoryFeature, NumberFeature]
    numbers = build_reference(path, "m", "1", ColumnOptions(prediction="value", score="answer"))
    assert [type(f) for f in numbers.layout.features] == [NumberFeature, NumberFeature]


def test_what_the_configuration_names_and_the_file_does_not_have_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", email=["a", "b"], x=[1.5, 2.5])
    made = build_reference(path, "m", "1", ColumnOptions(), {"emial": FeatureOptions(pii="drop")})
    assert made.record.warnings == ["the configuration has a feature emial that the file does not have; did you mean 'email'?"]


def test_times_that_lie_in_1970_are_doubted(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", time=[1_735_689_600, 1_735_689_700], x=[1.5, 2.5])
    (warning,) = build_reference(path, "m", "1", ColumnOptions(time="time")).record.warnings
    assert warning == "column time: all times lie in 1970 or before; --time-unit says what they count"
    made = build_reference(path, "m", "1", ColumnOptions(time="time", time_unit="s"))
    assert (made.record.warnings, made.record.time_range_ms) == ([], (1_735_689_600_000, 1_735_689_700_000))


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"x": [None, None]}, ColumnOptions(), "no column is left to be a feature\ncolumn x: no values, left out"),
        ({"x": [1.5], "t": ["soon"]}, ColumnOptions(time="t"), "column 't': 'soon' is not an ISO 8601 time"),
        ({"x": [1.5], "p": [[1]]}, ColumnOptions(prediction="p"), "list is not a kind of output, it cannot be the prediction"),
        ({"x": ["a"]}, ColumnOptions(), "column 'x' holds string values; it must hold numbers to be `kind: number`"),
    ],
)
def test_what_makes_no_reference_is_told(
    tmp_path: Path, columns: dict[str, list[object]], options: ColumnOptions, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build_reference(write(tmp_path / "t.parquet", **columns), "m", "1", options, {"x": FeatureOptions(kind="number")})


def test_every_row_is_reported_to_the_progress_twice(parquet: Path) -> None:
    seen: list[int] = []
    build_reference(parquet, "m", "1", OPTIONS, None, seen.append)
    assert sum(seen) == 6_000


def test_batches_of_any_size_give_the_same_reference(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(parquet).to_bytes()
    monkeypatch.setattr("monitor.files.parquet.BATCH_ROWS", 7)
    assert build(parquet).to_bytes() == whole


def test_nothing_is_left_in_the_temporary_folder(parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    build(parquet)
    assert not list((tmp_path / "scratch").iterdir())


# Numeric layouts (laws: tests/properties/test_layout.py).


def test_a_decile_that_is_the_maximum_is_an_edge_like_the_others(tmp_path: Path) -> None:
    np.array([0.5] * 3 + [1.5] * 7).tofile(tmp_path / "spool")
    feature = number_feature("x", tmp_path / "spool")
    assert (feature.reported, feature.minimum, feature.maximum) == ((0.5, 1.5), 0.5, 1.5)
    np.array([1.5] * 10).tofile(tmp_path / "spool")
    assert number_feature("x", tmp_path / "spool").reported == (1.5,)


@pytest.mark.parametrize(
    ("values", "spread"),
    [
        (np.arange(1, 101), 50.0),
        (np.array([3.0] * 99 + [13.0]), float(np.std([3.0] * 99 + [13.0]))),
        (np.array([-8.0] * 10), 8.0),
        (np.zeros(10), 1.0),
    ],
)
def test_sixteen_tail_cells_a_side_double_in_width(tmp_path: Path, values: np.ndarray, spread: float) -> None:
    np.asarray(values, np.float64).tofile(tmp_path / "spool")
    feature = number_feature("x", tmp_path / "spool")
    low, high = float(values.min()), float(values.max())
    above = [edge for edge in feature.edges if edge > high]
    below = [edge for edge in feature.edges if edge < np.nextafter(low, -np.inf)]
    assert len(above) == len(below) == 16
    expected = [spread * 2.0**k for k in range(-6, 10)]
    assert [edge - high for edge in above] == pytest.approx(expected, rel=0.05)
    assert [low - edge for edge in reversed(below)] == pytest.approx(expected, rel=0.05)
    assert all(b > a for a, b in itertools.pairwise(feature.edges))
