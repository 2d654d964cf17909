"""Averages hide segments: those that have drifted further than all rows together, and rows that no segment of their own holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from monitor.chance.chi_square import critical
from monitor.chance.counts import ALPHA, critical_excess, excess_p
from monitor.chance.laws import ChiSquareLaw, sample_of
from monitor.columns import Int, Special
from monitor.distances.pearson import chi2
from monitor.distances.psi import psi, psi_corrected
from monitor.features import NumberFeature
from monitor.findings import CheckInfo, ClosedWindow, Evidence, Measurement
from monitor.reference import Reference
from monitor.sides import Sides

MIN_ROWS = 100
"""Fewer rows of a segment, in the window or in the reference, are not searched."""
MAX_REPORTED = 5
_LAW = ChiSquareLaw(1.0, is_statistic=True)

TABLE = (
    CheckInfo(
        "segments.drift",
        "by how much psi, corrected for the sample size, of the worst segment and feature exceeds that of all rows; the evidence names the "
        f"worst {MAX_REPORTED}, with the share of the rows that each has and the share of the feature's psi over all rows that is gone "
        "without it",
        f"only segments × features count that Benjamini and Hochberg's procedure rejects at {ALPHA:g}, by Pearson's χ²",
        MIN_ROWS,
    ),
    CheckInfo(
        "segments.other",
        "share of the rows in the `(other)` row of a segmentation, less that share in the reference; the largest of all segmentations: new "
        "values of the keys, or the reference's segments are out of date",
        "exact (Fisher), approximate from a standard deviation of 20 rows on; of the largest, without correction for their number",
        MIN_ROWS,
    ),
)


class Slice(NamedTuple):
    """A feature of a segment that has drifted. excess: corrected psi of the segment less that of all rows, at least 0."""

    excess: float
    segment: int
    feature: int
    psi_corrected: float
    p_value: float


def segments(evidence: Evidence) -> Iterator[Measurement]:
    """Yield what `TABLE` says, of a model that has segments and a reference. Only segments with rows of their own there are compared."""
    closed = evidence.closed
    if len(closed.profile.rows) == 1 or closed.reference is None:
        return
    yield _worst(evidence, closed)
    yield _other(closed, closed.reference)


def _worst(evidence: Evidence, closed: ClosedWindow) -> Measurement:
    found, n_compared = _search(closed)
    worst = sorted(found, key=lambda s: (-s.excess, s.segment, s.feature))[:MAX_REPORTED]
    value, p_value = (worst[0].excess, worst[0].p_value) if worst else (0.0, None)
    facts = {"compared": n_compared, "drifted": len(found), "worst": [_facts(closed, s) for s in worst]}
    return Measurement("segments.drift", "", value, evidence.n, evidence.n_ref, p_value=p_value, min_n=MIN_ROWS, evidence=facts)


def _other(closed: ClosedWindow, reference: Reference) -> Measurement:
    """Of the segmentation whose `(other)` row has grown most."""
    n, m = closed.profile.n, max(1, reference.profile.n)
    if not n:
        return Measurement("segments.other", "", 0.0, 0, m, min_n=MIN_ROWS)
    grown = []
    for segmentation, segment in zip(closed.profile.layout.segmentations, closed.profile.layout.other_segments, strict=True):
        rows, rows_ref = int(closed.profile.rows[segment]), int(reference.profile.rows[segment])
        grown.append((rows / n - rows_ref / m, str(segmentation), rows, rows_ref))
    value, by, rows, rows_ref = max(grown, key=lambda one: one[0])
    critical_value = critical_excess(n, rows_ref, m) / n - rows_ref / m
    facts = {"by": by, "other_ratio": rows / n, "other_ratio_ref": rows_ref / m}
    p_value = excess_p(rows, n, rows_ref, m)
    return Measurement("segments.other", "", value, n, m, critical_value, p_value, MIN_ROWS, evidence=facts)


def _search(closed: ClosedWindow) -> tuple[list[Slice], int]:
    """Return the slices that are rejected, and how many were compared."""
    candidates: list[Slice] = []
    n_compared = 0
    for feature in range(len(closed.profile.layout.features)):
        reference, window = _cells(closed, feature)
        n, m = window.sum(axis=1), reference.sum(axis=1)
        enough = np.flatnonzero((n >= MIN_ROWS) & (m >= MIN_ROWS))
        n_compared += int((enough > 0).sum())
        if not len(enough) or enough[0] != 0 or len(enough) == 1:
            continue  # all rows together have too few
        sides = Sides(reference[enough], window[enough])
        corrected, statistics = psi_corrected(sides), chi2(sides)
        excess = corrected - max(0.0, float(corrected[0]))
        least = critical(sides.k - 1, ALPHA)  # rare cells ask for more
        found = np.flatnonzero((excess > 0) & (statistics > least))
        if not len(found):
            continue
        at = enough[found]
        p_values = _LAW.p_value(statistics[found], sample_of(list(zip(reference[at], window[at], strict=True))))
        columns = (excess[found], at, corrected[found], p_values)
        for above, segment, own, p_value in zip(*(column.tolist() for column in columns), strict=True):
            candidates.append(Slice(above, segment, feature, own, p_value))
    candidates.sort(key=lambda s: s.p_value)
    rejected = [i for i, s in enumerate(candidates) if s.p_value <= ALPHA * (i + 1) / n_compared]
    return candidates[: rejected[-1] + 1] if rejected else [], n_compared


def _cells(closed: ClosedWindow, position: int) -> tuple[Int, Int]:
    """Return (reference, window) counts of a feature's reported cells in every segment, shape (n_segments, k)."""
    assert closed.reference is not None
    layout = closed.profile.layout
    feature, values = layout.features[position], layout.value_slice(position)
    firsts = np.unique(feature.reported_groups(), return_index=True)[1] if isinstance(feature, NumberFeature) else None
    sides = []
    for profile in (closed.reference.profile, closed.profile):
        counts = profile.counts[:, values]
        if firsts is not None:
            counts = np.add.reduceat(counts, firsts, axis=1)
        else:
            never_seen = profile.counts[:, [layout.special_cell(position, Special.NEVER_SEEN)]]
            counts = np.concatenate((counts, never_seen), axis=1)
        sides.append(counts)
    is_used = (sides[0].sum(axis=0) + sides[1].sum(axis=0)) > 0
    return sides[0][:, is_used], sides[1][:, is_used]


def _facts(closed: ClosedWindow, found: Slice) -> dict[str, object]:
    reference, window = _cells(closed, found.feature)
    whole = float(psi(Sides(reference[0], window[0])))
    rest = float(psi(Sides(reference[0] - reference[found.segment], window[0] - window[found.segment])))
    return {
        "segment": closed.profile.layout.segments[found.segment],
        "feature": closed.profile.layout.features[found.feature].name,
        "psi_corrected": found.psi_corrected,
        "p_value": found.p_value,
        "n": int(window[found.segment].sum()),
        "rows_share": int(closed.profile.rows[found.segment]) / closed.profile.n,
        "explains": max(0.0, 1 - rest / whole) if whole > 0 else 0.0,
    }
