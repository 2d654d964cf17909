"""Every kind and every output from a file to a result: CSV, Parquet, rows and events of NDJSON say the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.bootstrap import build_pipeline
from monitor.config.settings import Config
from monitor.errors import InputError
from monitor.files import ColumnOptions, EventFile, open_table
from monitor.files.rows import MAX_CLASSES
from monitor.formats.native import NativeFormat
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.reference_build import FeatureOptions, build_reference
from monitor.replay import Replay, ReplayOutcome

START = 1_735_689_600_000
HOUR = 3_600_000
TABLE = ColumnOptions(
    time="time", prediction="answer", latency="took", class_scores=(("yes", "p_yes"), ("no", "p_no")), exclude=("note",)
)
OUTPUTS = {"answer": "prediction", "took": "latency_ms"}
FORMS = ["csv", "parquet", "ndjson", "native"]
Row = dict[str, Any]


@lru_cache
def rows(n: int = 1_500, seed: int = 1) -> list[Row]:
    start = START
    dice = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(500)]
    made: list[Row] = []
    for i in range(n):
        yes = float(dice.random())
        moment = datetime.fromtimestamp((start + i * 1_000 - int(dice.integers(0, 10**8))) / 1_000, UTC)
        made.append(
            {
                "time": start + i * 1_000,
                "visits": int(dice.integers(0, 200)),
                "income": None if dice.random() < 0.05 else float(dice.lognormal(10, 1)),
                "is_new": bool(dice.random() < 0.3),
                "country": str(dice.choice(["DE", "FR", "US"])),
                "user": f"u{seed}-{dice.integers(0, 10**9)}",
                "comment": " ".join(words[j] for j in dice.integers(0, 500, dice.integers(2, 12)))
                + f" {dice.integers(0, 10**6)}",
                "opened": moment,
                "tags": None if dice.random() < 0.01 else dice.choice(["a", "b"], dice.integers(0, 6)).tolist(),
                "note": "x",
                "answer": "yes" if yes > 0.5 else "no",
                "p_yes": yes,
                "p_no": 1 - yes,
                "took": float(dice.lognormal(2, 0.5)),
            }
        )
    return made


def event(row: Row) -> Row:
    """A row as a producer would send it."""
    taken = {"time", "note", "p_yes", "p_no", *OUTPUTS}
    features = {name: value for name, value in row.items() if name not in taken}
    return {
        "model": "m",
        "version": "1",
        "time": row["time"],
        "features": features,
        "scores": {"yes": row["p_yes"], "no": row["p_no"]},
    } | {output: row[name] for name, output in OUTPUTS.items()}


def write(path: Path, form: str, table: list[Row]) -> tuple[Path, ColumnOptions]:
    path = path / ("events.ndjson" if form == "native" else f"rows.{form}")
    if form == "parquet":
        pa.parquet.write_table(pa.Table.from_pylist(table), path)
    elif form == "csv":
        pa.csv.write_csv(
            pa.Table.from_pylist([row | {"opened": row["opened"].isoformat()} for row in table]).drop(["tags"]), path
        )
    else:
        path.write_bytes(b"".join(orjson.dumps(event(row) if form == "native" else row) + b"\n" for row in table))
    return path, ColumnOptions() if form == "native" else TABLE


def replay(path: Path, options: ColumnOptions, reference: Reference) -> ReplayOutcome:
    config = Config.model_validate({"models": {"m": {"windows": [{"size": "1h"}]}}})
    pipeline = build_pipeline(config, [reference])
    file = EventFile(path, options, "m", "1", reference.layout)
    wire = pipeline.formats["predictions"] if file.is_native else NativeFormat()
    engine = Replay(pipeline.settings, "predictions", wire=wire, judge=pipeline.judge, references=[reference], future_guard=False)
    return engine.run(file, end_of_input=True)


def result_of(outcome: ReplayOutcome) -> Row:
    (record,) = outcome.results
    found: Row = json.loads(record[1])
    return found


@pytest.mark.parametrize("form", FORMS)
def test_a_window_of_the_references_own_rows_is_quiet_and_has_its_numbers(tmp_path: Path, form: str) -> None:
    path, options = write(tmp_path, form, rows())
    reference = build_reference(path, "m", "1", options)
    outcome = replay(path, options, reference)
    assert outcome.counted == 1_500
    result = result_of(outcome)
    assert result["findings"] == []
    assert result["unexpected"] == {}
    for name, feature in result["features"].items():
        summary = reference.profile.summary(name)
        assert (feature["n"], feature["missing"], feature["mean"], feature["min"], feature["max"]) == (
            summary.n, summary.missing, summary.mean, summary.minimum, summary.maximum,
        )  # fmt: skip
        assert feature["distances"]["psi"] == 0
    kinds = {feature["feature"]: feature["feature_kind"] for feature in result["features"].values()}
    expected = {
        "visits": "integer", "income": "real", "is_new": "boolean", "country": "category", "user": "identifier",
        "comment": "text", "opened": "timestamp", "tags": "list", "@prediction": "category", "@latency_ms": "real",
        "@confidence": "real", "@score[yes]": "real", "@score[no]": "real",
    }  # fmt: skip
    if form == "csv":
        del expected["tags"]
    assert kinds == expected
    assert {f["view"] for f in result["features"].values() if f["feature"] == "comment"} == {"length", "alphabet", "unseen_ratio"}


def test_every_form_but_csv_gives_the_same_reference_and_result(tmp_path: Path) -> None:
    found = set()
    for form in FORMS[1:]:
        path, options = write(tmp_path, form, rows())
        reference = build_reference(path, "m", "1", options)
        found.add((reference.sha256, replay(path, options, reference).results[0][1]))
    assert len(found) == 1


CHANGES: dict[str, tuple[Callable[[Row], Any], tuple[str, str, str | None]]] = {
    "visits": (lambda row: row["visits"] + 0.5, ("health.never_seen", "visits", None)),
    "comment": (lambda row: row["comment"] + " filler" * 20, ("drift.distribution", "comment", "length")),
    "user": (lambda _: "x" * 40, ("health.out_of_range", "user", "length")),
    "opened": (
        lambda row: datetime.fromtimestamp(row["opened"].timestamp() - 10**7, UTC),
        ("drift.distribution", "opened", "age_s"),
    ),
    "tags": (lambda _: [], ("drift.distribution", "tags", "length")),
    "took": (lambda row: row["took"] * 10, ("drift.distribution", "@latency_ms", None)),
    "p_yes": (lambda row: row["p_yes"] / 4, ("drift.distribution", "@score[yes]", None)),
}


@pytest.mark.parametrize(
    ("form", "name"), [(form, name) for form in FORMS for name in CHANGES if (form, name) != ("csv", "tags")]
)
def test_a_change_of_a_value_is_found_where_it_is(tmp_path: Path, form: str, name: str) -> None:
    change, expected = CHANGES[name]
    path, options = write(tmp_path, form, rows())
    reference = build_reference(path, "m", "1", options)
    changed = [row | {name: change(row)} for row in rows(seed=2)]
    result = result_of(replay(*write(tmp_path, form, changed), reference))
    assert expected in [(f["check"], f["feature"], f["view"]) for f in result["findings"]]
    others = {f["feature"] for f in result["findings"]} - {expected[1], "@confidence"}
    assert others == set()


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("<div>{}</div>", "alphabet"),
        ("新しい{}", "alphabet"),
        ("aa{0}bb aa{0}cc aa{0}dd aa{0}ee", "unseen_ratio"),
    ],
)
def test_texts_of_another_sort_are_found(tmp_path: Path, text: str, view: str) -> None:
    path, options = write(tmp_path, "native", rows())
    reference = build_reference(path, "m", "1", options)
    changed = [row | {"comment": text.format(i)} for i, row in enumerate(rows(seed=2))]
    result = result_of(replay(*write(tmp_path, "native", changed), reference))
    assert view in {f["view"] for f in result["findings"] if f["feature"] == "comment"}


@pytest.mark.parametrize("name", ["user", "comment", "opened", "tags"])
@pytest.mark.parametrize(
    ("value", "check"), [(None, "health.missing"), (7, "schema.wrong_type"), ("absent", "schema.missing_feature")]
)
def test_a_bad_source_is_told_once_and_counted_by_every_view(tmp_path: Path, name: str, value: object, check: str) -> None:
    path, options = write(tmp_path, "native", rows())
    reference = build_reference(path, "m", "1", options)
    events = [event(row) for row in rows(seed=2)]
    for one in events:
        if value == "absent":
            del one["features"][name]
        else:
            one["features"][name] = value
    path.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in events))
    outcome = replay(path, options, reference)
    assert outcome.counted == 1_500
    result = result_of(outcome)
    assert [f["feature"] for f in result["findings"] if f["check"] == check] == [name]
    field = {"health.missing": "missing", "schema.wrong_type": "wrong_type", "schema.missing_feature": "absent"}[check]
    views = [f for f in result["features"].values() if f["feature"] == name]
    assert {f[field] for f in views} == {1_500}
    alerts = [json.loads(value)["data"] for _, value in outcome.alerts]
    assert (check, name) in [(alert["check"], alert["feature"]) for alert in alerts]


# Outputs.


def same_counts(path: Path, options: ColumnOptions, made: Reference) -> Profile:
    """Assert that the file's rows, read as events, count as they do in its reference; return that count."""
    layout = made.layout
    form, profile = NativeFormat(), Profile(layout)
    records = [record for _, record in EventFile(path, options, "m", "1", layout)]
    for part in (records[:7], records[7:]):
        batch = form.decode(part)
        assert not batch.rejections
        profile.update(form.columns(layout, batch.payloads, batch.offsets))
    assert profile.counts.tolist() == made.profile.counts.tolist()
    assert profile.sums.tolist() == made.profile.sums.tolist()
    assert profile.minimum.tolist() == made.profile.minimum.tolist()
    assert profile.maximum.tolist() == made.profile.maximum.tolist()
    assert [one.to_wire() for one in profile.outside] == [one.to_wire() for one in made.profile.outside]
    return profile


SCORES: list[object] = [
    {"a": 0.25, "b": 0.75}, {"a": 1, "b": 0}, {"a": None, "b": 0.5}, {"b": 0.5, "c": 0.9}, {}, None, "no object", {"a": "x"},
    {"a": True, "b": None}, [0.5], 0.5, {"a": 0.1, "b": 0.2, "c": 0.3},
] * 2  # fmt: skip


def test_scores_by_class_of_events_count_the_same_through_the_reference_and_through_the_wire(tmp_path: Path) -> None:
    events: list[Row] = [{"model": "m", "time": START, "features": {"x": i / 2}, "scores": s} for i, s in enumerate(SCORES)]
    events += [
        {"model": "m", "time": START, "features": {"x": 0.5}} | score
        for score in ({}, {"score": 0.4}, {"score": 0.3}, {"score": "high"})
    ]
    (tmp_path / "e.ndjson").write_text("".join(json.dumps(one) + "\n" for one in events))
    made = build_reference(tmp_path / "e.ndjson", "m", "1", ColumnOptions())
    assert [f.name for f in made.layout.features if f.name != "x"] == [
        "@confidence", "@score", "@score[a]", "@score[b]", "@score[c]",
    ]  # fmt: skip
    profile = same_counts(tmp_path / "e.ndjson", ColumnOptions(), made)
    a, confidence = profile.summary("@score[a]"), profile.summary("@confidence")
    assert (a.n, a.missing - a.absent, a.absent, a.wrong_type) == (6, 4, 8, 10)
    assert (confidence.n, confidence.maximum) == (12, 1.0)
    assert (confidence.missing - confidence.absent, confidence.absent, confidence.wrong_type) == (2, 3, 11)


def test_without_scores_by_class_there_is_no_confidence_beside_the_score(tmp_path: Path) -> None:
    events = [{"model": "m", "time": START, "features": {"x": i / 2}, "score": 0.5 + i / 100} for i in range(10)]
    (tmp_path / "e.ndjson").write_text("".join(json.dumps(one) + "\n" for one in events))
    made = build_reference(tmp_path / "e.ndjson", "m", "1", ColumnOptions())
    assert list(made.layout.index) == ["@score", "x"]


def test_of_many_classes_those_of_the_most_rows_are_watched_and_all_count_for_the_confidence(tmp_path: Path) -> None:
    events = [
        {"model": "m", "time": START, "features": {"x": 0.5}, "scores": {f"c{j:02}": 0.01 * j for j in range(40) if j >= i}}
        for i in range(40)
    ]
    (tmp_path / "e.ndjson").write_text("".join(json.dumps(one) + "\n" for one in events))
    made = build_reference(tmp_path / "e.ndjson", "m", "1", ColumnOptions())
    watched = [name for name in made.layout.index if name.startswith("@score[")]
    assert watched == [f"@score[c{j:02}]" for j in range(40 - MAX_CLASSES, 40)]
    assert made.profile.summary("@confidence").minimum == 0.39
    assert made.record.warnings == ["scores: of 40 classes 32 are watched, those that most rows have"]


def test_scores_of_columns_with_odd_values_count_the_same_through_the_wire(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time,x,a,b\n" + "1,0.5,0.25,0.5\n2,0.5,,0.5\n3,0.5,,\n4,0.5,0.75,\n")
    options = ColumnOptions(time="time", class_scores=(("a", "a"), ("b", "b")))
    made = build_reference(tmp_path / "t.csv", "m", "1", options)
    same_counts(tmp_path / "t.csv", options, made)
    assert (made.profile.summary("@confidence").n, made.profile.summary("@confidence").missing) == (3, 1)
    lines = [
        {"time": 1, "x": 0.5, "a": 0.25},
        {"time": 2, "x": 1.5, "a": "high", "b": None},
        {"time": 3, "x": 2.5, "b": 0.5, "a": 1},
    ]
    (tmp_path / "t.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = build_reference(tmp_path / "t.ndjson", "m", "1", options)
    same_counts(tmp_path / "t.ndjson", options, made)
    assert made.profile.summary("@confidence").wrong_type == 1


def test_an_output_that_is_excluded_or_of_texts_is_no_feature(tmp_path: Path) -> None:
    event = {"model": "m", "time": 1, "features": {"x": 0.5}, "score": 0.5, "latency_ms": 3.5, "scores": {"a": 0.5}}
    (tmp_path / "e.ndjson").write_text(json.dumps(event) + "\n")
    opened = open_table(tmp_path / "e.ndjson", ColumnOptions(exclude=("latency_ms", "scores")))
    assert list(opened.features) == ["x", "@score"]
    (tmp_path / "t.csv").write_text("time,p,q\n1,high,0.5\n")
    with pytest.raises(InputError, match="column 'p' holds string values; it must hold numbers to be a score"):
        build_reference(tmp_path / "t.csv", "m", "1", ColumnOptions(time="time", class_scores=(("a", "p"),)))
    with pytest.raises(InputError, match="must hold numbers to be the latency"):
        build_reference(tmp_path / "t.csv", "m", "1", ColumnOptions(time="time", latency="p"))
    with pytest.raises(InputError, match=r"no column 'r' \(--class-score\)\n--class-score names class 'a' twice"):
        open_table(tmp_path / "t.csv", ColumnOptions(class_scores=(("a", "q"), ("a", "r"))))
    many = tuple((str(i), "q") for i in range(MAX_CLASSES + 1))
    with pytest.raises(InputError, match="--class-score names 33 classes; at most 32 are watched"):
        open_table(tmp_path / "t.csv", ColumnOptions(class_scores=many))


def test_a_prediction_may_be_a_text(tmp_path: Path) -> None:
    dice = np.random.default_rng(4)
    table = [{"time": START + i, "x": i / 2, "answer": " ".join(dice.choice(["a", "b", "c"], 9)) + f" {i}"} for i in range(400)]
    (tmp_path / "t.ndjson").write_text("".join(json.dumps(row) + "\n" for row in table))
    options = ColumnOptions(time="time", prediction="answer")
    made = build_reference(tmp_path / "t.ndjson", "m", "1", options)
    assert [name for name in made.layout.index if name != "x"] == [
        "@prediction#alphabet", "@prediction#length", "@prediction#unseen_ratio",
    ]  # fmt: skip
    same_counts(tmp_path / "t.ndjson", options, made)


# Any values.

CELLS = {
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    "key": st.text("abcé😀 <>&", max_size=5),
    "number": st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False, width=32),
    "list": st.lists(st.none() | st.integers() | st.text("ab", max_size=2), max_size=4),
    "moment": st.datetimes(datetime(1900, 1, 2), datetime(2100, 1, 1)).map(lambda m: m.isoformat()),  # noqa: DTZ001 - UTC is meant
}
KINDS = {"text": "text", "key": "identifier", "number": "number", "list": "list", "moment": "timestamp"}
row_values = st.fixed_dictionaries({name: st.none() | cell for name, cell in CELLS.items()})


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None)
@given(table=st.lists(row_values, min_size=1, max_size=12), form=st.sampled_from(["parquet", "ndjson", "native"]))
def test_rows_of_any_values_count_the_same_through_the_reference_and_through_the_wire(
    tmp_path: Path, table: list[Row], form: str
) -> None:
    table = [row | {"time": START + i, "one": 0.5} for i, row in enumerate(table)]
    path = tmp_path / ("t.parquet" if form == "parquet" else "t.ndjson")
    options = ColumnOptions(time="time")
    if form == "parquet":
        types = {
            "list": pa.list_(pa.string()),
            "text": pa.string(),
            "key": pa.string(),
            "moment": pa.string(),
            "number": pa.float64(),
        }
        arrays: dict[str, Any] = {name: [row[name] for row in table] for name in table[0]}
        arrays["list"] = [None if v is None else [None if e is None else str(e) for e in v] for v in arrays["list"]]
        pa.parquet.write_table(pa.table({n: pa.array(v, types.get(n)) for n, v in arrays.items()}), path)
    else:
        if form == "native":
            options = ColumnOptions()
            table = [{"model": "m", "time": row.pop("time"), "features": row} for row in table]
        path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in table))
    kinds: dict[str, FeatureOptions] = {n: FeatureOptions(kind=k) for n, k in KINDS.items()}  # type: ignore[arg-type]
    made = build_reference(path, "m", "1", options, kinds)
    same_counts(path, options, made)
