"""Comparison with earlier traffic: a window's reference keeps its layout, and its counts are those of trailing panes.

A pane is kept when the window that it ends is final, unless that was under alarm; so what a window is compared with is a function of the
final windows before it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.stages.settings import ModelSettings, Trail
from monitor.windows import Window

MIN_ROWS = 1_000
"""With fewer rows in the trailing panes, the reference's own counts are better."""


class Kept(msgspec.Struct, array_like=True):
    """A sealed pane that was under no alarm: (reference sha256, profile)."""

    profiles: list[tuple[str, bytes]]


def trailing(trail: Trail, window: Window, starts: Iterable[int]) -> list[int]:
    """Return the panes, by start, that a window is compared with: none of its own, and none more than `span_ms` before it.

    With `every_ms`, those that lie inside the window when they are moved by a multiple of it.

    >>> trailing(Trail(span_ms=20), Window(60, 10, 10), range(0, 100, 10))
    [30, 40]
    >>> trailing(Trail(span_ms=48, every_ms=24), Window(60, 10, 10), range(0, 100, 2))
    [2, 4, 6, 8, 10, 26, 28, 30, 32, 34]
    """
    earlier = [start for start in starts if window.start_ms - trail.span_ms <= start < window.start_ms]
    return [start for start in earlier if not trail.every_ms or (start - window.start_ms) % trail.every_ms < window.size_ms]


def is_needed(start_ms: int, settings: ModelSettings, window: Window) -> bool:
    """Whether a window that ends after this one, or that may still be revised then, may be compared with a pane."""
    if settings.trail is None:
        return False
    upto_ms = window.end_ms if settings.revising is None else settings.revising.settled_ms(window.end_ms)
    return start_ms >= upto_ms - max(spec.size_ms for spec in settings.specs) - settings.trail.span_ms


def counted_on(reference: Reference, parts: list[list[tuple[str, bytes]]]) -> Reference:
    """Return a reference with the counts of trailing panes of its layout; the reference itself where they have too few rows."""
    total = Profile(reference.layout)
    n_panes = 0
    for part in parts:
        for sha256, data in part:
            if sha256 == reference.sha256:
                pane = Profile.from_bytes(data, reference.layout)
                total.merge(pane)
                n_panes += pane.n > 0  # one that was only witness to late rows counts for none
    return reference.counted(total, n_panes) if total.n >= MIN_ROWS else reference
