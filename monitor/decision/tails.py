"""`drift.tails`: whether more rows lie among the outermost of the reference's than chance puts there.

Rank tests give a hundredth of the rows little weight, and the reference's own extremes may lie further out than they do: then nothing
else sees it, as with outliers of a heavy-tailed feature. How far out they lie is not known, so four depths are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from msgspec.structs import replace

from monitor.chance.calibration import MIN_ROWS
from monitor.columns import Int
from monitor.findings import CheckInfo, CountTest, Evidence, Measurement, reference_segment
from monitor.layout import Spans
from monitor.profiles import Profile
from monitor.ratios import excess

CHECK = "drift.tails"
DEPTHS = tuple(2.0**-i for i in (10, 11, 12, 13))
"""Shares of the reference's rows that a tail holds at most: the layout has borders there (cells.fine_ranks)."""
SIDES = ("low", "high")
TAILS = len(SIDES) * len(DEPTHS)
"""Of a number."""
INFO = CheckInfo(
    CHECK,
    "by how much the share of rows that lie as far out as the outermost 1/1024, 1/2048, 1/4096 or 1/8192 of the reference's, on one side, "
    "exceeds theirs; where it is most surprising (numbers)",
    "Fisher's exact test, one-sided, Bonferroni over both sides and four depths, within the budget of false alarms",
    MIN_ROWS,
)


def tails(evidence: Evidence) -> Iterator[Measurement]:
    """Yield a measurement of each number that the reference has values of."""
    closed = evidence.closed
    if closed.reference is None:
        return
    segment = closed.profile.layout.segments.index(evidence.segment)
    window, reference = closed.profile.counts_of(segment), closed.reference.profile.counts_of(reference_segment(closed, segment))
    ends = _ends(closed.reference.ranked)
    bad, bad_ref = (ends.rows(counts).reshape(-1, TAILS) for counts in (window, reference))
    compared = [evidence.features[feature.name] for _, feature in closed.profile.layout.numbers]
    rows = [(one.window.n, one.reference.n) for one in compared]
    most = _most_surprising(bad, bad_ref, np.array(rows, np.int64).reshape(-1, 2))
    for i, (one, at) in enumerate(zip(compared, most.tolist(), strict=True)):
        if one.reference.n:
            n, m = rows[i]
            test = CountTest(int(bad[i, at]), n, int(bad_ref[i, at]), m, "excess", TAILS)
            measured = excess(CHECK, one.feature.name, test)
            facts = {**measured.evidence, "side": SIDES[at // len(DEPTHS)], "depth": DEPTHS[at % len(DEPTHS)]}
            yield replace(measured, min_n=MIN_ROWS, segment=evidence.segment, evidence=facts)


def tail_spans(ranked: Profile) -> dict[int, list[tuple[int, int]]]:
    """Return, by position of a number, the half-open spans of flat cells of its tails: both sides, each at every depth."""
    return {position: spans for (position, _), spans in zip(ranked.layout.numbers, _ends(ranked).pairs(), strict=True)}


def _most_surprising(bad: Int, bad_ref: Int, rows: Int) -> Int:
    """Return at which tail of each number the Poisson deviance of an excess is largest: about where p is smallest.

    bad, bad_ref: (f, tails). rows: (f, 2), of window and reference.
    """
    expected = (bad_ref + 0.5) * (rows[:, :1] / np.maximum(rows[:, 1:], 1))
    excesses = bad * np.log(np.maximum(bad, 1) / np.maximum(expected, 1e-9)) - (bad - expected)
    return np.asarray(np.argmax(np.where(bad > expected, excesses, -1.0), axis=1))


@lru_cache(maxsize=256)
def _ends(ranked: Profile) -> Spans:
    """Return the cells of each tail, (f, sides, depths). Cached by identity of the rows."""
    layout, counts = ranked.layout, ranked.counts_of(0)
    first = np.zeros((len(layout.numbers), len(SIDES), len(DEPTHS)), np.int64)
    stop = np.zeros_like(first)
    for i, (position, _) in enumerate(layout.numbers):
        at = layout.value_slice(position)
        rows = counts[at]
        most = np.ceil(np.array(DEPTHS) * rows.sum())
        first[i, 0], stop[i, 0] = at.start, at.start + np.searchsorted(np.cumsum(rows), most, side="right")
        first[i, 1], stop[i, 1] = at.stop - np.searchsorted(np.cumsum(rows[::-1]), most, side="right"), at.stop
    return Spans(first, stop)
