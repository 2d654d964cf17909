"""What became known of a pane's outcomes between two cuts, as differences: opened, stored, closed, sent and collected like panes.

The counts of a window as known at some time are the sum of the deltas of its panes whose cut is not later. A delta is closed when the
clock of the join has passed its cut, so what is in it is a function of the outcomes log; a correction of what was sent is in a later one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from monitor.columns import Float, Int
from monitor.errors import StateMismatch
from monitor.events import Outcome
from monitor.performance import OutcomeCells, PerformanceSpec, Rows
from monitor.reference import Reference, References
from monitor.stages.ingest.outcome_rows import Specs
from monitor.stages.ingest.panes import settings_changed
from monitor.stages.join.pending import Entry
from monitor.stages.kept import KeptReferences
from monitor.stages.partials import OutcomePartial
from monitor.stages.rows import CLOSED, EMITTED, OPEN, Versions, key_parts, row_key
from monitor.stages.settings import ModelSettings, Settings, check_pane_size
from monitor.windows import NEVER_MS

MAX_WAITING = 100_000
"""Rows of all deltas together that wait to be counted."""
CHUNK_BYTES = 512 << 10
"""Of one message."""
_SHA_CHARS = 16


class _Stored(msgspec.Struct, array_like=True):
    """The payload of a row; no cells once the delta is emitted."""

    reference: str
    settings: str
    cells: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


class Place(NamedTuple):
    """What tells deltas apart: the pane in which predictions were made, the reference that it has, and when what is in it was known."""

    model: str
    version: str
    start_ms: int
    reference: str
    cut_ms: int


@dataclass(slots=True)
class Labelled:
    """Predictions, their labels, and lags in ms, that wait to be counted."""

    entries: list[Entry] = field(default_factory=list)
    values: list[Outcome] = field(default_factory=list)
    lags: list[int] = field(default_factory=list)

    def add(self, other: Labelled) -> None:
        """Let what waits there wait here."""
        self.entries += other.entries
        self.values += other.values
        self.lags += other.lags


class Delta:
    """State OPEN, CLOSED or EMITTED. hi: last offset of `outcomes` that was counted. durable: (state, hi) of the last durable version."""

    __slots__ = ("cells", "durable", "emitted_ms", "hi", "key", "labelled", "made", "place", "settings", "spec", "state")

    def __init__(self, place: Place, settings: ModelSettings, spec: PerformanceSpec) -> None:
        self.key = delta_key(place, settings)
        self.place = place
        self.settings = settings
        self.spec = spec
        self.cells: OutcomeCells | None = OutcomeCells(spec)
        self.state = OPEN
        self.hi = -1
        self.durable: tuple[int, int] | None = None
        self.emitted_ms = 0
        self.made: dict[int, list[Rows]] = {1: [], -1: []}
        self.labelled: dict[int, Labelled] = {1: Labelled(), -1: Labelled()}
        """by sign"""

    @property
    def is_waiting(self) -> bool:
        """Whether there is anything to fold."""
        return any(self.made.values()) or any(labelled.entries for labelled in self.labelled.values())

    def fold(self) -> None:
        """Count what waits."""
        assert self.cells is not None
        for sign, parts in self.made.items():
            if parts:
                self.cells.add_made(_together(parts), sign)
                self.made[sign] = []
        for sign, labelled in self.labelled.items():
            if labelled.entries:
                labels, lags = self.spec.outcomes(labelled.values), np.array(labelled.lags, np.int64)
                self.cells.add_labelled(rows_of(self.spec, labelled.entries), labels, lags, sign)
                self.labelled[sign] = Labelled()

    def row(self) -> tuple[bytes, int, int, bytes]:
        """Return what is stored: key, state, hi and payload."""
        cells = b"" if self.cells is None or self.state == EMITTED else self.cells.to_bytes()
        return self.key, self.state, self.hi, _encode(_Stored(self.place.reference, self.settings.sha256, cells))

    def partials(self, partition: int, epoch: int) -> Iterator[OutcomePartial]:
        """Yield what merge is told; nothing where what was counted was taken back."""
        assert self.cells is not None
        chunks = [] if self.cells.is_zero else self.cells.chunks(CHUNK_BYTES)
        model, version, start_ms, reference, cut_ms = self.place
        for i, chunk in enumerate(chunks):
            yield OutcomePartial(
                partition, epoch, self.hi, model, version, start_ms, self.settings.pane_ms, cut_ms,
                reference, self.settings.sha256, i, len(chunks), chunk,
            )  # fmt: skip


def rows_of(spec: PerformanceSpec, entries: Sequence[Entry]) -> Rows:
    """Return predictions as arrays."""
    values = [entry.predicted for entry in entries]
    predicted: Int | Float = np.array(values, np.int64) if spec.is_classes else np.array(values, np.float64)
    scores = np.frombuffer(b"".join([entry.scores for entry in entries]), "<f8").reshape(len(entries), spec.n_scores)
    segments = np.frombuffer(b"".join([entry.segments for entry in entries]), "<u2").reshape(len(entries), -1)
    return Rows(predicted, scores, memberships(segments))


def memberships(segments: npt.NDArray[np.integer]) -> tuple[Int, Int]:
    """Return (row, segment) pairs of rows with a segment for each segmentation, shape (n, s); all of them are in segment 0 too."""
    n, s = segments.shape
    rows = np.arange(n)
    return np.tile(rows, s + 1), np.concatenate((np.zeros(n, np.int64), segments.T.ravel().astype(np.int64)))


def _together(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(part.n for part in parts[:-1])]).tolist()
    row = np.concatenate([part.segments[0] + start for part, start in zip(parts, starts, strict=True)])
    segment = np.concatenate([part.segments[1] for part in parts])
    predicted: Int | Float = np.concatenate([part.predicted for part in parts])
    return Rows(predicted, np.concatenate([part.scores for part in parts]), (row, segment))


class Deltas:
    """The deltas of one partition of `outcomes`, by place.

    gc_upto: of the owner's meta, by `model|version`; changed in place. kept: told which references are in use.
    """

    def __init__(self, settings: Settings, references: References, kept: KeptReferences, gc_upto: dict[str, int]) -> None:
        self._settings = settings
        self._references = references
        self._kept = kept
        self._gc_upto = gc_upto
        self._specs = Specs()
        self._deltas: dict[Place, Delta] = {}
        self._dirty: set[Place] = set()
        self._waiting = 0
        self._snapshot: list[tuple[Delta, int, int]] = []

    def __iter__(self) -> Iterator[Delta]:
        return iter(self._deltas.values())

    def __len__(self) -> int:
        return len(self._deltas)

    def load(self, versions: Versions, now_ms: int, *, is_strict: bool) -> None:
        """Take over the deltas of earlier owners; strictly: made under the same settings. Raises StateMismatch."""
        for key in [key for key in versions.best if key.startswith(b"delta|")]:
            stored = versions.best[key]
            _, model, version, start, size, cut, _ = key_parts(key)
            if int(cut) <= self._gc_upto.get(f"{model}|{version}", NEVER_MS):
                versions.drop(key)  # a paused owner wrote it again after it had been collected
                continue
            row, settings = _decode(stored.payload), self._settings.model(model)
            check_pane_size(model, int(size), settings)
            if is_strict and row.settings != settings.sha256:
                raise settings_changed(model)
            place = Place(model, version, int(start), row.reference, int(cut))
            delta = self._deltas[place] = Delta(place, settings, self._specs.of(self.reference(row.reference)))
            delta.hi, delta.emitted_ms = stored.hi, now_ms
            if stored.state == EMITTED:
                delta.state, delta.cells, delta.durable = EMITTED, None, (EMITTED, stored.hi)
            else:
                delta.cells = OutcomeCells.from_bytes(delta.spec, row.cells)

    def reference(self, sha256: str) -> Reference:
        """Return a reference that predictions were counted under. Raises StateMismatch where it is not known."""
        found = self._references.by_sha256(sha256)
        if found is None:
            raise StateMismatch(
                f"outcomes were counted under the reference {sha256[:12]}, which is neither in the state nor on the references topic: "
                "publish it again"
            )
        return found

    def use(self, sha256: str) -> None:
        """State will name this reference from now on."""
        self._kept.use(self.reference(sha256))

    # --- counting

    def at(self, place: Place, offset: int) -> Delta | None:
        """Return the delta that counts what comes at an offset; None where it holds that already, after a crash."""
        delta = self._deltas.get(place)
        if delta is None:
            spec = self._specs.of(self.reference(place.reference))
            delta = self._deltas[place] = Delta(place, self._settings.model(place.model), spec)
        return delta if offset > delta.hi else None

    def changed(self, delta: Delta, n: int) -> None:
        """So many rows more wait in a delta."""
        self._dirty.add(delta.place)
        self._waiting += n
        if self._waiting > MAX_WAITING:
            self._fold()

    def counted(self, offset: int, touched: Iterable[Delta]) -> None:
        """All of what came at an offset is in these deltas."""
        for delta in touched:
            delta.hi = offset

    def _fold(self) -> None:
        for place in self._dirty:
            if (delta := self._deltas[place]).is_waiting:
                delta.fold()
        self._waiting = 0

    # --- closing, storing, sending

    def has_due(self, reached: Mapping[int, int]) -> bool:
        """Whether `close` would close a delta."""
        return any(_is_due(delta, reached) for delta in self)

    def close(self, reached: Mapping[int, int]) -> None:
        """Count what waits, and close what the clock has passed."""
        self._fold()
        for delta in self:
            if _is_due(delta, reached):
                delta.state = CLOSED
                self._dirty.add(delta.place)

    def collect(self, durable_hi: int, now_ms: int) -> list[bytes]:
        """Raise `gc_upto` over deltas that are emitted, old and durable; return their keys, to be deleted one checkpoint later."""
        by_version: dict[str, list[tuple[int, bool, Place]]] = {}
        for delta in self:
            ripe = (
                delta.state == EMITTED
                and delta.durable == (EMITTED, delta.hi)
                and delta.hi <= durable_hi
                and delta.emitted_ms + self._settings.retire_after_ms <= now_ms
            )
            name = f"{delta.place.model}|{delta.place.version}"
            by_version.setdefault(name, []).append((delta.place.cut_ms, ripe, delta.place))
        collected = []
        for name, deltas in by_version.items():
            for cut_ms, ripe, place in sorted(deltas):
                if not ripe:
                    break
                self._gc_upto[name] = max(cut_ms, self._gc_upto.get(name, NEVER_MS))
                collected.append(self._deltas.pop(place).key)
        return collected

    @property
    def has_new_rows(self) -> bool:
        """Whether there is anything that the store has not."""
        return bool(self._dirty)

    def new_rows(self) -> list[tuple[bytes, int, int, bytes]]:
        """Return rows of what changed since the last call: durable with the next `committed`."""
        changed = [self._deltas[place] for place in sorted(self._dirty) if place in self._deltas]
        self._dirty = set()
        self._snapshot = [(delta, delta.state, delta.hi) for delta in changed]
        return [delta.row() for delta in changed]

    def committed(self) -> None:
        """The rows that `new_rows` returned are durable."""
        for delta, state, hi in self._snapshot:
            delta.durable = (state, hi)
        self._snapshot = []

    @property
    def held_bytes(self) -> int:
        """Memory that their counts take."""
        return sum(delta.cells.held_bytes for delta in self if delta.cells is not None)

    @property
    def n_unsent(self) -> int:
        """How many deltas are still to be sent, closed or not."""
        return sum(delta.state != EMITTED for delta in self)

    def to_send(self) -> list[Delta]:
        """Return the deltas that are closed, and durably so, by cut."""
        found = [delta for delta in self if delta.state == CLOSED and delta.durable == (CLOSED, delta.hi)]
        found.sort(key=lambda delta: (delta.place.cut_ms, delta.key))
        return found

    def sent(self, places: Iterable[Place], now_ms: int) -> None:
        """The partials of these deltas are on their topic."""
        for place in places:
            delta = self._deltas[place]
            delta.state, delta.emitted_ms, delta.cells = EMITTED, now_ms, None
            self._dirty.add(place)


def delta_key(place: Place, settings: ModelSettings) -> bytes:
    """Return the row key of a delta; the pane's length is part of it."""
    model, version, start_ms, reference, cut_ms = place
    return row_key("delta", model, version, start_ms, settings.pane_ms, cut_ms, reference[:_SHA_CHARS])


def stored_cells(payload: bytes) -> tuple[str, bytes]:
    """Return sha256 of the reference of a stored delta, and its cells: empty once it is emitted."""
    row = _decode(payload)
    return row.reference, row.cells


def _is_due(delta: Delta, reached: Mapping[int, int]) -> bool:
    return delta.state == OPEN and delta.place.cut_ms <= reached.get(delta.settings.grace_ms, NEVER_MS)
