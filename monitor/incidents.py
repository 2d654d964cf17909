"""What a run of findings means: pending → firing → resolved, one incident per segment, check and feature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec
import orjson

from monitor.errors import UnknownCodec
from monitor.findings import Finding, Measurement, Severity

CODEC_VERSION = 2
_KNOWN_VERSIONS = (1, 2)


class _Track(msgspec.Struct, array_like=True):
    """Where one check of one feature of one segment stands.

    breaches, quiet: windows in a row. incident: id of the firing alert, "" when none is open. opened_ms: end of its window.
    severity: of the firing alert.
    """

    breaches: int = 0
    quiet: int = 0
    incident: str = ""
    opened_ms: int = 0
    severity: Severity = "notice"


class Transition(NamedTuple):
    """An incident that opens (`firing`) or closes (`resolved`) with this window."""

    status: Literal["firing", "resolved"]
    finding: Finding
    incident_id: str
    windows: int
    """Breaches in a row when it fires, quiet windows when it is resolved."""
    opened_ms: int
    """End of the window with which it fired."""
    supersedes: str = ""
    """Id of the alert of an earlier revision that this one restates or takes back; "" of none."""
    is_taken_back: bool = False
    """Whether it says that the earlier alert does not hold: one that fired is resolved, one that was resolved fires again."""


class Said(msgspec.Struct, array_like=True, frozen=True):
    """An alert that is in force with a window: whose, firing or resolved, of which incident, and its id."""

    key: str
    status: Literal["firing", "resolved"]
    incident: str
    alert: str
    opened_ms: int
    severity: Severity

    @property
    def about(self) -> tuple[str, Literal["firing", "resolved"], str]:
        """What a reader of alerts would call the same."""
        return self.key, self.status, self.incident


_encode = msgspec.msgpack.Encoder().encode
_decode_said = msgspec.msgpack.Decoder(list[Said]).decode
_decode = msgspec.msgpack.Decoder(dict[str, _Track]).decode


def step(
    before: bytes, findings: Iterable[Finding], firing_id: Callable[[Finding], str], end_ms: int, *, is_complete: bool
) -> tuple[list[Transition], bytes]:
    """Take one window's findings into the tracks; return what opens or closes, and the tracks after it.

    `insufficient` leaves a track as it is. A track without a breach or an open incident is not kept.
    is_complete: the window could measure everything that there is; an incident without a finding (its rule was switched off, its
    feature is gone) is then resolved. Raises UnknownCodec.
    """
    tracks = _load(before)
    orphans = set(tracks) if is_complete else set()
    transitions = []
    for finding in findings:
        key = _key(finding.measurement)
        orphans.discard(key)
        if finding.verdict == "insufficient":
            continue
        track = tracks.setdefault(key, _Track())
        transition = _take(track, finding, firing_id, end_ms)
        if transition is not None:
            transitions.append(transition)
        if not (track.breaches or track.incident):
            del tracks[key]
    for key in sorted(orphans):
        track = tracks.pop(key)
        if track.incident:
            gone = _no_longer_measured(key, track.severity)
            transitions.append(Transition("resolved", gone, track.incident, 0, track.opened_ms))
    return transitions, bytes([CODEC_VERSION]) + _encode(dict(sorted(tracks.items()))) if tracks else b""


def said_of(
    transitions: Iterable[Transition], told: Iterable[Transition], said: Iterable[Said], alert_id: Callable[[Transition], str]
) -> bytes:
    """Return what the next revision of a window has to know of its alerts.

    transitions: all of this one. told, said: see `restated`; what was not told again has the id that it had.
    """
    ids = {one.about: one.alert for one in said} | {_about(t): alert_id(t) for t in told if not t.is_taken_back}
    now = [Said(*_about(t), ids[_about(t)], t.opened_ms, t.finding.severity) for t in transitions]
    return _encode(now) if now else b""


def load_said(data: bytes) -> list[Said]:
    """Read what `said_of` wrote."""
    return _decode_said(data) if data else []


def fired_before(said: Iterable[Said]) -> dict[str, str]:
    """Return the incidents that an earlier revision of the window has opened, by track: one that opens again keeps its id."""
    return {one.key: one.incident for one in said if one.status == "firing"}


def restated(
    said: Sequence[Said], transitions: Sequence[Transition], findings: Iterable[Finding], after: bytes, latest: bytes
) -> list[Transition]:
    """Return what a revision tells: its own transitions, and those of the one before that do not hold any more, taken back.

    said: of the revision before. after: the tracks after the window. latest: those after the newest one; what fired before, fires still
    and is over by now is not told again: nobody would resolve it a second time.
    """
    earlier = {one.about: one.alert for one in said}
    is_open = {track.incident for track in _load(latest).values()}
    told = [t._replace(supersedes=earlier.get(_about(t), "")) for t in transitions]
    told = [t for t in told if t.status == "resolved" or not t.supersedes or t.incident_id in is_open]
    held = {_about(t) for t in transitions}
    by_key = {_key(finding.measurement): finding for finding in findings}
    tracks = _load(after)
    for one in said:
        if one.about in held:
            continue
        finding = by_key.get(one.key) or _no_longer_measured(one.key, one.severity)
        finding = finding._replace(measurement=_as_taken_back(finding.measurement))
        if one.status == "firing":
            told.append(Transition("resolved", finding, one.incident, 0, one.opened_ms, one.alert, is_taken_back=True))
        elif one.key in tracks and tracks[one.key].incident == one.incident:
            told.append(
                Transition(
                    "firing", finding, one.incident, tracks[one.key].breaches, one.opened_ms, one.alert, is_taken_back=True
                )
            )
    return told


def _about(transition: Transition) -> tuple[str, Literal["firing", "resolved"], str]:
    return track_key(transition.finding), transition.status, transition.incident_id


def _as_taken_back(measurement: Measurement) -> Measurement:
    return measurement._replace(evidence={**measurement.evidence, "reason": "taken back by a revision of the window"})


def _take(track: _Track, finding: Finding, firing_id: Callable[[Finding], str], end_ms: int) -> Transition | None:
    if finding.verdict == "breach":
        track.breaches, track.quiet = track.breaches + 1, 0
        if track.incident or track.breaches < finding.windows:
            return None
        track.incident, track.opened_ms, track.severity = firing_id(finding), end_ms, finding.severity
        return Transition("firing", finding, track.incident, track.breaches, end_ms)
    track.breaches, track.quiet = 0, track.quiet + 1
    if not track.incident or track.quiet < finding.windows:
        return None
    closed = Transition("resolved", finding._replace(severity=track.severity), track.incident, track.quiet, track.opened_ms)
    track.incident = ""
    return closed


def open_severities(after: bytes) -> frozenset[Severity]:
    """Return the severities of the incidents that are open in the tracks that `step` returned."""
    return frozenset(track.severity for track in _load(after).values() if track.incident)


def track_key(finding: Finding) -> str:
    """Return what the track of a finding is known by."""
    return _key(finding.measurement)


def _key(measurement: Measurement) -> str:
    """Return what tells tracks apart: check, segment and feature; names may hold any character."""
    return orjson.dumps([measurement.check, measurement.segment, measurement.feature]).decode()


def _no_longer_measured(key: str, severity: Severity) -> Finding:
    check, segment, feature = orjson.loads(key)
    measurement = Measurement(check, feature, 0.0, 0, 0, evidence={"reason": "no longer measured"}, segment=segment)
    return Finding(measurement, "ok", 0.0, severity)


def _load(before: bytes) -> dict[str, _Track]:
    if not before:
        return {}
    if before[0] not in _KNOWN_VERSIONS:
        raise UnknownCodec("decision state", before[0], _KNOWN_VERSIONS)
    tracks = _decode(memoryview(before)[1:])
    if before[0] == CODEC_VERSION:
        return tracks
    parts = [(key.partition("|"), track) for key, track in tracks.items()]  # version 1: check|feature, of all rows
    return {_key(Measurement(check, feature, 0.0, 0, 0)): track for (check, _, feature), track in parts}
