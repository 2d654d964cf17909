"""Rules: for whom they are, and what identifies them."""

import pytest

from monitor.checks import CHECKS
from monitor.pipeline import gather
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


def test_each_check_has_a_default_rule_and_each_rule_a_check() -> None:
    reference = reference_of({"x": [float(i) for i in range(200)], "c": ["a", "b"] * 100})
    evidence = gather(closed(reference, {"x": [1.0] * 200, "c": ["a"] * 200}, inspected=1))
    assert {m.check for check in CHECKS for m in check(evidence)} == set(DEFAULT_RULES)


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


def test_the_name_of_a_feature_is_for_all_its_views() -> None:
    rule = Rule(above=0.1, features=("comment",))
    applied = {name: rule.applies("m", name) for name in ("comment", "comment#length", "comment#alphabet", "comment#x", "other")}
    assert applied == {"comment": True, "comment#length": True, "comment#alphabet": True, "comment#x": False, "other": False}
    assert Rule(above=0.1, features=("comment#length",)).applies("m", "comment#length")
    assert not Rule(above=0.1, features=("comment#length",)).applies("m", "comment#alphabet")
