"""A learnt reference: exact counts on its own layout, the layout of a file where values are few, and the decisions of a built one."""

from __future__ import annotations

import csv
import math
import random
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitor.cells import FeatureOptions
from monitor.chance.bounds import most_missing
from monitor.columns import ColumnBatch, NoValue, specials_of
from monitor.distances.psi import psi
from monitor.features import AskedKind, CategoryFeature, NumberFeature, kind_of
from monitor.files import ColumnOptions
from monitor.findings import ClosedWindow, compare
from monitor.formats.native import NativeFormat
from monitor.learning.discovery import Discovery
from monitor.learning.references import Learnt, learn
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference, References
from monitor.reference_build import build_reference
from monitor.sides import Sides
from monitor.sketches.bounded import key_hash
from monitor.windows import Window

LEARNT = Learnt(24, 0, 24 * 3_600_000)
NOW = Window(3_600_000, 3_600_000, 3_600_000)


def learnt(rows: list[dict[str, object]], **choices: FeatureOptions) -> Reference:
    found = Discovery()
    found.update(rows)
    reference = learn(found, "m", "1", LEARNT, choices)
    assert reference is not None
    return reference


def discovered(rows: list[dict[str, object]]) -> Discovery:
    found = Discovery()
    found.update(rows)
    return found


def of_column(values: np.ndarray | list[object], choice: FeatureOptions | None = None) -> Reference:
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    return learnt([{"x": value} for value in plain], **({"x": choice} if choice else {}))


def built(folder: Path, **columns: object) -> Reference:
    path = folder / "rows.parquet"
    pq.write_table(pa.table(columns), path)
    return build_reference(path, "m", "1", ColumnOptions())


def feature(reference: Reference, name: str = "x") -> NumberFeature | CategoryFeature:
    return reference.layout.features[reference.layout.index[name]]


def counted_on(reference: Reference, numbers: np.ndarray) -> Profile:
    """The same rows through the ordinary path: an independent count on the learnt layout."""
    profile = Profile(reference.layout)
    profile.update(ColumnBatch(len(numbers), numbers[None, :], specials_of(numbers[None, :]), []))
    return profile


DICE = np.random.default_rng(11)
CONTINUOUS = {
    "normal": DICE.normal(0, 1, 6_000),
    "far from zero": DICE.normal(2_013.0, 3.0, 6_000),
    "lognormal": DICE.lognormal(3, 1.5, 6_000),
    "heavy": DICE.standard_t(2, 6_000),
    "zeros": np.where(DICE.random(6_000) < 0.4, 0.0, DICE.exponential(5, 6_000)),
    "below zero": -DICE.lognormal(0, 1, 6_000),
    "wide integers": DICE.integers(-40_000, 40_000, 6_000).astype(float),
    "tiny and huge": np.ldexp(DICE.random(6_000) + 1, DICE.integers(-1_000, 1_000, 6_000)),
}
FEW = {
    "atoms": DICE.choice([0.1, 0.25, 7.5, -3.0, 12.125], 6_000, p=[0.5, 0.3, 0.1, 0.09, 0.01]),
    "prices": np.round(DICE.uniform(1, 3, 6_000), 2),
    "counts": DICE.poisson(60, 6_000).astype(float),
    "long-tailed counts": np.floor(DICE.lognormal(4, 0.7, 6_000)),
    "constant": np.full(6_000, 4.75),
    "signs": DICE.integers(-100, 100, 6_000).astype(float),
}


class TestNumbers:
    @pytest.mark.parametrize("name", [*CONTINUOUS, *FEW])
    def test_counts_are_those_of_the_rows_on_the_learnt_layout(self, name: str) -> None:
        values = (CONTINUOUS | FEW)[name]
        reference = of_column(values)
        expected = counted_on(reference, values)
        assert reference.profile.counts.tolist() == expected.counts.tolist()
        found, wanted = reference.profile.summary("x"), expected.summary("x")
        assert (found.minimum, found.maximum, found.n) == (values.min(), values.max(), 6_000)
        assert wanted.std is not None
        assert found.mean == pytest.approx(wanted.mean, rel=1e-9, abs=1e-9 * wanted.std)
        assert found.std == pytest.approx(wanted.std, rel=1e-9)

    @pytest.mark.parametrize("name", FEW)
    def test_few_values_get_the_layout_of_a_file(self, name: str, tmp_path: Path) -> None:
        found, wanted = feature(of_column(FEW[name])), feature(built(tmp_path, x=FEW[name]))
        assert isinstance(found, NumberFeature) and isinstance(wanted, NumberFeature)
        assert found.reported == wanted.reported
        assert (found.minimum, found.maximum) == (wanted.minimum, wanted.maximum)
        inside = [edge for edge in found.edges if found.minimum <= edge <= found.maximum]
        assert inside == [edge for edge in wanted.edges if wanted.minimum <= edge <= wanted.maximum]
        assert found.edges == pytest.approx(wanted.edges, rel=1e-3)

    @pytest.mark.parametrize("name", CONTINUOUS)
    def test_a_decile_is_off_by_no_more_than_half_the_rows_of_a_cell(self, name: str) -> None:
        values = CONTINUOUS[name]
        found = Discovery()
        found.update([{"x": value} for value in values.tolist()])
        heaviest = max(n for n in found.features["x"].numbers.cells.cells()[1] if n < 0.3 * len(values))  # less the zeros
        reported = np.array(feature(of_column(values)).reported)  # type: ignore[union-attr]
        for i in range(1, 10):
            nearest = np.abs((values[:, None] <= reported).sum(axis=0) - i * len(values) / 10).min()
            is_zero = name == "zeros" and i < 4
            assert is_zero or nearest <= heaviest / 2

    @pytest.mark.parametrize("name", ["normal", "far from zero", "lognormal", "heavy", "below zero", "wide integers"])
    def test_a_decile_lies_within_a_cell_of_the_true_one(self, name: str) -> None:
        values = CONTINUOUS[name]
        reference = of_column(values)
        (width,) = [float(w.split(" are ")[1].split()[0]) for w in reference.record.warnings]
        true = np.quantile(values, np.arange(1, 10) / 10, method="inverted_cdf")
        found = np.array(feature(reference).reported)  # type: ignore[union-attr]
        assert (np.abs(found - true) <= 1.1 * width * np.maximum(np.abs(found), np.abs(true))).all()
        assert width <= 1 / 16

    def test_out_of_range_is_exact(self) -> None:
        values = CONTINUOUS["lognormal"]
        reference = of_column(values)
        outside = np.array([values.min(), values.max(), math.nextafter(values.max(), math.inf), values.min() / 2, 1e9])
        closed = ClosedWindow("m", "1", NOW, counted_on(reference, outside), reference, 0, 0, 0, {})
        compared = compare(closed)["x"]
        assert (compared.below_min, compared.above_max) == (1, 2)

    def test_whole_numbers_that_are_few_are_codes(self) -> None:
        found = feature(of_column(np.arange(6_000) % 7))
        assert isinstance(found, CategoryFeature)
        assert (found.value_type, set(found.values)) == ("number", {"0", "1", "2", "3", "4", "5", "6"})
        assert isinstance(feature(of_column(np.arange(6_000) % 7, FeatureOptions("number"))), NumberFeature)
        assert isinstance(feature(of_column(np.arange(6_000) % 7 + 0.5)), NumberFeature)
        assert isinstance(feature(of_column(np.arange(60) % 7)), NumberFeature)
        assert isinstance(feature(of_column(np.arange(6_000) % 300, FeatureOptions("category"))), CategoryFeature)

    def test_scores_and_latencies_are_never_codes(self) -> None:
        reference = learnt([{"@score": i % 2, "@latency_ms": i % 3, "@prediction": i % 2} for i in range(1_000)])
        kinds = {f.name: type(f) for f in reference.layout.features}
        assert kinds == {"@score": NumberFeature, "@latency_ms": NumberFeature, "@prediction": CategoryFeature}


class TestCategories:
    def test_the_dictionary_is_by_frequency_and_the_rest_is_known_by_hash(self) -> None:
        rows = ["a"] * 50 + ["b"] * 70 + ["c"] * 5 + ["d"] * 5
        reference = of_column(list(rows), FeatureOptions(max_categories=3))
        found = feature(reference)
        assert isinstance(found, CategoryFeature)
        assert found.values == ("b", "a", "c")
        assert reference.profile.summary("x").values.tolist() == [70, 50, 5, 5]
        profile = Profile(reference.layout)
        batch = ColumnBatch(3, np.zeros((0, 3)), None, [["d", "a", "new"]])
        profile.update(batch)
        assert (profile.summary("x").values.tolist(), profile.summary("x").never_seen) == ([0, 1, 0, 1], 1)

    def test_it_is_the_one_of_a_file(self, tmp_path: Path) -> None:
        rows = DICE.choice(["paid", "late", "default", "x" * 80], 3_000, p=[0.6, 0.3, 0.09, 0.01]).tolist()
        wanted = built(tmp_path, x=rows)
        found = of_column(list(rows))
        assert feature(found).values == feature(wanted).values[:3]  # type: ignore[union-attr]
        assert found.profile.summary("x").values.tolist() == wanted.profile.summary("x").values.tolist()[:4]

    def test_booleans_are_a_category(self) -> None:
        found = of_column([True] * 30 + [False] * 10)
        assert feature(found) == CategoryFeature(
            name="x", values=("true", "false"), value_type="boolean", max_missing_ratio=most_missing(0, 40)
        )
        assert found.profile.summary("x").values.tolist() == [30, 10, 0]

    @pytest.mark.parametrize("rule", [{"keep_texts": False}, {"hashed": frozenset({"x"})}])
    def test_where_no_text_may_be_kept_the_dictionary_is_hashed(self, rule: dict[str, Any]) -> None:
        found = Discovery()
        found.update([{"x": "a"}, {"x": "b"}, {"x": "a"}], **rule)
        reference = learn(found, "m", "1", LEARNT)
        assert reference is not None
        assert b'"a"' not in reference.to_bytes()
        profile = Profile(reference.layout)
        profile.update(ColumnBatch(2, np.zeros((0, 2)), None, [["a", "c"]]))
        assert feature(reference).values == (f"{key_hash('a'):016x}", f"{key_hash('b'):016x}")  # type: ignore[union-attr]
        assert reference.profile.summary("x").values.tolist() == [2, 1, 0]
        assert (profile.summary("x").values.tolist(), profile.summary("x").never_seen) == ([1, 0, 0], 1)

    def test_numbers_of_a_hashed_category_are_hashed_too(self) -> None:
        found = feature(of_column([7] * 30 + [8] * 20, FeatureOptions("category", pii="hash")))
        assert found.values == (f"{key_hash('7'):016x}", f"{key_hash('8'):016x}")  # type: ignore[union-attr]
        assert learn(discovered([{"x": 1.5}] * 9), "m", "1", LEARNT, {"x": FeatureOptions(pii="hash")}) is None


def mixed_rows() -> list[dict[str, object]]:
    """Rows of every kind, with values that are missing, absent or of a wrong type in between."""
    dice = random.Random(5)
    rows: list[dict[str, object]] = []
    for i in range(3_000):
        row: dict[str, object] = {
            "id": f"user-{i}",
            "text": " ".join(dice.choice(["late", "again", "größe", "東京"]) for _ in range(dice.randrange(3, 30))) + f" {i}",
            "list": [1] * dice.randrange(6),
            "at": f"2025-01-{i % 28 + 1:02d}T0{i % 10}:00:00Z",
            "city": f"c{dice.randrange(300)}",
            "n": dice.randrange(500),
            "x": dice.gauss(0, 1),
            "ok": dice.random() < 0.9,
        }
        for name in dice.sample(list(row), 2):
            odd: object = dice.choice([None, {"a": 1}, 1.5, "n/a", [1, 2], True, "gone"])
            if odd == "gone":
                del row[name]
            else:
                row[name] = odd
        rows.append(row)
    return rows


class TestKinds:
    def test_every_kind_is_counted_as_a_window_of_the_same_events_is(self) -> None:
        rows = mixed_rows()
        reference = learnt(rows)
        kinds = {(f.name, kind_of(f)) for f in reference.layout.features}
        assert kinds == {
            ("id", "identifier"), ("id#length", "identifier"), ("text#length", "text"), ("list#length", "list"), ("city", "identifier"),
            ("city#length", "identifier"), ("n", "real"), ("x", "real"), ("ok", "boolean"), ("at", "category"),
        }  # fmt: skip
        wire = NativeFormat()
        records = [
            StoredRecord(i, 0, msgspec.json.encode({"model": "m", "time": 5, "features": row})) for i, row in enumerate(rows)
        ]
        profile = Profile(reference.layout)
        profile.update(wire.columns(reference.layout, wire.decode(records).payloads, np.arange(len(rows))))
        assert reference.profile.counts.tolist() == profile.counts.tolist()
        assert reference.profile.minimum.tolist() == profile.minimum.tolist()
        assert reference.profile.maximum.tolist() == profile.maximum.tolist()
        for feature in ("text#length", "list#length", "id#length"):
            found, wanted = reference.profile.summary(feature), profile.summary(feature)
            assert (found.mean, found.std) == (pytest.approx(wanted.mean, rel=1e-9), pytest.approx(wanted.std, rel=1e-9))

    def test_a_text_has_a_length_and_an_identifier_whether_it_is_there(self) -> None:
        rows: list[dict[str, object]] = [{"id": f"u{i}", "t": f"it was number {i}", "x": i % 5} for i in range(3_000)]
        reference = learnt([*rows, {"id": 7}, {"t": None}])
        text, number = reference.profile.summary("t#length"), reference.profile.summary("id")
        lengths = [len(str(row["t"])) for row in rows]
        assert (text.n, text.missing, text.minimum, text.maximum) == (3_000, 2, min(lengths), max(lengths))
        assert text.mean == pytest.approx(np.mean(lengths), rel=1e-9)
        assert (number.values.tolist(), number.missing, number.wrong_type, number.distinct) == ([3_000], 1, 1, None)
        assert feature(reference, "id").is_open  # type: ignore[union-attr]
        assert feature(reference, "id#length").is_secondary
        assert [w.split(" (")[0] for w in reference.record.warnings] == ["feature id: an identifier", "feature t: a text"]

    def test_a_list_has_its_number_of_elements(self) -> None:
        reference = of_column([[1] * (i % 4) for i in range(400)] + ["a"])
        summary = reference.profile.summary("x#length")
        assert (summary.n, summary.wrong_type, summary.maximum, summary.mean) == (400, 1, 3.0, 1.5)

    def test_timestamps_are_left_out_and_named(self) -> None:
        rows: list[dict[str, object]] = [{"at": f"2025-01-31T10:00:{i % 60:02d}Z", "x": i % 5} for i in range(3_000)]
        reference = learnt(rows)
        assert reference.record.left_out == ["at"]
        (warning,) = reference.record.warnings
        assert warning.startswith("feature at: a timestamp is counted by its age") and warning.endswith("left out")

    def test_whole_numbers_are_integers_unless_asked_otherwise(self) -> None:
        whole = DICE.integers(0, 400, 3_000)
        kinds = [kind_of(feature(of_column(whole, FeatureOptions(kind)))) for kind in (None, "number", "integer", "real")]
        assert kinds == ["integer", "integer", "integer", "real"]
        halves = of_column(whole / 2, FeatureOptions("integer"))
        assert kind_of(feature(halves)) == "real"
        assert "feature x: not all values are whole, although it is configured as an integer" in halves.record.warnings

    @pytest.mark.parametrize(
        ("value", "kind", "found"),
        [(1.5, "text", "number"), ("a", "number", "string"), (True, "identifier", "boolean"), ([1], "category", "list")],
    )
    def test_a_kind_that_the_values_are_not_of_is_left_out(self, value: object, kind: AskedKind, found: str) -> None:
        reference = learnt([{"x": value, "y": 1}] * 20, x=FeatureOptions(kind))
        assert reference.record.left_out == ["x"]
        assert f"feature x: {found} values, which are not of `kind: {kind}`, left out" in reference.record.warnings

    def test_a_category_of_too_many_values_is_left_out(self) -> None:
        rows: list[dict[str, object]] = [{"x": f"v{i % 900}", "y": 1} for i in range(9_000)]
        assert learnt(rows, x=FeatureOptions("category")).record.left_out == ["x"]

    def test_the_range_and_what_may_be_missing_are_as_configured(self) -> None:
        reference = of_column([2.5, 3.5, None] * 40, FeatureOptions(minimum=0, maximum=3, max_missing_ratio=0.5))
        found = feature(reference)
        assert isinstance(found, NumberFeature)
        assert (found.minimum, found.maximum, found.max_missing_ratio) == (0, 3.5, 0.5)
        assert feature(of_column([2.5, 3.5, None] * 40)).max_missing_ratio == most_missing(40, 120)


class TestRows:
    def test_missing_absent_and_wrong_typed_rows_have_their_own_counts(self) -> None:
        rows: list[dict[str, object]] = [{"x": 1.5}] * 60 + [{"x": None}] * 5 + [{}] * 7 + [{"x": "n/a"}] * 3 + [{"x": [1]}] * 2
        summary = learnt([*rows, {"x": 10**400}, {"x": NoValue.WRONG_TYPE}]).profile.summary("x")
        assert (summary.n, summary.missing, summary.absent, summary.wrong_type) == (60, 12, 7, 7)

    def test_most_rows_decide_the_type(self) -> None:
        assert isinstance(feature(of_column(["a"] * 6 + [1.5] * 5 + [True] * 4)), CategoryFeature)
        assert isinstance(feature(of_column(["a"] * 4 + [1.5] * 5 + [True] * 4)), NumberFeature)

    def test_the_record_says_what_it_was_learnt_from(self) -> None:
        record = of_column(CONTINUOUS["normal"]).record
        assert (record.provisional, record.windows, record.rows) == (True, 24, 6_000)
        assert record.time_range_ms == (0, 24 * 3_600_000 - 1)
        again = Reference.from_bytes(of_column(CONTINUOUS["normal"]).to_bytes())
        assert again.record == record

    def test_without_rows_or_features_nothing_is_learnt(self) -> None:
        assert learn(Discovery(), "m", "1", LEARNT) is None
        nothing = Discovery()
        nothing.update([{"x": None}, {}])
        assert learn(nothing, "m", "1", LEARNT) is None


class TestWhichApplies:
    def test_a_learnt_one_applies_only_where_there_is_no_other(self) -> None:
        own = of_column(FEW["atoms"])
        own = Reference.build("m", "1", own.profile)
        late, early = own.effective_from(500), own.effective_from(100)
        mine = of_column(CONTINUOUS["normal"]).effective_from(300)
        known = References()
        for reference in (mine, late):
            known.add(reference)
        assert [known.at("m", "1", t) for t in (299, 300, 499, 500)] == [None, mine, mine, late]
        known.add(early)
        assert [known.at("m", "1", t) for t in (99, 300, 499, 500)] == [None, early, early, late]

    def test_at_the_same_time_they_do_not_replace_each_other(self) -> None:
        mine = of_column(CONTINUOUS["normal"]).effective_from(300)
        own = Reference.build("m", "1", mine.profile).effective_from(300)
        assert mine.key != own.key
        known = References()
        for reference in (own, mine):
            known.add(reference)
        assert known.at("m", "1", 300) is own


def breast_cancer() -> dict[str, np.ndarray]:
    """569 rows × 30 measurements that scikit-learn ships."""
    text = files("sklearn.datasets.data").joinpath("breast_cancer.csv").read_text()
    table = np.array([row[:30] for row in list(csv.reader(text.splitlines()))[1:]], np.float64)
    return {f"f{i:02d}": table[:, i] for i in range(30)}


def test_on_real_measurements_it_decides_as_a_built_reference_does(tmp_path: Path) -> None:
    """30 features × 40 windows of 400 rows, a fifth of them untouched, the others moved by up to one standard deviation."""
    dice = np.random.default_rng(1)
    data = breast_cancer()
    picked = dice.integers(0, 569, 6_000)
    train = {name: values[picked] for name, values in data.items()}
    names = list(train)
    from_file = built(tmp_path, **train)
    rows: list[dict[str, object]] = [dict(zip(names, row, strict=True)) for row in np.column_stack(list(train.values())).tolist()]
    from_stream = learnt(rows)
    assert [f.name for f in from_stream.layout.features] == names
    differences, decisions = [], []
    for step in range(40):
        picked = dice.integers(0, 569, 400)
        moved = max(0, step - 8) / 31
        window = np.array([data[name][picked] + moved * data[name].std() for name in names])
        scores = []
        for reference in (from_file, from_stream):
            profile = Profile(reference.layout)
            profile.update(ColumnBatch(400, window, None, []))
            compared = compare(ClosedWindow("m", "1", NOW, profile, reference, 0, 0, 0, {}))
            scores.append([float(psi(Sides(*compared[name].cells))) for name in names])
        one, two = np.array(scores)
        differences += np.abs(one - two)[np.maximum(one, two) < 0.5].tolist()
        decisions += [(a > 0.2) == (b > 0.2) for a, b in zip(one, two, strict=True) if abs(a - 0.2) > 0.03]
    assert len(decisions) > 1_000
    assert all(decisions)
    assert max(differences) < 0.06
    assert float(np.mean(differences)) < 0.005
