"""Records that belong to no window: rows that came too late, and rows refused because their time lies in the future.

Each is counted in the pane that holds its partition's clock at its offset, of its own model and version: while that window was current,
so many came too late. Which pane that is, is a function of the log.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from monitor.columns import Bool, DecodedBatch, Int
from monitor.windows import NEVER_MS


class RunningClock(NamedTuple):
    """A partition's clock over a batch: its value from each offset on that may have moved it. offsets rise; shape (k,) each."""

    offsets: Int
    values: Int
    before_ms: int
    """Before the batch."""
    idle_ms: int
    """The clock of silence: a floor."""

    def at(self, offsets: Int) -> Int:
        """Return the clock at offsets of the batch, what stands there included."""
        values = np.concatenate(([self.before_ms], self.values))
        clock: Int = np.maximum(values[np.searchsorted(self.offsets, offsets, side="right")], self.idle_ms)
        return clock


class Outsiders(NamedTuple):
    """Records in no window, in offset order, shape (k,) each."""

    offsets: Int
    key_index: Int
    is_late: Bool
    """Else refused as future."""
    ms: Int
    """By how much: clock − event time of a late one, event time − record timestamp of a future one."""
    clock_ms: Int
    before_ms: Int
    """The clock before the record."""


def outsiders_of(batch: DecodedBatch, late: Int, future: Int, clock: RunningClock) -> Outsiders:
    """Return the records at these positions of a batch, less those before the partition had a clock."""
    at = np.concatenate((late, future))
    order = np.argsort(at)
    at, is_late = at[order], order < len(late)
    now = clock.at(batch.offsets[at])
    known = now > NEVER_MS
    at, is_late, now = at[known], is_late[known], now[known]
    offsets, times = batch.offsets[at], batch.times_ms[at]
    by_ms = np.where(is_late, now - times, times - batch.record_ms[at])
    return Outsiders(offsets, batch.key_index[at], is_late, by_ms, now, clock.at(offsets - 1))
