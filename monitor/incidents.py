"""What a run of findings means: pending → firing → resolved, the findings of one cause in one incident.

Each check of a feature of a segment has a track, which opens and closes as its rule says. What opens in the same window is one incident,
and so is what an open incident explains: other findings of a feature that is in it, and what follows from it downstream. Its root is the
finding that is nearest to the source: telemetry over traffic over schema over health over drift over performance, a notice last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from msgspec.structs import replace

from monitor.decision.state import DecisionState, Incident, Track, measured_by, track_key
from monitor.features import without_view
from monitor.findings import Finding, Measurement
from monitor.rules import SEVERITIES, Severity
from monitor.segments import ALL

CAUSES: dict[str, int] = {
    "telemetry": 0, "traffic": 1, "stream": 1, "schema": 2, "health": 3, "drift": 4, "segments": 4, "performance": 5,
}  # fmt: skip
"""Families of checks, from the source of events to what their users see: what is broken further up explains what is below."""

OF_DISTRIBUTION = frozenset(
    f"health.{name}"
    for name in (
        "cardinality", "out_of_range", "below_min", "above_max", "negative", "zeros", "boolean_share", "top_share", "mean", "std", "sum",
    )
)  # fmt: skip
"""Checks of health that a shift of good values fires too: they rank as drift."""

FLAPPING_OPENINGS = 3
FLAPPING_WINDOWS = 24
FLAPPING_QUIET = 6
"""What opens for the third time within 24 windows is flapping: it then stays open until it was quiet for at least six."""

STORM_FEATURES = 5
"""An incident of so many features takes in every further feature with the same finding as its root."""


class Member(NamedTuple):
    """One finding of an incident, as it stands in the window. finding: None where the window did not measure it."""

    measurement: Measurement
    severity: Severity
    finding: Finding | None


class Transition(NamedTuple):
    """An incident that opens or gets worse (`firing`), or closes (`resolved`), with this window."""

    status: Literal["firing", "resolved"]
    finding: Finding
    """Of the root with which it fired."""
    incident_id: str
    windows: int
    """The root's breaches when it fires, quiet windows when it is resolved."""
    opened_ms: int
    """End of the window with which it fired."""
    severity: Severity = "notice"
    """The highest of its members."""
    members: tuple[Member, ...] = ()
    """All that has been in it, the cause first."""
    owner: str = ""
    routes: tuple[str, ...] = ()
    escalations: int = 0
    """How often it has become worse since it fired."""
    is_flapping: bool = False
    cause: Finding | None = None
    """What made it worse: it gives the alert its id."""
    supersedes: str = ""
    """Id of the alert of an earlier revision that this one restates or takes back; "" of none."""
    is_taken_back: bool = False
    """Whether it says that the earlier alert does not hold: one that fired is resolved, one that was resolved fires again."""


def step(
    state: DecisionState, findings: Iterable[Finding], firing_id: Callable[[Finding], str], end_ms: int, *, is_complete: bool
) -> list[Transition]:
    """Take one window's findings into the state; return what opens, gets worse or closes.

    `insufficient` leaves a track as it is. An incident that ends with this window takes nothing in that opens with it. A track that has
    nothing to remember is not kept. is_complete: the window could measure everything that there is; a track without a finding (its rule
    was switched off, its feature is gone) is then closed.
    """
    window = _Window(state, end_ms)
    gone = set(state.tracks) if is_complete else set()
    for track in state.tracks.values():
        track.openings = [age + 1 for age in track.openings if age + 1 < FLAPPING_WINDOWS]
    for finding in findings:
        key = track_key(finding.measurement)
        gone.discard(key)
        window.findings[key] = finding
        if finding.verdict == "breach" or (
            finding.verdict == "ok" and key in state.tracks
        ):  # a quiet new track would be forgotten
            window.take(key, state.tracks.setdefault(key, Track()), finding)
    window.closed += [key for key in gone if state.tracks[key].incident]
    transitions = window.close() + window.open(firing_id)
    for key in gone:
        del state.tracks[key]
    for key in [key for key in window.findings if key in state.tracks and window.is_forgettable(key)]:
        del state.tracks[key]
    return transitions


class _Window:
    """One window's findings, by key of the track."""

    def __init__(self, state: DecisionState, end_ms: int) -> None:
        self.state = state
        self.end_ms = end_ms
        self.findings: dict[str, Finding] = {}
        self.opened: list[str] = []
        self.grown: list[str] = []
        self.closed: list[str] = []

    # --- tracks

    def take(self, key: str, track: Track, finding: Finding) -> None:
        """Count a breach or a quiet window, and note when that opens or closes the track."""
        rule, is_breach = finding.rule, finding.verdict == "breach"
        track.breaches, track.quiet = (track.breaches + 1, 0) if is_breach else (0, track.quiet + 1)
        track.recent = ((track.recent << 1) | is_breach) & ((1 << rule.of) - 1)
        if is_breach and not track.incident:
            counted = track.recent.bit_count() if rule.of else track.breaches
            is_cooling = track.resolved_ms is not None and self.end_ms < track.resolved_ms + rule.cooldown_ms
            if counted >= rule.windows and not is_cooling and not rule.is_muted(self.end_ms):
                self.opened.append(key)
        elif is_breach:
            if _severity(finding.severity) > _severity(track.severity) and not rule.is_muted(self.end_ms):
                self.grown.append(key)
        elif track.incident and track.quiet >= quiet_windows(track, finding):
            self.closed.append(key)

    def is_forgettable(self, key: str) -> bool:
        """Whether a track says nothing that a new one would not."""
        track = self.state.tracks[key]
        cooled_ms = (track.resolved_ms or 0) + self.findings[key].rule.cooldown_ms
        return not (track.incident or track.breaches or track.recent or track.openings) and (
            track.resolved_ms is None or self.end_ms >= cooled_ms
        )

    # --- incidents

    def open(self, firing_id: Callable[[Finding], str]) -> list[Transition]:
        """Let what opens enter the incident that explains it; of the rest make one. Return what people should hear of: what grew too."""
        worse: dict[int, list[str]] = {}
        for key in sorted(self.grown):
            worse.setdefault(self.state.tracks[key].incident, []).append(key)
        rest = []
        for key in sorted(self.opened):
            number = next((n for n, incident in sorted(self.state.incidents.items()) if self._explains(n, incident, key)), None)
            if number is None:
                rest.append(key)
            else:
                worse.setdefault(number, []).append(key)
        transitions = [t for number, keys in worse.items() if (t := self._join(number, keys)) is not None]
        if rest:
            transitions.append(self._fire(rest, firing_id))
        return transitions

    def _explains(self, number: int, incident: Incident, key: str) -> bool:
        measured, root = measured_by(key), measured_by(incident.root)
        features = {without_view(measured_by(other).feature) for other in self.state.open_tracks(number)} - {""}
        if without_view(measured.feature) in features:
            return True
        if measured.check == root.check and len(features) >= STORM_FEATURES:
            return True
        is_downstream = not measured.feature or measured.feature.startswith("@")
        above, below = _rank(root.check), _rank(measured.check)
        return is_downstream and above < below and (above >= CAUSES["schema"] or below < CAUSES["schema"])

    def _fire(self, keys: list[str], firing_id: Callable[[Finding], str]) -> Transition:
        root = min(keys, key=lambda key: causality(self.findings[key]))
        number = max(self.state.incidents, default=0) + 1
        incident = Incident(firing_id(self.findings[root]), root, self.end_ms, self.findings[root].severity, {}, "", [])
        self.state.incidents[number] = incident
        self._enter(number, keys)
        incident.owner = self.findings[root].rule.owner
        self._tell(incident, keys)
        return self._transition("firing", incident, self.state.tracks[root].breaches)

    def _join(self, number: int, keys: list[str]) -> Transition | None:
        """Return an alert only where a member is more severe than what was told."""
        incident = self.state.incidents[number]
        self._enter(number, keys)
        worst = min(keys, key=lambda key: (-_severity(self.findings[key].severity), *causality(self.findings[key])))
        if _severity(self.findings[worst].severity) <= _severity(incident.severity):
            return None
        incident.escalations += 1
        self._tell(incident, keys)
        root = self.state.tracks.get(incident.root)
        return self._transition("firing", incident, root.breaches if root else 0, self.findings[worst])

    def _enter(self, number: int, keys: list[str]) -> None:
        incident = self.state.incidents[number]
        for key in keys:
            track, severity = self.state.tracks[key], self.findings[key].severity
            if track.incident != number:
                track.incident, track.openings = number, [*track.openings, 0]
            track.severity = severity
            incident.members[key] = max(severity, incident.members.get(key, severity), key=_severity)

    def _tell(self, incident: Incident, keys: list[str]) -> None:
        incident.severity = max((incident.severity, *(self.findings[key].severity for key in keys)), key=_severity)
        routes = {route for key in keys for route in self.findings[key].rule.routes}
        incident.routes = sorted({*incident.routes, *routes})

    def close(self) -> list[Transition]:
        """Let what closes leave its incident; one without a member is resolved."""
        left: dict[int, list[str]] = {}
        for key in sorted(self.closed):
            track = self.state.tracks[key]
            left.setdefault(track.incident, []).append(key)
            track.incident, track.resolved_ms = 0, self.end_ms
        still_open = {track.incident for track in self.state.tracks.values()}
        transitions = []
        for number in sorted(set(left) - still_open):
            incident = self.state.incidents.pop(number)
            root = self.state.tracks.get(incident.root)
            quiet = root.quiet if root is not None and incident.root in self.findings else 0
            transitions.append(self._transition("resolved", incident, quiet))
        return transitions

    def _transition(
        self, status: Literal["firing", "resolved"], incident: Incident, windows: int, cause: Finding | None = None
    ) -> Transition:
        return transition_of(status, incident, self.state, self.findings, windows)._replace(cause=cause)


def transition_of(
    status: Literal["firing", "resolved"], incident: Incident, state: DecisionState, findings: Mapping[str, Finding], windows: int
) -> Transition:
    """Return what there is to say of an incident. findings: of the window, by key."""
    members = {key: Member(measured_by(key), severity, findings.get(key)) for key, severity in incident.members.items()}
    order = sorted(members, key=lambda key: (_cause(members[key]), key != incident.root, _size(members[key]), key))
    root = findings.get(incident.root) or no_longer_measured(incident.root, incident.members[incident.root])
    return Transition(
        status,
        root,
        incident.id,
        windows,
        incident.opened_ms,
        incident.severity,
        tuple(members[key] for key in order),
        incident.owner,
        tuple(incident.routes),
        incident.escalations,
        is_flapping=any(is_flapping(state.tracks.get(key)) for key in incident.members),
    )


def is_flapping(track: Track | None) -> bool:
    """Whether a track has opened often lately."""
    return track is not None and len(track.openings) >= FLAPPING_OPENINGS


def quiet_windows(track: Track, finding: Finding) -> int:
    """Return after how many quiet windows in a row an open track closes."""
    return max(finding.rule.quiet, FLAPPING_QUIET) if is_flapping(track) else finding.rule.quiet


def causality(finding: Finding) -> tuple[object, ...]:
    """Return what sorts the finding first that is most likely the cause; the last part only makes the order total."""
    member = Member(finding.measurement, finding.severity, finding)
    return _cause(member), _size(member), track_key(finding.measurement)


def _cause(member: Member) -> tuple[object, ...]:
    """A notice last; then nearest to the source, then most severe, all rows before a segment."""
    measured = member.measurement
    is_part = measured.segment != ALL
    return member.severity == "notice", _rank(measured.check), -_severity(member.severity), is_part, measured.check


def _size(member: Member) -> float:
    """The worst value of a check first."""
    if member.finding is None:
        return math.inf
    value = member.finding.measurement.value
    return value if member.finding.is_below else -value


def _rank(check: str) -> int:
    if check in OF_DISTRIBUTION:
        return CAUSES["drift"]
    return CAUSES.get(check.partition(".")[0], len(CAUSES))


def _severity(severity: Severity) -> int:
    return SEVERITIES.index(severity)


def open_incidents(state: DecisionState) -> dict[str, str]:
    """Return, by key of a track, the id of the incident that it is in now."""
    return {key: state.incidents[track.incident].id for key, track in state.tracks.items() if track.incident}


def open_severities(state: DecisionState) -> frozenset[Severity]:
    """Return the severities of what is in an incident now."""
    return frozenset(track.severity for track in state.tracks.values() if track.incident)


def no_longer_measured(key: str, severity: Severity) -> Finding:
    """Return a finding that says so."""
    measurement = replace(measured_by(key), evidence={"reason": "no longer measured"})
    return Finding(measurement, "ok", 0.0, severity)
