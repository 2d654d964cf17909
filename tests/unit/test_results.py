"""The wire form of a final window, against raw rows."""

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from monitor.checks import CHECKS, WHOLE_CHECKS
from monitor.distances import DISTANCES
from monitor.features import CategoryFeature
from monitor.findings import Measurement, gather
from monitor.layout import layout_of
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET, RuleSet
from monitor.reference import Reference
from monitor.results.measured import Measured, measurements_of
from monitor.results.windows import MAX_CELLS, Result
from monitor.rules import Rule
from monitor.sketches.bounded import key_hash
from tests.closed_windows import ABSENT, HOUR_MS, MISSING, WRONG_TYPE, closed, profile_of, reference_of

DICE = np.random.default_rng(3)
AGES = DICE.normal(40, 10, 3000)
REFERENCE = reference_of({"age": AGES.tolist(), "country": ["DE"] * 2000 + ["FR"] * 700 + ["other"] * 300})


def result(columns: Any, reference: Reference | None = REFERENCE, **changes: Any) -> dict[str, Any]:
    [(key, value)] = judge_window(closed(reference, columns, **changes), b"", DEFAULT_RULE_SET).results
    assert key == b"credit|7|all|0|3600000|3600000"
    record = msgspec.json.decode(value, type=Result)
    assert msgspec.json.encode(record, order="sorted") == value
    return dict(json.loads(value))


def test_it_names_window_reference_and_rules() -> None:
    record = result({"age": [40.0] * 5}, rows_other_layout=3, lost_offsets=2, revision=1)
    assert record["window"] == {"start_ms": 0, "end_ms": HOUR_MS, "size_ms": HOUR_MS, "step_ms": HOUR_MS}
    assert (record["model"], record["version"], record["segment"], record["revision"]) == ("credit", "7", "all", 1)
    assert (record["n"], record["rows_other_layout"], record["lost_offsets"]) == (5, 3, 2)
    assert (record["reference"], record["policy"]) == (REFERENCE.sha256, DEFAULT_RULE_SET.sha256)
    assert record["source_offsets"] == {"predictions": {"0": [0, 99]}}


def test_a_number_is_what_numpy_says_of_its_rows() -> None:
    ages = DICE.normal(45, 10, 500)
    column = [*ages.tolist(), MISSING, ABSENT, WRONG_TYPE]
    feature = result({"age": column})["features"]["age"]
    assert (feature["kind"], feature["n"], feature["n_ref"]) == ("number", 500, 3000)
    assert (feature["missing"], feature["absent"], feature["wrong_type"], feature["never_seen"]) == (2, 1, 1, 0)
    assert feature["missing_ratio"] == 2 / 503
    assert feature["mean"] == pytest.approx(ages.mean(), rel=1e-9)
    assert feature["std"] == pytest.approx(ages.std(), rel=1e-9)
    assert (feature["min"], feature["max"]) == (ages.min(), ages.max())
    assert feature["below_min"] == (ages < AGES.min()).sum()
    assert feature["above_max"] == (ages > AGES.max()).sum()
    edges = np.array(feature["cells"]["edges"])
    assert edges.tolist() == np.quantile(AGES, np.arange(1, 10) / 10, method="inverted_cdf").tolist()
    assert feature["cells"]["counts"] == np.bincount(np.searchsorted(edges, ages), minlength=10).tolist()
    assert set(feature["distances"]) == {distance.name for distance in DISTANCES}
    assert feature["chi2_dof"] == 9


def test_a_categorys_counts_are_of_its_values_and_a_value_called_other_is_none_of_the_others() -> None:
    column = ["DE"] * 5 + ["other"] * 4 + ["ES"] * 3 + ["PT"] * 2 + [MISSING]
    feature = result({"country": column})["features"]["country"]
    assert feature["cells"] == {"values": ["DE", "FR", "other"], "counts": [5, 0, 4], "other": 0, "never_seen": 5}
    assert (feature["kind"], feature["n"], feature["missing"], feature["never_seen"]) == ("category", 14, 1, 5)
    assert [feature[name] for name in ("mean", "std", "min", "max", "below_min", "above_max")] == [None] * 6


@pytest.mark.parametrize("max_categories", [200, 20])
def test_at_most_32_cells_are_reported_and_their_counts_add_up(max_categories: int) -> None:
    values = [f"v{i:03d}" for i in range(100)]
    reference = reference_of({"c": [value for i, value in enumerate(values) for _ in range(100 - i)]}, max_categories)
    column = values + ["new"] * 7
    cells = result({"c": column}, reference)["features"]["c"]["cells"]
    assert len(cells["values"]) + 2 == min(MAX_CELLS, max_categories + 2)
    assert sum(cells["counts"]) + cells["other"] + cells["never_seen"] == len(column)
    assert cells["never_seen"] == 7


def test_distances_are_of_all_cells_not_of_the_reported_ones() -> None:
    values = [f"v{i:03d}" for i in range(100)]
    reference = reference_of({"c": [value for value in values for _ in range(50)]})
    moved = [value for value in values[:90] for _ in range(5)] + [values[95]] * 50
    assert result({"c": moved}, reference)["features"]["c"]["distances"]["js"] > 0.2


def test_different_values_are_counted_and_new_ones_that_come_often_are_named_by_their_hash() -> None:
    column = ["DE"] * 5 + ["ES"] * 3 + ["PT"] * 2 + ["SE"] + [MISSING]
    feature = result({"country": column})["features"]["country"]
    assert feature["distinct"] == 4
    hashes = [f"{key_hash(name):016x}" for name in ("ES", "PT", "SE")]
    assert feature["heavy_hitters"] == [{"hash": h, "count": n, "error": 0} for h, n in zip(hashes, (3, 2, 1), strict=True)]
    number = result({"age": [40.0]})["features"]["age"]
    assert (number["distinct"], number["heavy_hitters"]) == (None, [])


def test_new_values_are_named_where_the_feature_may_and_only_the_ten_that_surely_came_most() -> None:
    feature = CategoryFeature(name="country", values=("DE",), keep_values=True)
    reference = Reference.build("credit", "7", profile_of(layout_of([feature]), {"country": ["DE"] * 100}))
    rare = [f"x{i}" for i in range(500)]
    column = [f"y{i}" for i in range(12) for _ in range(100 - i)] + rare
    DICE.shuffle(column)
    found = result({"country": column}, reference)["features"]["country"]["heavy_hitters"]
    assert len({one["value"] for one in found} & {f"y{i}" for i in range(12)}) == len(found) == 10
    for one in found:
        exact = column.count(one["value"])
        assert one["count"] <= exact <= one["count"] + one["error"]
        assert one["error"] <= len(column) / 65
        assert "hash" not in one


def test_only_breaches_are_findings_and_what_cannot_be_said_is_listed() -> None:
    record = result({"age": [MISSING] * 400, "country": ["DE", "FR"] * 200})
    assert [(f["check"], f["feature"]) for f in record["findings"]] == [
        ("health.missing", "age"),
        ("drift.distribution", "country"),
    ]
    assert record["insufficient"] == ["drift.distribution", "drift.tails", "health.out_of_range", "schema.unexpected_feature"]
    found = record["findings"][0]
    assert set(found) == {
        "check", "feature", "view", "segment", "verdict", "severity", "value", "direction", "threshold", "critical_value", "p_value", "n",
        "n_ref", "over", "incident_id", "evidence", "decision",
    }  # fmt: skip


def test_a_finding_names_its_incident_and_none_while_it_is_pending() -> None:
    columns = {"age": [MISSING] * 400, "country": ["DE", "FR"] * 200}
    rules = RuleSet({"health.missing": Rule(above=0.1), "drift.psi": Rule(above=0.1, windows=2)})
    judged = judge_window(closed(REFERENCE, columns), b"", rules)
    found = {f["check"]: f["incident_id"] for f in json.loads(judged.results[0][1])["findings"]}
    assert found == {"health.missing": json.loads(judged.alerts[0][1])["id"], "drift.psi": None}


def test_names_that_nobody_expects_are_listed_with_their_rows() -> None:
    record = result({"age": [40.0] * 5}, inspected=3, unexpected={"zip": 2})
    assert (record["inspected"], record["unexpected"]) == (3, {"zip": 2})


def test_an_empty_window_has_a_record_with_nulls() -> None:
    record = result({})
    assert record["n"] == 0
    feature = record["features"]["age"]
    assert [feature[name] for name in ("mean", "std", "min", "max", "missing_ratio")] == [None] * 5
    assert (feature["distances"], feature["chi2_dof"]) == ({}, None)
    assert [f["check"] for f in record["findings"]] == ["traffic.low"]
    assert record["findings"][0]["direction"] == "below"


def test_without_a_reference_there_are_no_features() -> None:
    record = result({}, None, rows_other_layout=0)
    assert (record["reference"], record["features"]) == (None, {})


def test_infinite_numbers_are_counted_and_reported_as_nothing_else() -> None:
    reference = reference_of({"x": [1.0, 2.0, 3.0] * 100})
    feature = result({"x": [1e308, -1e308, 2.0]}, reference)["features"]["x"]
    assert (feature["below_min"], feature["above_max"], feature["n"]) == (1, 1, 3)


def test_every_measurement_is_there_as_it_was_made() -> None:
    """Also of checks that nobody has a rule for; without its evidence."""
    columns = {"age": [40.0, 41.0] * 150 + [MISSING] * 100, "country": ["DE", "FR", "IT", "XX"] * 100}
    for window in (closed(REFERENCE, columns, inspected=6), closed(REFERENCE, {}), closed(None, {})):
        evidence = gather(window)
        made = [replace(one, evidence={}) for check in (*CHECKS, *WHOLE_CHECKS) for one in check(evidence)]
        [(_, value)] = judge_window(window, b"", RuleSet({})).results
        record = msgspec.json.decode(value, type=Result)
        assert sorted(measurements_of(record.measurements, "all"), key=str) == sorted(made, key=str)
    assert made


def test_what_was_not_finite_is_not_a_number() -> None:
    written = b'{"features":["x","y"],"value":[null,0.5],"n":[7,8],"n_ref":9,"critical_value":null,"p_value":[null,0.1],"min_n":1,"lower_is_worse":true}'
    first, second = measurements_of({"drift.psi": msgspec.json.decode(written, type=Measured)}, "DE")
    assert math.isnan(first.value)
    assert second == Measurement("drift.psi", "y", 0.5, 8, 9, None, 0.1, 1, lower_is_worse=True, segment="DE")
