"""Rules: for whom they are, and what identifies them."""

import pytest

from monitor.checks import CHECKS, WHOLE_CHECKS
from monitor.findings import gather
from monitor.policy import CHECKS as IDS
from monitor.policy import DEFAULT_RULE_SET, DEFAULT_RULES, SILENT_CHECKS, Policies, Policy, RuleSet
from monitor.rules import SEVERITIES, Mute, Rule
from monitor.segments import Key, Segmentation
from monitor.windows import WindowSpec
from tests.closed_windows import HOUR_MS, closed, reference_of


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


def winner(
    rules: list[Rule], model: str = "credit", segment: str = "all", feature: str = "loan_amount", over: int = 1
) -> float | None:
    """Return the threshold of the rule that a measurement is judged by, among these of one policy over a default of 0."""
    policy = Policy(name="p", rules=tuple(("drift.psi", rule) for rule in rules))
    found = RuleSet({"drift.psi": Rule(above=0.0)}, policies=(policy,)).rule("drift.psi", model, segment, feature, over)
    return None if found is None else found.above


GENERAL_TO_SPECIFIC = [
    Rule(above=1),
    Rule(above=2, specs=((HOUR_MS, 0),)),
    Rule(above=3, segments=("*",)),
    Rule(above=4, segments=("a*",)),
    Rule(above=5, segments=("all",)),
    Rule(above=6, features=("*",)),
    Rule(above=7, features=("*amount",)),
    Rule(above=8, features=("*_amount",)),
    Rule(above=9, features=("loan_amount",)),
    Rule(above=10, models=("*",)),
    Rule(above=11, models=("c*",)),
    Rule(above=12, models=("credit",)),
    Rule(above=13, models=("credit",), features=("loan_amount",)),
    Rule(above=14, models=("credit",), features=("loan_amount",), segments=("all",), specs=((HOUR_MS, HOUR_MS),)),
]


def test_the_most_specific_rule_wins_wherever_it_stands() -> None:
    """By model, then feature, then segment, then windows."""
    for n in range(1, len(GENERAL_TO_SPECIFIC) + 1):
        some = GENERAL_TO_SPECIFIC[:n]
        assert winner(some) == winner(some[::-1]) == some[-1].above


def test_of_equally_specific_rules_the_last_wins_and_a_policys_wins_over_the_default() -> None:
    assert winner([]) == 0.0
    assert winner([Rule(above=1), Rule(above=2)]) == 2
    first, last = (Policy(name=name, rules=(("drift.psi", Rule(above=above)),)) for name, above in (("a", 1.0), ("b", 2.0)))
    policies = Policies()
    for policy in (last, first):  # in the order of their names, whatever came first
        policies.add(policy)
    found = policies.at(0).rule("drift.psi", "m", "all", "x")
    assert found is not None
    assert found.above == 2.0


def test_a_rule_that_is_switched_off_hides_what_it_is_more_specific_than() -> None:
    off = Rule(above=1, features=("loan_amount",), enabled=False)
    assert winner([off]) is None
    assert winner([off], feature="age") == 0.0


def test_the_name_of_a_view_is_over_the_name_of_its_feature_and_that_over_a_wildcard() -> None:
    rules = [
        Rule(above=1, features=("*#length",)),
        Rule(above=2, features=("comment",)),
        Rule(above=3, features=("comment#length",)),
    ]
    assert winner(rules[:1], feature="comment#length") == 1
    assert winner(rules[:2], feature="comment#length") == winner(rules[1::-1], feature="comment#length") == 2
    assert winner(rules, feature="comment#length") == winner(rules[::-1], feature="comment#length") == 3
    assert winner(rules, feature="comment#alphabet") == 2


def test_what_is_remembered_grows_with_models_and_features_only_where_rules_name_some() -> None:
    asked = [(model, "all", f"f{i}") for model in ("a", "b") for i in range(50)]
    for named, n in (
        ({}, 1),
        ({"models": ("a",)}, 2),
        ({"features": ("f1*",)}, 50),
        ({"models": ("a",), "features": ("f1*",)}, 100),
    ):
        default = Rule(above=0.1)
        rules = RuleSet({"drift.psi": default}, policies=(Policy(name="p", rules=(("drift.psi", Rule(above=0.2, **named)),)),))
        for at in asked:
            rule = rules.rule("drift.psi", *at)
            is_named = Rule(**named).applies(*at)
            assert rule is not None
            assert rule.threshold == (0.2 if is_named else 0.1)
        assert len(rules._memory) == n


def test_rules_for_values_and_for_means_do_not_meet() -> None:
    rules = [
        Rule(above=1, models=("credit",)),
        Rule(above=2, over=6),
        Rule(above=3, over=6, features=("loan_amount",)),
        Rule(above=4, over=24),
    ]
    assert [winner(rules, over=over) for over in (1, 6, 24, 3)] == [1, 3, 4, None]
    found = RuleSet({}, policies=(Policy(name="p", rules=tuple(("drift.psi", rule) for rule in rules)),))
    assert found.overs("drift.psi", "credit", "all", "loan_amount") == [6, 24]
    assert found.overs("drift.psi", "credit", "DE", "loan_amount") == []


def test_rules_are_for_kinds_of_windows() -> None:
    hour, day = WindowSpec(HOUR_MS, HOUR_MS), WindowSpec(24 * HOUR_MS, HOUR_MS)
    any_step, tumbling = Rule(above=1, specs=((24 * HOUR_MS, 0),)), Rule(above=1, specs=((24 * HOUR_MS, 24 * HOUR_MS),))
    daily = Policy(name="p", rules=(("drift.psi", any_step), ("drift.js", tumbling)))
    rules = RuleSet({"drift.psi": Rule(above=0.0)}, policies=(daily,))
    found = {spec: [rules.of(spec).rule(check, "m", "all", "x") for check in ("drift.psi", "drift.js")] for spec in (hour, day)}
    assert [rule.above if rule else None for rule in found[hour]] == [0.0, None]
    assert [rule.above if rule else None for rule in found[day]] == [1, None]
    assert rules.of(day).sha256 == rules.of(hour).sha256 == rules.sha256
    assert rules.of(day).shas == rules.shas == {"p": daily.sha256}


def test_segments_that_a_policy_minds_are_minded() -> None:
    rules = RuleSet({}, policies=(Policy(name="p", rules=(("drift.psi", Rule(above=1, segments=("country=*",))),)),))
    assert [rules.minds(segment) for segment in ("country=DE", "all")] == [True, False]


def test_a_policy_applies_from_its_event_time_until_its_next_version() -> None:
    policies = Policies()
    versions = [Policy(name="p", effective_from_ms=at, rules=(("drift.psi", Rule(above=1 + at)),)) for at in (100, 200)]
    other = Policy(name="q", effective_from_ms=150, rules=(("drift.js", Rule(above=0.1)),))
    for policy in (versions[1], other, versions[0]):
        policies.add(policy)
    assert policies.at(99) is policies.default
    assert [policies.at(at).policies for at in (100, 149, 150, 200)] == [
        (versions[0],), (versions[0],), (versions[0], other), (versions[1], other),
    ]  # fmt: skip
    assert policies.at(150) is policies.at(199)
    assert len({policies.at(at).sha256 for at in (99, 100, 150, 200)}) == 4
    replaced = Policy(name="p", effective_from_ms=100, rules=(("drift.psi", Rule(above=9)),))
    policies.add(replaced)
    assert policies.at(100).policies == (replaced,)
    policies.remove(other.key)
    assert (policies.at(160).policies, policies.versions()) == ((replaced,), [replaced, versions[1]])


MUTE_TIMES = [  # windows that end at 2024-01-01 (a Monday) + hours, UTC
    (Mute(days=(0,)), [0.5, 24], [0, 24.5, -1]),
    (Mute(start=120, end=240), [2.5, 4, 28], [2, 4.5]),
    (Mute(days=(0,), start=22 * 60, end=6 * 60), [23, 30], [6, 22, 30.5, 54]),  # the night that begins on Monday
    (Mute(dates=((1, 2),)), [24.5, 48], [24, 48.5]),
    (Mute(days=(0,), zone="Asia/Tokyo"), [-8.5, 15], [-9, 15.5]),
    (Mute(dates=((7, 1),), zone="Europe/Berlin", start=0, end=60), [182 * 24 - 1.5], [182 * 24 - 0.5]),  # summer time
    (Mute(from_ms=1_704_067_200_000, to_ms=1_704_070_800_000), [0.5, 1], [0, 1.5]),
]


@pytest.mark.parametrize(("mute", "muted", "heard"), MUTE_TIMES)
def test_a_window_is_muted_when_its_last_moment_lies_in_the_mute(mute: Mute, muted: list[float], heard: list[float]) -> None:
    monday_ms = 1_704_067_200_000
    assert all(mute.covers(monday_ms + int(hours * HOUR_MS)) for hours in muted)
    assert not any(mute.covers(monday_ms + int(hours * HOUR_MS)) for hours in heard)


def test_beyond_the_calendar_nothing_is_muted() -> None:
    assert not Mute(days=(0, 1, 2, 3, 4, 5, 6)).covers(1 << 61)
