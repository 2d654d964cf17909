"""Alarms that were told of a window while it was open, and what its close makes of them.

All that looks into one window find is one incident, as all that opens with its close is. The close confirms it without a word, says when
it got worse, or takes it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from monitor import incidents
from monitor.decision.state import DecisionState, Incident, measured_by, track_key
from monitor.features import without_view
from monitor.findings import Finding
from monitor.incidents import Transition, no_longer_measured
from monitor.restated import Said
from monitor.rules import SEVERITIES, Severity


class Told(msgspec.Struct, array_like=True, frozen=True):
    """An incident of which a look has told: id of the alert, the last one; its highest severity so far.

    is_opening: whether it opened inside the window; else it was open before, and a look found that it got worse. members: keys of the
    tracks that looks found, the first is the one that it was told by.
    """

    incident: str
    alert: str
    opened_ms: int
    severity: Severity
    is_opening: bool
    members: list[str]
    escalations: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Told]).decode


def load_told(data: bytes) -> list[Told]:
    """Read what a look left; b"" is nothing."""
    return _decode(data) if data else []


def told_bytes(told: Sequence[Told]) -> bytes:
    """Return what `load_told` reads."""
    return _encode(told) if told else b""


class EarlyResult(msgspec.Struct, kw_only=True):
    """An incident that was told while the window was open."""

    incident_id: str
    alert_id: str
    """Of the last alert that told it."""
    severity: Literal["notice", "warning", "critical"]
    opened_ms: int
    """End of the window with which it opened."""
    is_opening: bool
    """Whether it opened in this window; else it only got worse."""
    escalations: int
    members: list[str]
    """[check, segment, feature] of its findings, as JSON texts; the first is the one that it was told by."""


def early_results(told: bytes) -> list[EarlyResult]:
    """Return it as a result record tells it."""
    return [
        EarlyResult(
            incident_id=one.incident,
            alert_id=one.alert,
            severity=one.severity,
            opened_ms=one.opened_ms,
            is_opening=one.is_opening,
            escalations=one.escalations,
            members=one.members,
        )
        for one in load_told(told)
    ]


def told_of_results(found: Iterable[EarlyResult]) -> bytes:
    """Return what `early_results` was given."""
    return told_bytes(
        [
            Told(one.incident_id, one.alert_id, one.opened_ms, one.severity, one.is_opening, one.members, one.escalations)
            for one in found
        ]
    )


def look(
    state: DecisionState, findings: Sequence[Finding], told: Sequence[Told], firing_id: Callable[[Finding], str], end_ms: int
) -> list[Transition]:
    """Return what there is to tell of breaches inside a window, less what earlier looks have told; changes the state.

    state: after the window before. It is of no further use: what a look leaves is `Told`, and the close starts from the window before.
    """
    tell = []
    for found in incidents.step(state, findings, firing_id, end_ms, is_complete=False):
        earlier = _earlier(told, found)
        if earlier is None:
            tell.append(found)
        elif _level(found.severity) > _level(earlier.severity):
            cause, n = found.cause or found.finding, earlier.escalations + 1
            tell.append(found._replace(incident_id=earlier.incident, escalations=n, cause=cause))
    return tell


def after_look(told: Sequence[Told], tell: Iterable[Transition], alert_id: Callable[[Transition], str]) -> list[Told]:
    """Return what is told by now."""
    known = {one.incident: one for one in told}
    for one in tell:
        earlier = known.get(one.incident_id)
        keys = [track_key((one.cause or one.finding).measurement)]
        keys += [track_key(member.measurement) for member in one.members if member.finding is not None]
        known[one.incident_id] = Told(
            incident=one.incident_id,
            alert=alert_id(one),
            opened_ms=one.opened_ms,
            severity=one.severity,
            is_opening=one.cause is None or (earlier is not None and earlier.is_opening),
            members=list(dict.fromkeys([*(earlier.members if earlier else ()), *keys])),
            escalations=one.escalations,
        )
    return list(known.values())


def _earlier(told: Iterable[Told], found: Transition) -> Told | None:
    """Return what was told of a transition's incident; all that opens within one window is one."""
    is_opening = found.cause is None
    return next((one for one in told if (one.is_opening if is_opening else one.incident == found.incident_id)), None)


class Confirmed(NamedTuple):
    """What a close makes of what was told early."""

    transitions: list[Transition]
    """All of the window, incidents by the id that they were told with."""
    tell: list[Transition]
    """What is still to be told."""
    said: list[Said]
    """What stands in the place of what need not be told any more."""


def confirm(
    told: Sequence[Told], transitions: Iterable[Transition], findings: Sequence[Finding], state: DecisionState
) -> Confirmed:
    """Hold a close's transitions beside what was told early; changes the ids and severities of the state's incidents.

    What opens is the incident that was told if they have a feature in common, or a finding of the model as a whole.
    """
    done = Confirmed([], [], [])
    by_id = {incident.id: incident for incident in state.incidents.values()}
    waiting = {one.incident: one for one in told}
    for transition in transitions:
        one = _match(waiting.values(), transition)
        if one is None:
            done.transitions.append(transition)
            done.tell.append(transition)
            continue
        del waiting[one.incident]
        escalations = one.escalations + (_level(transition.severity) > _level(one.severity))
        confirmed = transition._replace(incident_id=one.incident)
        if escalations == one.escalations or one.is_opening:
            key = track_key((transition.cause or transition.finding).measurement)
            done.said.append(Said(key, "firing", one.incident, one.alert, one.opened_ms, one.severity, one.is_opening))
            done.transitions.append(confirmed)
        if escalations > one.escalations:
            worse = confirmed._replace(escalations=escalations, cause=transition.cause or transition.finding)
            done.transitions.append(worse)
            done.tell.append(worse)
        _keep(by_id[transition.incident_id], one, escalations)
    for one in waiting.values():
        if one.is_opening:
            done.tell.append(_taken_back(one, findings))
        elif one.incident in by_id:
            _keep(by_id[one.incident], one, one.escalations)
    return done


def _match(told: Iterable[Told], transition: Transition) -> Told | None:
    if transition.status != "firing":
        return None
    one = _earlier(told, transition)
    if one is None or not one.is_opening:
        return one
    keys = {track_key(member.measurement) for member in transition.members}
    features = {without_view(member.measurement.feature) for member in transition.members} - {""}
    mine = {without_view(measured_by(key).feature) for key in one.members}
    return one if keys & set(one.members) or features & mine else None


def _keep(incident: Incident, one: Told, escalations: int) -> None:
    """Let an incident of the state be the one that was told."""
    incident.id = one.incident
    incident.severity = max(incident.severity, one.severity, key=_level)
    incident.escalations = max(incident.escalations, escalations)


def _taken_back(one: Told, findings: Iterable[Finding]) -> Transition:
    key = one.members[0]
    found = next((finding for finding in findings if track_key(finding.measurement) == key), None)
    finding = found or no_longer_measured(key, one.severity)
    reason = {**finding.measurement.evidence, "reason": "taken back by the close of the window"}
    finding = replace(finding, measurement=replace(finding.measurement, evidence=reason))
    member = incidents.Member(finding.measurement, one.severity, found)
    told = Transition("resolved", finding, one.incident, 0, one.opened_ms, one.severity, (member,))
    return told._replace(escalations=one.escalations, supersedes=one.alert, is_taken_back=True)


def _level(severity: Severity) -> int:
    return SEVERITIES.index(severity)
