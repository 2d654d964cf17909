"""What a budget of false alarms lets one believe."""

import json
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from monitor.chance.calibration import SCALES
from monitor.decision.calibrated import (
    COUNTS_SHARE,
    OUTLIER_WEIGHT,
    SCALE_SHARES,
    SPENT,
    Setting,
    counts_alpha,
    decide,
    distribution_alpha,
)
from monitor.decision.early import alpha as early_alpha
from monitor.decision.rolling import means
from monitor.decision.state import DecisionState
from monitor.findings import CountTest, Finding, Measurement, ScaleTest
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET, DEFAULT_RULES, Policy, RuleSet
from monitor.ratios import excess
from monitor.rules import DEFAULT_FALSE_ALARMS, FalseAlarms, Rule
from monitor.windows import WindowSpec
from tests.unit.decision.observed import closed, reference, rows

DICE = np.random.default_rng(11)
HOURLY = Setting("m", WindowSpec(3_600_000, 3_600_000), {"x": 1.0})
PER_WINDOW = SPENT * DEFAULT_FALSE_ALARMS.of(3_600_000)
MOVED = (np.full(10, 2_000), np.array([60, 70, 80, 90, 100, 100, 110, 120, 130, 140]))
"""psi about 0.06."""


def shape(p: float, scale: int = 1, cells: Any = MOVED, feature: str = "x", **changes: Any) -> Measurement:
    test = ScaleTest(scale, cells, p, {"chi_square": p}, {"chi_square": 1.0})
    evidence = {"psi": 0.07, "cells": 10}
    return replace(
        Measurement("drift.distribution", feature, 0.06, 1_000, 20_000, None, None, 100, False, evidence, scales=(test,)),
        **changes,
    )


def missing(bad: int, bad_ref: int = 100, feature: str = "x", m: int = 20_000) -> Measurement:
    return excess("health.missing", feature, CountTest(bad, 1_000, bad_ref, m, "excess"))


def verdicts(*measurements: Measurement, setting: Setting = HOURLY, rules: RuleSet = DEFAULT_RULE_SET) -> list[str]:
    return [finding.verdict for finding in decide(measurements, rules, setting).findings]


def only(*measurements: Measurement, **kwargs: Any) -> Finding:
    return decide(measurements, kwargs.get("rules", DEFAULT_RULE_SET), kwargs.get("setting", HOURLY)).findings[0]


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_spends_its_share_of_the_budget(scale: int) -> None:
    limit = PER_WINDOW * (1 - COUNTS_SHARE) * SCALE_SHARES[scale]
    assert verdicts(shape(0.99 * limit, scale)) == ["breach"]
    assert verdicts(shape(1.01 * limit, scale)) == ["ok"]


def test_everything_that_is_spent_is_the_budget_less_the_reserve_of_distributions() -> None:
    hour = DEFAULT_FALSE_ALARMS.of(3_600_000)
    spent = sum(distribution_alpha(DEFAULT_FALSE_ALARMS, HOURLY.spec, scale) for scale in SCALES)
    assert spent == pytest.approx(0.5 * 0.6 * hour)
    assert spent + counts_alpha(DEFAULT_FALSE_ALARMS, HOURLY.spec) + early_alpha(DEFAULT_FALSE_ALARMS, HOURLY.spec) < 0.9 * hour
    assert counts_alpha(DEFAULT_FALSE_ALARMS, HOURLY.spec) == pytest.approx(COUNTS_SHARE * hour)
    assert FalseAlarms(3, 30 * 86_400_000).of(3_600_000) == pytest.approx(3 / 720)


def test_exact_tests_spend_all_of_their_share() -> None:
    """Of 1000 rows where 1 of 100 is missing, 28 missing ones are believed of one of 50 features; chance shows as many twice in 10^6."""
    quiet = [missing(10, 1_680, f"y{i}", m=168_000) for i in range(49)]
    assert [verdicts(missing(bad, 1_680, m=168_000), *quiet)[0] for bad in (27, 28)] == ["ok", "breach"]


def test_tests_for_outliers_pay_and_get_a_fifth_of_what_others_do() -> None:
    """Beside as many features with outliers to look for, 28 missing rows are still believed; so are 12 of 1000 where the outermost 1 is."""
    limit = counts_alpha(DEFAULT_FALSE_ALARMS, HOURLY.spec) / (50 + 0.2 * 50)
    quiet = [missing(10, 1_680, f"y{i}", m=168_000) for i in range(49)]
    tails = [excess("drift.tails", f"y{i}", CountTest(1, 1_000, 168, 168_000, "excess", 8)) for i in range(50)]
    found = decide([missing(28, 1_680, m=168_000), *quiet, *tails], DEFAULT_RULE_SET, HOURLY).findings[0]
    assert (found.verdict, found.decision and found.decision.p_limit) == ("breach", pytest.approx(limit))
    for bad, verdict in ((9, "ok"), (12, "breach")):
        out = excess("drift.tails", "x", CountTest(bad, 1_000, 168, 168_000, "excess", 8))
        of = decide([out, *tails[1:], missing(10, 1_680, m=168_000), *quiet], DEFAULT_RULE_SET, HOURLY).findings[0]
        assert of.decision is not None
        assert (of.verdict, of.decision.p_limit) == (verdict, pytest.approx(OUTLIER_WEIGHT * limit))


def test_a_threshold_that_chance_never_reaches_is_no_hypothesis() -> None:
    """That a field is absent from 99 of 100 rows says enough; the tests beside it need not prove more because of it."""

    def absent(bad: int, i: int) -> Measurement:
        return excess("schema.missing_feature", f"y{i}", CountTest(bad, 1_000, 1_680, 168_000, "excess"), 0.0)

    measured = [missing(29, 1_680, m=168_000), *(missing(10, 1_680, f"y{i}", m=168_000) for i in range(49))]
    decided = decide([*measured, *(absent(10, i) for i in range(49)), absent(1_000, 49)], DEFAULT_RULE_SET, HOURLY).findings
    assert [finding.verdict for finding in (decided[0], decided[50], decided[-1])] == ["breach", "ok", "breach"]
    assert decided[0].decision is not None
    assert decided[0].decision.hypotheses == 50
    assert verdicts(absent(1_000, 0)) == ["breach"]


def test_windows_that_overlap_spend_everything_on_themselves() -> None:
    hopping = Setting("m", WindowSpec(86_400_000, 3_600_000), {"x": 1.0})
    limit = PER_WINDOW * (1 - COUNTS_SHARE)
    assert verdicts(shape(0.99 * limit), setting=hopping) == ["breach"]
    assert verdicts(shape(1.01 * limit), setting=hopping) == ["ok"]


def test_all_features_and_segments_are_looked_at_at_once() -> None:
    limit = PER_WINDOW * (1 - COUNTS_SHARE) * SCALE_SHARES[1]
    quiet = [shape(0.5, feature=f"y{i}") for i in range(49)]
    assert verdicts(shape(0.9 * limit / 50), *quiet)[0] == "breach"
    assert verdicts(shape(1.1 * limit / 50), *quiet)[0] == "ok"
    drifted = [shape(0.5 * limit, feature=f"y{i}") for i in range(25)]
    assert verdicts(shape(0.4 * limit), *drifted, *quiet[25:])[0] == "breach"


def test_a_wider_budget_lets_more_be_believed() -> None:
    rules = RuleSet(dict(DEFAULT_RULES), false_alarms=FalseAlarms(10, 86_400_000))
    assert verdicts(shape(1e-2)) == ["ok"]
    assert verdicts(shape(1e-2), rules=rules) == ["breach"]


def test_a_policys_budget_is_its_own_and_rules_without_one_share_the_other() -> None:
    daily = FalseAlarms(1, 86_400_000)
    mine = Policy(
        name="mine", rules=(("drift.distribution", Rule(above=0.01, features=("y",), false_alarms=daily, policy="mine")),)
    )
    rules = RuleSet(dict(DEFAULT_RULES), policies=(mine,))
    limit = SPENT * daily.of(3_600_000) * (1 - COUNTS_SHARE) * SCALE_SHARES[1]
    quiet = [shape(0.5, feature=f"x{i}") for i in range(49)]
    assert verdicts(shape(0.99 * limit, feature="y"), shape(0.99 * limit), *quiet, rules=rules)[:2] == ["breach", "ok"]
    assert verdicts(shape(1.01 * limit, feature="y"), *quiet, rules=rules)[0] == "ok"
    decision = only(shape(0.99 * limit, feature="y"), *quiet, rules=rules).decision
    assert decision is not None
    assert (decision.false_alarms, decision.hypotheses) == ("1 per 1d", 1)


def test_a_floor_is_the_smallest_effect_that_is_bad() -> None:
    for floor, verdict in ((0.02, "breach"), (0.2, "ok")):
        rules = RuleSet({"drift.distribution": Rule(above=0.01, floor=floor)})
        finding = only(shape(1e-30), rules=rules)
        assert (finding.verdict, finding.threshold) == (verdict, floor)


def test_what_is_bad_below_a_threshold_is_judged_by_that_alone() -> None:
    """The exact tests look for too many rows only."""
    rules = RuleSet({"health.missing": Rule(below=0.1)})
    finding = only(missing(90, 1_000), rules=rules)
    assert (finding.verdict, finding.is_below, finding.decision) == ("breach", True, None)


def test_a_mean_is_judged_by_its_threshold_alone() -> None:
    rules = RuleSet({"drift.distribution": Rule(above=0.05, over=3)})
    mean = shape(1e-30, value=0.06, over=3, scales=())
    assert [(f.verdict, f.decision) for f in decide([mean], rules, HOURLY).findings] == [("breach", None)]
    state = DecisionState({}, {}, {})
    for _ in range(3):
        [made] = means("m", [shape(1e-30, value=0.06)], rules, state, is_complete=True)
    assert (made.n, made.scales, made.value) == (3_000, (), pytest.approx(0.06))


def test_a_certain_but_small_effect_is_no_alarm() -> None:
    tiny = (np.full(10, 100_000), np.array([9_950, 9_960, 9_980, 9_990, 10_000, 10_000, 10_010, 10_020, 10_040, 10_050]))
    assert verdicts(shape(1e-30, cells=tiny)) == ["ok"]
    low = RuleSet({"drift.distribution": Rule(above=0.0)})
    large = (tiny[0] * 100, tiny[1] * 100)
    assert verdicts(shape(1e-30, cells=large), rules=low) == ["breach"]


@pytest.mark.parametrize(("share", "severity"), [(0.08, "notice"), (0.18, "warning"), (0.3, "critical")])
def test_the_severity_is_that_of_the_effect(share: float, severity: str) -> None:
    window = np.full(10, 10_000)
    window[:5] -= int(100_000 * share / 5)
    window[5:] += int(100_000 * share / 5)
    finding = only(shape(1e-30, cells=(np.full(10, 100_000), window)))
    assert finding.verdict == "breach"
    assert finding.severity == severity


def test_where_phi_is_not_known_the_effect_must_be_that_of_a_warning() -> None:
    finding = only(shape(1e-30, is_provisional=True))
    assert finding.verdict == "ok"
    assert finding.threshold == 0.1
    assert finding.decision is not None
    assert finding.decision.provisional
    assert verdicts(shape(1e-30, is_provisional=False)) == ["breach"]


def test_of_several_scales_the_one_with_the_largest_effect_speaks() -> None:
    diluted = (MOVED[0], np.array([85, 90, 95, 98, 100, 100, 102, 105, 110, 115]) * 3)
    tests = (
        ScaleTest(1, MOVED, 1e-12, {"chi_square": 1e-12}, {"chi_square": 1.0}),
        ScaleTest(3, diluted, 1e-20, {"chi_square": 1e-20}, {"chi_square": 1.0}),
        ScaleTest(6, MOVED, 0.4, {"chi_square": 0.4}, {"chi_square": 1.0}),
    )
    decided = decide([shape(1.0, scales=tests)], DEFAULT_RULE_SET, HOURLY)
    decision = decided.findings[0].decision
    assert decision is not None
    assert (decision.scale, decision.n, decision.p_value) == (1, 1_000, 1e-12)
    assert decided.alone == {("all", "x")}
    quiet = decide([shape(1.0, scales=(replace(tests[1], scale=3),))], DEFAULT_RULE_SET, HOURLY)
    assert quiet.alone == frozenset()


def test_without_a_test_there_is_not_enough_data() -> None:
    finding = only(shape(1.0, scales=()))
    assert (finding.verdict, finding.decision) == ("insufficient", None)


def test_counts_are_judged_within_the_budget_and_not_at_one_in_a_thousand() -> None:
    likely = missing(75, 1_000)
    assert likely.p_value is not None
    assert 1e-4 < likely.p_value < 1e-3
    assert verdicts(likely) == ["ok"]
    assert verdicts(missing(90, 1_000)) == ["breach"]


def test_counts_that_no_row_of_either_side_has_are_not_paid_for() -> None:
    nothing = [missing(0, 0, feature=f"y{i}") for i in range(200)]
    some = [missing(4, 100, feature=f"y{i}") for i in range(200)]
    assert only(missing(82, 1_000), *nothing).decision.hypotheses == 1  # type: ignore[union-attr]
    assert only(missing(82, 1_000), *some).decision.hypotheses == 201  # type: ignore[union-attr]
    assert verdicts(missing(82, 1_000), *nothing)[0] == "breach"
    assert verdicts(missing(82, 1_000), *some)[0] == "ok"


def test_rows_that_come_in_clusters_count_once() -> None:
    clustered = Setting("m", HOURLY.spec, {"x": 5.0})
    assert verdicts(missing(30)) == ["breach"]
    finding = only(missing(30), setting=clustered)
    assert finding.verdict == "ok"
    assert finding.decision is not None
    assert finding.decision.phi == {"exact": 5.0}
    assert finding.decision.p_value == pytest.approx(CountTest(6, 200, 20, 4_000, "excess").p_value())


def test_a_check_without_a_law_is_judged_by_its_rule_alone() -> None:
    measurement = Measurement("traffic.low", "", 0.0, 0, 0)
    finding = only(measurement)
    assert (finding.verdict, finding.decision) == ("breach", None)


def test_the_record_of_a_decision_stands_in_alert_and_result() -> None:
    of = reference()
    judged = judge_window(closed(of, rows(DICE, 400, 0.8)), b"", DEFAULT_RULE_SET)
    [alert] = [json.loads(value)["data"] for _, value in judged.alerts if b"drift.distribution" in value]
    found = alert["decision"]
    assert (alert["feature"], alert["severity"]) == ("x", "critical")
    assert (found["n"], found["n_ref"], found["scale"]) == (400, 12_000, 1)
    assert found["interval"][0] < found["effect"] < found["interval"][1]
    assert found["p_value"] < found["p_limit"] < 1e-4
    assert (found["hypotheses"], found["false_alarms"], found["provisional"]) == (2, "1 per 100d", False)
    assert set(found["tests"]) == set(found["phi"]) == {"chi_square", "location", "dispersion"}
    rule = found["fixed_rule"]
    assert rule["fires"] is True
    assert rule["threshold"] == 0.2
    assert 0 < rule["quiet_rate"] < 1e-6
    results = json.loads(judged.results[0][1])["findings"]
    assert next(f for f in results if f["check"] == "drift.distribution")["decision"] == found


def test_a_small_drift_that_no_window_shows_is_found_by_several_together() -> None:
    of = reference()
    state, history, fired_at = b"", (), None
    for at in range(24):
        judged = judge_window(closed(of, rows(DICE, 200, 0.25), at), state, DEFAULT_RULE_SET, history)
        state, history = judged.after, (judged.tallies, *history)
        alerts = [json.loads(value)["data"] for _, value in judged.alerts]
        if alerts:
            fired_at = fired_at or (at, alerts[0]["decision"]["scale"])
    assert fired_at is not None
    assert fired_at[0] >= 2
    assert fired_at[1] in (3, 6)
