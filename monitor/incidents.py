"""What a run of findings means: pending → firing → resolved, one incident per segment, check and feature."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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


_encode = msgspec.msgpack.Encoder().encode
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
    closed = Transition("resolved", finding, track.incident, track.quiet, track.opened_ms)
    track.incident = ""
    return closed


def open_severities(after: bytes) -> frozenset[Severity]:
    """Return the severities of the incidents that are open in the tracks that `step` returned."""
    return frozenset(track.severity for track in _load(after).values() if track.incident)


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
