"""Policies: which rule a measurement is judged by. The most specific one wins, whichever policy it stands in."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import msgspec

from monitor import distances, rules
from monitor.distances.psi import EPS
from monitor.rules import DEFAULT_FALSE_ALARMS, FalseAlarms, Rule
from monitor.segments import ALL
from monitor.windows import WindowSpec

DEFAULT_RULES: Mapping[str, Rule] = {
    "drift.distribution": Rule(above=0.0075, severity="notice", levels={"warning": 0.1, "critical": 0.25}),
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

_OF_MODEL = ("traffic.", "telemetry.", "stream.", "segments.", "performance.")
_OF_MODEL_TOO = ("schema.unexpected_feature", "schema.id_changed", "schema.envelope")


def is_of_model(check: str) -> bool:
    """Whether a check measures the model as a whole, not each feature.

    >>> is_of_model("traffic.low"), is_of_model("drift.psi")
    (True, False)
    """
    return check.startswith(_OF_MODEL) or check in _OF_MODEL_TOO


PERFORMANCE_METRICS: tuple[str, ...] = (
    "accuracy", "precision", "recall", "f1", "auc", "log_loss", "brier", "ece", "mae", "rmse", "mape", "r2", "bias",
)  # fmt: skip
PERFORMANCE_CHECKS: tuple[str, ...] = tuple(f"performance.{metric}" for metric in PERFORMANCE_METRICS)
"""Ids of what labels tell: silent until somebody writes a rule, since how good a model must be depends on it."""


DEFAULT_POLICY = "default"
"""What the rules of the configuration are called, where a policy is named."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The rules of one policy, valid from an event time.

    rules: (check, rule) in the order of the file; what it left out of a rule is filled in. false_alarms: of all its calibrated rules.
    """

    name: str
    rules: tuple[tuple[str, Rule], ...]
    effective_from_ms: int = 0
    false_alarms: FalseAlarms | None = None

    @property
    def key(self) -> bytes:
        """Key on the policies topic: name|effective_from."""
        return f"{self.name}|{self.effective_from_ms}".encode()

    @cached_property
    def sha256(self) -> str:
        """Identity of all of it."""
        return _sha256(self)


@dataclass(frozen=True)
class RuleSet:
    """The rules in force, and what the numbers that they judge depend on.

    rules: the default policy, by check. psi_eps: the share that the distance of that name puts in place of smaller ones.
    policies: over the default one, sorted by name. false_alarms: how many may be raised by chance, where no policy says.
    """

    rules: Mapping[str, Rule]
    psi_eps: float = EPS
    policies: tuple[Policy, ...] = ()
    false_alarms: FalseAlarms = DEFAULT_FALSE_ALARMS

    @cached_property
    def sha256(self) -> str:
        """Identity of all of it; every alert and every result names it."""
        content: dict[str, object] = {"rules": self.rules, "psi_eps": self.psi_eps, "false_alarms": self.false_alarms}
        if self.policies:
            content["policies"] = self.shas
        return _sha256(content)

    @cached_property
    def shas(self) -> dict[str, str]:
        """The policies by name, each with its own sha256."""
        return {policy.name: policy.sha256 for policy in self.policies}

    @cached_property
    def budgets(self) -> frozenset[FalseAlarms]:
        """All budgets of false alarms that rules keep to."""
        return frozenset({self.false_alarms, *(r.false_alarms for of in self.by_check.values() for r in of if r.false_alarms)})

    @cached_property
    def by_check(self) -> dict[str, list[Rule]]:
        """Every rule of a check: the default one first, then by policy, in the order of its file."""
        found = {check: [rule] for check, rule in self.rules.items()}
        for policy in self.policies:
            for check, rule in policy.rules:
                found.setdefault(check, []).append(rule)
        return found

    def rule(self, check: str, model: str, segment: str, feature: str, over: int = 1) -> Rule | None:
        """Return the rule for a measurement (over: the mean of so many windows), or None when nobody minds."""
        return self._winners(check, model, segment, feature).get(over)

    def overs(self, check: str, model: str, segment: str, feature: str) -> list[int]:
        """Return of how many windows means are judged."""
        if check not in self._with_means:
            return []
        return [over for over in self._winners(check, model, segment, feature) if over > 1]

    def _winners(self, check: str, model: str, segment: str, feature: str) -> dict[int, Rule]:
        """Return the winner among the rules of each length of means; of equally specific ones the last."""
        has_models, has_features = self._told_apart.get(check, (False, False))
        at = (check, model if has_models else "", segment, feature if has_features else "")
        known = self._memory.get(at)
        if known is None:
            if len(self._memory) >= MAX_REMEMBERED:
                self._memory.clear()
            known = self._memory[at] = self._judge(*at)
        return known

    def _judge(self, check: str, model: str, segment: str, feature: str) -> dict[int, Rule]:
        best: dict[int, tuple[rules.Specificity, Rule]] = {}
        for rule in self.by_check.get(check, ()):
            fits = rule.specificity(model, segment, feature)
            if fits is not None and (rule.over not in best or fits >= best[rule.over][0]):
                best[rule.over] = (fits, rule)
        return {over: rule for over, (_, rule) in sorted(best.items()) if rule.enabled}

    def minds(self, segment: str) -> bool:
        """Whether any rule is for a segment."""
        return any(self.minds_with(check, segment) for check in self.by_check)

    def minds_with(self, check: str, segment: str) -> bool:
        """Whether a rule of a check is for a segment."""
        return any(
            rule.enabled and (rules.fit(segment, rule.segments) is not None if rule.segments else segment == ALL)
            for rule in self.by_check.get(check, ())
        )

    def of(self, spec: WindowSpec) -> RuleSet:
        """Return the rules for windows of a kind; their sha256 is that of all, which it is a part of."""
        known = self._by_spec.get(spec)
        if known is None:
            known = self._by_spec[spec] = self._narrowed(spec)
        return known

    def _narrowed(self, spec: WindowSpec) -> RuleSet:
        parts = [msgspec.structs.replace(p, rules=tuple(r for r in p.rules if r[1].is_for(spec))) for p in self.policies]
        own = {check: rule for check, rule in self.rules.items() if rule.is_for(spec)}
        narrowed = RuleSet(own, self.psi_eps, tuple(parts), self.false_alarms)
        narrowed.__dict__["sha256"] = self.sha256
        narrowed.__dict__["shas"] = self.shas
        return narrowed

    @cached_property
    def _with_means(self) -> frozenset[str]:
        return frozenset(check for check, of_check in self.by_check.items() if any(rule.over > 1 for rule in of_check))

    @cached_property
    def _told_apart(self) -> dict[str, tuple[bool, bool]]:
        """Whether any rule of a check is for some models, or for some features: else one answer is that of all."""
        return {check: (any(r.models for r in of), any(r.features for r in of)) for check, of in self.by_check.items()}

    @cached_property
    def _memory(self) -> dict[tuple[str, str, str, str], dict[int, Rule]]:
        return {}

    @cached_property
    def _by_spec(self) -> dict[WindowSpec, RuleSet]:
        return {}


MAX_REMEMBERED = 1 << 16

DEFAULT_RULE_SET = RuleSet(dict(DEFAULT_RULES))


@dataclass
class Policies:
    """Every policy known, by name and event time; over the default rules."""

    default: RuleSet = DEFAULT_RULE_SET
    _by_name: dict[str, list[Policy]] = field(default_factory=dict)
    _in_force: dict[tuple[bytes, ...], RuleSet] = field(default_factory=dict)

    def add(self, policy: Policy) -> None:
        """Take a policy in; one with the same name and `effective_from_ms` replaces it."""
        known = [p for p in self._by_name.get(policy.name, ()) if p.key != policy.key]
        self._by_name[policy.name] = sorted([*known, policy], key=lambda p: p.effective_from_ms)
        self._in_force.clear()

    def remove(self, key: bytes) -> None:
        """Forget the policy with a key."""
        name = key.rpartition(b"|")[0].decode()
        self._by_name[name] = [p for p in self._by_name.get(name, ()) if p.key != key]
        self._in_force.clear()

    def at(self, start_ms: int) -> RuleSet:
        """Return the rules for a window that starts then: of each name the newest policy with `effective_from_ms` ≤ start_ms."""
        found = []
        for name in sorted(self._by_name):
            known = self._by_name[name]
            i = bisect_right(known, start_ms, key=lambda p: p.effective_from_ms)
            found += known[i - 1 : i] if i else []
        keys = tuple(policy.key for policy in found)
        if not keys:
            return self.default
        if keys not in self._in_force:
            self._in_force[keys] = replace(self.default, policies=tuple(found))
        return self._in_force[keys]

    def of_name(self, name: str) -> list[Policy]:
        """Return the versions of a policy, by event time."""
        return list(self._by_name.get(name, ()))

    def versions(self) -> list[Policy]:
        """Return every policy, by name and event time."""
        return [policy for name in sorted(self._by_name) for policy in self._by_name[name]]

    def __len__(self) -> int:
        return sum(map(len, self._by_name.values()))


def _sha256(content: object) -> str:
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()
