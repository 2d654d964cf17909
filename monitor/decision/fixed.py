"""The fixed threshold, aware of the sample size: what a rule says, but never what chance alone would do at this n."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from monitor.findings import Finding, Measurement
from monitor.policy import RuleSet
from monitor.rules import Rule


def matched(model: str, measurements: Iterable[Measurement], rules: RuleSet) -> list[tuple[Measurement, Rule]]:
    """Return the measurements that a rule is for, in order, with their rules."""
    found = ((m, rules.rule(m.check, model, m.segment, m.feature, m.over)) for m in measurements)
    return [(measurement, rule) for measurement, rule in found if rule is not None]


def judge(measurement: Measurement, rule: Rule) -> Finding:
    """Return what a rule says of a measurement: a breach beyond its threshold and beyond what chance explains once in 1000."""
    severity = rule.severity_of(measurement.value)
    return Finding(measurement, _verdict(measurement, rule), rule.threshold, severity, rule.below is not None, rule)


def is_beyond(measurement: Measurement, rule: Rule, threshold: float) -> bool:
    """Whether a value lies on the bad side of a threshold."""
    return measurement.value < threshold if rule.below is not None else measurement.value > threshold


def _verdict(measurement: Measurement, rule: Rule) -> Literal["ok", "breach", "insufficient"]:
    if measurement.n < measurement.min_n or math.isnan(measurement.value):
        return "insufficient"
    if rule.drop is not None or rule.rise is not None:
        return "insufficient"  # a change against the reference's performance, which is measured once labels are joined
    limits = [rule.threshold]
    if rule.below is None:
        limits += [limit for limit in (measurement.critical_value, rule.floor) if limit is not None]
    return "breach" if is_beyond(measurement, rule, max(limits)) else "ok"
