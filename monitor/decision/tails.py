"""`drift.tails`: whether more rows lie among the outermost thousandth of the reference's than chance puts there.

Rank tests give a hundredth of the rows little weight, and the reference's own extremes may lie further out than they do: then nothing
else sees it, as with outliers of a heavy-tailed feature.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from monitor.calibration import MIN_ROWS
from monitor.columns import Int
from monitor.findings import CheckInfo, Evidence, Measurement, reference_segment
from monitor.profiles import Profile
from monitor.ratios import excess

CHECK = "drift.tails"
SHARE = 0.001
"""Of the reference's rows on each side; of tied or few rows less."""
INFO = CheckInfo(
    CHECK,
    "by how much the share of rows in the lowest or in the highest thousandth of the reference's exceeds theirs; the worse side (numbers)",
    "Fisher's exact test, one-sided, for both sides, within the budget of false alarms",
    MIN_ROWS,
)


class _Ends(NamedTuple):
    """Per number: position, and its cells of the lower and of the upper tail."""

    position: int
    low: slice
    high: slice


def tails(evidence: Evidence) -> Iterator[Measurement]:
    """Yield, of each number, by how much the share of rows in one of its tails exceeds the reference's; the worse side."""
    closed = evidence.closed
    if closed.reference is None:
        return
    segment = closed.profile.layout.segments.index(evidence.segment)
    window, reference = closed.profile.counts[segment], closed.reference.profile.counts[reference_segment(closed, segment)]
    for position, low, high in _ends(closed.reference.ranked):
        name = closed.profile.layout.features[position].name
        compared = evidence.features[name]
        rows = (compared.window.n, compared.reference.n)
        if rows[1]:
            sides = [(int(window[at].sum()), int(reference[at].sum())) for at in (low, high)]
            yield _measure(name, sides, rows)._replace(segment=evidence.segment)


def _measure(name: str, sides: list[tuple[int, int]], rows: tuple[int, int]) -> Measurement:
    n, m = rows
    worse = max(sides, key=lambda side: side[0] / max(n, 1) - side[1] / m)
    measured = excess(CHECK, name, worse, rows, tests=2)
    side = "low" if worse is sides[0] else "high"
    return measured._replace(min_n=MIN_ROWS, evidence={**measured.evidence, "side": side})


@lru_cache(maxsize=256)
def _ends(ranked: Profile) -> tuple[_Ends, ...]:
    """Cached by identity of the rows."""
    found = []
    for position, _ in ranked.layout.numbers:
        at = ranked.layout.value_slice(position)
        rows: Int = ranked.counts[0, at]
        most = SHARE * int(rows.sum())
        below, above = np.cumsum(rows), np.cumsum(rows[::-1])
        n_low, n_high = (int(np.searchsorted(total, most, side="right")) for total in (below, above))
        found.append(_Ends(position, slice(at.start, at.start + n_low), slice(at.stop - n_high, at.stop)))
    return tuple(found)
