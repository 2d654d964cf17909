"""Where a partition's log has been read to: contiguous, gaps explained, losses known."""

from __future__ import annotations

import msgspec
import numpy as np

from monitor.columns import Int
from monitor.errors import OffsetGap


class Position(msgspec.Struct):
    """The part of a cursor that is stored with the state; `hi` stands in the row's header."""

    started: bool = False
    gaps: int = 0
    """Offsets that hold no record: markers of transactions, compacted records."""
    lost: int = 0
    """Offsets that retention took before they were read."""


class Cursor:
    """`hi` is the last offset seen, -1 before the first. `position` is changed in place: it is part of the owner's meta."""

    def __init__(self, position: Position, hi: int = -1) -> None:
        self.hi = hi
        self.position = position
        self._resume_at: set[int] = set()
        self._refused_at = -1

    @property
    def next_offset(self) -> int:
        """Offset to read next; -1 when nothing was ever read."""
        return self.hi + 1 if self.position.started else -1

    def skip_to(self, offset: int, *, lost: bool) -> int:
        """Pass the offsets before `offset`, or those before it inside the batch just refused; return how many were lost."""
        n = offset - (self.hi + 1)
        position = self.position
        if not position.started:
            position.started = True
            self.hi = offset - 1
            return 0
        if not lost and self._refused_at not in (-1, self.hi + 1):
            self._resume_at.add(offset)  # the gap lies inside a batch: it is counted when the batch is taken
            return 0
        position.gaps += 0 if lost else n
        position.lost += n if lost else 0
        self.hi = offset - 1
        return n if lost else 0

    def take(self, offsets: Int) -> None:
        """Move over the offsets of a batch, shape (n,), rising. Raises OffsetGap, with nothing changed, for an unexplained gap."""
        expected = np.empty_like(offsets)
        expected[0] = self.hi + 1 if self.position.started else offsets[0]
        expected[1:] = offsets[:-1] + 1
        holes = np.flatnonzero(offsets != expected).tolist()
        for at in holes:
            if int(offsets[at]) not in self._resume_at:
                self._refused_at = int(expected[at])
                raise OffsetGap(int(expected[at]), int(offsets[at]))
        self.position.gaps += sum(int(offsets[at] - expected[at]) for at in holes)
        self.position.started = True
        self.hi = int(offsets[-1])
        self._resume_at.clear()
        self._refused_at = -1
