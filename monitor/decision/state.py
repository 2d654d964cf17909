"""What decisions about one model version and kind of window remember from window to window, and its bytes."""

from __future__ import annotations

import msgspec
import orjson

from monitor.errors import UnknownCodec
from monitor.findings import Measurement
from monitor.rules import Severity

CODEC_VERSION = 3
_KNOWN_VERSIONS = (1, 2, 3)


class Track(msgspec.Struct, array_like=True):
    """Where one check of one feature of one segment stands.

    breaches, quiet: windows in a row. incident: number of the open incident that it is a member of, 0 where it is of none.
    severity: the highest that it had as one. recent: the last windows as bits, the newest lowest, 1 is a breach; 0 unless a rule counts them.
    resolved_ms: end of the window in which it last left an incident. openings: windows since it entered one, of the last few times.
    """

    breaches: int = 0
    quiet: int = 0
    incident: int = 0
    severity: Severity = "notice"
    recent: int = 0
    resolved_ms: int | None = None
    openings: list[int] = []


class Incident(msgspec.Struct, array_like=True):
    """An open incident.

    id: of the alert with which it fired. root: key of the track that it fired about. opened_ms: end of the window in which it fired.
    severity: the highest that was told. members: every track that has been in it, with its severity. escalations: alerts since.
    """

    id: str
    root: str
    opened_ms: int
    severity: Severity
    members: dict[str, Severity]
    owner: str = ""
    routes: list[str] = []
    escalations: int = 0


class DecisionState(msgspec.Struct, array_like=True):
    """Tracks by key, incidents by number, and the last values of what means are judged of: (value, critical value, rows) by key."""

    tracks: dict[str, Track] = {}
    incidents: dict[int, Incident] = {}
    values: dict[str, list[tuple[float, float | None, int]]] = {}

    @classmethod
    def load(cls, data: bytes) -> DecisionState:
        """Read what `to_bytes` wrote, or an earlier version. Raises UnknownCodec."""
        if not data:
            return cls({}, {}, {})
        if data[0] not in _KNOWN_VERSIONS:
            raise UnknownCodec("decision state", data[0], _KNOWN_VERSIONS)
        body = memoryview(data)[1:]
        if data[0] == CODEC_VERSION:
            return _decode(body)
        tracks = _decode_2(body)
        if data[0] == 1:  # check|feature, of all rows
            parts = [(key.partition("|"), track) for key, track in tracks.items()]
            tracks = {track_key(Measurement(check, feature, 0.0, 0, 0)): track for (check, _, feature), track in parts}
        return _of_version_2(tracks)

    def to_bytes(self) -> bytes:
        """Return the same bytes for the same content, none for nothing."""
        if not (self.tracks or self.incidents or self.values):
            return b""
        for incident in self.incidents.values():
            incident.members = dict(sorted(incident.members.items()))
        self.tracks, self.values = dict(sorted(self.tracks.items())), dict(sorted(self.values.items()))
        return bytes([CODEC_VERSION]) + _encode(self)

    def open_tracks(self, number: int) -> list[str]:
        """Return the keys of what is in an incident now."""
        return [key for key, track in self.tracks.items() if track.incident == number]


class _Track2(msgspec.Struct, array_like=True):
    """Until version 2 each track was an incident of its own; `incident` was its id, "" when none was open."""

    breaches: int = 0
    quiet: int = 0
    incident: str = ""
    opened_ms: int = 0
    severity: Severity = "notice"


def _of_version_2(tracks: dict[str, _Track2]) -> DecisionState:
    state = DecisionState({}, {}, {})
    for key, old in tracks.items():
        number = len(state.incidents) + 1 if old.incident else 0
        state.tracks[key] = Track(old.breaches, old.quiet, number, old.severity)
        if number:
            state.incidents[number] = Incident(old.incident, key, old.opened_ms, old.severity, {key: old.severity})
    return state


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(DecisionState).decode
_decode_2 = msgspec.msgpack.Decoder(dict[str, _Track2]).decode


def track_key(measurement: Measurement) -> str:
    """Return what tells tracks apart: check, segment, feature and, of a mean, its length; names may hold any character."""
    over = [measurement.over] if measurement.over > 1 else []
    return orjson.dumps([measurement.check, measurement.segment, measurement.feature, *over]).decode()


def measured_by(key: str) -> Measurement:
    """Return a measurement of a track, without value."""
    check, segment, feature, *over = orjson.loads(key)
    return Measurement(check, feature, 0.0, 0, 0, segment=segment, over=over[0] if over else 1)
