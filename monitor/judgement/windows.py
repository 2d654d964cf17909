"""Measurements of a window → findings, incidents and alerts: what the live monitor and a backtest have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from monitor import incidents
from monitor.alerts import WindowFacts, alert_id, alert_record, id_of
from monitor.decision.calibrated import Setting, decide
from monitor.decision.rolling import means
from monitor.decision.state import DecisionState, track_key
from monitor.findings import Finding, Measurement
from monitor.policy import RuleSet
from monitor.reasons import Reason
from monitor.restated import fired_before, load_said, restated, said_of
from monitor.told_early import confirm, load_told


class Decided(NamedTuple):
    """What measurements lead to."""

    findings: list[Finding]
    told: list[incidents.Transition]
    """What the alerts tell: of a revision, also what it takes back."""
    alerts: tuple[tuple[bytes, bytes], ...]
    """Records to publish, as (key, value)."""
    after: bytes
    """State for the next window of the same model version and specification; b"" is none."""
    is_alarmed: bool
    """Whether an incident that is a warning or worse is open after the window."""
    said: bytes
    """Which alerts are in force with this window, for its next revision."""
    is_news: bool
    """Whether they are others than those of the revision before."""
    incidents: dict[str, str]
    """Track key → id of the incident that is open about it."""
    alone: frozenset[tuple[str, str]]
    """(segment, feature) of the distributions that this window by itself shows to have changed."""


class Before(NamedTuple):
    """What a window finds. state: after the window before it. said, latest: of a revision, early: see findings.ClosedWindow."""

    state: bytes = b""
    said: bytes = b""
    latest: bytes = b""
    early: bytes = b""


def judge_measurements(
    facts: WindowFacts, measured: Sequence[Measurement], before: Before, rules: RuleSet, why: Callable[[Finding], list[Reason]]
) -> Decided:
    """Decide which measurements are bad, and follow the incidents that they open and close.

    rules: in force at the window's start. why: what contributes to a finding's value. A function of its arguments.
    """
    said = load_said(before.said)
    opened = fired_before(said)
    state, rules = DecisionState.load(before.state), rules.of(facts.window.spec)
    measured = [*measured, *means(facts.model, measured, rules, state, is_complete=facts.is_complete)]
    findings, alone = decide(measured, rules, Setting(facts.model, facts.window.spec, facts.design_effects))
    transitions = incidents.step(
        state,
        findings,
        firing_id=lambda finding: opened.get(track_key(finding.measurement)) or alert_id(facts, finding, "firing"),
        end_ms=facts.window.end_ms,
        is_complete=facts.is_complete,
    )
    if before.early:
        transitions, told, said = confirm(load_told(before.early), transitions, findings, state)
    else:
        told = restated(said, transitions, findings, state, before.latest)
    now_said = said_of(transitions, told, said, lambda transition: id_of(facts, transition))
    return Decided(
        findings,
        told,
        tuple(alert_record(facts, transition, rules, why) for transition in told),
        state.to_bytes(),
        is_alarmed=bool(incidents.open_severities(state) - {"notice"}),
        said=now_said,
        is_news={one.about for one in said} != {one.about for one in load_said(now_said)},
        incidents=incidents.open_incidents(state),
        alone=alone,
    )
