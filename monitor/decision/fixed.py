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
    """Return what a rule says of a measurement: a breach beyond its threshold and beyond what chance explains.

    That is a critical value, exceeded once in 1000, or an interval, which must lie beyond the threshold as a whole; where only the value
    does, there is not enough data to say. The threshold of a change is the reference's value, less or more so much of it.
    """
    is_below = rule.below is not None or rule.drop is not None
    threshold, severity = _threshold(measurement, rule), rule.severity_of(measurement.value)
    if threshold is None:
        return Finding(measurement, "insufficient", rule.threshold, severity, is_below, rule)
    return Finding(measurement, _verdict(measurement, rule, threshold, is_below), threshold, severity, is_below, rule)


def is_beyond(measurement: Measurement, rule: Rule, threshold: float) -> bool:
    """Whether a value lies on the bad side of a threshold."""
    return _is_beyond(measurement.value, threshold, rule.below is not None)


def _is_beyond(value: float, threshold: float, is_below: bool) -> bool:
    return value < threshold if is_below else value > threshold


def _threshold(measurement: Measurement, rule: Rule) -> float | None:
    """Return from which value on it is bad; None where that takes a value of the reference, and there is none."""
    if rule.drop is None and rule.rise is None:
        return rule.threshold
    own = measurement.reference_value
    if own is None or own <= 0:
        return None
    return own * (1 - rule.drop) if rule.drop is not None else own * (1 + (rule.rise or 0.0))


def _verdict(measurement: Measurement, rule: Rule, threshold: float, is_below: bool) -> Literal["ok", "breach", "insufficient"]:
    if measurement.n < measurement.min_n or math.isnan(measurement.value):
        return "insufficient"
    limits = [threshold]
    if not is_below:
        limits += [limit for limit in (measurement.critical_value, rule.floor) if limit is not None]
    limit = max(limits)
    if not _is_beyond(measurement.value, limit, is_below):
        return "ok"
    if measurement.interval is None:
        return "breach"
    low, high = measurement.interval
    if rule.drop is not None or rule.rise is not None:  # the reference's value is an estimate too
        wider = math.sqrt(1 + measurement.n / max(measurement.n_ref, 1))
        low, high = (measurement.value + (end - measurement.value) * wider for end in (low, high))
    return "breach" if _is_beyond(high if is_below else low, limit, is_below) else "insufficient"
