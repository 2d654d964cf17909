"""Rules: for whom they are, and what identifies them."""

import pytest

from monitor.checks import CHECKS, WHOLE_CHECKS
from monitor.pipeline import gather
from monitor.policy import CHECKS as IDS
from monitor.policy import DEFAULT_RULE_SET, DEFAULT_RULES, SILENT_CHECKS, RuleSet
from monitor.rules import SEVERITIES, Rule
from monitor.segments import Key, Segmentation
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
    assert Rule(above=1, features=patterns).applies("credit", "all", feature) is applies
    assert Rule(above=1, models=patterns).applies(feature, "all", "x") is applies
    assert Rule(above=1, segments=patterns).applies("credit", feature, "x") is (applies if patterns else feature == "all")


def test_what_is_measured_is_known_to_rules() -> None:
    by_c = Segmentation((Key(name="c"),), (("a",),))
    reference = reference_of({"x": [float(i) for i in range(200)], "c": ["a", "b"] * 100}, segmentations=[by_c])
    evidence = gather(closed(reference, {"x": [1.0] * 200, "c": ["a"] * 200}, inspected=1))
    assert {m.check for check in (*CHECKS, *WHOLE_CHECKS) for m in check(evidence)} <= set(IDS)


def test_a_check_has_a_default_rule_or_is_silent() -> None:
    assert len(IDS) == len(set(IDS))
    assert set(SILENT_CHECKS).isdisjoint(DEFAULT_RULES)
    assert set(IDS) == {*DEFAULT_RULES, *SILENT_CHECKS}


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


def test_the_name_of_a_feature_is_for_all_its_views() -> None:
    rule = Rule(above=0.1, features=("comment",))
    applied = {
        name: rule.applies("m", "all", name) for name in ("comment", "comment#length", "comment#alphabet", "comment#x", "other")
    }
    assert applied == {"comment": True, "comment#length": True, "comment#alphabet": True, "comment#x": False, "other": False}
    assert Rule(above=0.1, features=("comment#length",)).applies("m", "all", "comment#length")
    assert not Rule(above=0.1, features=("comment#length",)).applies("m", "all", "comment#alphabet")
