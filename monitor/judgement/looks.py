"""A look into an open window: what is believed to be broken by now, and goes on being so, is told before the window closes.

Whether it is believed is asked of all rows so far (`decision.early`); how bad it is, of the newest ones: a break of half an hour is a
small part of a day, and the day's close would call it critical were it to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from monitor.alerts import Look, WindowFacts, alert_id, alert_record, facts_of, id_of
from monitor.chance.calibration import MIN_ROWS
from monitor.checks import CHECKS
from monitor.decision import fixed
from monitor.decision.early import OpenWindow, Suspect, Tested, Unlikely, believed, unlikely
from monitor.decision.effects import count_interval, psi_effect
from monitor.decision.scales import plan_for
from monitor.decision.shape import CHECK, distribution
from monitor.decision.state import DecisionState
from monitor.decision.tails import tails
from monitor.findings import ClosedWindow, Decision, Evidence, Finding, Measurement, gather
from monitor.policy import RuleSet
from monitor.reasons import Reason, reasons
from monitor.results.looks import Seen, look_record
from monitor.told_early import after_look, load_told, look, told_bytes


class Looked(NamedTuple):
    """What a look leads to."""

    alerts: tuple[tuple[bytes, bytes], ...] = ()
    """Records to publish, as (key, value)."""
    told: bytes = b""
    """What was told of the window by now, where this look has told something."""
    severities: tuple[str, ...] = ()
    """Of the alerts."""
    results: tuple[tuple[bytes, bytes], ...] = ()
    """What the look saw, where chance hardly explains it; told or not."""


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
    tested, found = unlikely(window, rules, before.history)
    if not found:
        return Looked()
    recent = newest(MIN_ROWS)
    if recent.reference is None or recent.reference.layout.sha256 != window.closed.profile.layout.sha256:
        return Looked()
    segments = recent.profile.layout.segments
    evidence = {name: gather(recent, segments.index(name)) for name in dict.fromkeys(one.segment for one in found)}
    about = {one[:3] for one in found}
    measured = [one for of in evidence.values() for one in _measured(of) if (one.segment, one.check, one.feature) in about]
    seen = _seen(facts_of(gather(window.closed)), window, recent.profile.n, (tested, found, measured))
    whole = next(iter(evidence.values()))

    def why(finding: Finding) -> list[Reason]:
        return reasons(evidence.get(finding.measurement.segment, whole), finding)

    return judge_look(seen, before, rules, why)._replace(results=(look_record(seen, rules),))


def _seen(
    facts: WindowFacts, window: OpenWindow, recent_n: int, found: tuple[Tested, Sequence[Unlikely], Sequence[Measurement]]
) -> Seen:
    return Seen(
        facts.model, facts.version, facts.window, window.upto_ms, window.closed.profile.n, recent_n, facts.completeness,
        facts.late_dropped, facts.reference_sha256, facts.source_offsets, facts.design_effects, facts.views, *found,
    )  # fmt: skip


def _facts(seen: Seen) -> WindowFacts:
    """Return what an alert says of the window."""
    return WindowFacts(
        seen.model,
        seen.version,
        seen.window,
        0,
        completeness=seen.completeness,
        late_dropped=seen.late_dropped,
        reference_sha256=seen.reference,
        source_offsets=seen.source_offsets,
        views=seen.views,
        is_complete=seen.reference is not None and seen.n > 0,
        design_effects=seen.design_effects,
        look=Look(seen.upto_ms, seen.n, seen.recent_n),
    )


def judge_look(seen: Seen, before: Before, rules: RuleSet, why: Callable[[Finding], list[Reason]]) -> Looked:
    """Say what there is to tell of what a look saw, whether now or when it was published. rules: for windows of its kind."""
    measured = {(one.segment, one.check, one.feature): one for one in seen.measured}
    suspects = [(measured.get(one.of[:3]), one) for one in believed(seen.unlikely, seen.tested, rules)]
    findings = [finding for one, suspect in suspects if one is not None and (finding := _finding(one, suspect)) is not None]
    if not findings:
        return Looked()
    facts, told = _facts(seen), load_told(before.told)
    tell = look(
        DecisionState.load(before.state), findings, told, lambda finding: alert_id(facts, finding, "firing"), facts.window.end_ms
    )
    if not tell:
        return Looked()
    return Looked(
        tuple(alert_record(facts, one, rules, why) for one in tell),
        told_bytes(after_look(told, tell, lambda one: id_of(facts, one))),
        tuple(one.severity for one in tell),
    )


def _measured(evidence: Evidence) -> Iterable[Measurement]:
    for check in CHECKS:
        for one in check(evidence):
            yield replace(one, segment=evidence.segment)
    yield from tails(evidence)
    plan = plan_for(evidence.closed)
    if plan is not None:
        segment = evidence.closed.profile.layout.segments.index(evidence.segment)
        yield from distribution(evidence, plan, plan.tally(evidence.closed.profile.counts[segment]), ())


def _finding(one: Measurement, suspect: Suspect) -> Finding | None:
    """Return a breach, or None where the newest rows are too few, or no longer bad enough."""
    of, rule, interval = suspect.of, suspect.rule, (one.value, one.value)
    if one.check == CHECK:
        if not one.scales:
            return None
        test = one.scales[0]
        value, interval = psi_effect(*test.cells, test.phi.get("chi_square", 1.0))
        one = replace(one, value=value)
    elif one.counted is not None:
        interval = count_interval(one.counted, one.value, of.phi)
    if one.n < one.min_n or one.value <= (one.critical_value or 0.0):
        return None
    floor = rule.threshold if rule.floor is None else max(rule.threshold, rule.floor)
    if not of.is_known:
        floor = max(floor, rule.levels.get("warning", floor))
    if not fixed.is_beyond(one, rule, floor):
        return None
    decision = Decision(
        effect=one.value,
        interval=interval,
        p_value=of.p_value,
        p_limit=suspect.p_limit,
        hypotheses=suspect.hypotheses,
        false_alarms=str(suspect.budget),
        n=one.n,
        n_ref=one.n_ref,
        effect_floor=floor,
        scale=1,
        tests={"anytime": of.p_value},
        phi={"anytime": of.phi},
        provisional=not of.is_known,
        fixed_rule=None,
    )
    measured = replace(one, p_value=of.p_value, is_provisional=not of.is_known, scales=())
    return Finding(measured, "breach", floor, rule.severity_of(one.value), rule=rule, decision=decision)
