"""Rows of any size: what is stored is packed, and cut into pieces that a broker takes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import cramjam
import msgspec

from monitor.stages.rows import Stored

PIECE_BYTES = (512 << 10) - 64
"""With its header a row takes at most half of what a broker allows by default."""
_N_PIECES = struct.Struct(">H")
_encode = msgspec.msgpack.Encoder().encode
_decode: dict[type, Callable[[bytes], Any]] = {}

T = TypeVar("T")


@dataclass(slots=True)
class Row(Generic[T]):
    """What is stored in pieces: `hi` is the offset of `partials` that made it what it is.

    durable: (state, hi) of the last durable version. n_pieces: rows that hold it in the store.
    """

    key: bytes
    state: int
    hi: int
    _value: T
    sent_ms: int = 0
    durable: tuple[int, int] | None = None
    n_pieces: int = 0
    _packed: bytes = b""

    @property
    def value(self) -> T:
        """What it holds; once it rests, made anew each time, and not to be changed."""
        return unpacked(self._packed, type(self._value)) if self._packed else self._value

    def rest(self, shown: T) -> None:
        """Keep what it holds packed, a tenth of the size: it is only looked at from now on, or replaced.

        shown: an empty one, of what may be asked for without unpacking.
        """
        self._packed, self._value = packed(self._value), shown

    def replace(self, value: T) -> None:
        """Hold something else."""
        self._packed, self._value = b"", value

    @property
    def held_bytes(self) -> int:
        """Memory that its bytes take; until it rests, what the value itself says, if it does."""
        return len(self._packed) or getattr(self._value, "held_bytes", 0)

    @property
    def is_at_rest(self) -> bool:
        """Whether it is packed."""
        return bool(self._packed)

    @property
    def shown(self) -> T:
        """What it holds, or once it rests the part that `rest` was told to keep at hand."""
        return self._value

    @property
    def is_durable(self) -> bool:
        """Whether it stands in the store as it is here."""
        return self.durable == (self.state, self.hi)

    @property
    def keys(self) -> list[bytes]:
        """Keys of the rows that hold it in the store."""
        return [piece_key(self.key, i) for i in range(self.n_pieces)]

    def pieces(self) -> list[tuple[bytes, int, int, bytes]]:
        """Return the rows (key, state, hi, payload) that hold it; the first says how many there are, none is above `PIECE_BYTES`.

        Where there were more before, the others stay in the store until it is collected: another owner may write the first one anew.
        """
        parts = in_pieces(self._packed or packed(self._value))
        self.n_pieces = max(self.n_pieces, len(parts))
        return [(piece_key(self.key, i), self.state, self.hi, part) for i, part in enumerate(parts)]

    @classmethod
    def load(cls, key: bytes, pieces: Mapping[int, Stored], kind: type[T]) -> Row[T] | None:
        """Return what `pieces` wrote; None when its first row is not there, as where it was about to be deleted."""
        head = pieces.get(0)
        if head is None:
            return None
        n = _N_PIECES.unpack_from(head.payload)[0]
        data = head.payload[_N_PIECES.size :] + b"".join(pieces[i].payload for i in range(1, n))
        return cls(key, head.state, head.hi, unpacked(data, kind), durable=(head.state, head.hi), n_pieces=len(pieces))


def packed(value: object) -> bytes:
    """Return what a row holds, as it is stored."""
    return bytes(cramjam.zstd.compress(_encode(value), level=1))


def unpacked(data: bytes, kind: type[T]) -> T:
    """Read what `packed` wrote."""
    decode = _decode.get(kind) or _decode.setdefault(kind, msgspec.msgpack.Decoder(kind).decode)
    found: T = decode(bytes(cramjam.zstd.decompress(data)))
    return found


def in_pieces(data: bytes) -> list[bytes]:
    """Cut compressed bytes into payloads; the first says how many there are."""
    parts = [data[i : i + PIECE_BYTES] for i in range(0, len(data), PIECE_BYTES)]
    return [_N_PIECES.pack(len(parts)) + parts[0], *parts[1:]]


def piece_key(key: bytes, piece: int) -> bytes:
    """Return the key of one of the rows that hold what `key` is of."""
    return key + f"|{piece}".encode()
