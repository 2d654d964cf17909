"""Rules: from which value on a measurement is bad, how bad, and for how many windows before anybody is told."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fnmatch import fnmatchcase

import msgspec

from monitor import findings
from monitor.layout import without_view

Severity = findings.Severity
SEVERITIES: tuple[Severity, ...] = ("notice", "warning", "critical")


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """When a check's value is bad.

    above, below: the threshold; one of them. windows: so many breaches in a row open an incident, so many quiet windows close it.
    features, models: names or wildcards that it is for; empty means all. A feature's name is for all its views.
    """

    above: float | None = None
    below: float | None = None
    severity: Severity = "warning"
    windows: int = 1
    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    enabled: bool = True

    @property
    def threshold(self) -> float:
        """Whichever is set."""
        return float(self.above if self.above is not None else (self.below or 0.0))

    def applies(self, model: str, feature: str) -> bool:
        """Whether the rule is for this model and feature."""
        return (
            self.enabled
            and (not self.models or _matches(model, self.models))
            and (not self.features or _matches(feature, self.features) or _matches(without_view(feature), self.features))
        )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return name in patterns or any(fnmatchcase(name, pattern) for pattern in patterns)  # `amount[usd]` is a name too


DEFAULT_RULES: Mapping[str, Rule] = {
    "drift.psi": Rule(above=0.2, severity="warning"),
    "drift.js": Rule(above=0.2, severity="notice"),
    "health.missing": Rule(above=0.05, severity="warning"),
    "health.never_seen": Rule(above=0.01, severity="warning"),
    "health.out_of_range": Rule(above=0.01, severity="warning"),
    "schema.wrong_type": Rule(above=0.001, severity="warning"),
    "schema.missing_feature": Rule(above=0.99, severity="critical"),
    "schema.unexpected_feature": Rule(above=0.0, severity="notice"),
    "traffic.low": Rule(below=1.0, severity="warning"),
    "telemetry.gap": Rule(above=0.0, severity="critical"),
}
"""One rule per check; the keys are the ids of all checks."""


class RuleSet(msgspec.Struct, frozen=True):
    """The rules in force."""

    rules: dict[str, Rule]

    @property
    def sha256(self) -> str:
        """Identity of the rules; every alert names it."""
        return hashlib.sha256(msgspec.json.encode(self.rules, order="deterministic")).hexdigest()

    def rule(self, check: str, model: str, feature: str) -> Rule | None:
        """Return the rule for a measurement, or None when nobody minds."""
        rule = self.rules.get(check)
        return rule if rule is not None and rule.applies(model, feature) else None


DEFAULT_RULE_SET = RuleSet(dict(DEFAULT_RULES))
