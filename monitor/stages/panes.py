"""A pane of one model version in one source partition: rows that wait, the profile they are folded into, and its stored form."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from monitor.columns import Int
from monitor.discovery import Discovery
from monitor.errors import StateMismatch
from monitor.formats import Format
from monitor.layout import Layout
from monitor.profiles import Profile
from monitor.reference import Reference, References
from monitor.stages.rows import EMITTED, OPEN, row_key
from monitor.stages.settings import ModelSettings
from monitor.windows import NEVER_MS

NO_FEATURES = Layout()
"""Of a model without a reference: rows are counted; what they look like is in the pane's discovery."""


class _Stored(msgspec.Struct, array_like=True):
    """A pane row's payload; no profile once it is emitted."""

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
    """State OPEN, CLOSED or EMITTED. `hi` is the last offset folded, `first` and `last` the rows' own; waiting rows are beyond.

    clock_before: the partition's clock before `first`. lost: offsets that retention took while it was open.
    durable: (state, hi) of the last durable version.
    """

    __slots__ = (
        "clock_before", "discovery", "durable", "emitted_ms", "end_ms", "first", "hi", "key", "last", "lost", "model", "profile",
        "reference", "settings", "start_ms", "state", "version", "waiting", "waiting_offsets",
    )  # fmt: skip

    def __init__(self, model: str, version: str, start_ms: int, settings: ModelSettings, reference: Reference | None) -> None:
        self.key = pane_key(model, version, start_ms, settings)
        self.model = model
        self.version = version
        self.start_ms = start_ms
        self.end_ms = start_ms + settings.pane_ms
        self.settings = settings
        self.reference = reference
        self.profile: Profile | None = Profile(reference.layout if reference else NO_FEATURES)
        self.discovery = Discovery() if reference is None and settings.learning is not None else None
        self.state = OPEN
        self.hi = self.first = self.last = -1
        self.clock_before = NEVER_MS
        self.lost = 0
        self.waiting: list[object] = []
        self.waiting_offsets: list[int] = []
        self.durable: tuple[int, int] | None = None
        self.emitted_ms = 0

    @property
    def reference_sha256(self) -> str:
        """Of the reference whose layout the profile has; "" without one."""
        return self.reference.sha256 if self.reference else ""

    def wait(self, payloads: list[object], offsets: Int, clock_before_ms: int) -> None:
        """Let rows wait, less those that the pane holds already: after a crash it may be ahead of meta."""
        if offsets[0] <= self.hi:
            new = int(np.searchsorted(offsets, self.hi, side="right"))
            payloads, offsets = payloads[new:], offsets[new:]
            if not payloads:
                return
        if self.first < 0:
            self.first, self.clock_before = int(offsets[0]), clock_before_ms
        self.waiting += payloads
        self.waiting_offsets += offsets.tolist()
        self.state = OPEN

    def fold(self, wire: Format) -> int:
        """Fold the rows that wait into the profile; return how many."""
        assert self.profile is not None
        n = len(self.waiting)
        if n:
            offsets = np.array(self.waiting_offsets, np.int64)
            self.profile.update(wire.columns(self.profile.layout, self.waiting, offsets))
            self._discover(wire)
            self.hi = self.last = int(offsets[-1])
            self.waiting, self.waiting_offsets = [], []
        return n

    def _discover(self, wire: Format) -> None:
        learning = self.settings.learning
        if self.discovery is not None and learning is not None:
            self.discovery.update(wire.rows(self.waiting), keep_texts=learning.keep_texts, left_out=learning.left_out)

    def forget_rows(self) -> None:
        """The pane was sent: what it holds is not needed any more."""
        self.profile = self.discovery = None

    @property
    def discovery_bytes(self) -> bytes:
        """Of a pane without a reference, what its rows look like; else none."""
        return b"" if self.discovery is None else self.discovery.to_bytes()

    def to_bytes(self) -> bytes:
        """Return the row's payload."""
        is_sent = self.profile is None or self.state == EMITTED
        return _encode(
            _Stored(
                reference=self.reference_sha256,
                settings=self.settings.sha256,
                first=self.first,
                last=self.last,
                clock_before=self.clock_before,
                lost=self.lost,
                profile=b"" if self.profile is None or is_sent else self.profile.to_bytes(),
                discovery=b"" if is_sent else self.discovery_bytes,
            )
        )


def pane_key(model: str, version: str, start_ms: int, settings: ModelSettings) -> bytes:
    """Return the row key of a pane; its length is part of it."""
    return row_key("pane", model, version, start_ms, settings.pane_ms)


def load_pane(
    model: str, version: str, start_ms: int, stored: tuple[int, int, bytes], settings: ModelSettings, references: References
) -> Pane:
    """Return a pane from its row (state, hi, payload). Raises StateMismatch when it was made under other settings.

    What is not emitted is open: whether it is closed is decided anew, from the clock in meta.
    """
    state, hi, payload = stored
    row = _decode(payload)
    if row.settings != settings.sha256:
        raise windows_changed(model)
    reference = references.by_sha256(row.reference) if row.reference else None
    if row.reference and reference is None:
        raise StateMismatch(f"the reference {row.reference[:12]} of a pane is not in the state")
    pane = Pane(model, version, start_ms, settings, reference)
    pane.hi, pane.first, pane.last, pane.clock_before, pane.lost = hi, row.first, row.last, row.clock_before, row.lost
    if state == EMITTED:
        pane.state, pane.durable = EMITTED, (EMITTED, hi)
        pane.forget_rows()
    else:
        pane.profile = Profile.from_bytes(row.profile, reference.layout if reference else NO_FEATURES)
        pane.discovery = Discovery.from_bytes(row.discovery) if row.discovery and settings.learning is not None else None
    return pane


def windows_changed(model: str) -> StateMismatch:
    """Return the error for state of other windows than the configured ones."""
    return StateMismatch(
        f"the windows of model {model} were changed while state of the old ones is kept; "
        "restore them, or start with another `app` name"
    )


def groups(key_index: Int, starts: Int) -> Iterator[tuple[int, int, Int]]:
    """Yield (key, pane start, positions in order) of each group of rows; a single group costs two comparisons."""
    if (key_index == key_index[0]).all() and (starts == starts[0]).all():
        yield int(key_index[0]), int(starts[0]), np.arange(len(starts))
        return
    order = np.lexsort((starts, key_index))
    keys, begins = key_index[order], starts[order]
    borders = np.flatnonzero((keys[1:] != keys[:-1]) | (begins[1:] != begins[:-1])) + 1
    for rows in np.split(order, borders):
        yield int(key_index[rows[0]]), int(starts[rows[0]]), rows
