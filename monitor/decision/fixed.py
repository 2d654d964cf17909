"""The fixed threshold, aware of the sample size: what a rule says, but never what chance alone would do at this n.

The calibrated scheme takes this place later: the same measurements in, the same findings out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from monitor.findings import Finding, Measurement
from monitor.policy import RuleSet


def decide(model: str, measurements: Iterable[Measurement], rules: RuleSet) -> list[Finding]:
    """Return a finding per measurement that a rule is for, in order."""
    findings = []
    for measurement in measurements:
        rule = rules.rule(measurement.check, model, measurement.segment, measurement.feature)
        if rule is not None:
            is_below = rule.below is not None
            verdict = _verdict(measurement, rule.threshold, is_below=is_below)
            findings.append(Finding(measurement, verdict, rule.threshold, rule.severity, is_below, rule.windows))
    return findings


def _verdict(measurement: Measurement, threshold: float, *, is_below: bool) -> Literal["ok", "breach", "insufficient"]:
    if measurement.n < measurement.min_n:
        return "insufficient"
    if is_below:
        return "breach" if measurement.value < threshold else "ok"
    limit = threshold if measurement.critical_value is None else max(threshold, measurement.critical_value)
    return "breach" if measurement.value > limit else "ok"
