"""Integer time: window specifications, windows and the panes that make them.

All times are epoch milliseconds (UTC); windows are half-open `[start_ms, end_ms)` and aligned to the epoch, so that a 7-day
tumbling window begins on a Thursday.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

NEVER_MS = -(1 << 62)
"""A watermark that nothing has passed yet."""

FOREVER_MS = 1 << 62
"""A watermark that everything has passed."""

EARLY_ABOVE_MS = 3_600_000
"""Longer windows are looked at while they are open; those of an hour close soon enough."""


class Window(NamedTuple):
    """One half-open interval of event time; ordered by end, then by size (shorter first)."""

    end_ms: int
    size_ms: int
    step_ms: int

    @property
    def start_ms(self) -> int:
        """Inclusive start."""
        return self.end_ms - self.size_ms

    @property
    def spec(self) -> WindowSpec:
        """How windows of this kind lie."""
        return WindowSpec(self.size_ms, self.step_ms)


class WindowSpec(NamedTuple):
    """How windows lie: `size_ms` long, one every `step_ms`; tumbling when both are equal."""

    size_ms: int
    step_ms: int

    @property
    def kind(self) -> str:
        """`tumbling` or `hopping`."""
        return "tumbling" if self.size_ms == self.step_ms else "hopping"

    def windows_of(self, start_ms: int, end_ms: int) -> Iterator[Window]:
        """Yield, by end, the windows that overlap `[start_ms, end_ms)`.

        >>> [w.start_ms for w in WindowSpec(30, 10).windows_of(25, 26)]
        [0, 10, 20]
        """
        first = (start_ms // self.step_ms) * self.step_ms - self.size_ms + self.step_ms
        while first + self.size_ms <= start_ms:
            first += self.step_ms
        for start in range(first, end_ms, self.step_ms):
            yield Window(start + self.size_ms, self.size_ms, self.step_ms)

    def after(self, window: Window) -> Window:
        """Return the next window."""
        return window._replace(end_ms=window.end_ms + self.step_ms)


MIN_PIECES, PIECES = 24, 48
"""A long window is sealed in at least so many pieces, in more than the latter only where other windows ask for it."""


def pane_size_ms(specs: Sequence[WindowSpec], early_above_ms: int | None = None) -> int:
    """Return the length of a pane: the greatest common divisor of all sizes and steps.

    Where windows longer than `early_above_ms` are looked at while they are open, and the shortest of those that close most often is one of
    them, it is a divisor of that: at most a 48th of this window, unless it is a 24th of it anyway. For other windows panes are not made
    shorter: that one tells of a break when it closes, and panes of minutes cost as much as windows of minutes do.

    >>> pane_size_ms([WindowSpec(3_600_000, 3_600_000), WindowSpec(86_400_000, 3_600_000)])
    3600000
    >>> pane_size_ms([WindowSpec(86_400_000, 86_400_000)], 3_600_000)
    1800000
    >>> pane_size_ms([WindowSpec(3_600_000, 3_600_000), WindowSpec(7_200_000, 7_200_000)], 3_600_000)
    3600000
    """
    pane = math.gcd(*(length for spec in specs for length in spec))
    if early_above_ms is None:
        return pane
    first = min(specs, key=lambda spec: (spec.step_ms, spec.size_ms))
    if first.size_ms > early_above_ms and is_rare(first) and pane * MIN_PIECES > first.size_ms:
        fewest = -(-pane * PIECES // first.size_ms)
        pane //= next((parts for parts in range(fewest, MAX_PARTS * fewest) if pane % parts == 0), 1)
    return pane


MAX_PARTS = 20
"""Lengths without a divisor near the wanted one are left as they are."""


def is_rare(spec: WindowSpec) -> bool:
    """Whether windows of a kind close less often than a long one is looked at while it is open."""
    return spec.step_ms * MIN_PIECES > spec.size_ms


def early_specs(specs: Sequence[WindowSpec], above_ms: int | None, pane_ms: int | None = None) -> tuple[WindowSpec, ...]:
    """Return the kinds of windows that are looked at while they are open: longer ones, in pieces of at most a 24th.

    pane_ms: length of the pieces, if it is not the one that the windows ask for.
    """
    if above_ms is None:
        return ()
    pane = pane_size_ms(specs, above_ms) if pane_ms is None else pane_ms
    return tuple(spec for spec in specs if spec.size_ms > above_ms and is_rare(spec) and pane * MIN_PIECES <= spec.size_ms)


def next_look_ms(spec: WindowSpec, pane_ms: int, time_ms: int) -> int:
    """Return when windows of a kind are looked at next, after a time: about 48 times each, and never where one ends.

    >>> [next_look_ms(WindowSpec(100, 100), 1, t) for t in (100, 102, 103, 199)]
    [103, 103, 106, 203]
    """
    every = -(-spec.size_ms // (PIECES * pane_ms)) * pane_ms
    begin = time_ms // spec.step_ms * spec.step_ms
    at = begin + ((time_ms - begin) // every + 1) * every
    return at if at < begin + spec.step_ms else begin + spec.step_ms + every


def duration_text(ms: int) -> str:
    """Return a length of time in the largest unit that divides it, as configurations write it.

    >>> duration_text(86_400_000), duration_text(5_400_000), duration_text(1_500), duration_text(0)
    ('1d', '90m', '1500ms', '0s')
    """
    if not ms:
        return "0s"
    for unit, name in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")):
        if ms % unit == 0:
            return f"{ms // unit}{name}"
    return f"{ms}ms"
