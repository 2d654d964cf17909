"""Averages hide segments: the ones that have drifted further than all rows together, searched over the additive counts of a window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from monitor.chance import ALPHA
from monitor.chi_square import critical
from monitor.columns import Int, Special
from monitor.distances.pearson import chi2
from monitor.distances.psi import psi, psi_corrected
from monitor.findings import ClosedWindow, Evidence, Measurement
from monitor.laws import ChiSquareLaw, sample_of
from monitor.layout import NumberFeature
from monitor.sides import Sides

MIN_ROWS = 100
"""Fewer rows of a segment, in the window or in the reference, are not searched."""
MAX_REPORTED = 5
_LAW = ChiSquareLaw(1.0, is_statistic=True)


class Slice(NamedTuple):
    """A feature of a segment that has drifted. excess: corrected psi of the segment less that of all rows, at least 0."""

    excess: float
    segment: int
    feature: int
    psi_corrected: float
    p_value: float


def worst_segments(evidence: Evidence) -> Iterator[Measurement]:
    """Yield `segments.drift`: by how much the worst segment's psi, corrected for its sample size, exceeds that of all rows.

    Only segments with rows of their own in the reference are compared. Among all segments × features those count that the
    Benjamini–Hochberg procedure rejects at `chance.ALPHA`, by Pearson's χ²; evidence names the worst, with the share of the window's rows that each
    has, and the share of the feature's psi over all rows that is gone without it.
    """
    closed = evidence.closed
    if len(closed.profile.rows) == 1 or closed.reference is None:
        return
    found, n_compared = _search(closed)
    worst = sorted(found, key=lambda s: (-s.excess, s.segment, s.feature))[:MAX_REPORTED]
    value, p_value = (worst[0].excess, worst[0].p_value) if worst else (0.0, None)
    facts = {"compared": n_compared, "drifted": len(found), "worst": [_facts(closed, s) for s in worst]}
    yield Measurement("segments.drift", "", value, evidence.n, evidence.n_ref, p_value=p_value, min_n=MIN_ROWS, evidence=facts)


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
        for i in np.flatnonzero((excess > 0) & (statistics > least)).tolist():
            segment = int(enough[i])
            p_value = _LAW.p_value(float(statistics[i]), sample_of(reference[segment], window[segment]))
            candidates.append(Slice(float(excess[i]), segment, feature, float(corrected[i]), p_value))
    candidates.sort(key=lambda s: s.p_value)
    rejected = [i for i, s in enumerate(candidates) if s.p_value <= ALPHA * (i + 1) / n_compared]
    return candidates[: rejected[-1] + 1] if rejected else [], n_compared


def _cells(closed: ClosedWindow, position: int) -> tuple[Int, Int]:
    """Return (reference, window) counts of a feature's reported cells in every segment, shape (n_segments, k)."""
    assert closed.reference is not None
    layout = closed.profile.layout
    feature, values = layout.features[position], layout.value_slice(position)
    sides = []
    for profile in (closed.reference.profile, closed.profile):
        counts = profile.counts[:, values]
        if isinstance(feature, NumberFeature):
            firsts = np.unique(feature.reported_groups(), return_index=True)[1]
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
