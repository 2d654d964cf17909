"""Partials as they arrive in stage 2: cumulative, in blocks, the newest whole one counts."""

from __future__ import annotations

from dataclasses import dataclass

from monitor.stages import partials


@dataclass(slots=True)
class Arrived:
    """One block of a cumulative partial as it stands on `partials`; immutable. at: its offset there."""

    key: bytes
    at: int
    partial: partials.Partial
    data: bytes


Arrivals = dict[int, dict[int, Arrived]]
"""hi → chunk → block: what has come of one place."""


def newest(arrivals: Arrivals) -> list[Arrived]:
    """Return the blocks of the partial with the greatest `hi` of which all have arrived, in order; empty when there is none."""
    complete = [hi for hi, chunks in arrivals.items() if len(chunks) == next(iter(chunks.values())).partial.chunks]
    return [arrivals[max(complete)][chunk] for chunk in sorted(arrivals[max(complete)])] if complete else []


def begun(arrivals: Arrivals, whole_hi: int) -> Arrived | None:
    """Return the first block of the newest partial beyond the newest whole one; None when there is none.

    The others of its blocks may come after its pane was sealed: the watermarks of other partitions move on without one that was idle.
    """
    return max(
        (chunks[0] for hi, chunks in arrivals.items() if hi > whole_hi and 0 in chunks), key=lambda a: a.partial.hi, default=None
    )
