"""The fixed threshold, aware of the sample size: what a rule says, but never what chance alone would do at this n.

The calibrated scheme takes this place later: the same measurements in, the same findings out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from monitor.findings import Finding, Measurement
from monitor.policy import RuleSet
from monitor.rules import Rule


def decide(model: str, measurements: Iterable[Measurement], rules: RuleSet) -> list[Finding]:
    """Return a finding per measurement that a rule is for, in order."""
    findings = []
    for measurement in measurements:
        rule = rules.rule(measurement.check, model, measurement.segment, measurement.feature, measurement.over)
        if rule is not None:
            verdict = _verdict(measurement, rule)
            findings.append(Finding(measurement, verdict, rule.threshold, rule.severity, rule.below is not None, rule))
    return findings


def _verdict(measurement: Measurement, rule: Rule) -> Literal["ok", "breach", "insufficient"]:
    if measurement.n < measurement.min_n or math.isnan(measurement.value):
        return "insufficient"
    if rule.drop is not None or rule.rise is not None:
        return "insufficient"  # a change against the reference's performance, which is measured once labels are joined
    if rule.below is not None:
        return "breach" if measurement.value < rule.threshold else "ok"
    limits = (rule.threshold, measurement.critical_value, rule.floor)
    return "breach" if measurement.value > max(limit for limit in limits if limit is not None) else "ok"
