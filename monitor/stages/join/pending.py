"""What the join keeps by prediction id: the prediction and its labels, over a store that may be lost.

An entry is a function of the events of its id, in any order: THE prediction is the smallest one by (time, source, partition, offset), the
labels are sorted likewise. Entries are a function of the outcomes log up to `PendingState.hi`; they are written after the checkpoint that
covers them, so the store is never ahead of the state, and one that is behind is made good by reading again from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from monitor.columns import Codes, Float, Int
from monitor.events import Outcome
from monitor.features import canonical
from monitor.ports import Pending
from monitor.stages.join.outcome_clock import OutcomeClock

FORMAT = 1
"""Of what is stored here. A store of another one is made anew."""
MAX_LABELS = 4
"""Of one prediction, the latest."""
ENTRY_BYTES = 260
"""Memory of an entry at hand, its key and its place, about."""
SWEPT = 4_096
"""Entries that are looked at with each checkpoint, whether they are over."""


class Label(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One label. place: of its source partition in `PendingState.places`."""

    time_ms: int
    place: int
    offset: int
    value: Outcome

    @property
    def text(self) -> str:
        """What two labels are compared by."""
        return canonical(self.value)


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One id. kind: in `PendingState.kinds`. time_ms: of the prediction, None while only labels have come.

    scores, segments: the prediction's rows of `outcomes.Predictions`. They are bytes, of which Python's garbage collector keeps no account.
    """

    kind: int
    time_ms: int | None
    place: int = 0
    offset: int = 0
    predicted: int | float = 0
    scores: bytes = b""
    segments: bytes = b""
    labels: tuple[Label, ...] = ()


class Kind(NamedTuple):
    """What entries have in common; version and reference are empty while only labels have come."""

    model: str
    version: str
    reference: str


class PendingState(msgspec.Struct):
    """What is written beside the entries. identity: whose they are. hi: last offset of `outcomes` that they hold; -1 for none.

    clock: at that offset. swept: the key up to which entries were looked at. orphans: model → labels that were given up without a prediction.
    """

    identity: str
    hi: int = -1
    clock: OutcomeClock = msgspec.field(default_factory=OutcomeClock)
    kinds: list[Kind] = []
    places: list[str] = []
    swept: bytes = b""
    orphans: dict[str, int] = {}


_encode = msgspec.msgpack.Encoder().encode
_LARGE = 1 << 32
_INTEGERS = (
    (1 << 7, b"", ">u1"),
    (1 << 8, b"\xcc", ">u1"),
    (1 << 16, b"\xcd", ">u2"),
    (_LARGE, b"\xce", ">u4"),
    (1 << 63, b"\xcf", ">u8"),
)
"""msgpack: integers below a limit, what they begin with, and how the rest is written."""
_NO_LABELS, _ONE_LABEL = b"\x90", b"\x91"
_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_state = msgspec.msgpack.Decoder(PendingState).decode


class Entries:
    """The entries of one partition: those read or changed since the last `write` over those in the store.

    They are held as they are stored: most come, wait and go without being looked into.
    identity: one of other content is removed from the store. upto: last offset that the owner's state covers; a store that is beyond is none
    of its own.
    """

    def __init__(self, store: Pending, identity: str, upto: int) -> None:
        self._store = store
        self._cache: dict[bytes, bytes | None] = {}
        self._changed: dict[bytes, bytes | None] = {}
        state = _stored(store.state, identity)
        if state is None or state.hi > upto:
            store.clear()
            state = PendingState(f"{FORMAT}|{identity}")
        self.state = state
        self._kinds = {kind: i for i, kind in enumerate(self.state.kinds)}
        self._places = {place: i for i, place in enumerate(self.state.places)}

    @property
    def n_changed(self) -> int:
        """Entries that the store has not as they are here."""
        return len(self._changed)

    @property
    def held_bytes(self) -> int:
        """Memory of what was read or changed since the last `write`, about."""
        return ENTRY_BYTES * len(self._cache)

    def kind(self, kind: Kind) -> int:
        """Return the number of a kind."""
        return _number(kind, self._kinds, self.state.kinds)

    def place(self, name: str) -> int:
        """Return the number of a source partition."""
        return _number(name, self._places, self.state.places)

    def kind_of(self, entry: Entry) -> Kind:
        """Return what an entry is of."""
        return self.state.kinds[entry.kind]

    def load(self, keys: Iterable[bytes]) -> None:
        """Read entries that will be asked for, all at once."""
        wanted = sorted({key for key in keys if key not in self._cache})  # in order a store finds them faster
        if wanted:
            self._cache.update(zip(wanted, self._store.get_many(wanted), strict=True))

    def has(self, key: bytes) -> bool:
        """Whether there is an entry of a loaded key."""
        return self._cache[key] is not None

    def get(self, key: bytes) -> Entry | None:
        """Return a loaded entry."""
        data = self._cache[key]
        return None if data is None else _decode_entry(data)

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep an entry in the place of what was there."""
        self.put_packed(key, _encode(entry))

    def put_packed(self, key: bytes, data: bytes) -> None:
        """Keep an entry as `packed` made it."""
        self._cache[key] = self._changed[key] = data

    def put_first_label(self, key: bytes, label: Label) -> None:
        """Give a loaded entry that has none its first label."""
        data = self._cache[key]
        assert data is not None and data[-1:] == _NO_LABELS
        self.put_packed(key, data[:-1] + _ONE_LABEL + _encode(label))

    def drop(self, key: bytes, entry: Entry) -> None:
        """Give an entry up that is over; count its labels if it has no prediction."""
        if entry.time_ms is None:
            model = self.kind_of(entry).model
            self.state.orphans[model] = self.state.orphans.get(model, 0) + len(entry.labels)
        self._cache[key] = self._changed[key] = None

    def sweep(self, is_over: Callable[[Entry], bool]) -> None:
        """Look at some entries, and give up those that are over; the next call goes on behind them."""
        found = self._store.scan(self.state.swept, SWEPT)
        for key, data in found:
            held = self._cache.get(key, data)
            if held is not None and is_over(entry := _decode_entry(held)):
                self.drop(key, entry)
        self.state.swept = found[-1][0] if len(found) == SWEPT else b""

    def write(self, hi: int, clock: OutcomeClock) -> None:
        """Write what changed: entries are those of the log up to `hi`, when the clock was that."""
        self.state.hi, self.state.clock = hi, clock
        self._store.write(self._changed, _encode(self.state))
        self._cache, self._changed = {}, {}

    # --- order

    def rank(self, time_ms: int, place: int, offset: int) -> tuple[int, str, int, int]:
        """Order events of one id: by time, source, partition and offset."""
        source, _, partition = self.state.places[place].rpartition("|")
        return time_ms, source, int(partition), offset

    def with_label(self, labels: tuple[Label, ...], new: Label) -> tuple[Label, ...]:
        """Return labels with one more, by rank; of those with one time and value the last counts, of all the last MAX_LABELS."""
        alike = [label for label in labels if label.time_ms == new.time_ms and label.text == new.text]
        kept = [label for label in labels if label not in alike]
        kept.append(max([*alike, new], key=self._rank))
        kept.sort(key=self._rank)
        return tuple(kept[-MAX_LABELS:])

    def _rank(self, label: Label) -> tuple[int, str, int, int]:
        return self.rank(label.time_ms, label.place, label.offset)


class Made(NamedTuple):
    """Predictions of one kind and source partition by rising offset, n of them; as `outcomes.Predictions.columns` has them."""

    offsets: Int
    times: Int
    predicted: Int | Float
    scores: Float
    segments: Codes

    def entry(self, row: int, kind: int, place: int) -> Entry:
        """Return the entry of a row."""
        predicted, scores, segments = self.predicted[row].item(), self.scores[row].tobytes(), self.segments[row].tobytes()
        return Entry(kind, int(self.times[row]), place, int(self.offsets[row]), predicted, scores, segments)


def packed(made: Made, kind: int, place: int) -> list[bytes]:
    """Return the entries of predictions without a label, as they are stored; by columns, a tenth of the time of one by one."""
    n = len(made.offsets)
    is_plain = bool((made.times >= _LARGE).all()) and (made.predicted.dtype.kind == "f" or _are_small(made.predicted))
    if not n or not is_plain:
        return [_encode(made.entry(row, kind, place)) for row in range(n)]
    before = [_same(b"\x98" + _encode(kind) + b"\xcf", n), _written(made.times, ">u8"), _same(_encode(place), n)]
    is_float = made.predicted.dtype.kind == "f"
    after = [_same(b"\xcb", n), _written(made.predicted, ">f8")] if is_float else [_written(made.predicted, ">i1")]
    for column in (made.scores, made.segments):
        length = column.shape[1] * column.itemsize
        after += [
            _same(_encode(bytes(length))[: -length or None], n),
            np.ascontiguousarray(column).view(np.uint8).reshape(n, length),
        ]
    after.append(_same(_NO_LABELS, n))
    found: list[bytes] = []
    first = 0
    for limit, mark, written in _INTEGERS:
        last = int(np.searchsorted(made.offsets, limit - 1, side="right"))
        if last > first:
            offsets = [_same(mark, last - first), _written(made.offsets[first:last], written)]
            rows = np.concatenate(
                [*(part[first:last] for part in before), *offsets, *(part[first:last] for part in after)], axis=1
            )
            whole, width = rows.tobytes(), rows.shape[1]
            found += [whole[at : at + width] for at in range(0, len(whole), width)]
        first = last
    return found


def _are_small(codes: Int | Float) -> bool:
    """Whether msgpack writes integers as one byte."""
    return bool(((codes >= -32) & (codes < 128)).all())


def _same(data: bytes, n: int) -> Codes:
    return np.broadcast_to(np.frombuffer(data, np.uint8), (n, len(data)))


def _written(values: Int | Float, kind: str) -> Codes:
    return values.astype(kind).view(np.uint8).reshape(len(values), -1)


_Thing = TypeVar("_Thing", Kind, str)


def _stored(data: bytes | None, identity: str) -> PendingState | None:
    """Return what a store says of itself; None where it is empty, or of something else."""
    if data is None:
        return None
    try:
        state = _decode_state(data)
    except msgspec.MsgspecError:
        return None
    return state if state.identity == f"{FORMAT}|{identity}" else None


def _number(thing: _Thing, numbers: dict[_Thing, int], things: list[_Thing]) -> int:
    number = numbers.get(thing)
    if number is None:
        number = numbers[thing] = len(things)
        things.append(thing)
    return number
