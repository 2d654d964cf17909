"""The fixed rule: threshold, critical value, gate."""

import math

import pytest

from monitor.findings import Measurement
from monitor.policy import Rule, RuleSet
from tests.shapes import judged_alone as decide


def verdict(rule: Rule, **measured: object) -> str:
    measurement = Measurement("drift.psi", "x", **{"value": 0.3, "n": 1000, "n_ref": 5000, **measured})  # type: ignore[arg-type]
    return decide("credit", [measurement], RuleSet({"drift.psi": rule}))[0].verdict


@pytest.mark.parametrize(
    ("value", "threshold", "critical", "expected"),
    [
        (0.3, 0.2, None, "breach"),
        (0.2, 0.2, None, "ok"),  # a threshold is not above itself
        (0.1, 0.2, None, "ok"),
        (0.3, 0.2, 0.25, "breach"),
        (0.3, 0.2, 0.3, "ok"),
        (0.3, 0.2, 0.4, "ok"),
        (0.1, 0.2, 0.05, "ok"),
        (0.1, -1.0, 0.05, "breach"),
    ],
)
def test_above_is_a_breach_beyond_the_larger_of_threshold_and_critical_value(
    value: float, threshold: float, critical: float | None, expected: str
) -> None:
    assert verdict(Rule(above=threshold), value=value, critical_value=critical) == expected


@pytest.mark.parametrize(("value", "expected"), [(99.0, "breach"), (100.0, "ok"), (101.0, "ok")])
def test_below_is_a_breach_strictly_below(value: float, expected: str) -> None:
    assert verdict(Rule(below=100), value=value) == expected


@pytest.mark.parametrize(("n", "expected"), [(99, "insufficient"), (100, "breach")])
def test_fewer_rows_than_the_check_needs_are_insufficient(n: int, expected: str) -> None:
    assert verdict(Rule(above=0.2), n=n, min_n=100) == expected


@pytest.mark.parametrize(
    "rule",
    [Rule(above=0.2, enabled=False), Rule(above=0.2, features=("y",)), Rule(above=0.2, models=("fraud", "risk-*"))],
    ids=["off", "another feature", "another model"],
)
def test_what_no_rule_is_for_is_no_finding(rule: Rule) -> None:
    assert decide("credit", [Measurement("drift.psi", "x", 0.9, 1000, 5000)], RuleSet({"drift.psi": rule})) == []


def test_a_finding_carries_what_its_rule_says() -> None:
    rule = Rule(below=3, severity="critical", windows=4)
    finding = decide("credit", [Measurement("traffic.low", "", 2, 2, 0)], RuleSet({"traffic.low": rule}))[0]
    assert (finding.threshold, finding.severity, finding.rule, finding.is_below) == (3, "critical", rule, True)


def test_a_change_against_the_reference_is_not_judged_before_there_are_labels() -> None:
    for rule in (Rule(drop=0.05), Rule(rise=0.05)):
        [finding] = decide("m", [Measurement("performance.auc", "", 0.9, 1000, 5000)], RuleSet({"performance.auc": rule}))
        assert (finding.verdict, finding.threshold) == ("insufficient", 0.05)


def test_a_value_below_the_floor_is_never_bad() -> None:
    rules = RuleSet({"drift.psi": Rule(above=0.0, floor=0.1)})
    verdicts = [
        decide("m", [Measurement("drift.psi", "x", value, 9_000, 9_000, 0.01)], rules)[0].verdict for value in (0.09, 0.11)
    ]
    assert verdicts == ["ok", "breach"]


@pytest.mark.parametrize(
    ("rule", "value", "interval", "expected"),
    [
        (Rule(below=0.9), 0.80, (0.75, 0.85), "breach"),
        (Rule(below=0.9), 0.88, (0.83, 0.92), "insufficient"),  # bad, but it could be chance
        (Rule(below=0.9), 0.91, (0.86, 0.95), "ok"),
        (Rule(above=0.2), 0.30, (0.25, 0.35), "breach"),
        (Rule(above=0.2), 0.30, (0.15, 0.45), "insufficient"),
        (Rule(above=0.2), 0.30, (-math.inf, math.inf), "insufficient"),
        (Rule(drop=0.05), 0.80, (0.78, 0.82), "breach"),  # of 0.9: below 0.855
        (Rule(drop=0.05), 0.84, (0.82, 0.86), "insufficient"),
        (Rule(drop=0.05), 0.86, (0.84, 0.88), "ok"),
        (Rule(rise=0.10), 1.10, (1.05, 1.15), "breach"),  # of 0.9: above 0.99
        (Rule(rise=0.10), 0.95, (0.90, 1.00), "ok"),
    ],
)
def test_where_a_value_has_an_interval_all_of_it_must_be_bad(
    rule: Rule, value: float, interval: tuple[float, float], expected: str
) -> None:
    assert verdict(rule, value=value, interval=interval, reference_value=0.9, n=400, n_ref=100_000) == expected


def test_a_change_allows_for_the_reference_being_an_estimate_too() -> None:
    measured: dict[str, object] = {"value": 0.82, "interval": (0.79, 0.845), "reference_value": 0.9, "n": 400}
    assert [verdict(Rule(drop=0.05), n_ref=n_ref, **measured) for n_ref in (100_000, 200)] == ["breach", "insufficient"]
    assert verdict(Rule(below=0.855), n_ref=200, **measured) == "breach"


def test_a_finding_of_a_change_tells_the_value_that_it_is_bad_from() -> None:
    measured = Measurement("performance.auc", "", 0.8, 1000, 5000, interval=(0.79, 0.81), reference_value=0.9)
    [finding] = decide("m", [measured], RuleSet({"performance.auc": Rule(drop=0.1)}))
    assert (finding.threshold, finding.is_below) == (pytest.approx(0.81), True)
