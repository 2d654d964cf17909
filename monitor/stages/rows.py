"""Rows of one partition under several owners: which version of a row counts, and what a checkpoint writes.

A row's stored key ends with the epoch of the owner that wrote it, so that a paused owner that wakes up writes beside the new owner's
rows and never over them. A row is a function of `hi`, the last source offset folded into it; so of several versions the one with the
highest (hi, epoch) counts, whoever wrote it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

import cramjam
import msgspec

from monitor.errors import InputError, StaleOwner, StateMismatch, UnknownCodec
from monitor.ports import Checkpoint, Message

CODEC_VERSION = 2
_KNOWN_VERSIONS = (1, 2)
OPEN, CLOSED, EMITTED = 0, 1, 2

META = b"meta"
ROW_KINDS = frozenset(
    (
        *(b"meta", b"reference", b"pane", b"late", b"ids", b"partial", b"sealed", b"window", b"found", b"learning", b"kept"),
        *(b"early", b"delta", b"outcome", b"known", b"reported"),
    )
)
"""What keys begin with. A row of another kind is a later version's: to leave it out would be to lose what it holds."""
_EPOCH = struct.Struct(">I")
_HEADER = struct.Struct(">BBq")


UNREADABLE = (msgspec.MsgspecError, cramjam.DecompressionError, struct.error, ValueError, IndexError, KeyError, InputError)
"""What decoders raise for bytes that are not what their codec says."""


class Stored(NamedTuple):
    """One version of a row."""

    hi: int
    epoch: int
    state: int
    payload: bytes
    codec: int = CODEC_VERSION


def same_topic_id(topic: str, stored: str | None, now: str | None) -> str | None:
    """Return the id of a topic that state was written for; None is not known. Raises StateMismatch when the topic is another one now."""
    if stored and now and stored != now:
        raise StateMismatch(
            f"topic {topic} was deleted and created again since its state was written; start with another `app` name to begin anew"
        )
    return stored or now


def row_key(*parts: str | int) -> bytes:
    """Return a key without its epoch. Names cannot contain `|` (events.NAME_PATTERN).

    >>> row_key("pane", "credit", "7", 0, 3600000)
    b'pane|credit|7|0|3600000'
    """
    return "|".join(map(str, parts)).encode()


def key_parts(key: bytes) -> list[str]:
    """Return what `row_key` joined, as texts."""
    return key.decode().split("|")


def stored_key(key: bytes, epoch: int) -> bytes:
    """Return the key under which an epoch's version of a row is stored."""
    return key + _EPOCH.pack(epoch)


def stored_value(state: int, hi: int, payload: bytes) -> bytes:
    """Return header and payload."""
    return _HEADER.pack(CODEC_VERSION, state, hi) + payload


def parse(stored: bytes, value: bytes) -> tuple[bytes, Stored]:
    """Return the key without its epoch, and the version. Raises UnknownCodec, or one of UNREADABLE for what is too short."""
    epoch = _EPOCH.unpack(stored[-_EPOCH.size :])[0]
    codec, state, hi = _HEADER.unpack_from(value)
    if codec not in _KNOWN_VERSIONS:
        raise UnknownCodec("a state row", codec, _KNOWN_VERSIONS)
    return stored[: -_EPOCH.size], Stored(hi, epoch, state, value[_HEADER.size :], codec)


def check_kinds(keys: Iterable[bytes]) -> None:
    """Raise UnknownCodec for a row of a kind that this program does not know."""
    for key in keys:
        kind = key.partition(b"|")[0]
        if kind not in ROW_KINDS:
            raise UnknownCodec(
                f"a state row of the unknown kind {kind.decode(errors='replace')!r}", CODEC_VERSION, _KNOWN_VERSIONS
            )


def rank(version: Stored) -> tuple[int, int]:
    """Order versions of a row: more events first, then the younger owner."""
    return (version.hi, version.epoch)


class Predecessors:
    """When what earlier owners wrote may be deleted: once they have ended, and had read no further than what is durable here.

    One that was paused goes on for a while, and may be ahead of its successor. Its rows are then the best there are, with its meta; and
    what it has deleted for them is gone. gone_after_ms: so long after `loaded_ms` all of them have ended, real time.
    """

    def __init__(self, loaded_ms: int, gone_after_ms: int) -> None:
        self._gone_ms = loaded_ms + gone_after_ms
        self._end: int | None = None

    def note(self, now_ms: int, end: int | None) -> None:
        """Note where the log ended not long before a time."""
        if self._end is None and now_ms >= self._gone_ms:
            self._end = end

    def are_overtaken(self, durable_hi: int) -> bool:
        """Whether what is durable here covers all that they can have read."""
        return self._end is not None and durable_hi + 1 >= self._end


class Versions:
    """Every version of every row that the store holds, and what a new owner does with them.

    Raises StaleOwner for a version of `epoch` or of a higher one: what an owner of the same epoch had sent may still arrive, and would
    take the place of what this one wrote; UnknownCodec for a row of another codec version.
    """

    def __init__(self, items: Iterable[tuple[bytes, bytes]], epoch: int) -> None:
        self.epoch = epoch
        self.best: dict[bytes, Stored] = {}
        self._epochs: dict[bytes, dict[int, int]] = {}
        self._dropped: list[bytes] = []
        self._superseded: dict[int, set[bytes]] = {}
        self._fenced: set[int] = set()
        for stored, value in items:
            key, version = parse(stored, value)
            if version.epoch >= epoch:
                raise StaleOwner(epoch, version.epoch)
            self._epochs.setdefault(key, {})[version.epoch] = version.hi
            if key not in self.best or rank(version) > rank(self.best[key]):
                self.best[key] = version

    def drop(self, key: bytes) -> None:
        """Forget a row: every known version of it is deleted by the next checkpoint."""
        self.best.pop(key, None)
        self._dropped += [stored_key(key, epoch) for epoch in self._epochs.pop(key, {})]

    def snapshot(
        self,
        rows: Iterable[tuple[bytes, int, int, bytes]],
        meta: tuple[int, bytes],
        dead_letters: Iterable[Message] = (),
        *,
        retire: bool,
    ) -> Checkpoint:
        """Return the checkpoint that writes `rows` (key, state, hi, payload) and meta (hi, payload), and deletes what is not needed.

        retire: see Predecessors; what this one has superseded is deleted. An older owner may have written after this one had loaded; its
        meta therefore goes one checkpoint before its rows, lest it stand without them.
        """
        puts: list[tuple[bytes, bytes | None]] = [
            (stored_key(key, self.epoch), stored_value(state, hi, payload)) for key, state, hi, payload in rows
        ]
        gone, self._dropped = self._dropped, []
        if retire:
            for epoch in self._fenced:
                gone += self._superseded.pop(epoch, ())
            self._fenced = set(self._superseded)
            gone += [stored_key(META, epoch) for epoch in self._superseded]
        puts += [(key, None) for key in gone]
        hi, payload = meta
        return Checkpoint(tuple(puts), (stored_key(META, self.epoch), stored_value(OPEN, hi, payload)), hi, tuple(dead_letters))

    def committed(self, checkpoint: Checkpoint) -> None:
        """Take note that a checkpoint is durable: older owners' versions of its rows are superseded."""
        for stored, value in (*checkpoint.rows, checkpoint.meta):
            if value is None:
                continue
            key, hi = stored[: -_EPOCH.size], _HEADER.unpack_from(value)[2]
            epochs = self._epochs.setdefault(key, {})
            epochs[self.epoch] = hi
            for epoch in [e for e, old_hi in epochs.items() if e != self.epoch and old_hi <= hi]:
                del epochs[epoch]
                of_epoch = self._superseded.setdefault(epoch, set())
                if key != META:
                    of_epoch.add(stored_key(key, epoch))

    @property
    def has_dropped(self) -> bool:
        """Whether a checkpoint would delete rows that were dropped."""
        return bool(self._dropped)
