"""The rows of stage 2: partials as they arrive, sealed panes, final windows, what is learnt; and a model's rows by what they are for."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import cramjam
import msgspec

from monitor.decision.scales import MAX_EARLIER
from monitor.stages import partials
from monitor.stages.merge.early_rows import Early
from monitor.stages.merge.learning import Found, Learning
from monitor.stages.merge.performance_rows import Known, Reported
from monitor.stages.merge.trail import Kept
from monitor.stages.rows import EMITTED, Stored, key_parts, row_key
from monitor.stages.settings import Revising
from monitor.windows import FOREVER_MS, NEVER_MS, Window, WindowSpec

MAX_EMPTY_WINDOWS = 24
"""Windows without a row that are still published after the last one with rows: enough for a traffic alert, then silence."""

MAX_LOOKBACK = 168
"""Final windows, with rows or without, among which those are looked for that a window is judged with: a week of hours."""


class Share(msgspec.Struct, array_like=True):
    """What a partial put into a sealed pane: its last offset folded, its rows, and their first and last offset."""

    hi: int
    n: int
    first: int
    last: int


class Sealed(msgspec.Struct, array_like=True):
    """A pane of one model version, merged over source partitions: (reference sha256, profile) in the order of the references.

    shares: by place, see `place_of`.
    """

    profiles: list[tuple[str, bytes]]
    shares: dict[str, Share]
    lost: int
    cut_ms: int = NEVER_MS
    """When late rows were added last."""


class Unsent(msgspec.Struct, array_like=True):
    """What an earlier edition of a final window had not sent yet."""

    serial: int
    results: list[tuple[bytes, bytes]]
    alerts: list[tuple[bytes, bytes]]


class Final(msgspec.Struct, kw_only=True):
    """A final window: frozen bytes until they are sent, and the decision state after it by version, where the next one starts.

    live: versions that had rows in the last window with any. unseen_for: windows since a version had rows. empty: windows in a row
    without rows. alarmed: versions with an open incident that is a warning or worse. revisions: of versions that were restated, and of those
    that it was published for while no version had rows. said: what the next revision has to know of the alerts, by version. edition: how
    often the row was replaced. serial: place among all that is decided of a model that revises, in which order it is sent. unsent: of
    earlier editions. tallies: what later windows are judged with, by version with rows (decision.scales); of the first edition.
    """

    after: dict[str, bytes]
    live: list[str]
    unseen_for: dict[str, int] = {}
    empty: int = 0
    alarmed: list[str] = []
    results: list[tuple[bytes, bytes]] = []
    alerts: list[tuple[bytes, bytes]] = []
    revisions: dict[str, int] = {}
    said: dict[str, bytes] = {}
    edition: int = 0
    serial: int = 0
    unsent: list[Unsent] = []
    tallies: dict[str, bytes] = {}

    @property
    def to_send(self) -> list[Unsent]:
        """What is frozen and not sent, of this edition and of those before, in order."""
        return [*self.unsent, Unsent(self.serial, self.results, self.alerts)] if self.results or self.alerts else self.unsent

    def forget_sent(self) -> None:
        """Everything is on its topic."""
        self.results, self.alerts, self.unsent = [], [], []

    @property
    def handed_on(self) -> tuple[object, ...]:
        """What the next window depends on, beside `after`."""
        return sorted(self.after), self.live, self.unseen_for, self.empty, sorted(self.alarmed)

    @property
    def published(self) -> Set[str]:
        """Versions that the window was published for, live or not any more."""
        return {*self.live, *self.revisions}

    def remember(self, old: Final) -> None:
        """Keep the numbers of versions that late rows of others have taken from the window: what comes of them is their next revision."""
        for version in old.published - {*self.live}:
            self.revisions[version] = old.revisions.get(version, 0)
            if version in old.said:
                self.said[version] = old.said[version]

    @property
    def held_bytes(self) -> int:
        """Memory that its bytes take."""
        sent = sum(len(part) for unsent in self.to_send for pair in (*unsent.results, *unsent.alerts) for part in pair)
        return sent + sum(len(each) for by in (self.after, self.said, self.tallies) for each in by.values())

    @property
    def at_rest(self) -> Final:
        """An empty one that tells which versions later windows are judged with."""
        return Final(after={}, live=[], tallies=dict.fromkeys(self.tallies, b""))

    def copy(self, old: Final, version: str) -> None:
        """Take over what is known of a version that had rows before too."""
        self.after[version] = old.after[version]
        self.alarmed += [version] if version in old.alarmed else []
        if version in old.revisions:
            self.revisions[version] = old.revisions[version]
        if version in old.said:
            self.said[version] = old.said[version]
        if version in old.tallies:
            self.tallies[version] = old.tallies[version]


@dataclass(slots=True)
class Arrived:
    """One block of a cumulative partial as it stands on `partials`; immutable. at: its offset there."""

    key: bytes
    at: int
    partial: partials.Partial
    data: bytes


Arrivals = dict[int, dict[int, Arrived]]
"""hi → chunk → block: what has come of one place."""

T = TypeVar("T", Sealed, Final, Found, Learning, Kept, Early, Known, Reported)


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
        """Keep what it holds packed, a tenth of the size: it stands in the store and is only looked at from now on.

        shown: an empty one, of what may be asked for without unpacking.
        """
        self._packed, self._value = packed(self._value), shown

    @property
    def held_bytes(self) -> int:
        """Memory that its bytes take, where it is a final window."""
        return len(self._packed) or self._value.held_bytes if isinstance(self._value, Final) else 0

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
        parts = in_pieces(packed(self.value))
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


AnyRow = Row[Sealed] | Row[Final] | Row[Found] | Row[Learning] | Row[Kept] | Row[Early] | Row[Known] | Row[Reported]


@dataclass(slots=True)
class ModelRows:
    """A model's rows.

    arriving: (pane start, version) → place → what has arrived. late: the same of rows that came late, and of partials that came after
    their pane was sealed or passed, where they are to be counted. sealed: pane start → version → pane.
    final: specification → final windows kept, by end; the last one carries the decision state.
    due: windows that have rows, or may be published empty, and are not final.
    found: pane start → version → what was discovered, until a window has learnt from it. learning: by version.
    kept: pane start → version → what later windows are compared with. outdated: rows that others have replaced.
    early: window → the looks into it that told something, in order.
    """

    arriving: dict[tuple[int, str], dict[str, Arrivals]] = field(default_factory=dict)
    late: dict[tuple[int, str], dict[str, Arrivals]] = field(default_factory=dict)
    sealed: dict[int, dict[str, Row[Sealed]]] = field(default_factory=dict)
    final: dict[WindowSpec, list[tuple[Window, Row[Final]]]] = field(default_factory=dict)
    due: set[Window] = field(default_factory=set)
    found: dict[int, dict[str, Row[Found]]] = field(default_factory=dict)
    learning: dict[str, Row[Learning]] = field(default_factory=dict)
    kept: dict[int, dict[str, Row[Kept]]] = field(default_factory=dict)
    outdated: list[Row[Any]] = field(default_factory=list)
    early: dict[Window, list[Row[Early]]] = field(default_factory=dict)

    def load(self, key: bytes, pieces: Mapping[int, Stored]) -> Row[Any] | None:
        """Take in a row from the store, in any order of final windows; None when its first piece is not there."""
        kind, _, *parts = key_parts(key)
        row: Row[Any] | None = Row.load(key, pieces, KINDS[kind])
        if row is None:
            return None
        if kind == "window":
            self._load_final(Window(*map(int, parts[:3])), row)
        elif kind == "early":
            rows = self.early.setdefault(Window(*map(int, parts[:3])), [])
            rows.append(row)
            rows.sort(key=lambda each: each.value.upto_ms)
        elif kind == "learning":
            self._load_learning(parts[0], row)
        elif kind == "sealed":
            by_version = self.sealed.setdefault(int(parts[1]), {})
            by_version[parts[0]] = self._newer(by_version.get(parts[0]), row, lambda sealed: sealed.cut_ms)
        else:
            by_start: dict[str, dict[int, dict[str, Row[Any]]]] = {"found": self.found, "kept": self.kept}
            by_start[kind].setdefault(int(parts[1]), {})[parts[0]] = row
        return row

    def _newer(self, known: Row[T] | None, row: Row[T], age: Callable[[T], int]) -> Row[T]:
        """Return the one of two rows of the same thing that replaces the other, which was about to be deleted."""
        if known is None:
            return row
        older, newer = sorted((known, row), key=lambda each: age(each.value))
        self.outdated.append(older)
        return newer

    def _load_final(self, window: Window, row: Row[Final]) -> None:
        finals = self.final.setdefault(window.spec, [])
        known = next((i for i, (of, _) in enumerate(finals) if of == window), None)
        if known is None:
            finals.append((window, row))
        else:
            finals[known] = (window, self._newer(finals[known][1], row, lambda final: final.edition))

    def _load_learning(self, version: str, row: Row[Learning]) -> None:
        """Keep the learning that has seen most."""
        self.learning[version] = self._newer(self.learning.get(version), row, lambda learning: learning.seen_ms)

    def done_ms(self, spec: WindowSpec) -> int | None:
        """Return the end of the last final window of a specification."""
        finals = self.final.get(spec)
        return finals[-1][0].end_ms if finals else None

    def is_passed(self, start_ms: int) -> bool:
        """Whether a window that the pane belongs to is already final."""
        for spec in self.final:
            done = self.done_ms(spec)
            first = next(spec.windows_of(start_ms, start_ms + 1))
            if done is not None and first.end_ms <= done:
                return True
        return False

    def expect(self, specs: Iterable[WindowSpec], start_ms: int) -> None:
        """Make due the windows of a pane with rows that are not final."""
        for spec in specs:
            done = self.done_ms(spec)
            self.due.update(w for w in spec.windows_of(start_ms, start_ms + 1) if done is None or w.end_ms > done)

    def expect_after(self, window: Window, final: Final) -> None:
        """Make due the window after a final one: it may be published though it is empty."""
        if final.empty < MAX_EMPTY_WINDOWS:
            self.due.add(window.spec.after(window))

    def expect_all(self, specs: Sequence[WindowSpec]) -> None:
        """Sort the final windows by end, and make due what the rows loaded ask for."""
        for finals in self.final.values():
            finals.sort(key=lambda item: item[0])
        for start, version in self.arriving:
            if version not in self.sealed.get(start, {}):
                self.expect(specs, start)
        for start in self.sealed:
            self.expect(specs, start)
        for finals in self.final.values():
            self.expect_after(finals[-1][0], finals[-1][1].value)

    def panes(self, window: Window) -> list[dict[str, Row[Sealed]]]:
        """Return the sealed panes of a window, by version, in order of start."""
        return [self.sealed[start] for start in sorted(self.sealed) if window.start_ms <= start < window.end_ms]

    def is_sealed(self, partial: partials.Partial) -> bool:
        """Whether a pane takes partials no more but as late ones: it is sealed, or part of a final window."""
        return partial.version in self.sealed.get(partial.start_ms, {}) or self.is_passed(partial.start_ms)

    def share(self, partial: partials.Partial) -> Share | None:
        """Return what the partial's place has put into its pane."""
        sealed = self.sealed.get(partial.start_ms, {}).get(partial.version)
        return None if sealed is None else sealed.value.shares.get(place_of(partial))

    def arrivals(self, partial: partials.Partial, *, is_late: bool = False) -> Arrivals:
        """Return what has come of the partial's place so far, to be added to."""
        rows = self.late if is_late else self.arriving
        return rows.setdefault((partial.start_ms, partial.version), {}).setdefault(place_of(partial), {})

    def pop_late(
        self, before_ms: int, revising: Revising, upto_ms: int
    ) -> list[tuple[int, dict[tuple[int, str], dict[str, Arrivals]]]]:
        """Remove and return what is due: (time, (pane start, version) → place → what has come, whole), by time.

        A partial that came after the watermark had passed it is due with the next cut. before_ms: what is finished.
        """
        by_time: dict[int, dict[tuple[int, str], dict[str, Arrivals]]] = {}
        for pane, places in self.late.items():
            for place, arrivals in places.items():
                due = next((a.partial.due_ms for a in newest(arrivals)), FOREVER_MS)
                due = due if due > before_ms else revising.next_cut_ms(before_ms)
                if due <= upto_ms:
                    by_time.setdefault(due, {}).setdefault(pane, {})[place] = arrivals
        for pane, place in [(pane, place) for panes in by_time.values() for pane, places in panes.items() for place in places]:
            del self.late[pane][place]
            if not self.late[pane]:
                del self.late[pane]
        return sorted(by_time.items())

    @property
    def held_bytes(self) -> int:
        """Memory that the rows take, about: what is bytes in them, which is all but a little; of a partial that arrived, twice."""
        places = [place for panes in (self.arriving, self.late) for at in panes.values() for place in at.values()]
        arrived = (len(a.data) for arrivals in places for chunks in arrivals.values() for a in chunks.values())
        panes: list[Row[Any]] = [row for by in (self.sealed, self.kept) for rows in by.values() for row in rows.values()]
        profiles = (len(data) for row in panes for _, data in row.value.profiles)
        return 2 * sum(arrived) + sum(profiles) + sum(row.held_bytes for finals in self.final.values() for _, row in finals)

    def rest(self) -> None:
        """Pack the final windows that are sent, durably, and not the last: their bytes are asked for once a window at most."""
        for finals in self.final.values():
            for _, row in finals[:-1]:
                if row.state == EMITTED and row.is_durable and not row.is_at_rest:
                    row.rest(row.value.at_rest)

    def pop_outdated(self) -> list[Row[Any]]:
        """Remove and return rows that others have replaced."""
        outdated, self.outdated = self.outdated, []
        return outdated

    def pop_found(self, before_ms: int) -> dict[str, list[Row[Found]]]:
        """Remove and return, by version, what was discovered in panes that start before a time."""
        by_version: dict[str, list[Row[Found]]] = {}
        for start in sorted(start for start in self.found if start < before_ms):
            for version, row in self.found.pop(start).items():
                by_version.setdefault(version, []).append(row)
        return by_version


def n_unneeded(finals: Sequence[tuple[Window, Row[Final]]]) -> int:
    """Return how many of a specification's oldest final windows the next one is not judged with; never the last, which has the state.

    Kept are the newest `MAX_EARLIER` with tallies of any version, of the newest `MAX_LOOKBACK`.
    """
    keeping = [i for i in range(max(0, len(finals) - MAX_LOOKBACK), len(finals)) if finals[i][1].shown.tallies]
    return keeping[-MAX_EARLIER:][0] if keeping else max(0, len(finals) - 1)


def history_of(finals: Sequence[tuple[Window, Row[Final]]], version: str) -> list[bytes]:
    """Return the tallies of a version's final windows, newest first: those that the window after them is judged with."""
    rows = (row for _, row in reversed(finals[n_unneeded(finals) :]) if version in row.shown.tallies)
    return [each for row in rows if (each := row.value.tallies[version])]


PIECE_BYTES = (512 << 10) - 64
"""With its header a row takes at most half of what a broker allows by default."""
_N_PIECES = struct.Struct(">H")
_encode = msgspec.msgpack.Encoder().encode
KINDS: dict[str, type] = {
    "sealed": Sealed,
    "window": Final,
    "found": Found,
    "learning": Learning,
    "kept": Kept,
    "early": Early,
    "known": Known,
    "reported": Reported,
}
_DECODE: dict[type, Callable[[bytes], Any]] = {kind: msgspec.msgpack.Decoder(kind).decode for kind in KINDS.values()}


def packed(value: object) -> bytes:
    """Return what a row holds, as it is stored."""
    return bytes(cramjam.zstd.compress(_encode(value), level=1))


def unpacked(data: bytes, kind: type[T]) -> T:
    """Read what `packed` wrote."""
    found: T = _DECODE[kind](bytes(cramjam.zstd.decompress(data)))
    return found


def in_pieces(data: bytes) -> list[bytes]:
    """Cut compressed bytes into payloads; the first says how many there are."""
    parts = [data[i : i + PIECE_BYTES] for i in range(0, len(data), PIECE_BYTES)]
    return [_N_PIECES.pack(len(parts)) + parts[0], *parts[1:]]


def piece_key(key: bytes, piece: int) -> bytes:
    """Return the key of one of the rows that hold what `key` is of."""
    return key + f"|{piece}".encode()


def place_of(partial: partials.Partial) -> str:
    """Return whose rows a partial has, of which the newest counts: a source partition's, or those that came late to it before a cut."""
    place = f"{partial.source}|{partial.partition}"
    return place if partial.cut_ms is None else f"{place}|{partial.cut_ms}"


def newest(arrivals: Arrivals) -> list[Arrived]:
    """Return the blocks of the partial with the greatest `hi` of which all have arrived, in order; empty when there is none."""
    complete = [hi for hi, chunks in arrivals.items() if len(chunks) == next(iter(chunks.values())).partial.chunks]
    return [arrivals[max(complete)][chunk] for chunk in sorted(arrivals[max(complete)])] if complete else []


def partial_key(partial: partials.Partial) -> bytes:
    """Return the row key of a block of a partial."""
    pane = (partial.model, partial.version, partial.start_ms, partial.size_ms)
    cut = () if partial.cut_ms is None else (partial.cut_ms,)
    return row_key("partial", *pane, partial.source, partial.partition, partial.chunk, partial.hi, *cut)


def sealed_key(model: str, version: str, start_ms: int, size_ms: int, cut_ms: int = NEVER_MS) -> bytes:
    """Return the row key of a sealed pane.

    After each cut that added late rows it is another one: the row before must not be lost before meta covers what replaces it.
    """
    cut = () if cut_ms == NEVER_MS else (cut_ms,)
    return row_key("sealed", model, version, start_ms, size_ms, *cut)


def window_key(model: str, window: Window, edition: int = 0) -> bytes:
    """Return the row key of a final window; each edition has its own, for the same reason."""
    return row_key("window", model, window.end_ms, window.size_ms, window.step_ms, *((edition,) if edition else ()))


def share_of(partial: partials.Partial) -> Share:
    """Return what a partial contributes."""
    return Share(partial.hi, partial.n, partial.first, partial.last)


def spans(shares: Mapping[str, Share], into: dict[str, dict[str, list[int]]]) -> None:
    """Widen topic → partition → [first, last] offset by the shares of a pane."""
    for place, share in shares.items():
        source, partition = place.split("|")[:2]
        span = into.setdefault(source, {}).setdefault(partition, [share.first, share.last])
        span[:] = [min(span[0], share.first), max(span[1], share.last)]


def count_rows(shares: Mapping[str, Share], into: dict[str, dict[str, int]]) -> None:
    """Add the rows of a pane's shares to topic → partition → rows."""
    for place, share in shares.items():
        if share.n:
            source, partition = place.split("|")[:2]
            rows = into.setdefault(source, {})
            rows[partition] = rows.get(partition, 0) + share.n
