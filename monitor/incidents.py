"""What a run of findings means: pending → firing → resolved, one incident per check and feature."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from monitor.errors import UnknownCodec
from monitor.findings import Finding
from monitor.policy import RuleSet

CODEC_VERSION = 1


class _Track(msgspec.Struct, array_like=True):
    """breaches, quiet: windows in a row. incident: id of the firing alert, "" when none is open. opened_ms: end of its window."""

    breaches: int = 0
    quiet: int = 0
    incident: str = ""
    opened_ms: int = 0


class Transition(NamedTuple):
    """An incident that opens (`firing`) or closes (`resolved`) with this window."""

    status: str
    finding: Finding
    incident_id: str
    windows: int
    """Breaches in a row when it fires, quiet windows when it is resolved."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, _Track]).decode


def step(
    before: bytes,
    findings: Iterable[Finding],
    rules: RuleSet,
    model: str,
    firing_id: Callable[[Finding], str],
    end_ms: int,
) -> tuple[list[Transition], bytes]:
    """Take one window's findings into the tracks; return what opens or closes, and the tracks after it.

    `insufficient` leaves a track as it is. A track without a breach, a quiet run or an incident is not kept.
    """
    tracks = _load(before)
    transitions = []
    for finding in findings:
        measurement = finding.measurement
        rule = rules.rule(measurement.check, model, measurement.feature)
        if rule is None or finding.verdict == "insufficient":
            continue
        key = f"{measurement.check}|{measurement.feature}"
        track = tracks.setdefault(key, _Track())
        if finding.verdict == "breach":
            track.breaches, track.quiet = track.breaches + 1, 0
            if not track.incident and track.breaches >= rule.windows:
                track.incident, track.opened_ms = firing_id(finding), end_ms
                transitions.append(Transition("firing", finding, track.incident, track.breaches))
        else:
            track.breaches, track.quiet = 0, track.quiet + 1
            if track.incident and track.quiet >= rule.windows:
                transitions.append(Transition("resolved", finding, track.incident, track.quiet))
                track.incident = ""
        if not (track.breaches or track.incident):
            del tracks[key]
    return transitions, bytes([CODEC_VERSION]) + _encode(dict(sorted(tracks.items()))) if tracks else b""


def _load(before: bytes) -> dict[str, _Track]:
    if not before:
        return {}
    if before[0] != CODEC_VERSION:
        raise UnknownCodec("decision state", before[0], [CODEC_VERSION])
    return _decode(memoryview(before)[1:])
