"""What is kept of a category's values that its dictionary does not have: how many there are, and the new ones that come most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from monitor.columns import Int
from monitor.hash_key import Hashes
from monitor.sketches import bounded
from monitor.sketches.heavy_hitters import HeavyHitters
from monitor.sketches.hyperloglog import HyperLogLog

MAX_TEXT = 64
"""Characters that are kept of a value, where values are kept."""


class Found(NamedTuple):
    """Values of one feature in a batch that the dictionary does not have.

    texts, hashes, is_new: of each different value, in order of appearance; not new is what the reference has beyond the dictionary.
    order: per row with such a value, in the order of the log, its place among them.
    """

    texts: list[str]
    hashes: Hashes
    is_new: npt.NDArray[np.bool_]
    order: Int


class Frequent(NamedTuple):
    """A new value, or its hash where values are not kept: in at least `rows` and at most `rows + error` rows."""

    text: str | None
    hash: int
    rows: int
    error: int

    @property
    def hash_text(self) -> str:
        """The hash in 16 hexadecimal digits."""
        return f"{self.hash:016x}"


class OutsideWire(msgspec.Struct, array_like=True, frozen=True):
    """What is stored; registers: None where they are not known."""

    kept: dict[int, int] = {}
    registers: bytes | None = b""
    counts: dict[int, int] = {}
    error: int = 0
    texts: dict[int, str] = {}


class Outside:
    """Values outside one feature's dictionary.

    kept: new values by hash, the `bounded.DEFAULT_BOUND` smallest, with exact counts. registers: of new ones and of those that the
    reference has beyond its dictionary; None: unknown, a part was written before they were counted. hitters: new values, in log order.
    Merging is exact and in any order, but for the hitters: these are merged in the order of partitions. Cost: about
    1.5 µs per different value of a batch, its hash included; at most 25 kB.
    """

    __slots__ = ("_keeps_texts", "hitters", "kept", "registers", "texts")

    def __init__(self, *, keeps_texts: bool = False) -> None:
        self._keeps_texts = keeps_texts
        self.kept: dict[int, int] = {}
        self.registers: HyperLogLog | None = HyperLogLog()
        self.hitters = HeavyHitters()
        self.texts: dict[int, str] = {}

    def add(self, found: Found) -> None:
        """Count a batch."""
        if self.registers is not None:
            self.registers.add(found.hashes)
        if not found.is_new.any():
            return
        order = found.order[found.is_new[found.order]]
        self._keep(found, order)
        self.hitters.add(found.hashes[order].tolist())
        if self._keeps_texts:
            texts = dict(zip(found.hashes.tolist(), found.texts, strict=True))
            self._take_texts({key: text[:MAX_TEXT] for key, text in texts.items() if key in self.hitters.counts})

    def _keep(self, found: Found, order: Int) -> None:
        limit = max(self.kept) if len(self.kept) == bounded.DEFAULT_BOUND else (1 << 64) - 1
        small = np.flatnonzero(found.is_new & (found.hashes <= np.uint64(limit)))
        if len(small):
            counts = np.bincount(order, minlength=len(found.hashes))
            added = dict(zip(found.hashes[small].tolist(), counts[small].tolist(), strict=True))
            self.kept = bounded.merged((self.kept, added))

    def _take_texts(self, texts: dict[int, str]) -> None:
        known = self.texts | texts
        self.texts = {key: known[key] for key in self.hitters.counts if key in known}

    def know(self, hashes: Sequence[int]) -> None:
        """Take in values that the reference has beyond its dictionary."""
        if self.registers is not None:
            self.registers.add(np.array(hashes, np.uint64))

    def forget_order(self) -> None:
        """Drop what depends on the order of the rows: a file's has no meaning."""
        self.hitters, self.texts = HeavyHitters(), {}

    def merge(self, other: Outside) -> None:
        """Add another part."""
        self.kept = bounded.merged((self.kept, other.kept))
        if self.registers is None or other.registers is None:
            self.registers = None
        else:
            self.registers.merge(other.registers)
        self.hitters.merge(other.hitters)
        self._take_texts(other.texts)

    def distinct(self) -> int | None:
        """Return how many different values there are, an estimate (sketches/hyperloglog.py); None where it is not known."""
        return None if self.registers is None else round(self.registers.estimate())

    def most_frequent(self, n: int) -> list[Frequent]:
        """Return at most n new values, most frequent first, ties by hash: none without a counter came more often than any of them."""
        error, counts = self.hitters.error, self.hitters.counts
        sure = sorted((key for key, count in counts.items() if count > error), key=lambda key: (-counts[key], key))
        return [Frequent(self.texts.get(key), key, counts[key], error) for key in sure[:n]]

    def to_wire(self) -> OutsideWire:
        """Return what `from_wire` reads; equal content gives equal bytes."""
        counts, error = self.hitters.to_wire()
        registers = None if self.registers is None else self.registers.to_wire()
        return OutsideWire(self.kept, registers, counts, error, dict(sorted(self.texts.items())))

    @classmethod
    def from_wire(cls, wire: OutsideWire, *, keeps_texts: bool = False) -> Outside:
        """Read what `to_wire` wrote."""
        outside = cls(keeps_texts=keeps_texts)
        outside.kept, outside.texts = wire.kept, wire.texts
        outside.registers = None if wire.registers is None else HyperLogLog.from_wire(wire.registers)
        outside.hitters = HeavyHitters(counts=wire.counts, error=wire.error)
        return outside

    @classmethod
    def from_kept(cls, kept: dict[int, int], n_new: int, n_other: int, *, keeps_texts: bool = False) -> Outside:
        """Return what is known of `n_new` rows with new values and `n_other` with others, of which only `kept` was stored."""
        outside = cls(keeps_texts=keeps_texts)
        outside.kept = kept
        uncounted = n_new - sum(kept.values())
        outside.hitters = HeavyHitters(counts=kept, error=uncounted)
        if uncounted or n_other:
            outside.registers = None
        elif outside.registers is not None:
            outside.registers.add(np.array(list(kept), np.uint64))
        return outside
