"""Rules: for whom they are, and what identifies them."""

import pytest

from monitor.checks import CHECKS
from monitor.pipeline import gather
from monitor.policy import CHECKS as CHECK_IDS
from monitor.policy import DEFAULT_RULE_SET, DEFAULT_RULES, SEVERITIES, Rule, RuleSet
from tests.closed_windows import closed, reference_of


@pytest.mark.parametrize(
    ("patterns", "feature", "applies"),
    [
        ((), "age", True),
        (("age",), "age", True),
        (("age",), "wage", False),
        (("*_amount",), "loan_amount", True),
        (("*_amount",), "loan_amount_eur", False),
        (("income", "a?e"), "age", True),
        (("amount[usd]",), "amount[usd]", True),
        (("@*",), "@score", True),
        (("Age",), "age", False),
    ],
)
def test_features_are_names_or_wildcards(patterns: tuple[str, ...], feature: str, applies: bool) -> None:
    assert Rule(above=1, features=patterns).applies("credit", feature) is applies
    assert Rule(above=1, models=patterns).applies(feature, "x") is applies


def test_the_checks_are_those_that_measure_and_each_default_rule_has_one() -> None:
    reference = reference_of({"x": [float(i) for i in range(200)], "c": ["a", "b"] * 100})
    evidence = gather(closed(reference, {"x": [1.0] * 200, "c": ["a"] * 200}, inspected=1))
    assert {m.check for check in CHECKS for m in check(evidence)} == set(CHECK_IDS)
    assert set(DEFAULT_RULES) < set(CHECK_IDS)


def test_drift_raises_an_alarm_by_psi_and_js_only_unless_a_rule_says_more() -> None:
    assert {check for check in DEFAULT_RULES if check.startswith("drift.")} == {"drift.psi", "drift.js"}
    assert {"drift.kl", "drift.hellinger", "drift.tv", "drift.linf", "drift.chi2", "drift.ks"} <= set(CHECK_IDS)


def test_each_default_rule_has_one_threshold_and_a_known_severity() -> None:
    for rule in DEFAULT_RULES.values():
        assert (rule.above is None) != (rule.below is None)
        assert rule.severity in SEVERITIES


def test_severities_go_from_notice_to_critical() -> None:
    assert SEVERITIES == ("notice", "warning", "critical")


def test_the_identity_of_rules_is_their_content() -> None:
    turned = RuleSet(dict(reversed(DEFAULT_RULES.items())))
    assert turned.sha256 == DEFAULT_RULE_SET.sha256
    other = RuleSet({**DEFAULT_RULES, "drift.psi": Rule(above=0.25)})
    assert other.sha256 != DEFAULT_RULE_SET.sha256
    assert RuleSet(dict(DEFAULT_RULES), psi_eps=1e-3).sha256 != DEFAULT_RULE_SET.sha256
