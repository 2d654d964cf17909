"""A pane of one model version in one source partition: rows that wait, the profile they are folded into, and its stored form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np

from monitor.columns import About, Bool, ColumnBatch, Int
from monitor.errors import StateMismatch
from monitor.formats import Format
from monitor.hash_key import HashKey
from monitor.layout import Layout
from monitor.learning.discovery import Discovery
from monitor.parts import Part
from monitor.profiles import Profile
from monitor.reference import Reference, References
from monitor.stages.ingest.outcome_rows import OutcomeRows
from monitor.stages.partials import Partial
from monitor.stages.rows import EMITTED, OPEN, Stored, key_parts, row_key
from monitor.stages.settings import ModelSettings
from monitor.stream_facts import Timing
from monitor.windows import NEVER_MS

NO_FEATURES = Layout()
"""Of a model without a reference: rows are counted; what they look like is in the pane's discovery."""


class _Stored(msgspec.Struct, array_like=True):
    """The payload of a block of a pane; no profile once the pane is emitted."""

    reference: str
    settings: str
    first: int
    last: int
    clock_before: int
    lost: int
    profile: bytes
    discovery: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


class Pane:
    """State OPEN, CLOSED or EMITTED; stored as one row per block of segments, of which the first one tells the state.

    his: by block, the last offset folded: equal, but for a crash that left some rows ahead of others. `first` and `last` are the rows'
    own offsets; waiting rows are beyond. clock_before: the partition's clock before `first`. lost: offsets that retention took while it
    was open. durable: (state, hi) of the last durable version. dirty: blocks that the store has not as they are here.
    discovery: what the rows of a pane without a reference look like, where one is to be learnt; stored and sent with the first block.
    cut_ms: it holds rows of the pane that came late, and is closed when the clock less grace passes this time; no reference is learnt from
    them. None: those that were on time.
    """

    __slots__ = (
        "clock_before", "cut_ms", "dirty", "discovery", "due_ms", "durable", "emitted_ms", "first", "his", "key", "last", "lost",
        "marks", "model", "outsiders", "profile", "reference", "settings", "start_ms", "state", "version", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        model: str,
        version: str,
        start_ms: int,
        settings: ModelSettings,
        reference: Reference | None,
        hash_key: HashKey,
        cut_ms: int | None = None,
    ) -> None:
        self.key = pane_key(model, version, start_ms, settings, cut_ms)
        self.model = model
        self.version = version
        self.start_ms = start_ms
        self.cut_ms = cut_ms
        self.due_ms = start_ms + settings.pane_ms if cut_ms is None else cut_ms
        self.settings = settings
        self.reference = reference
        layout = reference.layout if reference else NO_FEATURES
        self.profile: Profile | None = Profile(layout)
        is_learnt = reference is None and settings.learning is not None and cut_ms is None
        self.discovery = Discovery(hash_key) if is_learnt else None
        self.state = OPEN
        self.first = self.last = -1
        self.his = [-1] * len(layout.blocks)
        self.clock_before = NEVER_MS
        self.lost = 0
        self.waiting: list[object] = []
        self.marks: list[Int] = []
        self.outsiders: list[tuple[Int, Bool, Int]] = []
        self.dirty: set[int] = set()
        self.durable: tuple[int, int] | None = None
        self.emitted_ms = 0

    @property
    def hi(self) -> int:
        """Last offset folded into all rows."""
        return self.his[0]

    @property
    def closes_ms(self) -> int:
        """The clock at which it is to be closed, grace included."""
        return self.due_ms + self.settings.grace_ms

    @property
    def reference_sha256(self) -> str:
        """Of the reference whose layout the profile has; "" without one."""
        return self.reference.sha256 if self.reference else ""

    @property
    def place(self) -> tuple[str, str, int]:
        """Model, version and start."""
        return self.model, self.version, self.start_ms

    @property
    def keys(self) -> list[bytes]:
        """Row key of every block."""
        return [block_key(self.key, block) for block in range(len(self.his))]

    @property
    def is_waiting(self) -> bool:
        """Whether there is anything to fold."""
        return bool(self.waiting or self.outsiders)

    def wait(self, payloads: list[object], marks: Int, clock_before_ms: int) -> None:
        """Let rows wait, less those that every block holds already: after a crash they may be ahead of meta.

        marks: offset, event time, record timestamp and clock of each row, shape (4, n).
        """
        held = min(self.his)
        if marks[0, 0] <= held:
            new = int(np.searchsorted(marks[0], held, side="right"))
            payloads, marks = payloads[new:], marks[:, new:]
            if not payloads:
                return
        self._reach(int(marks[0, 0]), clock_before_ms)
        self.waiting += payloads
        self.marks.append(marks)
        self.state = OPEN

    def begin(self, offset: int, clock_before_ms: int) -> None:
        """Know of rows that are about to be taken in, the first of them at an offset."""
        self._reach(offset, clock_before_ms)
        self.state = OPEN

    def witness(self, offsets: Int, is_late: Bool, by_ms: Int, clock_before_ms: int) -> None:
        """Let records wait that are in no window (outsiders.py), less those that are counted already."""
        new = offsets > self.hi
        if new.any():
            self._reach(int(offsets[new][0]), clock_before_ms)
            self.outsiders.append((offsets[new], is_late[new], by_ms[new]))

    def _reach(self, offset: int, clock_before_ms: int) -> None:
        if self.first < 0 or offset < self.first:
            self.first, self.clock_before = offset, clock_before_ms

    @property
    def layout(self) -> Layout:
        """Where its rows are counted."""
        return self.reference.layout if self.reference else NO_FEATURES

    @property
    def id_limit(self) -> int:
        """Limit of its sample of ids (sketches/id_sample.py)."""
        assert self.profile is not None
        return self.profile.stream.ids.limit

    @property
    def can_join(self) -> bool:
        """Whether what waits may be read and counted together with the rows of other panes: none of it was counted, nothing is learnt."""
        return bool(self.waiting) and self.discovery is None and int(self.marks[0][0, 0]) > max(self.his)

    def joined_marks(self) -> Int:
        """Return the marks of the rows that wait, shape (4, n)."""
        return self.marks[0] if len(self.marks) == 1 else np.concatenate(self.marks, axis=1)

    def take_in(self, hi: int, about: About, timing: Timing, part: Part | None, batch: ColumnBatch | None) -> None:
        """Fold what waits, sorted out together with the rows of others. hi: the last offset. batch: where there is no part."""
        assert self.profile is not None
        before = self.profile.rows.copy() if part is None else None
        if part is not None:
            self.profile.add_part(part, about)
            self.dirty.add(0)
        elif batch is not None:
            self.profile.update(batch)
        self.profile.stream.add_timed(about.envelope, timing)
        self._folded(hi, before)

    def fold(self, wire: Format, outcomes: OutcomeRows | None = None) -> None:
        """Fold what waits into the profile, and tell `outcomes` of it."""
        assert self.profile is not None
        reached = -1
        before = self.profile.rows.copy()
        if self.waiting:
            marks = self.joined_marks()
            for begin, end, blocks in self._pieces(marks[0]):
                offsets, *clocks = marks[:, begin:end]
                batch = wire.columns(self.profile.layout, self.waiting[begin:end], offsets)
                self.profile.update(batch, blocks)
                if outcomes is not None:
                    outcomes.take(self.place, self.reference, batch, wire.ids(self.waiting[begin:end]), marks[:2, begin:end])
                if blocks is None or 0 in blocks:
                    self.profile.stream.add_rows(batch.envelope, *clocks)
                    self._discover(wire, self.waiting[begin:end])
            reached = int(marks[0, -1])
        self._folded(reached, before)

    def _folded(self, reached: int, before: Int | None) -> None:
        """Count outsiders, too, and note what was folded. reached: offset of the last row, −1 of none. before: rows by segment."""
        assert self.profile is not None
        for offsets, is_late, by_ms in self.outsiders:
            self.profile.stream.add_late(by_ms[is_late].tolist())
            self.profile.stream.add_future(by_ms[~is_late].tolist())
            self.dirty.add(0)
            reached = max(reached, int(offsets[-1]))
        if before is not None:
            self.dirty |= self.profile.layout.blocks_of(np.flatnonzero(self.profile.rows != before))
        self.his = [max(hi, reached) for hi in self.his]
        self.last = max(self.last, reached)
        self.waiting, self.marks, self.outsiders = [], [], []

    def _discover(self, wire: Format, payloads: list[object]) -> None:
        learning = self.settings.learning
        if self.discovery is not None and learning is not None:
            rows = wire.rows(payloads)
            self.discovery.update(rows, keep_texts=learning.keep_texts, left_out=learning.left_out, hashed=learning.hashed)

    def forget_rows(self) -> None:
        """The pane was sent: what it holds is not needed any more."""
        self.profile = self.discovery = None

    @property
    def discovered(self) -> bytes:
        """What the rows of a pane without a reference look like; nothing where there are none: what is not in a window says nothing."""
        return self.discovery.to_bytes() if self.discovery is not None and self.discovery.rows else b""

    def _pieces(self, offsets: Int) -> Iterator[tuple[int, int, list[int] | None]]:
        """Yield ranges of waiting rows with the blocks that do not hold them yet; None: none does, as is usual."""
        if offsets[0] > max(self.his):
            yield 0, len(offsets), None
            return
        borders = np.searchsorted(offsets, sorted(set(self.his)), side="right").tolist()
        for begin, end in pairwise(sorted({0, *borders, len(offsets)})):
            blocks = [block for block, hi in enumerate(self.his) if hi < offsets[begin]]
            if blocks:
                yield begin, end, blocks

    def rows(self) -> list[tuple[bytes, int, int, bytes]]:
        """Return a row (key, state, hi, payload) per dirty block, which are then not dirty any more.

        Blocks of an emitted pane stay in the store until it is collected: another owner may have written the first one anew.
        """
        profile = None if self.state == EMITTED else self.profile
        blocks = sorted(self.dirty) if profile else [0]
        facts = (self.reference_sha256, self.settings.sha256, self.first, self.last, self.clock_before, self.lost)
        rows = []
        for block in blocks:
            discovery = b"" if block or self.discovery is None else self.discovery.to_bytes()
            payload = _encode(_Stored(*facts, profile.block_bytes(block) if profile else b"", discovery))
            rows.append((block_key(self.key, block), self.state, self.his[block], payload))
        self.dirty.clear()
        return rows

    def partials(self, source: str, partition: int, epoch: int) -> Iterator[Partial]:
        """Yield what merge is told of a pane that is closed: a partial per block of segments."""
        assert self.profile is not None
        for chunk in range(len(self.his)):
            yield Partial(
                source=source,
                partition=partition,
                epoch=epoch,
                hi=self.hi,
                model=self.model,
                version=self.version,
                start_ms=self.start_ms,
                size_ms=self.settings.pane_ms,
                first=self.first,
                last=self.last,
                clock_before_ms=self.clock_before,
                n=self.profile.n,
                lost=self.lost,
                reference=self.reference_sha256,
                settings=self.settings.sha256,
                chunk=chunk,
                chunks=len(self.his),
                profile=self.profile.block_bytes(chunk),
                discovery=b"" if chunk else self.discovered,
                cut_ms=self.cut_ms,
            )


def pane_key(model: str, version: str, start_ms: int, settings: ModelSettings, cut_ms: int | None = None) -> bytes:
    """Return what the row keys of a pane's blocks begin with; its length is part of it."""
    if cut_ms is not None:
        return row_key("late", model, version, start_ms, settings.pane_ms, cut_ms)
    return row_key("pane", model, version, start_ms, settings.pane_ms)


def block_key(pane: bytes, block: int) -> bytes:
    """Return the row key of a block of a pane.

    >>> block_key(b"pane|credit|7|0|3600000", 2)
    b'pane|credit|7|0|3600000|2'
    """
    return pane + f"|{block}".encode()


class PanePlace(NamedTuple):
    """What tells panes of one partition apart."""

    model: str
    version: str
    start_ms: int
    cut_ms: int | None


def place_of_row(key: bytes) -> tuple[PanePlace, int, int]:
    """Return whose block a row key of a pane is, the pane's length, and which block.

    >>> place_of_row(b"late|credit|7|0|3600000|7200000|2")
    (PanePlace(model='credit', version='7', start_ms=0, cut_ms=7200000), 3600000, 2)
    """
    _, model, version, start, size, *cut, block = key_parts(key)
    return PanePlace(model, version, int(start), int(cut[0]) if cut else None), int(size), int(block)


def stored_profile(payload: bytes) -> tuple[str, bytes]:
    """Return sha256 of the reference that a stored block has its layout from, and its profile: empty once the pane is emitted."""
    row = _decode(payload)
    return row.reference, row.profile


def settings_of(payload: bytes) -> str:
    """Return sha256 of the settings under which a stored block was counted."""
    return _decode(payload).settings


def load_pane(place: PanePlace, blocks: Mapping[int, Stored], settings: ModelSettings, references: References) -> Pane:
    """Return a pane from the rows of its blocks. Raises StateMismatch when its reference is not known.

    A block without a row has no events up to meta's offset. What is not emitted is open: whether it is closed is decided anew, from the
    clock in meta.
    """
    model, version, start_ms, cut_ms = place
    rows = {block: _decode(stored.payload) for block, stored in blocks.items()}
    sha256 = next(iter(rows.values())).reference
    reference = references.by_sha256(sha256) if sha256 else None
    if sha256 and reference is None:
        raise StateMismatch(f"the reference {sha256[:12]} of a pane is not in the state")
    pane = Pane(model, version, start_ms, settings, reference, references.hash_key, cut_ms)
    assert pane.profile is not None
    head = rows.get(0)
    if head is not None:
        pane.first, pane.last, pane.clock_before, pane.lost = head.first, head.last, head.clock_before, head.lost
        if blocks[0].state == EMITTED:
            pane.his = [blocks[0].hi] * len(pane.his)
            pane.state, pane.durable = EMITTED, (EMITTED, blocks[0].hi)
            pane.forget_rows()
            return pane
        if pane.discovery is not None:  # else it was not to be learnt from when the pane was opened
            pane.discovery = Discovery.from_bytes(head.discovery, references.hash_key) if head.discovery else None
    if reference is not None and not reference.layout.can_count:
        raise StateMismatch(
            f"a window of {model} {version} is open under the reference {sha256[:12]}, which was built with another hash key; "
            "restore privacy.hash_key until it has closed, or start with another `app` name"
        )
    for block, row in rows.items():
        pane.profile.add_block(row.profile)
        pane.his[block] = blocks[block].hi
    return pane


def settings_changed(model: str) -> StateMismatch:
    """Return the error for state of an earlier version, which does not say what was changed."""
    return StateMismatch(
        f"the windows or the grace of model {model} were changed together with the version of this program: start all workers once with "
        "the former ones, stop them (SIGTERM), then change them"
    )


def groups(*columns: Int) -> Iterator[tuple[tuple[int, ...], Int]]:
    """Yield (values, positions in order) of each group of rows that are alike in all columns; a column whose values are all alike costs a comparison.

    >>> [(values, rows.tolist()) for values, rows in groups(np.array([1, 1, 0]), np.array([5, 5, 5]))]
    [((0, 5), [2]), ((1, 5), [0, 1])]
    """
    several = [column for column in columns if (column != column[0]).any()]
    if not several:
        yield tuple(int(column[0]) for column in columns), np.arange(len(columns[0]))
        return
    order = np.lexsort(several[::-1])
    is_border = np.zeros(len(order) - 1, bool)
    for column in several:
        ordered = column[order]
        is_border |= ordered[1:] != ordered[:-1]
    for rows in np.split(order, np.flatnonzero(is_border) + 1):
        yield tuple(int(column[rows[0]]) for column in columns), rows
