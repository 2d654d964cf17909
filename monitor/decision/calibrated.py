"""Which measurements are alarms: those that a budget of false alarms lets one believe, and whose effect is worth telling.

A budget is the configuration's, or that of the policies whose rules name one; rules with equal budgets share it. What it gives a window
is shared by families of hypotheses, within each of which Benjamini and Hochberg's procedure looks at all features and segments at once.
Tests of distributions spend half of their share: their tails are known to a factor of four. Exact tests of counts spend all of it: they
hold their level whatever the law, and stay below it, as counts are whole. Among these, tests for outliers pay and get a fifth of what the
others do (Genovese, Roeder and Wasserman 2006): a row in a hundred far out is plain to see, a row in fifty that is missing is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from msgspec.structs import replace

from monitor.chance.calibration import SCALES
from monitor.decision import fixed
from monitor.decision.effects import count_interval, fixed_rules, psi_effects
from monitor.decision.probabilities import benjamini_hochberg
from monitor.decision.shape import CHECK
from monitor.decision.tails import CHECK as TAILS
from monitor.findings import Decision, Finding, FixedRule, Measurement, ScaleTest
from monitor.policy import RuleSet
from monitor.rules import FalseAlarms, Rule
from monitor.windows import WindowSpec

COUNTS_SHARE = 0.4
"""Of the budget, for exact tests of counted rows: missing, never seen, out of range, in the tails …"""
OUTLIER_WEIGHT = 0.2
"""What a test for outliers may spend, next to one of other counts."""
SPENT = 0.5
"""Of what is left, by tests of distributions; the other half is a reserve."""
SCALE_SHARES: Mapping[int, float] = dict(zip(SCALES, (0.5, 0.2, 0.15, 0.15), strict=True))
"""Of what these spend, by scale."""

NEVER = 1e-12
"""A probability that no budget needs to be spent on."""


class Setting(NamedTuple):
    """What a window is judged in. design_effects: rows that count as one, by feature with a known φ (shape.design_effects)."""

    model: str
    spec: WindowSpec
    design_effects: Mapping[str, float]


def distribution_alpha(budget: FalseAlarms, spec: WindowSpec, scale: int) -> float:
    """Return what a window may spend on the tests of distributions at a scale; windows that overlap are not merged: it is all theirs."""
    share = SCALE_SHARES[scale] if spec.kind == "tumbling" else 1.0
    return SPENT * budget.of(spec.step_ms) * (1 - COUNTS_SHARE) * share


def counts_alpha(budget: FalseAlarms, spec: WindowSpec) -> float:
    """Return what a window may spend on exact tests of counts."""
    return budget.of(spec.step_ms) * COUNTS_SHARE


def count_weight(measurement: Measurement) -> float:
    """Return what an exact test may spend next to others: its p is held against so many times the limit of its family."""
    test = measurement.counted
    return OUTLIER_WEIGHT if measurement.check == TAILS or (test is not None and test.kind == "extremes") else 1.0


class Decided(NamedTuple):
    """alone: (segment, feature) of the distributions that this window by itself shows to have changed."""

    findings: list[Finding]
    alone: frozenset[tuple[str, str]]


class _Limit(NamedTuple):
    """Of a family: up to which p a hypothesis of weight 1 is rejected, and how many are paid for."""

    p: float
    hypotheses: int


_Case = tuple[Measurement, Rule]


def decide(measurements: Iterable[Measurement], rules: RuleSet, setting: Setting) -> Decided:
    """Return a finding per measurement that a rule is for, in order. What has no test is judged by its rule's threshold alone."""
    cases = fixed.matched(setting.model, measurements, rules)
    judge = _Judge(cases, rules, setting)
    return Decided([judge.finding(i) for i in range(len(cases))], judge.alone())


class _Judge:
    """Knows all that was tested in a window, so that it can say of each whether it is believed."""

    def __init__(self, cases: list[_Case], rules: RuleSet, setting: Setting) -> None:
        self._cases, self._setting, self._rules = cases, setting, rules
        of_scale: dict[tuple[FalseAlarms, int], list[float]] = {}
        of_counts: dict[FalseAlarms, list[tuple[float, float]]] = {}
        self._p_of_count: dict[int, float] = {}
        for i, (measurement, rule) in enumerate(cases):
            for test in measurement.scales:
                of_scale.setdefault((self._budget(rule), test.scale), []).append(test.p_value)
            if rule.below is None and _can_be_rejected(measurement):
                if _is_beyond_chance(measurement):
                    self._p_of_count[i] = self._count_p(measurement)
                together = of_counts.setdefault(self._budget(rule), [])
                if self._can_reach(measurement, rule):
                    together.append((self._p_of_count.get(i, 1.0), count_weight(measurement)))
        self._scales = {key: _limit(p, distribution_alpha(key[0], setting.spec, key[1])) for key, p in of_scale.items()}
        self._counts = {budget: _weighted_limit(of, counts_alpha(budget, setting.spec)) for budget, of in of_counts.items()}

    def _can_reach(self, measurement: Measurement, rule: Rule) -> bool:
        """Whether chance may ever bring a count above the smallest effect that is told (Hoeffding 1963); else it costs no false alarm.

        Given how many rows are bad on both sides: so it does not depend on what is tested, which is how many of them are the window's.
        """
        test = measurement.counted
        assert test is not None
        above = _floor(rule) - (test.bad + test.bad_ref) / (test.n + test.m)
        rows = test.n / self._setting.design_effects.get(measurement.feature, 1.0)
        return test.kind == "extremes" or above <= 0 or test.parts * math.exp(-2 * rows * above * above) > NEVER

    def _budget(self, rule: Rule) -> FalseAlarms:
        return rule.false_alarms or self._rules.false_alarms

    def finding(self, i: int) -> Finding:
        """Return what is to be said of the i-th case."""
        measurement, rule = self._cases[i]
        if _is_distribution(measurement):
            return self._of_distribution(i)
        if i in self._p_of_count:
            return self._of_count(measurement, rule, self._p_of_count[i])
        return fixed.judge(measurement, rule)

    def alone(self) -> frozenset[tuple[str, str]]:
        """Return the distributions whose newest window is rejected by itself."""
        return frozenset(
            (measurement.segment, measurement.feature)
            for measurement, rule in self._cases
            for test in measurement.scales
            if test.scale == 1 and test.p_value <= self._scales[self._budget(rule), 1].p
        )

    def _of_distribution(self, i: int) -> Finding:
        """Judge by the scale that is rejected with the largest effect; where none is, tell of the one that came nearest."""
        measurement, rule = self._cases[i]
        if not measurement.scales:
            return Finding(measurement, "insufficient", rule.threshold, rule.severity, rule=rule)
        told = self._told[i]
        test, rows = told.test, (int(told.test.cells[1].sum()), int(told.test.cells[0].sum()))
        measured = replace(measurement, value=told.value, n=rows[0], n_ref=rows[1], p_value=test.p_value)
        details = _Details(told.interval, test.scale, dict(test.tests), dict(test.phi), told.fixed_rule)
        return self._made(measured, rule, details, self._scales[self._budget(rule), test.scale], is_rejected=told.is_rejected)

    @cached_property
    def _told(self) -> dict[int, _Told]:
        """What there is to say of each distribution, by place of its case; computed together."""
        near = {i: self._nearest(m, rule) for i, (m, rule) in enumerate(self._cases) if _is_distribution(m) and m.scales}
        tests = [test for _, of in near.values() for test in of]
        effects = dict(zip(map(id, tests), psi_effects([t.cells for t in tests], [_phi(t) for t in tests]), strict=True))
        chosen = {i: max(of, key=lambda test: effects[id(test)][0]) for i, (_, of) in near.items()}
        of = [self._cases[i][0] for i in near]
        rules = fixed_rules(
            [float(one.evidence["psi"]) for one in of],
            [(one.n, one.n_ref, int(one.evidence["cells"])) for one in of],
            [_phi(test) for test in chosen.values()],
        )
        return {
            i: _Told(near[i][0], test, *effects[id(test)], fixed) for (i, test), fixed in zip(chosen.items(), rules, strict=True)
        }

    def _nearest(self, measurement: Measurement, rule: Rule) -> tuple[bool, list[ScaleTest]]:
        """Return whether a distribution is rejected, and the tests that its finding may be about: those rejected, or the nearest one."""
        limits = {test.scale: self._scales[self._budget(rule), test.scale].p for test in measurement.scales}
        rejected = [test for test in measurement.scales if test.p_value <= limits[test.scale]]
        nearest = rejected or [min(measurement.scales, key=lambda test: test.p_value / limits[test.scale])]
        return bool(rejected), nearest

    def _of_count(self, measurement: Measurement, rule: Rule, p_value: float) -> Finding:
        assert measurement.counted is not None
        known = measurement.feature in self._setting.design_effects
        effect = self._setting.design_effects.get(measurement.feature, 1.0)
        measured = replace(
            measurement, p_value=p_value if p_value < 1 else None, is_provisional=bool(measurement.feature) and not known
        )
        interval = count_interval(measurement.counted, measurement.value, effect)
        details = _Details(interval, 1, {"exact": p_value}, {"exact": effect}, None)
        limit = self._counts[self._budget(rule)]
        limit = limit._replace(p=limit.p * count_weight(measurement))
        return self._made(measured, rule, details, limit, is_rejected=p_value <= limit.p)

    def _made(self, measured: Measurement, rule: Rule, details: _Details, limit: _Limit, *, is_rejected: bool) -> Finding:
        floor = _floor(rule)
        if measured.is_provisional:
            floor = max(floor, rule.levels.get("warning", floor))
        decision = Decision(
            effect=measured.value,
            interval=details.interval,
            p_value=1.0 if measured.p_value is None else measured.p_value,
            p_limit=limit.p,
            hypotheses=limit.hypotheses,
            false_alarms=str(self._budget(rule)),
            n=measured.n,
            n_ref=measured.n_ref,
            effect_floor=floor,
            scale=details.scale,
            tests=details.tests,
            phi=details.phi,
            provisional=measured.is_provisional,
            fixed_rule=details.fixed_rule,
        )
        is_bad = is_rejected and fixed.is_beyond(measured, rule, floor)
        severity = rule.severity_of(measured.value)
        verdict: Literal["ok", "breach"] = "breach" if is_bad else "ok"
        return Finding(measured, verdict, floor, severity, rule.below is not None, rule, decision)

    def _count_p(self, measurement: Measurement) -> float:
        assert measurement.counted is not None
        assert measurement.p_value is not None
        effect = self._setting.design_effects.get(measurement.feature, 1.0)
        return measurement.p_value if effect == 1 else measurement.counted.p_value(effect)


def _floor(rule: Rule) -> float:
    return rule.threshold if rule.floor is None else max(rule.threshold, rule.floor)


def _is_distribution(measurement: Measurement) -> bool:
    """Whether it is judged by the tests of its scales."""
    return measurement.check == CHECK and measurement.over == 1


def _can_be_rejected(measurement: Measurement) -> bool:
    """Whether it is a hypothesis at all: with no bad row on either side an exact test cannot reject, and need not be paid for (Tarone 1990)."""
    test = measurement.counted
    return test is not None and measurement.n >= measurement.min_n and bool(test.kind == "extremes" or test.bad or test.bad_ref)


def _is_beyond_chance(measurement: Measurement) -> bool:
    """Whether a count is beyond what chance explains once in 1000 if rows are independent; no budget allows more for one of many."""
    return measurement.p_value is not None and measurement.value > (measurement.critical_value or 0.0)


class _Told(NamedTuple):
    """What there is to say of a distribution: test is the one that the finding is about."""

    is_rejected: bool
    test: ScaleTest
    value: float
    interval: tuple[float, float]
    fixed_rule: FixedRule


class _Details(NamedTuple):
    interval: tuple[float, float]
    scale: int
    tests: dict[str, float]
    phi: dict[str, float]
    fixed_rule: FixedRule | None


def _limit(p_values: list[float], alpha: float) -> _Limit:
    return _Limit(benjamini_hochberg(np.array(p_values), alpha)[1] if p_values else alpha, len(p_values))


def _weighted_limit(cases: list[tuple[float, float]], alpha: float) -> _Limit:
    """cases: (p, weight) each. The same procedure of p / weight, where weights are 1 on average."""
    if not cases:
        return _Limit(alpha, 0)
    p_values, weights = np.array(cases).T
    return _Limit(benjamini_hochberg(p_values / weights, alpha * len(cases) / float(weights.sum()))[1], len(cases))


def _phi(test: ScaleTest) -> float:
    return test.phi.get("chi_square", 1.0)
