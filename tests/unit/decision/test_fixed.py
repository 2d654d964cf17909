"""The fixed rule: threshold, critical value, gate."""

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
