"""The rows of stage 2: partials as they arrive, sealed panes, final windows; and a model's rows by what they are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from monitor.profiles import Profile
from monitor.stages import partials
from monitor.stages.learning import Found, Learning
from monitor.stages.rows import EMITTED, OPEN, Stored, row_key
from monitor.stages.trail import Kept
from monitor.windows import Window, WindowSpec


class Arrived(msgspec.Struct, array_like=True):
    """One cumulative partial as it arrived: at which offset of `partials`, and its bytes."""

    at: int
    hi: int
    n: int
    data: bytes


class Share(msgspec.Struct, array_like=True):
    """What a source partition put into a sealed pane: its last offset folded, its rows, and their first and last offset."""

    hi: int
    n: int
    first: int
    last: int


class Sealed(msgspec.Struct, array_like=True):
    """A pane of one model version, merged over source partitions: (reference sha256, profile) in the order of the references."""

    profiles: list[tuple[str, bytes]]
    shares: dict[str, Share]
    lost: int


class Final(msgspec.Struct, kw_only=True):
    """A final window: frozen bytes until they are sent, and the decision state after it by version, where the next one starts.

    live: versions that had rows in the last window with any. unseen_for: windows since a version had rows. empty: windows in a row
    without rows. alarmed: versions with an open incident that is a warning or worse.
    """

    after: dict[str, bytes]
    live: list[str]
    unseen_for: dict[str, int] = {}
    empty: int = 0
    alarmed: list[str] = []
    results: list[tuple[bytes, bytes]] = []
    alerts: list[tuple[bytes, bytes]] = []


T = TypeVar("T", list[Arrived], Sealed, Final, Found, Learning, Kept)

encode = msgspec.msgpack.Encoder().encode
_decoders = {
    "pane": msgspec.msgpack.Decoder(list[Arrived]).decode,
    "sealed": msgspec.msgpack.Decoder(Sealed).decode,
    "window": msgspec.msgpack.Decoder(Final).decode,
    "found": msgspec.msgpack.Decoder(Found).decode,
    "kept": msgspec.msgpack.Decoder(Kept).decode,
    "learning": msgspec.msgpack.Decoder(Learning).decode,
}


@dataclass(slots=True)
class Row(Generic[T]):
    """A row: `hi` is the offset of `partials` that made it what it is. durable: (state, hi) of the last durable version."""

    key: bytes
    state: int
    hi: int
    value: T
    sent_ms: int = 0
    durable: tuple[int, int] | None = None

    @property
    def is_durable(self) -> bool:
        """Whether it stands in the store as it is here."""
        return self.durable == (self.state, self.hi)


@dataclass(slots=True)
class ModelRows:
    """A model's rows.

    arriving: (pane start, version) → source|partition|chunk → partials. sealed: pane start → version → pane.
    final: specification → final windows kept, by end; the last one carries the decision state.
    due: windows that have rows, or may be published empty, and are not final.
    found: pane start → version → what was discovered, until a window has learnt from it. learning: by version.
    kept: pane start → version → what later windows are compared with.
    """

    arriving: dict[tuple[int, str], dict[str, Row[list[Arrived]]]] = field(default_factory=dict)
    sealed: dict[int, dict[str, Row[Sealed]]] = field(default_factory=dict)
    final: dict[WindowSpec, list[tuple[Window, Row[Final]]]] = field(default_factory=dict)
    due: set[Window] = field(default_factory=set)
    found: dict[int, dict[str, Row[Found]]] = field(default_factory=dict)
    learning: dict[str, Row[Learning]] = field(default_factory=dict)
    kept: dict[int, dict[str, Row[Kept]]] = field(default_factory=dict)

    def done_ms(self, spec: WindowSpec) -> int | None:
        """Return the end of the last final window of a specification."""
        finals = self.final.get(spec)
        return finals[-1][0].end_ms if finals else None

    def take_pane(self, parts: list[str], key: bytes, stored: Stored, upto: int) -> None:
        """Take in a stored row of arriving partials as it was at offset `upto`: a crash may have left it ahead of meta."""
        arrived = [a for a in load(stored, "pane") if a.at <= upto]
        if arrived:
            row: Row[list[Arrived]] = Row(key, OPEN, arrived[-1].at, arrived)
            self.arriving.setdefault((int(parts[2]), parts[1]), {})["|".join(parts[4:])] = row

    def take_sealed(self, parts: list[str], key: bytes, stored: Stored) -> None:
        """Take in a stored sealed pane."""
        row: Row[Sealed] = Row(key, stored.state, stored.hi, load(stored, "sealed"))
        self.sealed.setdefault(int(parts[2]), {})[parts[1]] = row

    def take_found(self, parts: list[str], key: bytes, stored: Stored) -> None:
        """Take in what was discovered in a sealed pane."""
        row: Row[Found] = Row(key, stored.state, stored.hi, load(stored, "found"))
        self.found.setdefault(int(parts[2]), {})[parts[1]] = row

    def take_kept(self, parts: list[str], key: bytes, stored: Stored) -> None:
        """Take in a pane that later windows are compared with."""
        self.kept.setdefault(int(parts[2]), {})[parts[1]] = Row(key, stored.state, stored.hi, load(stored, "kept"))

    def take_learning(self, parts: list[str], key: bytes, stored: Stored) -> None:
        """Take in a learning; one that is ahead of meta holds the windows to come already, and they do not step it."""
        self.learning[parts[1]] = Row(key, stored.state, stored.hi, load(stored, "learning"), 0, (stored.state, stored.hi))

    def pop_found(self, before_ms: int) -> dict[str, list[Row[Found]]]:
        """Remove and return, by version, what was discovered in panes that start before a time."""
        by_version: dict[str, list[Row[Found]]] = {}
        for start in sorted(start for start in self.found if start < before_ms):
            for version, row in self.found.pop(start).items():
                by_version.setdefault(version, []).append(row)
        return by_version

    def take_window(self, parts: list[str], key: bytes, stored: Stored, now_ms: int) -> None:
        """Take in a stored final window."""
        window = Window(int(parts[1]), int(parts[2]), int(parts[3]))
        row: Row[Final] = Row(key, stored.state, stored.hi, load(stored, "window"), now_ms, (stored.state, stored.hi))
        self.final.setdefault(window.spec, []).append((window, row))


def load(stored: Stored, kind: str) -> Any:
    """Return what a row's payload holds."""
    return _decoders[kind](stored.payload)


def window_key(model: str, window: Window) -> bytes:
    """Return the row key of a final window."""
    return row_key("window", model, window.end_ms, window.size_ms, window.step_ms)


def add_profile(into: dict[str, Profile], sha256: str, profile: Profile) -> None:
    """Merge a profile with those of the same reference."""
    if sha256 in into:
        into[sha256].merge(profile)
    else:
        into[sha256] = profile


def share_of(partial: partials.Partial) -> Share:
    """Return what a partial contributes."""
    return Share(partial.hi, partial.n, partial.first, partial.last)


def spans(shares: Mapping[str, Share], into: dict[str, dict[str, list[int]]]) -> None:
    """Widen topic → partition → [first, last] offset by the shares of a pane."""
    for place, share in shares.items():
        source, partition = place.split("|")
        span = into.setdefault(source, {}).setdefault(partition, [share.first, share.last])
        span[:] = [min(span[0], share.first), max(span[1], share.last)]


def is_ripe(row: Row[Final], durable_hi: int, now_ms: int, retire_after_ms: int) -> bool:
    """Whether a final window was sent, durably and long enough ago, so that it may be collected."""
    return row.state == EMITTED and row.is_durable and row.hi <= durable_hi and row.sent_ms + retire_after_ms <= now_ms
