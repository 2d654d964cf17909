"""What a column is taken for, what is said of it, and what a user's word changes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from ruamel.yaml import YAML
from scipy.stats import binomtest

from monitor.chance.bounds import most_missing
from monitor.cli.inferred import features_yaml
from monitor.config.models import FeatureConfig
from monitor.errors import InputError
from monitor.features import CategoryFeature, Feature, NumberFeature, encode_json, hashed_texts, kind_of
from monitor.files import ColumnOptions, open_table
from monitor.findings import compare
from monitor.hash_key import NO_KEY
from monitor.layout import layout_of
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.reference_build import FeatureOptions, build_reference, infer_features
from monitor.reference_build.groups import MAX_EDGE_SHARE, MIN_TEXTS
from monitor.reference_build.rows import column_batch
from monitor.views import token_hash, views_of, vocabulary_bytes
from tests.closed_windows import closed

START = 1_735_689_600_000
TIME = ColumnOptions(time="time")
N = 1_500

DICE = np.random.default_rng(8)
WORDS = [f"word{i}" for i in range(300)]


def sentence() -> str:
    return " ".join(DICE.choice(WORDS, DICE.integers(3, 9)).tolist())


def write(path: Path, **columns: Any) -> Path:
    pa.parquet.write_table(pa.table(columns), path)
    return path


def built(path: Path, columns: ColumnOptions = TIME, **options: FeatureOptions) -> Reference:
    return build_reference(path, "m", "1", columns, options)


def feature_of(made: Reference, name: str) -> Any:
    return made.layout.features[made.layout.index[name]]


COLUMNS: dict[str, tuple[Any, str]] = {
    "whole": (np.arange(N), "integer"),
    "whole floats": (np.arange(N) * 2.0, "integer"),
    "halves": (np.arange(N) / 2, "real"),
    "codes": (np.arange(N) % 4, "category"),
    "flag": (np.arange(N) % 3 == 0, "boolean"),
    "country": (["DE", "FR", "US"] * (N // 3), "category"),
    "title": (["head of sales", "head of all the rest", "junior sales assistant"] * (N // 3), "category"),
    "city": ([f"city {i % 400}" for i in range(N)], "category"),
    "key": ([f"k{i}" for i in range(N)], "identifier"),
    "uuid": ([f"{i:032x}" for i in range(N)], "identifier"),
    "text": ([sentence() + f" {i}" for i in range(N)], "text"),
    "chinese": ([f"今天天气很好{i}" for i in range(N)], "text"),
    "chinese name": ([f"王{chr(0x4E00 + i)}" for i in range(N)], "identifier"),
    "day": (["2025-01-31", "2024-02-29", "1999-12-31"] * (N // 3), "timestamp"),
    "moment": ([datetime(2025, 1, 1, tzinfo=UTC).isoformat()] * N, "timestamp"),
    "moments": ([f"2025-01-01 00:{i % 60:02}:00.5+01" for i in range(N)], "timestamp"),
    "almost days": (["2025-01-31"] * (N - 1) + ["2025-13-31"], "category"),
    "arrow time": (pa.array([datetime(2025, 1, 1, tzinfo=UTC)] * N), "timestamp"),
    "arrow day": (pa.array([date(2025, 1, 1)] * N), "timestamp"),
    "list": ([[1, 2]] * N, "list"),
    "large list": (pa.array([["a"]] * N, pa.large_list(pa.string())), "list"),
    "pair": (pa.array([[1, 2]] * N, pa.list_(pa.int64(), 2)), "list"),
    "lists of lists": ([[[1], []]] * N, "list"),
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    columns = {name: values for name, (values, _) in COLUMNS.items()}
    return write(tmp_path_factory.mktemp("kinds") / "t.parquet", time=START + np.arange(N), **columns)


def test_kinds_follow_from_all_values(everything: Path) -> None:
    found = infer_features(everything, TIME)
    assert {name: feature.kind for name, feature in found.features.items()} == {name: kind for name, (_, kind) in COLUMNS.items()}
    assert found.rows == N


def test_the_reference_has_the_kinds_that_were_inferred_and_one_primary_view_each(everything: Path) -> None:
    made = built(everything)
    primary = {f.name if f.source is None else f.source: kind_of(f) for f in made.layout.features if not f.is_secondary}
    assert primary == {name: kind for name, (_, kind) in COLUMNS.items()}
    assert Counter(f.source or f.name for f in made.layout.features if not f.is_secondary).most_common(1)[0][1] == 1
    assert made.record.warnings == []


def test_what_was_inferred_and_pasted_gives_the_same_reference(everything: Path) -> None:
    text = features_yaml("t.parquet", infer_features(everything, TIME))
    pasted = {name: FeatureConfig.model_validate(entry) for name, entry in YAML(typ="safe").load(text).items()}
    options = {name: FeatureOptions(**entry.model_dump()) for name, entry in pasted.items()}
    assert built(everything, **options).to_bytes() == built(everything).to_bytes()
    assert "# all 1,500 values are whole" in text
    assert "halves: {kind: real, max_missing_ratio: 0.006327, minimum: 0, maximum: 749.5}" in text


def test_neither_the_order_of_the_rows_nor_the_size_of_batches_changes_a_reference_of_all_kinds(
    everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = built(everything).to_bytes()
    rows = pa.parquet.read_table(everything)
    shuffled = rows.take(np.random.default_rng(3).permutation(N))
    pa.parquet.write_table(shuffled, tmp_path / "s.parquet")
    monkeypatch.setattr("monitor.files.parquet.BATCH_ROWS", 101)
    assert built(tmp_path / "s.parquet").to_bytes() == whole


@pytest.mark.parametrize(("share", "kind"), [(0.3, "category"), (0.7, "identifier")])
def test_values_that_no_dictionary_would_know_are_identifiers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, kind: str
) -> None:
    monkeypatch.setattr("monitor.reference_build.gather.MAX_OTHER", 10)
    rare = int(2_000 * share)
    values = [f"r{i // 2}" for i in range(rare)] + ["often"] * (2_000 - rare)
    found = infer_features(write(tmp_path / "t.parquet", x=values), ColumnOptions(), {"x": FeatureOptions(max_categories=5)})
    assert found.features["x"].kind == kind


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([f"a b {i}" for i in range(21)], "text"),
        ([f"a b {i}" for i in range(20)], "category"),
        ([f"a {i}" for i in range(2_000)], "identifier"),
        ([f"k{i}" for i in range(1_000)], "category"),
        ([f"k{i}" for i in range(1_001)], "identifier"),
        ([f"k{i % 900}" for i in range(1_001)], "category"),
        ([f"a b {i % 1_000}" for i in range(2_001)], "category"),
        ([f"a b {i % 1_001}" for i in range(2_001)], "text"),
    ],
)
def test_the_borders_between_category_identifier_and_text(tmp_path: Path, values: list[str], kind: str) -> None:
    assert infer_features(write(tmp_path / "t.parquet", x=values), ColumnOptions()).features["x"].kind == kind


# Bounds.


@pytest.mark.parametrize("rows", [1, 7, 100, 3_000, 1_000_000])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999, 1.0])
def test_the_completeness_bound_is_the_upper_end_of_wilsons_interval(rows: int, share: float) -> None:
    missing = int(rows * share)
    expected = binomtest(missing, rows).proportion_ci(0.998, method="wilson").high
    assert expected <= most_missing(missing, rows) <= expected + 1.001e-6


def test_it_counts_null_absent_and_nan_but_not_what_is_of_a_wrong_type(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"x": i, "t": [i], "c": f"k{i}"} for i in range(1_200)]
    rows[0] = {"x": None, "t": None, "c": None}
    rows[1] = {}
    rows[2] = {"x": "seven", "t": "seven", "c": 7}
    (tmp_path / "t.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = built(tmp_path / "t.ndjson", ColumnOptions())
    for name in ("x", "t#length", "c"):
        assert feature_of(made, name).max_missing_ratio == most_missing(2, 1_200)
        summary = made.profile.summary(name)
        assert (summary.missing, summary.absent, summary.wrong_type) == (2, 1, 1)
    assert feature_of(made, "c#length").max_missing_ratio is None
    path = write(tmp_path / "t.parquet", x=pa.array([1.5, None, float("nan"), 2.5] * 10))
    assert feature_of(built(path, ColumnOptions()), "x").max_missing_ratio == most_missing(20, 40)
    assert feature_of(built(path, ColumnOptions(), x=FeatureOptions(max_missing_ratio=0.9)), "x").max_missing_ratio == 0.9


def test_a_configured_range_is_the_range_of_the_reference(tmp_path: Path) -> None:
    values = np.arange(18.0, 70.5, 0.5)
    path = write(tmp_path / "t.parquet", age=values)
    made = built(path, ColumnOptions(), age=FeatureOptions(minimum=0, maximum=120))
    feature = feature_of(made, "age")
    assert (feature.minimum, feature.maximum) == (0, 120)
    assert {float(np.nextafter(0, -1)), 120.0} <= set(feature.edges)
    assert feature.reported == feature_of(built(path, ColumnOptions()), "age").reported
    found = compare(closed(made, {"age": [-0.5, 0.0, 3.0, 50.0, 120.0, 121.0, 1e9]}))["age"]
    assert (found.below_min, found.above_max) == (1, 2)
    assert made.record.warnings == []
    narrow = built(path, ColumnOptions(), age=FeatureOptions(minimum=20))
    assert feature_of(narrow, "age").minimum == 18
    assert narrow.record.warnings == ["column age: values from 18 to 70, beyond the configured range; it is extended"]


# Views.


def test_a_text_has_a_length_an_alphabet_and_words_that_the_reference_does_not_know(tmp_path: Path) -> None:
    texts: list[str | None] = [f"common word{i % 30} once{i} more" for i in range(600)]
    texts[:4] = ["", None, "12", "привет common"]
    (tmp_path / "t.ndjson").write_text("".join(json.dumps({"c": text}) + "\n" for text in texts))
    made = built(tmp_path / "t.ndjson", ColumnOptions())
    assert list(made.layout.index) == ["c#alphabet", "c#length", "c#unseen_ratio"]
    present = [text for text in texts if text is not None]
    lengths = made.profile.summary("c#length")
    assert (lengths.n, lengths.missing, lengths.minimum, lengths.maximum) == (599, 1, 0, max(map(len, present)))
    assert lengths.mean == pytest.approx(np.mean([len(text) for text in present]), rel=1e-9)
    assert lengths.values[feature_of(made, "c#length").edges.index(0.0)] == 1
    alphabets = feature_of(made, "c#alphabet")
    assert alphabets.values == ("latin", "digits", "empty", "mixed")
    assert made.profile.summary("c#alphabet").values.tolist() == [596, 1, 1, 1, 0]
    in_texts = Counter(word for text in present for word in set(text.split()))
    assert min(in_texts["word4"], in_texts["word29"]) > MIN_TEXTS
    known = {word for word, n in in_texts.items() if n > 2}
    assert feature_of(made, "c#unseen_ratio").vocabulary == vocabulary_bytes(map(token_hash, known))
    shares = [np.mean([w not in known for w in text.split()]) if text else 0.0 for text in present]
    assert made.profile.summary("c#unseen_ratio").mean == pytest.approx(np.mean(shares), rel=1e-6)


@pytest.mark.parametrize(("bound", "known"), [(5_000, "all third half other x"), (4, "all third half other"), (3, "all third")])
def test_a_vocabulary_keeps_the_words_that_most_texts_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: int, known: str
) -> None:
    monkeypatch.setattr("monitor.reference_build.groups.MAX_TOKENS", bound)
    texts = [f"all {'half' if i % 2 else 'other'} {'third' if i % 3 else 'x'} unique{i} rare{i // 4}" for i in range(300)]
    made = built(write(tmp_path / "t.parquet", c=texts), ColumnOptions())
    assert feature_of(made, "c#unseen_ratio").vocabulary == vocabulary_bytes(map(token_hash, known.split()))


def draw(n_words: int, power: float, n: int, dice: np.random.Generator) -> list[str]:
    weights = np.arange(1, n_words + 1) ** -power
    return [" ".join(f"w{i}" for i in row) for row in dice.choice(n_words, (n, 12), p=weights / weights.sum())]


@pytest.mark.parametrize(
    ("n_words", "power"), [(20_000, 1.0), (5_000, 1.2), (500, 0.0), (2_000, 0.0), (7_000, 0.0), (400_000, 0.5)]
)
@pytest.mark.parametrize("n", [300, 3_000])
def test_new_texts_of_the_same_language_have_as_many_unseen_words_as_the_reference(
    tmp_path: Path, n_words: int, power: float, n: int
) -> None:
    dice = np.random.default_rng(5)
    made = built(write(tmp_path / "a.parquet", c=draw(n_words, power, n, dice)), ColumnOptions(), c=FeatureOptions(kind="text"))
    profile = Profile(made.layout)
    for batch in open_table(write(tmp_path / "b.parquet", c=draw(n_words, power, 3_000, dice)), ColumnOptions()).batches():
        profile.update(column_batch(batch, made.layout))
    own, new = made.profile.summary("c#unseen_ratio"), profile.summary("c#unseen_ratio")
    assert own.mean is not None
    assert new.mean is not None
    error = 4 * 0.15 * (1 / n + 1 / 3_000) ** 0.5  # a text of 12 words has a standard deviation of at most 0.15
    assert abs(new.mean - own.mean) < MAX_EDGE_SHARE + error


def test_an_identifier_has_no_dictionary_and_nothing_is_never_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", key=[f"k{i}" for i in range(2_000)])
    made = built(path, ColumnOptions())
    key = feature_of(made, "key")
    assert (key.values, key.other, key.is_open, key.source_kind) == ((), (), True, "identifier")
    summary = made.profile.summary("key")
    assert (summary.n, summary.values.tolist(), summary.never_seen) == (2_000, [2_000], 0)
    assert made.profile.summary("key#length").maximum == 5
    assert b"k17" not in made.to_bytes()


def test_numbers_may_be_identifiers_where_the_user_says_so(tmp_path: Path) -> None:
    made = built(write(tmp_path / "t.parquet", n=np.arange(95, 195)), ColumnOptions(), n=FeatureOptions(kind="identifier"))
    assert feature_of(made, "n").value_type == "number"
    assert (made.profile.summary("n#length").minimum, made.profile.summary("n#length").maximum) == (2, 3)


@pytest.mark.parametrize(
    ("values", "options", "unit"),
    [
        (np.arange(50) + START // 1_000, FeatureOptions(kind="timestamp"), "s"),
        (np.arange(50) * 1_000 + START, FeatureOptions(kind="timestamp"), "ms"),
        ((np.arange(50) * 1_000 + START) * 1_000, FeatureOptions(kind="timestamp"), "us"),
        (np.arange(50) + START // 1_000 + 0.5, FeatureOptions(kind="timestamp"), "s"),
        (np.arange(50) * 1_000 + START, FeatureOptions(kind="timestamp", unit="ms"), "ms"),
    ],
)
def test_numbers_are_timestamps_where_the_user_says_so(tmp_path: Path, values: Any, options: FeatureOptions, unit: str) -> None:
    path = write(tmp_path / "t.parquet", time=START + np.arange(50) * 1_000 + 5_000, t=values)
    made = built(path, TIME, t=options)
    assert feature_of(made, "t#age_s").unit == unit
    summary = made.profile.summary("t#age_s")
    assert (summary.minimum, summary.maximum) == ((4.5, 4.5) if values.dtype.kind == "f" else (5, 5))
    assert infer_features(path, TIME, {"t": options}).features["t"].unit == unit


def test_timestamps_of_any_zone_and_unit_have_the_age_that_datetime_says(tmp_path: Path) -> None:
    moments = [datetime(1960 + i, 1 + i % 12, 1, i % 24, tzinfo=timezone(timedelta(hours=i % 5 - 2))) for i in range(60)]
    path = write(
        tmp_path / "t.parquet",
        time=[START] * 60,
        s=pa.array(moments, pa.timestamp("s", "Europe/Berlin")),
        ns=pa.array(moments, pa.timestamp("ns", "UTC")),
        day=[m.date() for m in moments],
        text=[m.isoformat() for m in moments],
    )
    made = built(path)
    ages = [START / 1_000 - m.timestamp() for m in moments]
    days = [START / 1_000 - datetime(m.year, m.month, m.day, tzinfo=UTC).timestamp() for m in moments]
    for name, expected in (("s", ages), ("ns", ages), ("text", ages), ("day", days)):
        summary = made.profile.summary(f"{name}#age_s")
        assert (summary.minimum, summary.maximum) == (min(expected), max(expected))
        assert summary.mean == pytest.approx(np.mean(expected), rel=1e-9)


def test_without_event_times_texts_of_times_are_categories_and_timestamps_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", day=["2025-01-31"] * 20, when=[datetime(2025, 1, 1, tzinfo=UTC)] * 20)
    made = built(path, ColumnOptions())
    assert {name: kind_of(f) for name, f in zip(made.layout.index, made.layout.features, strict=True)} == {"day": "category"}
    assert made.record.warnings == [
        "column when: a timestamp is counted by its age, which needs the events' times (--time-column), left out"
    ]


def test_a_row_without_a_time_has_no_age(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", time=[START, None, START], t=["2025-01-01", "2025-01-01", None])
    summary = built(path).profile.summary("t#age_s")
    assert (summary.n, summary.missing) == (1, 2)


# A user's word.


def test_an_integer_with_fractional_values_is_said_and_counts_them(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", x=[1.0, 2.5, 3.0, 4.5, 5.0, None, float("nan")] * 10)
    made = built(path, ColumnOptions(), x=FeatureOptions(kind="integer"))
    assert (made.profile.summary("x").never_seen, made.profile.summary("x").n) == (20, 50)
    assert "column x: 20 values are not whole, although it is configured as an integer" in made.record.warnings
    assert kind_of(feature_of(built(path, ColumnOptions(), x=FeatureOptions(kind="number")), "x")) == "real"


def test_whole_numbers_may_be_called_real(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", x=np.arange(100))
    for kind, expected in (("real", "real"), ("integer", "integer"), ("number", "integer")):
        assert kind_of(feature_of(built(path, ColumnOptions(), x=FeatureOptions(kind=kind)), "x")) == expected  # type: ignore[arg-type]


def test_digits_of_a_csv_file_are_a_text_where_the_user_says_so(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x\n" + "".join(f"{i}\n" for i in range(100)))
    made = built(tmp_path / "t.csv", ColumnOptions(), x=FeatureOptions(kind="text"))
    assert feature_of(made, "x#alphabet").values == ("digits",)


def test_hashed_dictionaries_count_the_same_and_hold_no_value(tmp_path: Path) -> None:
    values = ["ada@x.org"] * 30 + ["bob@x.org"] * 20 + ["eve@x.org"] * 10
    path = write(tmp_path / "t.parquet", mail=values, code=[7, 8, 9] * 20)
    plain = built(path, ColumnOptions(), mail=FeatureOptions(max_categories=2))
    options = {"mail": FeatureOptions(pii="hash", max_categories=2), "code": FeatureOptions(pii="hash")}
    hashed = built(path, ColumnOptions(), **options)
    assert feature_of(hashed, "mail").values == hashed_texts(["ada@x.org", "bob@x.org"], NO_KEY)
    assert hashed.profile.counts.tolist() == plain.profile.counts.tolist()
    assert b"x.org" not in hashed.to_bytes()
    window = closed(
        hashed, {"mail": ["ada@x.org", "new", hashed_texts(["ada@x.org"], NO_KEY)[0], "eve@x.org"], "code": [7, 8.0, 5, None]}
    )
    mail, code = window.profile.summary("mail"), window.profile.summary("code")
    assert (mail.values.tolist(), mail.never_seen) == ([1, 0, 1], 2)
    assert (code.values.tolist(), code.never_seen, code.missing) == ([1, 1, 0, 0], 1, 1)


def test_what_is_dropped_is_nowhere_whatever_its_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", x=[0.5, 1.5], key=[f"secret{i}" for i in range(2)], l=[[1], [2]])
    made = built(path, ColumnOptions(), key=FeatureOptions(pii="drop"), l=FeatureOptions(pii="drop"))
    assert list(made.layout.index) == ["x"]


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            {"x": ["a"]},
            FeatureOptions(kind="integer"),
            "column 'x' holds string values; it must hold numbers to be `kind: integer`",
        ),
        ({"x": [1]}, FeatureOptions(kind="text"), "holds number values; it must hold texts to be `kind: text`"),
        ({"x": [1]}, FeatureOptions(kind="boolean"), "it must hold booleans"),
        ({"x": ["a"]}, FeatureOptions(kind="list"), "it must hold lists"),
        ({"x": [[1]]}, FeatureOptions(kind="category"), "holds list values; it must hold texts or numbers or booleans"),
        ({"x": ["2025-01-01"]}, FeatureOptions(kind="timestamp"), "needs the events' times: --time-column"),
        (
            {"x": [5], "time": [START]},
            FeatureOptions(kind="timestamp"),
            "5 is no time of the years 2000 to 2100 in s, ms, us or ns",
        ),
        ({"x": [0.5]}, FeatureOptions(pii="hash"), "`pii: hash` is for texts and categories, and this is of kind real"),
        (
            {"c": [f"a b {i}" for i in range(30)], "c#length": [1] * 30},
            FeatureOptions(),
            "'c#length' has the name of a view of 'c'",
        ),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, columns: dict[str, Any], options: FeatureOptions, message: str) -> None:
    path = write(tmp_path / "t.parquet", **columns)
    with pytest.raises(InputError) as caught:
        built(path, ColumnOptions(time="time" if "time" in columns else None), x=options)
    assert message in str(caught.value)


def test_a_column_that_only_looks_like_a_view_is_a_feature(tmp_path: Path) -> None:
    made = built(write(tmp_path / "t.parquet", **{"c#length": [0.5, 1.5]}), ColumnOptions())
    assert list(made.layout.index) == ["c#length"]


def test_a_range_of_what_is_no_number_is_doubted(tmp_path: Path) -> None:
    made = built(write(tmp_path / "t.parquet", x=["a", "b"]), ColumnOptions(), x=FeatureOptions(minimum=0))
    assert made.record.warnings == ["column x: minimum and maximum are of numbers, and this is of kind category"]


def test_timestamps_of_which_none_can_be_read_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", time=[START], t=["soon"], x=[0.5])
    made = built(path, TIME, t=FeatureOptions(kind="timestamp"))
    assert (list(made.layout.index), made.record.warnings) == (["x"], ["feature t#age_s: no values, left out"])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "text", "minimum": 1}, "minimum and maximum are of numbers, and the kind is text"),
        ({"minimum": 2, "maximum": 1}, "minimum must not be above maximum"),
        ({"unit": "s"}, "unit is of a timestamp's numbers; add kind: timestamp"),
        ({"kind": "list", "pii": "hash"}, "pii: hash is for texts and categories"),
        ({"max_missing_ratio": 1.5}, "less than or equal to 1"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureConfig.model_validate(entry)


# Layouts.


def names(features: Sequence[Feature]) -> list[str]:
    return [feature.name for feature in features]


def test_a_layout_without_richer_kinds_is_written_as_it_was() -> None:
    plain = CategoryFeature(name="c", values=("a",))
    assert msgspec.json.encode(plain) == b'{"kind":"category","name":"c","values":["a"],"value_type":"string","other":[]}'
    number = NumberFeature(name="x", edges=(1.0,), reported=(1.0,), minimum=0.0, maximum=1.0, centre=0.0, exponent=-30)
    assert set(json.loads(encode_json(number))) == {
        "kind", "name", "edges", "reported", "minimum", "maximum", "centre", "exponent"
    }  # fmt: skip
    views = layout_of([v for kind in ("text", "identifier") for v in views_of(kind, kind)])  # type: ignore[arg-type]
    again = msgspec.json.decode(encode_json(views.features), type=tuple[Feature, ...])
    assert layout_of(again).sha256 == views.sha256
    assert names(again) == names(views.features)
