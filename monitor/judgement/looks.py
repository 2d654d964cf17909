"""A look into an open window: what is believed to be broken by now, and goes on being so, is told before the window closes.

Whether it is believed is asked of all rows so far (`decision.early`); how bad it is, of the newest ones: a break of half an hour is a
small part of a day, and the day's close would call it critical were it to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from monitor.alerts import Look, alert_id, alert_record, facts_of, id_of
from monitor.chance.calibration import MIN_ROWS
from monitor.checks import CHECKS
from monitor.decision import fixed
from monitor.decision.early import OpenWindow, Suspect, suspects
from monitor.decision.effects import count_interval, psi_effect
from monitor.decision.scales import plan_for
from monitor.decision.shape import CHECK, distribution
from monitor.decision.state import DecisionState
from monitor.decision.tails import tails
from monitor.findings import ClosedWindow, Decision, Evidence, Finding, Measurement, gather
from monitor.policy import RuleSet
from monitor.reasons import Reason, reasons
from monitor.segments import ALL
from monitor.told_early import after_look, load_told, look, told_bytes


class Looked(NamedTuple):
    """What a look leads to."""

    alerts: tuple[tuple[bytes, bytes], ...] = ()
    """Records to publish, as (key, value)."""
    told: bytes = b""
    """What was told of the window by now, where this look has told something."""
    severities: tuple[str, ...] = ()
    """Of the alerts."""


class Before(NamedTuple):
    """What a look finds. state: after the window before. history: tallies of the windows before it, newest first. told: by earlier looks."""

    state: bytes = b""
    history: Sequence[bytes] = ()
    told: bytes = b""


def look_window(window: OpenWindow, newest: Callable[[int], ClosedWindow], before: Before, rules: RuleSet) -> Looked:
    """Say what there is to tell of a window before it closes. A function of its arguments.

    newest: returns the newest rows of the window, at least so many if it has them.
    """
    rules = rules.of(window.closed.window.spec)
    found = suspects(window, rules, before.history)
    if not found:
        return Looked()
    recent = newest(MIN_ROWS)
    if recent.reference is None or recent.reference.layout.sha256 != window.closed.profile.layout.sha256:
        return Looked()
    evidence = {i: gather(recent, i) for i in sorted({one.segment for one in found})}
    findings = list(_findings(evidence, found))
    if not findings:
        return Looked()
    facts = facts_of(gather(window.closed))._replace(look=Look(window.upto_ms, window.closed.profile.n, recent.profile.n))
    told = load_told(before.told)
    tell = look(
        DecisionState.load(before.state), findings, told, lambda finding: alert_id(facts, finding, "firing"), facts.window.end_ms
    )
    if not tell:
        return Looked()
    by_segment = {of.segment: of for of in evidence.values()}
    whole = by_segment.get(ALL) or next(iter(by_segment.values()))

    def why(finding: Finding) -> list[Reason]:
        return reasons(by_segment.get(finding.measurement.segment, whole), finding)

    return Looked(
        tuple(alert_record(facts, one, rules, why) for one in tell),
        told_bytes(after_look(told, tell, lambda one: id_of(facts, one))),
        tuple(one.severity for one in tell),
    )


def _findings(evidence: dict[int, Evidence], found: Iterable[Suspect]) -> Iterable[Finding]:
    """Yield what of the suspects the newest rows show to be bad."""
    measured = {
        (segment, one.check, one.feature): one._replace(segment=of_segment.segment)
        for segment, of_segment in evidence.items()
        for one in _measured(of_segment)
    }
    for suspect in found:
        one = measured.get((suspect.segment, suspect.check, suspect.feature))
        finding = _finding(one, suspect) if one is not None else None
        if finding is not None:
            yield finding


def _measured(evidence: Evidence) -> Iterable[Measurement]:
    for check in CHECKS:
        yield from check(evidence)
    yield from tails(evidence)
    plan = plan_for(evidence.closed)
    if plan is not None:
        segment = evidence.closed.profile.layout.segments.index(evidence.segment)
        yield from distribution(evidence, plan, plan.tally(evidence.closed.profile.counts[segment]), ())


def _finding(one: Measurement, suspect: Suspect) -> Finding | None:
    """Return a breach, or None where the newest rows are too few, or no longer bad enough."""
    rule, interval = suspect.rule, (one.value, one.value)
    if one.check == CHECK:
        if not one.scales:
            return None
        test = one.scales[0]
        value, interval = psi_effect(*test.cells, test.phi.get("chi_square", 1.0))
        one = one._replace(value=value)
    elif one.counted is not None:
        interval = count_interval(one.counted, one.value, suspect.phi)
    if one.n < one.min_n or one.value <= (one.critical_value or 0.0):
        return None
    floor = rule.threshold if rule.floor is None else max(rule.threshold, rule.floor)
    if not suspect.is_known:
        floor = max(floor, rule.levels.get("warning", floor))
    if not fixed.is_beyond(one, rule, floor):
        return None
    decision = Decision(
        effect=one.value,
        interval=interval,
        p_value=suspect.p_value,
        p_limit=suspect.p_limit,
        hypotheses=suspect.hypotheses,
        false_alarms=str(suspect.budget),
        n=one.n,
        n_ref=one.n_ref,
        effect_floor=floor,
        scale=1,
        tests={"anytime": suspect.p_value},
        phi={"anytime": suspect.phi},
        provisional=not suspect.is_known,
        fixed_rule=None,
    )
    measured = one._replace(p_value=suspect.p_value, is_provisional=not suspect.is_known, scales=())
    return Finding(measured, "breach", floor, rule.severity_of(one.value), rule=rule, decision=decision)
