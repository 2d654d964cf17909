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
    if "interval" in measurement.evidence or rule.drop is not None or rule.rise is not None:
        return _by_interval(measurement, rule)
    return Finding(measurement, _verdict(measurement, rule), rule.threshold, severity, rule.below is not None, rule)


def _by_interval(measurement: Measurement, rule: Rule) -> Finding:
    """Return a breach where all of a value's interval is beyond the threshold: a drop or rise is one from the reference's own value."""
    limit, is_below = rule.threshold, rule.below is not None or rule.drop is not None
    reference = measurement.evidence.get("reference")
    if (rule.drop is not None or rule.rise is not None) and reference is not None:
        limit = reference + abs(reference) * (rule.rise if rule.rise is not None else -(rule.drop or 0.0))
    low, high = measurement.evidence.get("interval") or (None, None)
    is_known = (rule.drop is None and rule.rise is None) or reference is not None
    verdict: Literal["ok", "breach", "insufficient"] = "ok"
    if measurement.n < measurement.min_n or math.isnan(measurement.value) or low is None or high is None or not is_known:
        verdict = "insufficient"
    elif high < limit if is_below else low > limit:
        verdict = "breach"
    return Finding(measurement, verdict, limit, rule.severity_of(measurement.value), is_below, rule)


def is_beyond(measurement: Measurement, rule: Rule, threshold: float) -> bool:
    """Whether a value lies on the bad side of a threshold."""
    return measurement.value < threshold if rule.below is not None else measurement.value > threshold


def _verdict(measurement: Measurement, rule: Rule) -> Literal["ok", "breach", "insufficient"]:
    if measurement.n < measurement.min_n or math.isnan(measurement.value):
        return "insufficient"
    limits = [rule.threshold]
    if rule.below is None:
        limits += [limit for limit in (measurement.critical_value, rule.floor) if limit is not None]
    return "breach" if is_beyond(measurement, rule, max(limits)) else "ok"
