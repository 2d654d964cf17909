"""Ratios of bad rows: what is measured, what chance explains, what a few rows cannot say."""

from typing import Any

import numpy as np
import pytest
from msgspec import structs
from scipy.stats import hypergeom

from monitor.checks.health import health
from monitor.findings import ClosedWindow, Finding, Measurement, gather
from monitor.layout import layout_of
from monitor.policy import DEFAULT_RULE_SET
from monitor.profiles import Profile
from monitor.reference import Reference
from tests.closed_windows import ABSENT, MISSING, WRONG_TYPE, closed, reference_of
from tests.shapes import judged_alone as decide

X = [float(i) for i in range(1000)]
C = ["a"] * 600 + ["b"] * 400
REFERENCE = reference_of({"x": X, "c": C})


def measured(window: ClosedWindow) -> dict[tuple[str, str], Measurement]:
    return {(m.check, m.feature): m for m in health(gather(window))}


def judged(window: ClosedWindow) -> dict[tuple[str, str], Finding]:
    findings = decide("credit", health(gather(window)), DEFAULT_RULE_SET)
    return {(f.measurement.check, f.measurement.feature): f for f in findings}


def rows(n: int, **bad: list[Any]) -> dict[str, list[Any]]:
    """Return n quiet rows; the first of a named feature are replaced."""
    columns: dict[str, list[Any]] = {"x": (X * n)[:n], "c": (["a", "b"] * n)[:n]}
    for name, values in bad.items():
        columns[name][: len(values)] = values
    return columns


def test_a_quiet_window_has_no_bad_rows() -> None:
    found = judged(closed(REFERENCE, rows(500), inspected=10))
    assert {f.verdict for f in found.values()} == {"ok"}
    assert {f.measurement.value for f in found.values()} == {0.0}


@pytest.mark.parametrize(
    ("n", "bad", "check", "feature", "value"),
    [
        (500, {"x": [MISSING] * 50}, "health.missing", "x", 0.1),
        (500, {"x": [ABSENT] * 50}, "health.missing", "x", 0.1),
        (500, {"c": [MISSING] * 50}, "health.missing", "c", 0.1),
        (500, {"c": ["new"] * 10}, "health.never_seen", "c", 0.02),
        (500, {"x": [-1.0] * 4 + [1000.0] * 6}, "health.out_of_range", "x", 0.02),
        (500, {"x": [WRONG_TYPE] * 5}, "schema.wrong_type", "x", 0.01),
        (500, {"x": [ABSENT] * 500}, "schema.missing_feature", "x", 1.0),
    ],
)
def test_a_fault_is_a_breach_of_its_check(n: int, bad: dict[str, list[Any]], check: str, feature: str, value: float) -> None:
    finding = judged(closed(REFERENCE, rows(n, **bad)))[check, feature]
    assert finding.measurement.value == pytest.approx(value, rel=1e-12)
    assert finding.verdict == "breach"


@pytest.mark.parametrize(
    ("check", "feature", "bad"),
    [
        ("health.missing", "x", {"x": [MISSING] * 20}),
        ("health.never_seen", "c", {"c": ["new"] * 20}),
        ("health.out_of_range", "x", {"x": [-1.0] * 20}),
        ("schema.wrong_type", "x", {"x": [WRONG_TYPE] * 20}),
        ("schema.missing_feature", "x", {"x": [ABSENT] * 29}),
    ],
)
def test_below_thirty_rows_nothing_can_be_said(check: str, feature: str, bad: dict[str, list[Any]]) -> None:
    assert judged(closed(REFERENCE, rows(29, **bad)))[check, feature].verdict == "insufficient"
    assert judged(closed(REFERENCE, {}))[check, feature].verdict == "insufficient"


def test_missing_is_compared_with_the_references_own_ratio() -> None:
    half = reference_of({"x": [*X, *[MISSING] * 1000]})
    found = measured(closed(half, {"x": [1.0] * 100 + [MISSING] * 100}))["health.missing", "x"]
    assert found.value == 0.0
    assert found.evidence == {"rows": 100, "missing_ratio": 0.5, "missing_ratio_ref": 0.5}


def test_the_excess_of_missing_rows_has_fishers_p() -> None:
    found = measured(closed(REFERENCE, rows(500, x=[MISSING] * 50)))["health.missing", "x"]
    assert found.p_value == pytest.approx(hypergeom.sf(49, 1500, 50, 500), rel=1e-6)


def test_an_excess_that_chance_explains_is_no_breach_though_above_the_threshold() -> None:
    small = reference_of({"x": X[:100]})
    finding = judged(closed(small, {"x": [MISSING] * 3 + [1.0] * 27}))["health.missing", "x"]
    assert finding.measurement.value == pytest.approx(0.1)
    assert finding.measurement.critical_value == pytest.approx(4 / 30)
    assert finding.verdict == "ok"


@pytest.mark.parametrize("n_missing", [4, 5])
def test_one_row_more_than_the_critical_value_is_a_breach(n_missing: int) -> None:
    small = reference_of({"x": X[:100]})
    finding = judged(closed(small, {"x": [MISSING] * n_missing + [1.0] * (30 - n_missing)}))["health.missing", "x"]
    assert finding.verdict == ("breach" if n_missing == 5 else "ok")


def test_quiet_windows_with_missing_values_rarely_breach_at_any_size() -> None:
    dice = np.random.default_rng(4)
    half = reference_of({"x": [MISSING if dice.random() < 0.05 else 1.0 for _ in range(4000)]})
    breaches = 0
    for n in (30, 100, 300):
        for _ in range(150):
            column = [MISSING if dice.random() < 0.05 else 1.0 for _ in range(n)]
            breaches += judged(closed(half, {"x": column}))["health.missing", "x"].verdict == "breach"
    assert breaches <= 3  # 450 windows at ≤ 0.001


def test_the_ends_of_the_reference_are_within_its_range() -> None:
    inside = measured(closed(REFERENCE, rows(500, x=[0.0, 999.0])))["health.out_of_range", "x"]
    assert inside.value == 0.0
    ends = [float(np.nextafter(0.0, -1)), float(np.nextafter(999.0, 1e9))]
    outside = measured(closed(REFERENCE, rows(500, x=ends)))["health.out_of_range", "x"]
    assert outside.evidence == {"rows": 2, "below_min": 1, "above_max": 1}


def test_values_far_out_are_counted_like_those_next_to_the_range() -> None:
    found = measured(closed(REFERENCE, rows(500, x=[1e300, -1e300, 1e9])))["health.out_of_range", "x"]
    assert found.evidence == {"rows": 3, "below_min": 1, "above_max": 2}


def test_a_window_much_larger_than_the_reference_may_reach_further() -> None:
    few = reference_of({"x": X[:100]})
    column = [50.0] * 9_900 + [200.0] * 150
    finding = judged(closed(few, {"x": column}))["health.out_of_range", "x"]
    assert finding.measurement.value > 0.01
    assert finding.verdict == "ok"


def test_ratios_of_values_leave_missing_rows_out() -> None:
    found = measured(closed(REFERENCE, rows(500, c=["new"] * 10 + [MISSING] * 400)))["health.never_seen", "c"]
    assert (found.n, found.value) == (100, 0.1)


def test_a_sparse_feature_that_is_absent_is_no_missing_feature() -> None:
    sparse = reference_of({"x": [*[MISSING] * 9_100, *X[:900]], "c": ["a"] * 10_000})
    assert measured(closed(sparse, {"c": ["a"] * 500}))["schema.missing_feature", "x"].value == 0.0


def test_nulls_are_no_missing_feature() -> None:
    found = judged(closed(REFERENCE, rows(500, x=[MISSING] * 500)))
    assert found["schema.missing_feature", "x"].verdict == "ok"
    assert found["health.missing", "x"].verdict == "breach"


def test_an_unexpected_name_is_found_in_a_single_inspected_row() -> None:
    found = judged(closed(REFERENCE, rows(40), inspected=2, unexpected={"zip": 1, "age": 2}))
    finding = found["schema.unexpected_feature", ""]
    assert (finding.verdict, finding.measurement.value, finding.severity) == ("breach", 1.0, "notice")
    assert finding.measurement.evidence == {"rows_inspected": 2, "names": {"age": 2, "zip": 1}}


def test_without_an_inspected_row_nothing_is_said_of_names() -> None:
    assert judged(closed(REFERENCE, rows(40)))["schema.unexpected_feature", ""].verdict == "insufficient"


def test_without_a_reference_nothing_is_expected() -> None:
    assert measured(closed(None, {}, inspected=5, unexpected={"zip": 5})) == {}


def test_a_name_that_the_reference_left_out_is_not_unexpected() -> None:
    knowing = Reference.build("credit", "7", REFERENCE.profile, left_out=["id"])
    window = closed(knowing, rows(40), inspected=2, unexpected={"id": 2, "zip": 1})
    assert measured(window)["schema.unexpected_feature", ""].evidence["names"] == {"zip": 1}


# Views, integers, and what the reference allows.


def changed(reference: Reference, **changes: dict[str, Any]) -> Reference:
    """The same rows under a layout whose named features are changed."""
    features = [structs.replace(f, **changes.get(f.name, {})) for f in reference.layout.features]
    layout = layout_of(features)
    profile = Profile(layout)
    for part in set(Profile.__slots__) - {"layout"}:
        setattr(profile, part, getattr(reference.profile, part))
    return Reference.build("credit", "7", profile)


def test_a_secondary_view_repeats_nothing_of_its_source() -> None:
    reference = changed(REFERENCE, x={"source": "c", "source_kind": "text", "view": "length", "is_secondary": True})
    found = measured(closed(reference, rows(500, x=[MISSING] * 50, c=[MISSING] * 50)))
    of_x = {check for check, feature in found if feature == "x"}
    assert "health.out_of_range" in of_x
    of_c = {check for check, feature in found if feature == "c"}
    of_source = {"health.missing", "schema.wrong_type", "schema.missing_feature"}
    assert (of_x & of_source, of_c & of_source) == (set(), of_source)
    assert found["health.missing", "c"].value == 0.1


def test_a_fractional_value_of_an_integer_is_never_seen_and_lies_in_its_cell_too() -> None:
    reference = changed(REFERENCE, x={"is_integral": True})
    window = closed(reference, rows(500, x=[0.5, 7.25, -0.5, 1e300, MISSING, WRONG_TYPE]))
    found = judged(window)
    assert found["health.never_seen", "x"].measurement.value == pytest.approx(3 / 498, rel=1e-12)
    assert found["health.never_seen", "x"].verdict == "ok"
    assert window.profile.summary("x").n == 498
    assert judged(closed(reference, rows(500, x=[0.5] * 10)))["health.never_seen", "x"].verdict == "breach"
    assert ("health.never_seen", "x") not in judged(closed(REFERENCE, rows(500, x=[0.5] * 10)))


@pytest.mark.parametrize(("allowed", "verdict"), [(None, "breach"), (0.05, "breach"), (0.1, "ok"), (0.2, "ok")])
def test_missing_values_that_the_reference_allows_are_no_breach(allowed: float | None, verdict: str) -> None:
    reference = changed(REFERENCE, x={"max_missing_ratio": allowed})
    finding = judged(closed(reference, rows(500, x=[MISSING] * 50)))["health.missing", "x"]
    assert (finding.measurement.value, finding.verdict) == (0.1, verdict)
    assert finding.measurement.evidence.get("max_missing_ratio") == allowed
