"""The fixed threshold, aware of the sample size: what a rule says, but never what chance alone would do at this n."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from monitor.findings import Finding, Measurement
from monitor.policy import Rule, RuleSet


def decide(model: str, measurements: Iterable[Measurement], rules: RuleSet) -> list[Finding]:
    """Return a finding per measurement that a rule is for, in order, each judged by itself."""
    found = ((m, rules.rule(m.check, model, m.segment, m.feature)) for m in measurements)
    return [judge(measurement, rule) for measurement, rule in found if rule is not None]


def judge(measurement: Measurement, rule: Rule) -> Finding:
    """Return what a rule says of a measurement: a breach beyond its threshold and beyond what chance explains once in 1000."""
    severity = rule.severity_of(measurement.value)
    verdict = _verdict(measurement, rule)
    return Finding(measurement, verdict, rule.threshold, severity, rule.below is not None, rule.windows)


def is_beyond(measurement: Measurement, rule: Rule, threshold: float) -> bool:
    """Whether a value lies on the bad side of a threshold."""
    return measurement.value < threshold if rule.below is not None else measurement.value > threshold


def _verdict(measurement: Measurement, rule: Rule) -> Literal["ok", "breach", "insufficient"]:
    if measurement.n < measurement.min_n:
        return "insufficient"
    limit = rule.threshold
    if rule.below is None and measurement.critical_value is not None:
        limit = max(limit, measurement.critical_value)
    return "breach" if is_beyond(measurement, rule, limit) else "ok"
