"""Rules: from which value on a measurement is bad, how bad, and for how many windows before anybody is told."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fnmatch import fnmatchcase

import msgspec

from monitor import distances, findings
from monitor.distances.psi import EPS
from monitor.features import without_view
from monitor.segments import ALL
from monitor.windows import duration_text

Severity = findings.Severity
SEVERITIES: tuple[Severity, ...] = ("notice", "warning", "critical")


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """When a check's value is bad.

    above, below: the threshold; one of them. windows: so many breaches in a row open an incident, so many quiet windows close it.
    features, models: names or wildcards that it is for; empty means all. A feature's name is for all its views.
    segments: likewise; empty means all rows only.
    levels: severity → value above which it is that severe; below all of them it is `severity`.
    """

    above: float | None = None
    below: float | None = None
    severity: Severity = "warning"
    windows: int = 1
    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    enabled: bool = True
    levels: dict[Severity, float] = {}

    @property
    def threshold(self) -> float:
        """Whichever is set."""
        return float(self.above if self.above is not None else (self.below or 0.0))

    def severity_of(self, value: float) -> Severity:
        """Return how bad a value beyond the threshold is."""
        if not self.levels:
            return self.severity
        reached = [severity for severity, above in self.levels.items() if value > above]
        return max((self.severity, *reached), key=SEVERITIES.index)

    def applies(self, model: str, segment: str, feature: str) -> bool:
        """Whether the rule is for this model, segment and feature."""
        return (
            self.enabled
            and _matches(segment, self.segments or (ALL,))
            and (not self.models or _matches(model, self.models))
            and (not self.features or _matches(feature, self.features) or _matches(without_view(feature), self.features))
        )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return name in patterns or any(fnmatchcase(name, pattern) for pattern in patterns)  # `amount[usd]` is a name too


DEFAULT_RULES: Mapping[str, Rule] = {
    "drift.distribution": Rule(above=0.01, severity="notice", levels={"warning": 0.1, "critical": 0.25}),
    "drift.tails": Rule(above=0.002, severity="notice", levels={"warning": 0.01}),
    "health.missing": Rule(above=0.01, severity="notice", levels={"warning": 0.05}),
    "health.never_seen": Rule(above=0.002, severity="notice", levels={"warning": 0.01}),
    "health.cardinality": Rule(above=3.0, severity="notice"),  # doublings; not calibrated where rows come in bursts
    "health.out_of_range": Rule(above=0.002, severity="notice", levels={"warning": 0.01}),
    "schema.wrong_type": Rule(above=0.001, severity="warning"),
    "schema.missing_feature": Rule(above=0.99, severity="critical"),
    "schema.unexpected_feature": Rule(above=0.0, severity="notice"),
    "health.constant": Rule(above=0.0, severity="warning"),
    "health.nan": Rule(above=0.01, severity="warning"),
    "health.infinite": Rule(above=0.01, severity="warning"),
    "schema.id_changed": Rule(above=0.0, severity="notice"),
    "schema.envelope": Rule(above=0.001, severity="notice"),
    "traffic.low": Rule(below=1.0, severity="warning"),
    "segments.drift": Rule(above=0.1, severity="warning"),
    "segments.other": Rule(above=0.05, severity="notice"),
    "telemetry.gap": Rule(above=0.0, severity="critical"),
    "stream.late": Rule(above=0.01, severity="warning"),
    "stream.future": Rule(above=0.001, severity="warning"),
    "stream.duplicate_id": Rule(above=0.01, severity="warning"),
    "stream.clock_skew": Rule(above=60_000.0, severity="warning"),
    "stream.sample_rate": Rule(above=1.0, severity="notice"),
    "stream.error_status": Rule(above=0.05, severity="warning"),
}
"""The rules in force unless others are configured."""

SILENT_CHECKS: tuple[str, ...] = (
    *(check for check in distances.CHECKS if check not in DEFAULT_RULES),
    "health.incomplete",
    "health.below_min",
    "health.above_max",
    "health.negative",
    "health.zeros",
    "health.boolean_share",
    "health.top_share",
    "health.mean",
    "health.std",
    "health.sum",
    "traffic.high",
    "traffic.rate_low",
    "traffic.rate_high",
    "traffic.stop",
    "stream.out_of_order",
    "stream.key_skew",
    "stream.producer_gone",
)
"""Measured, and judged where somebody writes a rule: what is bad depends on the model, or another check tells it already."""

CHECKS: tuple[str, ...] = (*DEFAULT_RULES, *SILENT_CHECKS)
"""Ids of all checks. One without a default rule is measured, and judged where somebody writes a rule for it."""


class Budget(msgspec.Struct, frozen=True):
    """So many false alarms in so long a time, of one model's windows of one length, when nothing has changed."""

    alarms: float = 1.0
    span_ms: int = 100 * 86_400_000

    def of(self, time_ms: int) -> float:
        """Return the share of it that belongs to a time.

        >>> round(Budget().of(86_400_000), 6)
        0.01
        """
        return self.alarms * time_ms / self.span_ms

    def __str__(self) -> str:
        return f"{self.alarms:g} per {duration_text(self.span_ms)}"


class RuleSet(msgspec.Struct, frozen=True):
    """The rules in force, and what the numbers that they judge depend on.

    psi_eps: the share that the distance of that name puts in place of smaller ones. false_alarms: how many may be raised by chance.
    """

    rules: dict[str, Rule]
    psi_eps: float = EPS
    false_alarms: Budget = Budget()

    @property
    def sha256(self) -> str:
        """Identity of all of it; every alert names it."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()

    def rule(self, check: str, model: str, segment: str, feature: str) -> Rule | None:
        """Return the rule for a measurement, or None when nobody minds."""
        rule = self.rules.get(check)
        return rule if rule is not None and rule.applies(model, segment, feature) else None

    def minds(self, segment: str) -> bool:
        """Whether any rule is for a segment."""
        return any(self.minds_with(check, segment) for check in self.rules)

    def minds_with(self, check: str, segment: str) -> bool:
        """Whether the rule of a check is for a segment."""
        rule = self.rules.get(check)
        return rule is not None and rule.enabled and _matches(segment, rule.segments or (ALL,))


DEFAULT_RULE_SET = RuleSet(dict(DEFAULT_RULES))
