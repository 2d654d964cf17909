"""What a window knows of the stream beside its features: delay, disorder, lateness, repeated ids, who sent it, and how much of it.

Everything merges by addition, by maximum, or as the k smallest hashes. Which rows are out of order, and in which window a late or refused
row is counted, is decided by the order of one partition's log; the rest is a function of the set of rows alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np

from monitor.columns import Envelope, Float, HashedIds, Int, Names, by_place
from monitor.sketches import varint
from monitor.sketches.bounded import key_hash
from monitor.sketches.id_sample import IdSample
from monitor.windows import FOREVER_MS, NEVER_MS

MAX_NAMES = 32
"""Schemas, producers or statuses that keep their own counts."""
MAX_NAME_CHARS = 128
"""Of such a name, that much is kept."""

DELAY_CELLS = 200
"""Cells of delay on each side of 0 ms: four to a doubling, up to 2^50 ms."""
_MANTISSA_BITS, _BITS_OF_ONE = 50, 1023 << 2
LATEST_MS = 253_402_300_800_000
"""The year 10000. A record stamped later, or before 1970, has no timestamp: a file without them, or a very old broker."""

OK = "ok"
"""The status of an inference that went well; any other one says what went wrong."""

RATE_GRID_BITS = 20
"""Σ 1/sample_rate is kept in units of 2^−20, an integer: the same whatever the order."""


class Sent(NamedTuple):
    """Rows that share a schema, a producer or a status; times are event times. Delays are FOREVER, NEVER where no record had a timestamp."""

    rows: int
    first_ms: int
    last_ms: int
    min_delay_ms: int
    max_delay_ms: int

    @property
    def has_delay(self) -> bool:
        """Whether a record had a timestamp."""
        return self.max_delay_ms > NEVER_MS


class Times(NamedTuple):
    """When rows came, by row; shape (n,). delays_ms: record timestamp − event time, NEVER where a record has no timestamp."""

    times_ms: Int
    delays_ms: Int


NO_TIMES = Times(np.zeros(0, np.int64), np.zeros(0, np.int64))


class Timing(NamedTuple):
    """When rows came, in all. said: by row, of those of which an envelope has names.

    cells: the places in `StreamFacts.delays` of the rows that have a delay, none where they have been counted already. disorder_ms: how far
    behind the clock a row was at most. Where no row has a delay, the least and the greatest are FOREVER and NEVER.
    """

    rows: int
    cells: Int
    said: Times
    first_ms: int
    last_ms: int
    out_of_order: int
    disorder_ms: int
    min_delay_ms: int
    max_delay_ms: int


def times_of(times_ms: Int, record_ms: Int) -> Times:
    """Return when rows came. record_ms: timestamps of their records."""
    is_stamped = (record_ms >= 0) & (record_ms < LATEST_MS)
    return Times(times_ms, np.where(is_stamped, record_ms - times_ms, NEVER_MS))


def timings_of(times: Times, clock_ms: Int, starts: Sequence[int]) -> list[Timing]:
    """Return the timing of each part of some rows, none of them empty; starts: the first row of each, rising from 0."""
    times_ms, delays_ms = times
    disorder, is_stamped = clock_ms - times_ms, delays_ms > NEVER_MS
    cells = delay_cells(np.where(is_stamped, delays_ms, 0)) + DELAY_CELLS
    by_part = zip(
        np.minimum.reduceat(times_ms, starts).tolist(),
        np.maximum.reduceat(times_ms, starts).tolist(),
        np.add.reduceat(disorder > 0, starts, dtype=np.int64).tolist(),
        np.maximum.reduceat(disorder, starts).tolist(),
        np.minimum.reduceat(np.where(is_stamped, delays_ms, FOREVER_MS), starts).tolist(),
        np.maximum.reduceat(delays_ms, starts).tolist(),
        strict=True,
    )
    parts = (slice(*part) for part in pairwise((*starts, len(times_ms))))
    return [
        Timing(part.stop - part.start, cells[part][is_stamped[part]], Times(times_ms[part], delays_ms[part]), *facts)
        for part, facts in zip(parts, by_part, strict=True)
    ]


class _Wire(msgspec.Struct, array_like=True):
    added: dict[str, int]
    highest: dict[str, int | float]
    inverse_rates: bytes
    delays: bytes
    ids: bytes
    names: dict[str, dict[str, Sent]]


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(_Wire).decode


class StreamFacts:
    """Facts of a window's rows as events, and of the events that came while it was current and are in no window.

    added: counts, by name; a name that was never counted is absent. highest: maxima, likewise (a minimum is the maximum of the negative).
    delays: rows by cell of record timestamp − event time, shape (2 · DELAY_CELLS + 1,); see `delay_cells`.
    names: `schema`, `producer`, `status` → name → its rows, the MAX_NAMES with the smallest hashes.
    """

    __slots__ = ("added", "delays", "highest", "ids", "inverse_rates", "names")

    def __init__(self) -> None:
        self.added: dict[str, int] = {}
        self.highest: dict[str, int | float] = {}
        self.inverse_rates = 0
        self.delays: Int = np.zeros(2 * DELAY_CELLS + 1, np.int64)
        self.ids = IdSample()
        self.names: dict[str, dict[str, Sent]] = {}

    # --- counting

    def add_rows(self, envelope: Envelope | None, times_ms: Int, record_ms: Int, clock_ms: Int) -> None:
        """Count rows, shape (n,) each, n ≥ 1. clock_ms: the running maximum of the partition's event times at each row.

        Cost: 0.3 µs per row with an id, 0.05 µs without.
        """
        (timing,) = timings_of(times_of(times_ms, record_ms), clock_ms, (0,))
        self.add_timed(envelope, timing)

    def add_timed(self, envelope: Envelope | None, timing: Timing) -> None:
        """Count rows of which is known when they came."""
        self._add("rows", timing.rows)
        self._raise("last", timing.last_ms)
        self._raise("-first", -timing.first_ms)
        if timing.disorder_ms > 0:
            self._add("out_of_order", timing.out_of_order)
            self._raise("disorder", timing.disorder_ms)
        if timing.max_delay_ms > NEVER_MS:
            self._raise("delay", timing.max_delay_ms)
            self._raise("-delay", -timing.min_delay_ms)
        np.add.at(self.delays, timing.cells, 1)
        if envelope is not None:
            self._count_envelope(envelope, timing.said)

    def _count_envelope(self, envelope: Envelope, times: Times) -> None:
        if len(envelope.ids):
            self._add("with_id", len(envelope.ids))
            if isinstance(envelope.ids, HashedIds):
                self.ids.add_hashes(envelope.ids.hashes)
            else:
                self.ids.add(envelope.ids)
        for field, n in envelope.wrong_type.items():
            self._add(f"wrong {field}", n)
        if len(envelope.sample_rates):
            self._count_rates(envelope.sample_rates)
        named = (("schema", envelope.schemas), ("producer", envelope.producers), ("status", envelope.statuses))
        for kind, names in named:
            if names is not None:
                self._count_names(kind, _grouped(names, *times))

    def _count_names(self, kind: str, found: Mapping[str, Sent]) -> None:
        if found:
            self._add(f"with_{kind}", sum(sent.rows for sent in found.values()))
            self._take_names(kind, found)
        if kind == "status" and OK in found:
            self._add("ok", found[OK].rows)

    def _count_rates(self, rates: Float) -> None:
        self._add("with_rate", len(rates))
        self._raise("rate", float(rates.max()))
        self._raise("-rate", -float(rates.min()))
        self.inverse_rates += int(np.rint((1 << RATE_GRID_BITS) / rates).astype(np.int64).sum())

    def add_late(self, lateness_ms: Sequence[int]) -> None:
        """Count rows that came too late while this window was current. lateness_ms: clock − event time of each."""
        if lateness_ms:
            self._add("late", len(lateness_ms))
            self._raise("lateness", max(lateness_ms))

    def add_future(self, ahead_ms: Sequence[int]) -> None:
        """Count rows refused because of an event time in the future. ahead_ms: event time − record timestamp of each."""
        if ahead_ms:
            self._add("future", len(ahead_ms))
            self._raise("ahead", max(ahead_ms))

    def _add(self, name: str, n: int) -> None:
        if n:
            self.added[name] = self.added.get(name, 0) + n

    def _raise(self, name: str, value: float) -> None:
        known = self.highest.get(name)
        if known is None or value > known:
            self.highest[name] = value

    def _take_names(self, kind: str, found: Mapping[str, Sent]) -> None:
        total = self.names.setdefault(kind, {})
        for name, sent in found.items():
            total[name] = _joined(total[name], sent) if name in total else sent
        if len(total) > MAX_NAMES:
            self.names[kind] = {name: total[name] for name in sorted(total, key=key_hash)[:MAX_NAMES]}

    def merge(self, other: StreamFacts) -> None:
        """Add another part of the window."""
        for name, n in other.added.items():
            self._add(name, n)
        for name, value in other.highest.items():
            self._raise(name, value)
        self.inverse_rates += other.inverse_rates
        self.delays += other.delays
        self.ids.merge(other.ids)
        for kind, found in other.names.items():
            self._take_names(kind, found)

    # --- reading

    def count(self, name: str) -> int:
        """Return how many: rows, late, future, out_of_order, ok, with_id, with_schema, with_producer, with_status, with_rate.

        `rows` are those that were counted as events.
        """
        return self.added.get(name, 0)

    def most(self, name: str) -> int | None:
        """Return a maximum in ms: disorder, lateness, ahead, delay, last; None where there was none."""
        value = self.highest.get(name)
        return None if value is None else int(value)

    def least(self, name: str) -> int | None:
        """Return a minimum in ms: delay, first."""
        value = self.highest.get(f"-{name}")
        return None if value is None else -int(value)

    @property
    def wrong_type(self) -> dict[str, int]:
        """Rows by optional field of the envelope that was there and could not be used."""
        return {name.removeprefix("wrong "): n for name, n in sorted(self.added.items()) if name.startswith("wrong ")}

    @property
    def rates(self) -> tuple[float, float] | None:
        """The lowest and the highest sample rate; None without one."""
        return (-self.highest["-rate"], self.highest["rate"]) if "rate" in self.highest else None

    @property
    def estimated_rows(self) -> float:
        """Events before sampling: Σ 1/sample_rate, and each row without a rate as one. Error: 2^−21 per row."""
        return self.count("rows") - self.count("with_rate") + self.inverse_rates / (1 << RATE_GRID_BITS)

    def named(self, kind: str) -> dict[str, Sent]:
        """Return the schemas, producers or statuses that are kept, most rows first."""
        found = self.names.get(kind, {})
        return {name: found[name] for name in sorted(found, key=lambda name: (-found[name].rows, name))}

    def unnamed(self, kind: str) -> int:
        """Return the rows of the names that are not kept."""
        return self.count(f"with_{kind}") - sum(sent.rows for sent in self.names.get(kind, {}).values())

    def delay_ms(self, share: float) -> int | None:
        """Return the inverted-CDF quantile of delay at `share`: the upper end of its cell, at most a quarter of itself away; None without delays."""
        n = int(self.delays.sum())
        least, most = self.least("delay"), self.most("delay")
        if not n or least is None or most is None:
            return None
        rank = max(1, int(np.ceil(share * n)))
        cell = int(np.searchsorted(np.cumsum(self.delays), rank)) - DELAY_CELLS
        return min(max(_upper_end(cell), least), most)

    # --- wire

    def to_wire(self) -> bytes:
        """Return msgpack, b"" for nothing; equal facts give equal bytes."""
        if not self.added:
            return b""
        size = self.inverse_rates.bit_length() // 8 + 1
        wire = _Wire(
            added=self.added,
            highest=self.highest,
            inverse_rates=self.inverse_rates.to_bytes(size, "little"),
            delays=varint.encode(self.delays),
            ids=self.ids.to_wire(),
            names=self.names,
        )
        return _encode(wire)

    @classmethod
    def from_wire(cls, data: bytes) -> StreamFacts:
        """Read what `to_wire` wrote."""
        facts = cls()
        if data:
            wire = _decode(data)
            facts.added, facts.highest, facts.names = wire.added, wire.highest, wire.names
            facts.inverse_rates = int.from_bytes(wire.inverse_rates, "little")
            facts.delays = varint.decode(wire.delays, len(facts.delays))
            facts.ids = IdSample.from_wire(wire.ids)
        return facts


def delay_cells(delays: Int) -> Int:
    """Return the cell of each delay in ms: 0 for 0, else ± the place of |delay| in 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5 and so on.

    >>> delay_cells(np.array([0, 1, 2, 3, 5, 1000, -1000])).tolist()
    [0, 1, 5, 7, 10, 40, -40]
    """
    bits = np.abs(delays).astype(np.float64).view(np.int64) >> _MANTISSA_BITS  # exponent and two bits: four cells to a doubling
    cells: Int = np.minimum(np.maximum(bits - (_BITS_OF_ONE - 1), 0), DELAY_CELLS) * np.sign(delays)
    return cells


def _upper_end(cell: int) -> int:
    """Return the greatest whole delay of a cell.

    >>> _upper_end(0), _upper_end(1), _upper_end(40), _upper_end(-40)
    (0, 1, 1023, -896)
    """
    if cell == 0:
        return 0
    octave, quarter = divmod(abs(cell) - 1, 4)
    if cell < 0:
        return ((4 + quarter) << octave) // -4
    return -(((5 + quarter) << octave) // -4) - 1


def _joined(one: Sent, other: Sent) -> Sent:
    return Sent(
        one.rows + other.rows,
        min(one.first_ms, other.first_ms),
        max(one.last_ms, other.last_ms),
        min(one.min_delay_ms, other.min_delay_ms),
        max(one.max_delay_ms, other.max_delay_ms),
    )


def _grouped(names: Names, times_ms: Int, delays: Int) -> dict[str, Sent]:
    """Return rows by name. delays: NEVER where a record has no timestamp."""
    if names.codes is None:
        found = [_sent(times_ms, delays)]
    else:
        order, _, starts = by_place(names.codes)
        found = _sent_by_group(times_ms[order], delays[order], starts)
    kept: dict[str, Sent] = {}
    for name, sent in zip(names.distinct, found, strict=True):
        if name is not None:
            short = name[:MAX_NAME_CHARS]
            kept[short] = _joined(kept[short], sent) if short in kept else sent
    return kept


def _sent(times_ms: Int, delays: Int) -> Sent:
    least = int(delays.min())
    if least == NEVER_MS:
        least = int(delays.min(where=delays > NEVER_MS, initial=FOREVER_MS))
    return Sent(len(times_ms), int(times_ms.min()), int(times_ms.max()), least, int(delays.max()))


def _sent_by_group(times_ms: Int, delays: Int, starts: Int) -> list[Sent]:
    columns = (
        np.diff(np.append(starts, len(times_ms))),
        np.minimum.reduceat(times_ms, starts),
        np.maximum.reduceat(times_ms, starts),
        np.minimum.reduceat(np.where(delays > NEVER_MS, delays, FOREVER_MS), starts),
        np.maximum.reduceat(delays, starts),
    )
    return list(map(Sent._make, zip(*(column.tolist() for column in columns), strict=True)))
