"""Policies that can be read and cannot be meant; and how often they would alarm on quiet data, beside what they do."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from monitor.bootstrap import build_rules
from monitor.config.policy_file import read_policies
from monitor.config.policy_lint import Lint, lint
from monitor.config.settings import Config
from monitor.false_alarms import expected_alarms, measure, rows_of, totals
from monitor.findings import gather
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET, PERFORMANCE_METRICS, Policy, RuleSet
from monitor.reference import Reference
from monitor.rules import FalseAlarms, Rule
from monitor.segments import Key, Segmentation
from monitor.windows import WindowSpec
from tests.closed_windows import HOUR_MS, closed, layout_from, profile_of, reference_of

DICE = np.random.default_rng(4)
ROWS = {
    "age": DICE.normal(40, 10, 4000).tolist(),
    "loan_amount": DICE.normal(2, 1, 4000).tolist(),
    "country": DICE.choice(["DE", "FR"], 4000).tolist(),
}
BY_COUNTRY = Segmentation((Key(name="country"),), (("DE",), ("FR",)))
REFERENCE = reference_of(ROWS, segmentations=[BY_COUNTRY])
CONFIG = Config.model_validate(
    {"models": {"credit": {"windows": [{"size": "1h"}, {"size": "24h", "step": "1h"}]}, "fraud": {"windows": [{"size": "24h"}]}}}
)
HOUR = WindowSpec(HOUR_MS, HOUR_MS)


def linted(folder: Path, *texts: str, references: tuple[Reference, ...] = (REFERENCE,), rows: int | None = 1_000) -> Lint:
    for i, text in enumerate(texts):
        (folder / f"p{i}.yaml").write_text(text)
    reads = read_policies([folder / f"p{i}.yaml" for i in range(len(texts))])
    found = lint(reads, build_rules(CONFIG), CONFIG, references, rows)
    found.problems = [problem.replace(f"{folder}/", "") for problem in found.problems]
    found.warnings = [warning.replace(f"{folder}/", "") for warning in found.warnings]
    return found


PROBLEMS = [
    ("model: credti\nrules: [psi > 0.2]", "p0.yaml:1: model: no model 'credti' (did you mean credit?); models are credit, fraud"),
    ("rules:\n  - {when: psi > 0.2, model: [credit, 'x*']}", "p0.yaml:2: rules.0.model: no model 'x*'; models are credit, fraud"),
    (
        "rules:\n  - {when: psi > 0.2, feature: loan_amuont}",
        "p0.yaml:2: rules.0.feature: no feature 'loan_amuont' (did you mean loan_amount?); features are age, country, loan_amount",
    ),
    ("rules:\n  - {when: psi > 0.2, feature: ['*_sum']}", "p0.yaml:2: rules.0.feature: no feature '*_sum'; features are age, country, loan_amount"),
    (
        "rules:\n  - {when: psi > 0.2, segment: country=UK}",
        "p0.yaml:2: rules.0.segment: no segment 'country=UK' (did you mean country=FR?); segments are all, country=DE, country=FR, country=(other)",
    ),
    ("model: credit\nrules:\n  - {when: psi > 0.2, window: 2h}", "p0.yaml:3: rules.0.window: no windows of 2h; windows are 1h, 1d/1h"),
    ("window: 24h/2h\nrules: [psi > 0.2]", "p0.yaml:1: window: no windows of 1d/2h; windows are 1h, 1d/1h, 1d"),
    (
        "rules:\n  - {when: ks > 0.2, feature: country}",
        "p0.yaml:2: rules.0.feature: drift.ks is not measured of 'country' (category); it is of age, loan_amount",
    ),
    ("rules:\n  - {when: never_seen > 0, feature: age}", "p0.yaml:2: rules.0.feature: health.never_seen is not measured of 'age' (number); it is of country"),
    (
        "rules:\n  - {when: boolean_share > 0.1, feature: age}",
        "p0.yaml:2: rules.0.feature: health.boolean_share is not measured of 'age' (number); it is of no feature of the reference",
    ),
    ("rules:\n  - {when: traffic.low < 10, feature: age}", "p0.yaml:2: rules.0.feature: traffic.low is of the model as a whole; leave out feature"),
    (
        "rules:\n  - psi > 0.2\n  - psi > 0.3",
        "p0.yaml:3: rules.1: contradicts rules.0 (p0.yaml:2): both are for drift.psi; leave one out, or make one more specific",
    ),
    (
        "model: credit\nrules:\n  - {when: psi > 0.2, feature: [age, country]}\n  - {when: psi > 0.3, feature: [country, loan_amount]}",
        "p0.yaml:4: rules.1: contradicts rules.0 (p0.yaml:3): both are for drift.psi of model credit of feature country; "
        "leave one out, or make one more specific",
    ),
    (
        "rules:\n  - {check: drift.distribution}\n  - {check: drift.distribution}",
        "p0.yaml:3: rules.1: repeats rules.0 (p0.yaml:2): both are for drift.distribution; leave one out, or make one more specific",
    ),
    (
        "effective_from: 2026-01-01\nmute:\n  - {from: 2025-12-24, to: 2025-12-27}\nrules: [psi > 0.2]",
        "p0.yaml:3: mute.0: never matches: it ends before the policy applies, from 2026-01-01",
    ),
    (
        "model: fraud\nrules:\n  - {when: psi > 0.2, mute: [{from: 02:00, to: 04:00}]}",
        "p0.yaml:3: rules.0.mute.0: never matches: no window ends in it; windows end, 1d: every 1d, aligned to 1970-01-01T00:00Z",
    ),
    (
        "model: fraud\nmute:\n  - {from: 2026-01-01T02:00:00Z, to: 2026-01-01T22:00:00Z}\nrules: [psi > 0.2]",
        "p0.yaml:3: mute.0: never matches: no window ends in it; windows end, 1d: every 1d, aligned to 1970-01-01T00:00Z",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), PROBLEMS, ids=range(len(PROBLEMS)))
def test_what_cannot_be_meant_is_told(text: str, problem: str, tmp_path: Path) -> None:
    assert linted(tmp_path, text).problems == [problem]


def test_rules_of_two_policies_contradict_each_other_and_two_versions_of_one_do_not(tmp_path: Path) -> None:
    found = linted(tmp_path, "name: a\nrules: [psi > 0.2]", "name: b\nrules: [psi > 0.3]")
    says = "both are for drift.psi; leave one out, or make one more specific"
    assert found.problems == [f"p1.yaml:2: rules.0: contradicts rules.0 (p0.yaml:2): {says}"]
    assert (
        linted(tmp_path, "name: a\nrules: [psi > 0.2]", "name: a\neffective_from: 2026-01-01\nrules: [psi > 0.3]").problems == []
    )


@pytest.mark.parametrize(
    "text",
    [
        "rules: [psi > 0.2, js > 0.3, accuracy drop > 5 %, mae rise > 10 %, 'mean(psi, 6) > 0.1']",
        "rules:\n  - psi > 0.2\n  - {when: psi > 0.3, feature: age}\n  - {when: psi > 0.1, segment: country=DE}",
        "model: fraud\nmute: [{days: [mon]}, {from: 22:00, to: 24:00}, {dates: [02-29]}]\nrules: [psi > 0.2]",
        "rules:\n  - {when: missing > 5 %, feature: [country, '*_amount']}\n  - {check: traffic.low, enabled: false}",
    ],
)
def test_what_can_be_meant_is_no_problem(text: str, tmp_path: Path) -> None:
    found = linted(tmp_path, text)
    assert (found.problems, found.warnings) == ([], [])


def test_a_rule_that_never_applies_is_told_with_one_that_wins(tmp_path: Path) -> None:
    text = "rules:\n  - {when: psi > 0.2, feature: 'loan*'}\n  - {when: psi > 0.3, feature: loan_amount}\n  - {when: psi > 0.4, model: credit}"
    assert linted(tmp_path, text).warnings == [
        "p0.yaml:2: rules.0: never applies: all that it is for is judged by more specific rules, such as rules.2 (p0.yaml:4)",
        "p0.yaml:3: rules.1: never applies: all that it is for is judged by more specific rules, such as rules.2 (p0.yaml:4)",
    ]


@pytest.mark.parametrize(
    ("text", "says"), [("psi < 0.2", "bad below 0.2"), ("accuracy > 0.9", "bad above 0.9"), ("traffic.low > 5", "bad above 5")]
)
def test_the_wrong_side_of_a_threshold_is_told(text: str, says: str, tmp_path: Path) -> None:
    [warning] = linted(tmp_path, f"rules:\n  - {text}").warnings
    assert warning.startswith("p0.yaml:2: rules.0: ")
    assert says in warning


def test_every_performance_metric_has_a_good_side(tmp_path: Path) -> None:
    def warned(metric: str, sign: str) -> int:
        return len(linted(tmp_path, f"rules: ['{metric} {sign} 1']").warnings)

    sides = {metric: (warned(metric, ">"), warned(metric, "<")) for metric in PERFORMANCE_METRICS}
    assert {metric for metric, (above, below) in sides.items() if above == below} == {"bias"}
    assert sides["bias"] == (0, 0)


def test_without_a_reference_names_of_features_are_not_looked_at(tmp_path: Path) -> None:
    found = linted(tmp_path, "rules: [{when: psi > 0.2, feature: anything}]", references=())
    assert (found.problems, found.expected) == ([], [])


def test_a_budget_that_the_rules_exceed_is_told(tmp_path: Path) -> None:
    loud = "false_alarms: 1 per 30d\nrules:\n  - {when: psi > 0, window: 1h}"
    [warning] = linted(tmp_path, loud).warnings
    assert warning.startswith("p0.yaml:1: false_alarms: up to 2.2 are expected in 30 days, 1 are accepted")
    assert linted(tmp_path, loud.replace("window: 1h", "window: 1h, open_after: 2")).warnings == []


# --- false alarms


def rules_of(**checks: Rule) -> RuleSet:
    named = tuple((check.replace("__", "."), msgspec.structs.replace(rule, policy="p")) for check, rule in checks.items())
    return RuleSet({}, policies=(Policy(name="p", rules=named),))


def test_expected_false_alarms_are_those_of_the_law_at_n() -> None:
    """Three features at 0.001 each where the critical value holds, in 720 windows; next to nothing where the threshold is far beyond it."""
    measured = measure(REFERENCE, DEFAULT_RULE_SET)

    def per_month(rule: Rule, n: int) -> float:
        [one] = expected_alarms(measured, rules_of(drift__psi=rule), HOUR, n)
        assert (one.check, one.measured, one.n) == ("drift.psi", 3, n)
        assert one.per_month is not None
        return one.per_month

    assert per_month(Rule(above=0.0), 1_000) == pytest.approx(3 * 720 * 0.001)
    assert per_month(Rule(above=0.2), 1_000) < 1e-9
    assert 0.001 < per_month(Rule(above=0.2), 100) <= 3 * 720 * 0.001
    assert per_month(Rule(above=0.0, windows=2), 1_000) == pytest.approx(3 * 720 * 1e-6)
    assert per_month(Rule(above=0.0, windows=2, of=3), 1_000) == pytest.approx(3 * 720 * 2e-6)
    assert per_month(Rule(above=0.0), 50) == 0  # never judged


def test_the_expected_number_is_not_exceeded_on_quiet_windows_and_the_bare_threshold_is_what_it_says() -> None:
    """400 windows of 120 independent rows."""
    dice = np.random.default_rng(8)
    rules = RuleSet({"drift.psi": Rule(above=0.1), "health.missing": Rule(above=0.0), "health.never_seen": Rule(above=0.0)})
    found = {one.check: one for one in expected_alarms(measure(REFERENCE, rules), rules, HOUR, 120)}
    fired, beyond, seen = 0, 0, 400
    for at in range(seen):
        window = {
            "age": dice.normal(40, 10, 120).tolist(),
            "loan_amount": dice.normal(2, 1, 120).tolist(),
            "country": dice.choice(["DE", "FR"], 120).tolist(),
        }
        made = closed(REFERENCE, window, at)
        fired += len(judge_window(made, b"", rules).alerts)
        beyond += gather(made).distances["age"]["psi"] > 0.1
    bound = sum(one.per_month or 0 for one in found.values()) / 720 * seen
    assert fired <= bound + 3 * bound**0.5
    assert found["drift.psi"].bare_ratio == pytest.approx(beyond / seen, abs=0.12)
    assert found["drift.psi"].bare_ratio > 0.1  # type: ignore[operator]


def test_calibrated_checks_are_expected_to_do_what_their_budget_spends() -> None:
    budget = FalseAlarms(2, 30 * 24 * 3_600_000)
    rules = RuleSet(
        {"drift.distribution": Rule(above=0.01), "drift.tails": Rule(above=0.0), "health.missing": Rule(above=0.0)},
        false_alarms=budget,
    )
    found = {one.check: one for one in expected_alarms(measure(REFERENCE, rules), rules, HOUR, 1_000)}
    assert found["drift.distribution"].per_month == pytest.approx(2 * 0.5 * 0.6)
    assert found["drift.distribution"].measured == 3
    assert found["drift.tails"].per_month + found["health.missing"].per_month <= 2 * 0.4 * 1.000001  # type: ignore[operator]
    twice = msgspec.structs.replace(rules.rules["drift.distribution"], windows=2)
    again = RuleSet({"drift.distribution": twice}, false_alarms=budget)
    [of_runs] = expected_alarms(measure(REFERENCE, again), again, HOUR, 1_000)
    assert of_runs.per_month == pytest.approx(2 * 0.5 * 0.6)  # windows in a row share rows


def test_what_no_law_tells_is_said_and_not_taken_for_nothing() -> None:
    rules = rules_of(traffic__low=Rule(below=1.0), stream__late=Rule(above=0.01), schema__wrong_type=Rule(above=0.01))
    [(name, per_month, unknown)] = totals(expected_alarms(measure(REFERENCE, rules), rules, HOUR, 1_000))
    assert (name, per_month, unknown) == ("p", 0.0, ["schema.wrong_type", "stream.late", "traffic.low"])


def test_every_default_rule_has_a_number_or_is_said_to_have_none() -> None:
    found = expected_alarms(measure(REFERENCE, DEFAULT_RULE_SET), DEFAULT_RULE_SET, HOUR, 1_000)
    assert {one.policy for one in found} == {"default"}
    assert all(one.per_month is None or 0 <= one.per_month <= 720 * 0.001 * one.measured for one in found)
    [(_, per_month, _)] = totals(found)
    assert per_month < 2


def test_rows_of_a_window_are_those_of_the_references_time() -> None:
    layout = layout_from(ROWS)
    timed = Reference.build("credit", "7", profile_of(layout, ROWS), time_range_ms=(0, 40 * HOUR_MS))
    assert (rows_of(timed, HOUR), rows_of(timed, WindowSpec(24 * HOUR_MS, HOUR_MS)), rows_of(REFERENCE, HOUR)) == (
        100,
        2_400,
        None,
    )


def test_a_reference_that_does_not_tell_asks_for_rows(tmp_path: Path) -> None:
    found = linted(tmp_path, "rules: [psi > 0.2]", rows=None)
    assert found.warnings == ["credit 7: its reference does not tell how many rows a window has; give --rows"] * 2
