"""Alerts of a window that was judged again: what its revision tells, restates and takes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from monitor.decision.state import DecisionState, track_key
from monitor.findings import Finding, Measurement
from monitor.incidents import Member, Transition, no_longer_measured, transition_of
from monitor.rules import Severity


class Said(msgspec.Struct, array_like=True, frozen=True):
    """An alert that is in force with a window: whose, firing or resolved, of which incident, and its id.

    key: of the track that it is about. is_opening: whether the incident fired with it, and did not only become worse.
    """

    key: str
    status: Literal["firing", "resolved"]
    incident: str
    alert: str
    opened_ms: int
    severity: Severity
    is_opening: bool = True

    @property
    def about(self) -> tuple[str, Literal["firing", "resolved"], str]:
        """What a reader of alerts would call the same."""
        return self.key, self.status, self.incident


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Said]).decode


def load_said(data: bytes) -> list[Said]:
    """Read what `said_of` wrote."""
    return _decode(data) if data else []


def said_of(
    transitions: Iterable[Transition], told: Iterable[Transition], said: Iterable[Said], alert_id: Callable[[Transition], str]
) -> bytes:
    """Return what the next revision of a window has to know of its alerts.

    transitions: all of this one. told, said: see `restated`; what was not told again has the id that it had.
    """
    ids = {one.about: one.alert for one in said} | {about(t): alert_id(t) for t in told if not t.is_taken_back}
    now = [Said(*about(t), ids[about(t)], t.opened_ms, t.severity, t.cause is None) for t in transitions]
    return _encode(now) if now else b""


def fired_before(said: Iterable[Said]) -> dict[str, str]:
    """Return the incidents that an earlier revision of the window has opened, by track: one that opens again keeps its id."""
    return {one.key: one.incident for one in said if one.status == "firing" and one.is_opening}


def restated(
    said: Sequence[Said], transitions: Sequence[Transition], findings: Iterable[Finding], after: DecisionState, latest: bytes
) -> list[Transition]:
    """Return what a revision tells: its own transitions, and those of the one before that do not hold any more, taken back.

    said: of the revision before. after: the state after the window. latest: that after the newest one; what fired before, fires still
    and is over by now is not told again: nobody would resolve it a second time.
    """
    if not said:
        return list(transitions)
    earlier = {one.about: one.alert for one in said}
    is_open = {incident.id for incident in DecisionState.load(latest).incidents.values()}
    told = [t._replace(supersedes=earlier.get(about(t), "")) for t in transitions]
    told = [t for t in told if t.status == "resolved" or not t.supersedes or t.incident_id in is_open]
    held = {about(t) for t in transitions}
    by_key = {track_key(finding.measurement): finding for finding in findings}
    taken_back = (_taken_back(one, by_key, after) for one in said if one.about not in held)
    return told + [transition for transition in taken_back if transition is not None]


def _taken_back(one: Said, by_key: dict[str, Finding], after: DecisionState) -> Transition | None:
    """Return what takes an alert back: the resolution of an incident that did not open, or the firing of one that goes on.

    What only became worse is told again as it is, if it is open after the window.
    """
    incident = next((incident for incident in after.incidents.values() if incident.id == one.incident), None)
    if one.status == "resolved" or not one.is_opening:
        if incident is None:
            return None
        track = after.tracks.get(incident.root)
        told = transition_of("firing", incident, after, by_key, track.breaches if track else 0)
    else:
        finding = by_key.get(one.key) or no_longer_measured(one.key, one.severity)
        member = Member(finding.measurement, one.severity, by_key.get(one.key))
        told = Transition("resolved", finding, one.incident, 0, one.opened_ms, one.severity, (member,))
    finding = replace(told.finding, measurement=_as_taken_back(told.finding.measurement))
    return told._replace(finding=finding, supersedes=one.alert, is_taken_back=True)


def about(transition: Transition) -> tuple[str, Literal["firing", "resolved"], str]:
    """Return what a reader of alerts would call the same."""
    return track_key((transition.cause or transition.finding).measurement), transition.status, transition.incident_id


def _as_taken_back(measurement: Measurement) -> Measurement:
    return replace(measurement, evidence={**measurement.evidence, "reason": "taken back by a revision of the window"})
