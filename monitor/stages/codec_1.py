"""State rows of codec version 1, read as those of today: one row a pane, a list of arrivals, no pieces."""

from __future__ import annotations

import cramjam
import msgspec

from monitor.stages import partials
from monitor.stages.partials import partial_key
from monitor.stages.pieces import in_pieces
from monitor.stages.rows import OPEN, Stored, key_parts

VERSION = 1


class _Arrived(msgspec.Struct, array_like=True):
    at: int
    hi: int
    n: int
    data: bytes


_decode_arrived = msgspec.msgpack.Decoder(list[_Arrived]).decode


def upgrade(best: dict[bytes, Stored]) -> list[bytes]:
    """Replace rows of version 1; return their keys, to be deleted once the rows that stand for them are durable."""
    outdated = [
        key for key, stored in best.items() if stored.codec == VERSION and key_parts(key)[0] in ("pane", "sealed", "window")
    ]
    for key in outdated:
        stored = best.pop(key)
        best.update(_upgraded(key, stored))
    return outdated


def _upgraded(key: bytes, stored: Stored) -> dict[bytes, Stored]:
    kind, *parts = key_parts(key)
    if kind == "pane" and len(parts) == 4:
        return {key + b"|0": stored}
    if kind != "pane":
        payload = in_pieces(bytes(cramjam.zstd.compress(stored.payload)))[0]
        return {key + b"|0": stored._replace(payload=payload)}
    found = {}
    for arrived in _decode_arrived(stored.payload):
        partial = partials.decode(arrived.data)
        assert isinstance(partial, partials.Partial)
        found[partial_key(partial)] = stored._replace(hi=arrived.at, state=OPEN, payload=arrived.data)
    return found
