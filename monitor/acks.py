"""The wire form of an acknowledgement: somebody looks after an incident, and people are not told of it again until it resolves."""

from __future__ import annotations

import msgspec


class Ack(msgspec.Struct, kw_only=True, frozen=True):
    """A record of the acknowledgements topic; its key is `incident_id`. A record without a value takes it back."""

    incident_id: str
    """Id of the alert with which the incident fired."""
    by: str
    """Who looks after it."""
    comment: str
    at: str
    """When it was given, RFC 3339, UTC."""
    at_ms: int

    @classmethod
    def from_bytes(cls, value: bytes) -> Ack | None:
        """Return the acknowledgement, None of bytes that are none."""
        try:
            return _decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def to_bytes(self) -> bytes:
        """Return the record's value."""
        return msgspec.json.encode(self)


_decode = msgspec.json.Decoder(Ack).decode
