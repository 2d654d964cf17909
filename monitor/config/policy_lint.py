"""What is wrong with policies that can be read: names that nobody has, checks that cannot apply, rules that contradict or never apply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from monitor.config.file import line_of
from monitor.config.policy_file import ReadPolicy
from monitor.config.settings import Config
from monitor.config.values import near_miss
from monitor.false_alarms import Expected, Measured, expected_alarms, measure, rows_of, totals
from monitor.features import source_of
from monitor.performance.measure import LOWER_IS_WORSE as LOWER_METRICS
from monitor.policy import Policies, RuleSet, is_of_model
from monitor.reference import Reference
from monitor.rules import Mute, Rule, fit
from monitor.segments import ALL
from monitor.windows import WindowSpec, duration_text, early_specs

LOWER_IS_WORSE = frozenset({"traffic.low", "traffic.rate_low"} | {f"performance.{name}" for name in LOWER_METRICS})
BOTH_WAYS = frozenset({"health.sum", "performance.bias"})
"""Bad on either side."""


@dataclass
class Lint:
    """problems: what cannot be meant; warnings: what may not be. expected: false alarms, where a reference tells."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    expected: list[Expected] = field(default_factory=list)


@dataclass(frozen=True)
class _Place:
    """A rule in its file."""

    read: ReadPolicy
    index: int

    @property
    def check(self) -> str:
        return self.read.policy.rules[self.index][0]

    @property
    def rule(self) -> Rule:
        return self.read.policy.rules[self.index][1]

    def at(self, *keys: str) -> str:
        """Return file, line and path; of the policy's own key where the rule does not have it."""
        content = self.read.content["rules"][self.index]
        has_it = not keys or (isinstance(content, dict) and keys[0] in content)
        location: list[Any] = ["rules", self.index, *keys] if has_it or keys[0] not in self.read.content else [*keys]
        return f"{self.read.path}:{line_of(self.read.document, location)}: {'.'.join(map(str, location))}"

    @property
    def short(self) -> str:
        """Where it is, for another rule's message."""
        line = line_of(self.read.document, ["rules", self.index])
        return f"rules.{self.index} ({self.read.path}:{line})"


def lint(
    reads: Sequence[ReadPolicy], default: RuleSet, config: Config | None, references: Sequence[Reference], rows: int | None
) -> Lint:
    """Look at policies together, over the default rules. rows: of a window, where the reference does not tell, or tells another number."""
    found = Lint()
    places = [_Place(read, i) for read in reads for i in range(len(read.policy.rules))]
    for place in places:
        found.problems += _unknown_model(place, config, references)
        found.problems += _unknown_names(place, config, references)
        found.warnings += _wrong_side(place)
    found.warnings += configured_warnings(config, default) if config is not None else []
    found.problems += _contradictions(places)
    for read in reads:
        found.problems += _dead_mutes(read, config)
    policies = Policies(default)
    for read in reads:
        policies.add(read.policy)
    rules = policies.at(1 << 61)
    measured = [measure(reference, rules) for reference in references]
    if not found.problems:
        found.problems += _inapplicable(places, measured)
        found.warnings += _shadowed(places, rules, measured, config)
        _expect(found, reads, rules, measured, (config, rows))
    return found


# --- names


def _models(config: Config | None, references: Sequence[Reference]) -> list[str]:
    return sorted({*(config.models if config is not None else ()), *(reference.model for reference in references)})


def _unknown_model(place: _Place, config: Config | None, references: Sequence[Reference]) -> Iterator[str]:
    known = _models(config, references)
    for pattern in place.rule.models if known else ():
        if not any(fit(name, (pattern,)) for name in known):
            yield f"{place.at('model')}: no model {pattern!r}{near_miss(pattern, known)}; models are {', '.join(known)}"


def _unknown_names(place: _Place, config: Config | None, references: Sequence[Reference]) -> Iterator[str]:
    """Features, segments and windows that none of the models has that the rule is for."""
    mine = [reference for reference in references if fit(reference.model, place.rule.models) is not None]
    if mine:
        features = list(dict.fromkeys(name for r in mine for f in r.layout.features for name in (source_of(f), f.name)))
        segments = list(dict.fromkeys(name for r in mine for name in r.layout.segments))
        yield from _unmatched(place, "feature", place.rule.features, features)
        yield from _unmatched(place, "segment", place.rule.segments, segments)
    if config is not None and place.rule.specs:
        specs = sorted({spec for name, model in _configured(config, place.rule) for spec in model})
        for size, step in place.rule.specs:
            if not any(size == spec.size_ms and step in (0, spec.step_ms) for spec in specs):
                text = duration_text(size) + (f"/{duration_text(step)}" if step else "")
                yield f"{place.at('window')}: no windows of {text}; windows are {', '.join(map(spec_text, specs))}"


def _unmatched(place: _Place, key: str, patterns: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    for pattern in patterns:
        if not any(fit(name, (pattern,)) for name in known):
            yield f"{place.at(key)}: no {key} {pattern!r}{near_miss(pattern, known)}; {key}s are {', '.join(known)}"


def _configured(config: Config, rule: Rule) -> list[tuple[str, list[WindowSpec]]]:
    """Return the models that a rule is for, each with its kinds of windows; of no named one, what holds for the others."""
    named = [
        (name, [w.spec for w in model.windows]) for name, model in config.models.items() if fit(name, rule.models) is not None
    ]
    return named or [("", [w.spec for w in config.defaults.windows])]


def spec_text(spec: WindowSpec) -> str:
    """Return a kind of window as policies write it."""
    size = duration_text(spec.size_ms)
    return size if spec.kind == "tumbling" else f"{size}/{duration_text(spec.step_ms)}"


# --- what cannot apply


def _inapplicable(places: Sequence[_Place], measured: Sequence[Measured]) -> Iterator[str]:
    for place in places:
        check, rule = place.check, place.rule
        if not rule.features:
            continue
        if is_of_model(check):
            yield f"{place.at('feature')}: {check} is of the model as a whole; leave out feature"
            continue
        for pattern in rule.features:
            alone = Rule(features=(pattern,))
            mine = [one for one in measured if fit(one.reference.model, rule.models) is not None]
            named = [(one, f) for one in mine for f in one.reference.layout.features if alone.applies("", ALL, f.name)]
            of_check = {(id(one), m.feature) for one in mine for m in one.measurements if m.check == check}
            if named and not any((id(one), f.name) in of_check for one, f in named):
                kinds = sorted({"number" if hasattr(f, "edges") else "category" for _, f in named})
                can = sorted({name for _, name in of_check})
                yield (
                    f"{place.at('feature')}: {check} is not measured of {pattern!r} ({', '.join(kinds)}); it is of "
                    f"{', '.join(can) if can else 'no feature of the reference'}"
                )


def _wrong_side(place: _Place) -> Iterator[str]:
    rule = place.rule
    yield from (f"{place.at()}: {wrong}" for wrong in _good_as_bad(place.check, rule))
    if rule.enabled and place.check not in BOTH_WAYS and rule.close_after > 24:
        yield f"{place.at('close_after')}: {rule.close_after} quiet windows: an incident will hardly ever close"


def _good_as_bad(check: str, rule: Rule) -> Iterator[str]:
    """Say of a rule that it calls bad what is good."""
    if check in BOTH_WAYS or not rule.enabled:
        return
    lower = check in LOWER_IS_WORSE
    if (rule.below is not None and not lower) or (rule.above is not None and lower):
        side, good = ("below", "low") if rule.below is not None else ("above", "high")
        yield f"{check} is {good} when all is well: bad {side} {rule.threshold:g} is what quiet windows are"


def configured_warnings(config: Config, default: RuleSet) -> list[str]:
    """Return what may not be meant of the configuration's own rules. default: these, over the default ones."""
    return [f"rules.{check}: {wrong}" for check in config.rules for wrong in _good_as_bad(check, default.rules[check])]


# --- rules that meet


def _contradictions(places: Sequence[_Place]) -> Iterator[str]:
    """Two rules for exactly the same: the last would win. Two versions of a policy never meet."""
    seen: dict[object, list[_Place]] = {}
    for place in places:
        rule, policy = place.rule, place.read.policy
        for feature in rule.features or ("",):
            selector = (
                place.check, rule.over, frozenset(rule.models), feature, frozenset(rule.segments), frozenset(rule.specs),
            )  # fmt: skip
            known = seen.setdefault(selector, [])
            other = next((p for p in known if p.read.policy.name != policy.name or p.read.policy.key == policy.key), None)
            known.append(place)
            if other is not None:
                says = "repeats" if msgspec.structs.replace(other.rule, policy=rule.policy) == rule else "contradicts"
                what = _for_what(place, feature)
                yield f"{place.at()}: {says} {other.short}: both are for {what}; leave one out, or make one more specific"


def _for_what(place: _Place, feature: str) -> str:
    rule = place.rule
    parts = [f"model {', '.join(rule.models)}" if rule.models else "", f"feature {feature}" if feature else ""]
    parts += [f"segment {', '.join(rule.segments)}" if rule.segments else ""]
    return " of ".join([place.check, *filter(None, parts)])


def _shadowed(places: Sequence[_Place], rules: RuleSet, measured: Sequence[Measured], config: Config | None) -> Iterator[str]:
    """Rules that match something in the references, and win nowhere."""
    won: set[int] = set()
    met: dict[int, Rule] = {}
    for one in measured:
        for spec in _specs(one.reference.model, config):
            narrowed = rules.of(spec)
            for m in one.measurements:
                at = (m.check, one.reference.model, m.segment, m.feature)
                matching = [rule for rule in narrowed.by_check.get(m.check, ()) if rule.specificity(*at[1:]) is not None]
                for rule in matching:
                    winner = max(
                        enumerate(other for other in matching if other.over == rule.over),
                        key=lambda item: (item[1].specificity(*at[1:]), item[0]),
                    )[1]
                    won.add(id(winner))
                    if winner is not rule:
                        met[id(rule)] = winner
    by_rule = {id(place.rule): place for place in places}
    for place in places:
        stronger = met.get(id(place.rule))
        if stronger is not None and id(place.rule) not in won:
            other = by_rule.get(id(stronger))
            such = other.short if other is not None else "one of monitor.yaml"
            yield f"{place.at()}: never applies: all that it is for is judged by more specific rules, such as {such}"


def _specs(model: str, config: Config | None) -> list[WindowSpec]:
    if config is None:
        return [WindowSpec(3_600_000, 3_600_000)]
    return [w.spec for w in config.models.get(model, config.defaults).windows]


def _is_early(model: str, spec: WindowSpec, config: Config | None) -> bool:
    """Whether windows of a kind are looked at while they are open."""
    if config is None:
        return False
    of = config.models.get(model, config.defaults)
    return spec in early_specs([w.spec for w in of.windows], of.early_above_ms)


# --- mutes


def _dead_mutes(read: ReadPolicy, config: Config | None) -> Iterator[str]:
    """Mutes in which no window ends."""
    own: list[tuple[list[Any], Rule]] = [(["rules", i], rule) for i, (_, rule) in enumerate(read.policy.rules)]
    n_policy = len(read.content.get("mute", ()))
    for i in range(n_policy):
        mute = own[0][1].mutes[i]
        specs = sorted({spec for _, rule in own for spec in _muted_specs(rule, config)})
        yield from _dead_mute(read, ["mute", i], mute, specs)
    for location, rule in own:
        for i, mute in enumerate(rule.mutes[n_policy:]):
            yield from _dead_mute(read, [*location, "mute", i], mute, _muted_specs(rule, config))


def _muted_specs(rule: Rule, config: Config | None) -> list[WindowSpec]:
    if config is None:
        return []
    return sorted({spec for _, specs in _configured(config, rule) for spec in specs if rule.is_for(spec)})


def _dead_mute(read: ReadPolicy, location: list[Any], mute: Mute, specs: Sequence[WindowSpec]) -> Iterator[str]:
    where = f"{read.path}:{line_of(read.document, location)}: {'.'.join(map(str, location))}"
    if mute.to_ms is not None and mute.to_ms <= read.policy.effective_from_ms:
        yield f"{where}: never matches: it ends before the policy applies, from {read.content.get('effective_from')}"
    elif specs and not any(_has_end(mute, spec) for spec in specs):
        ends = ", ".join(
            f"{spec_text(spec)}: every {duration_text(spec.step_ms)}, aligned to 1970-01-01T00:00Z" for spec in specs
        )
        yield f"{where}: never matches: no window ends in it; windows end, {ends}"


DAY_MS = 86_400_000
_LEAP_CYCLE = range(2024, 2052)
"""28 years: every date falls on every day of the week."""


def _has_end(mute: Mute, spec: WindowSpec) -> bool:
    if mute.from_ms is not None and mute.to_ms is not None:
        first = (mute.from_ms // spec.step_ms + 1) * spec.step_ms
        return mute.covers(first)
    n_days = max(15, 14 * (spec.step_ms // DAY_MS))  # after so many a window ends on the same day of the week again
    days = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=i) for i in range(n_days)]
    if mute.dates:
        days = [
            datetime(year, month, 1, tzinfo=UTC) + timedelta(days=day - 1)
            for year in _LEAP_CYCLE
            for month, day in mute.dates
            if (month, day) != (2, 29) or year % 4 == 0
        ]
    for day in days:
        start_ms = int(day.timestamp()) * 1_000 - DAY_MS
        first = -(-start_ms // spec.step_ms) * spec.step_ms
        if any(mute.covers(end) for end in range(first, start_ms + 3 * DAY_MS + 1, spec.step_ms)):
            return True
    return False


# --- false alarms


def _expect(
    found: Lint,
    reads: Sequence[ReadPolicy],
    rules: RuleSet,
    measured: Sequence[Measured],
    given: tuple[Config | None, int | None],
) -> None:
    config, rows = given
    for one in measured:
        for spec in _specs(one.reference.model, config):
            n = rows or rows_of(one.reference, spec)
            if n is None:
                found.warnings.append(
                    f"{one.reference.model} {one.reference.version}: its reference does not tell how many rows a window has; give --rows"
                )
                continue
            found.expected += expected_alarms(one, rules, spec, n, is_early=_is_early(one.reference.model, spec, config))
    budgets = {read.policy.name: (read, read.policy.false_alarms) for read in reads if read.policy.false_alarms is not None}
    for name, per_month, _ in totals(found.expected):
        read, budget = budgets.get(name, (None, None))
        if read is not None and budget is not None and per_month > budget.per_month:
            line = line_of(read.document, ["false_alarms"])
            found.warnings.append(
                f"{read.path}:{line}: false_alarms: up to {per_month:.2g} are expected in 30 days, {budget.per_month:.2g} are accepted: "
                "raise thresholds or open_after, or accept more"
            )
