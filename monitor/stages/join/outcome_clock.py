"""How far the join is: what it was told of each source partition, and up to when outcomes are complete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from monitor.stages.outcomes import Range
from monitor.stages.partials import Watermark
from monitor.stages.watermarks import Watermarks
from monitor.windows import NEVER_MS


class OutcomeClock(msgspec.Struct):
    """A function of the outcomes log up to some offset.

    vector: source|partition → the last of its offsets that was taken. marks: its newest watermark. reached: grace → up to when all
    predictions and labels are here; never falls. torn: source partitions of which ranges were lost. lost: offsets that these were about.
    """

    vector: dict[str, int] = {}
    marks: dict[str, Watermark] = {}
    reached: dict[int, int] = {}
    torn: list[str] = []
    lost: int = 0

    def copy(self) -> OutcomeClock:
        """Return one that does not change with this one."""
        return OutcomeClock(dict(self.vector), dict(self.marks), dict(self.reached), list(self.torn), self.lost)

    def accept(self, told: Range) -> int | None:
        """Return after which offset the range's rows are new; None where none is. From then on they are taken."""
        known = self.vector.get(told.place)
        if known is None:
            known = told.from_offset
        elif told.from_offset > known:
            if told.place not in self.torn:
                return None  # what is between could not be sent: all of it will be sent again
            self.lost += told.from_offset - known
        elif told.to_offset <= known:
            return None
        if told.place in self.torn:
            self.torn.remove(told.place)
        self.vector[told.place] = told.to_offset
        return known

    def tear(self) -> None:
        """Take note that ranges were lost: the next one of each source partition counts wherever it begins."""
        self.torn = sorted(self.vector)

    def move(self, told: Range, topology: Mapping[str, int], graces: Iterable[int]) -> None:
        """Move on by what a range, whose rows were taken, says of its source partition's clock. Raises StateMismatch."""
        known = self.marks.get(told.place)
        if told.closed is None or told.to_offset > self.vector.get(told.place, told.to_offset):
            return
        if known is not None and known.epoch == told.epoch and told.to_offset < known.hi:
            return  # sent again
        mark = Watermark(told.source, told.partition, told.epoch, told.to_offset, told.closed, told.idle, told.partitions)
        watermarks = Watermarks(topology, self.marks)
        if not watermarks.take(mark):
            return
        for grace in graces:
            upto = watermarks.reached((), grace)
            if upto is not None and upto > self.reached.get(grace, NEVER_MS):
                self.reached[grace] = upto
