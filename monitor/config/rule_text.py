"""Rules in short: `psi > 0.2`, `mean(psi, 6) > 0.1`, `missing > 5 %`, `accuracy drop > 5 %`; budgets, runs and windows in words."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from pydantic import Field, model_validator

from monitor.config.values import Node, duration_ms, near_miss
from monitor.policy import CHECKS, DEFAULT_RULES, PERFORMANCE_CHECKS
from monitor.rules import SEVERITIES, FalseAlarms, Severity

RULE_CHECKS: tuple[str, ...] = (*CHECKS, *PERFORMANCE_CHECKS)
"""Ids of everything that a rule may be for."""

_SHORT = Counter(check.partition(".")[2] for check in RULE_CHECKS)
SHORT_NAMES: dict[str, str] = {name: check for check in RULE_CHECKS if _SHORT[name := check.partition(".")[2]] == 1}
"""What a check may be called instead: the part behind the dot, where no other check has it."""

_RULE = re.compile(
    r"\s*(?:(?P<mean>mean)\s*\(\s*)?(?P<check>[\w.]+)\s*(?(mean),\s*(?P<over>\d+)\s*\))"
    r"\s*(?P<change>drop|rise)?\s*(?P<sign>>=|<=|==|=|>|<)\s*(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(?P<percent>%)?\s*"
)
_EXAMPLES = "psi > 0.2, mean(psi, 6) > 0.1, missing > 5 %, traffic.low < 100 or accuracy drop > 5 %"
_BUDGET = re.compile(r"\s*(\d+(?:\.\d+)?)\s*per\s+(day|week|month|year|\S+)\s*")
_NAMED_MS = {"day": 86_400_000, "week": 7 * 86_400_000, "month": 30 * 86_400_000, "year": 365 * 86_400_000}


class Short(NamedTuple):
    """A short rule; one of the last four is set."""

    check: str
    over: int
    above: float | None
    below: float | None
    drop: float | None
    rise: float | None


def check_id(name: str) -> str:
    """Return the id of a check, of its id or short name. Raises ValueError.

    >>> check_id("psi"), check_id("health.missing"), check_id("accuracy")
    ('drift.psi', 'health.missing', 'performance.accuracy')
    """
    if name in RULE_CHECKS:
        return name
    if name in SHORT_NAMES:
        return SHORT_NAMES[name]
    near = near_miss(name, [*RULE_CHECKS, *SHORT_NAMES])
    raise ValueError(
        f"{name!r} is no check{near}; checks are {', '.join(RULE_CHECKS)}, or the part behind the dot where only one has it"
    )


def parse_rule(text: str) -> Short:
    """Return what a short rule says. Raises ValueError.

    >>> parse_rule("mean(psi, 6) > 0.1")
    Short(check='drift.psi', over=6, above=0.1, below=None, drop=None, rise=None)
    >>> parse_rule("accuracy drop > 5 %").drop
    0.05
    """
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a rule; write such as {_EXAMPLES}")
    check, sign, change = check_id(found["check"]), found["sign"], found["change"]
    if sign not in "<>":
        raise ValueError(f"{text!r}: {sign} is not known; write > or <")
    value = float(found["value"]) / (100 if found["percent"] else 1)
    over = int(found["over"]) if found["over"] else 1
    if found["mean"] and not 2 <= over <= MAX_OVER:
        raise ValueError(f"{text!r}: a mean is of 2 to {MAX_OVER} windows")
    if change and sign == "<":
        raise ValueError(f"{text!r}: a {change} is bad above a size; write {change} > {found['value']}{found['percent'] or ''}")
    if change and check not in PERFORMANCE_CHECKS:
        raise ValueError(
            f"{text!r}: only of performance a {change} against the reference is known: {', '.join(PERFORMANCE_CHECKS)}"
        )
    return Short(
        check,
        over,
        above=value if sign == ">" and not change else None,
        below=value if sign == "<" else None,
        drop=value if change == "drop" else None,
        rise=value if change == "rise" else None,
    )


MAX_OVER = 168
MAX_RECENT = 60


def parse_false_alarms(text: str) -> FalseAlarms:
    """Return a budget of false alarms. Raises ValueError.

    >>> parse_false_alarms("1 per 30d") == parse_false_alarms("1 per month")
    True
    """
    found = _BUDGET.fullmatch(text)
    wanted = "write such as 1 per 30d, 2 per week or 0.5 per day"
    if found is None:
        raise ValueError(f"{text!r} is not a number of false alarms; {wanted}")
    try:
        per_ms = _NAMED_MS.get(found[2]) or duration_ms(found[2])
    except ValueError:
        per_ms = 0
    if not per_ms or not float(found[1]):
        raise ValueError(f"{text!r} is not a number of false alarms above 0 in a time; {wanted}")
    return FalseAlarms(float(found[1]), per_ms)


def parse_breaches(text: str) -> tuple[int, int]:
    """Return (n, m) of `n of m`. Raises ValueError.

    >>> parse_breaches("3 of 5")
    (3, 5)
    """
    found = re.fullmatch(r"\s*(\d+)\s+of\s+(\d+)\s*", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= MAX_RECENT:
        raise ValueError(f"{text!r} is not known; write such as 3 of 5: at least 1 of at most {MAX_RECENT} windows")
    return int(found[1]), int(found[2])


def parse_window(text: str) -> tuple[int, int]:
    """Return (size, step), ms, of a kind of window; step 0 is any. Raises ValueError.

    >>> parse_window("24h/1h"), parse_window("1h")
    ((86400000, 3600000), (3600000, 0))
    """
    size, slash, step = text.partition("/")
    try:
        found = duration_ms(size), duration_ms(step) if slash else 0
    except ValueError:
        found = 0, 0
    if not found[0] or (slash and not found[1]):
        raise ValueError(
            f"{text!r} is no kind of window; write its size, or size/step: 1h, 24h or 24h/1h (so many in a row: open_after)"
        )
    return found


class RuleConfig(Node):
    """When a check's value is bad. What is left out stays as it is by default."""

    above: float | None = Field(None, description="bad above this value")
    below: float | None = Field(None, description="bad below this value")
    drop: float | None = Field(
        None, description="of performance: bad where it is lower than the reference's own by this share, 0.05"
    )
    rise: float | None = Field(None, description="of performance: bad where it is higher than the reference's own by this share")
    severity: Severity | None = Field(
        None, description=", ".join(SEVERITIES) + "; given without levels, it is that of every value"
    )
    levels: dict[Severity, float] | None = Field(None, description="severity by the value above which it holds, over `severity`")
    windows: int | None = Field(None, ge=1, description="so many in a row open an incident, and as many quiet ones close it")
    features: tuple[str, ...] = Field((), description="names or wildcards; all if empty")
    models: tuple[str, ...] = Field((), description="names or wildcards; all if empty")
    segments: tuple[str, ...] = Field((), description="names or wildcards; all rows only if empty")
    enabled: bool = Field(True, description="false switches the rule off")

    @model_validator(mode="after")
    def _one_threshold(self) -> RuleConfig:
        if self.above is not None and self.below is not None:
            raise ValueError("give above or below, not both")
        if len(self.limits) > 1:
            raise ValueError(f"give one of {', '.join(self.limits)}")
        if self.levels and self.limits and "above" not in self.limits:
            raise ValueError("levels are of values above a threshold")
        return self

    @property
    def limits(self) -> dict[str, float]:
        """The threshold, by which of the four it is."""
        given = {"above": self.above, "below": self.below, "drop": self.drop, "rise": self.rise}
        return {name: value for name, value in given.items() if value is not None}

    def problem(self, check: str) -> str | None:
        """Return what is wrong with it as a rule of a check."""
        if check not in RULE_CHECKS:
            return f"no such check{near_miss(check, RULE_CHECKS)}; checks are {', '.join(RULE_CHECKS)}"
        if check not in DEFAULT_RULES and not self.limits and self.enabled:
            others = ", drop or rise" if check in PERFORMANCE_CHECKS else ""
            return f"no rule is in force for it by default; give above{',' if others else ' or'} below{others}"
        if check not in PERFORMANCE_CHECKS and {"drop", "rise"} & {*self.limits}:
            return f"only of performance a drop or rise against the reference is known: {', '.join(PERFORMANCE_CHECKS)}"
        if check in PERFORMANCE_CHECKS and self.features:
            return f"{check} is of the model as a whole; leave out features"
        return None
