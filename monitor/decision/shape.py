"""`drift.distribution`: whether a feature's values are spread as in the reference, by tests that know how windows scatter.

Per feature three tests of the same rows, Pearson's X² on the reported cells, Wilcoxon's and Mood's scores on the fine cells, joined by
Cauchy's rule; and the same of the last 3, 6 and 24 windows taken as one. All features of a segment are computed together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from monitor.chance.calibration import MIN_ROWS, SCALES, Calibration, ScaleLaw
from monitor.chance.scores import category_groups, chi_square, number_groups
from monitor.columns import Float, Int
from monitor.decision.probabilities import Moments, cauchy, chi_square_moments, chi_square_p, one_cell_p, two_sided_p
from monitor.decision.scales import MIN_MERGED_SHARE, Merged, Plan, Sampled, Tallies, merged, sampled
from monitor.features import CategoryFeature
from monitor.findings import CheckInfo, Evidence, Measurement, ScaleTest, reference_segment
from monitor.reference import Reference

CHECK = "drift.distribution"
UNKNOWN_PHI = 5.0
"""Where windows were never seen to scatter, they are taken to do so as if rows came in fives."""
GRID = 4
"""Small cells are pooled for the next lower of n = 2^(i/4) rows: so much of what depends on n need not be computed anew."""
ONE_CELL_BELOW = 1e-3
"""Where a p of X² is smaller, the chance of a single cell is added."""
MAX_STEPS = 16
"""Of those, so many are remembered at a time: twice what the scales need of rows that vary by a fifth."""
INFO = CheckInfo(
    CHECK,
    "psi of the reported cells less what chance puts into it: of the last window, or of the last 3, 6 or 24 taken as one, where these show "
    "more; small cells are pooled",
    "Pearson's X², Wilcoxon's and Mood's tests, joined by Cauchy's rule, with the over-dispersion φ of the reference's own windows, within "
    "the budget of false alarms (docs/decisions.md)",
    MIN_ROWS,
)
TESTS = ("chi_square", "location", "dispersion")


class Laws(NamedTuple):
    """How the scores of a scale are distributed, by feature; (n_features,) each. `calibration.ScaleLaw` says what they mean."""

    is_judged: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    rows: Float
    dof: Float
    phi: Float
    shape_dof: Float
    """0 where rows are independent: the moments of X² are all there is to know."""
    phi_location: Float
    phi_dispersion: Float
    independent: Float

    def at(self, n: Float) -> Laws:
        """Return them for n rows: what φ exceeds 1 by grows with the rows as it does under a cycle, and never falls below what was seen."""
        grown = np.maximum(1.0, n / self.rows)
        phis = {name: 1 + (getattr(self, name) - 1) * grown for name in ("phi", "phi_location", "phi_dispersion")}
        return self._replace(**phis)

    def of(self, features: Int) -> Laws:
        """Return those of some features."""
        return Laws(self.is_judged[features], *(column[features] for column in self[1:]))


@dataclass(frozen=True, eq=False)
class Side:
    """The reference's rows of a segment, as windows are compared with them."""

    tallies: Tallies
    scored: Sampled
    names: tuple[str, ...]
    is_category: tuple[bool, ...]
    calibration: Calibration
    _pools: dict[int, dict[int, bytes]] = field(default_factory=dict)
    _laws: dict[int, Laws] = field(default_factory=dict)

    def laws(self, scale: int) -> Laws:
        """Return the laws of a scale of the calibration, 0: of none. Features that no scale of is known are judged by `UNKNOWN_PHI`."""
        if scale not in self._laws:
            columns = np.array([_law(self.calibration, name, scale) for name in self.names], np.float64).T
            self._laws[scale] = Laws(columns[0] > 0, *columns[1:])
        return self._laws[scale]

    def pooled(self, feature: int, cells: Int, step: int) -> Int:
        """Return the group of each tallied cell of a feature, so that a group expects enough of 2^(step/GRID) rows."""
        if step not in self._pools and len(self._pools) >= MAX_STEPS:
            self._pools.clear()
        known = self._pools.setdefault(step, {})
        if feature not in known:
            make = category_groups if self.is_category[feature] else number_groups
            known[feature] = make(cells, 2 ** (step / GRID)).astype(np.uint16).tobytes()
        return np.frombuffer(known[feature], np.uint16).astype(np.int64)


def distribution(evidence: Evidence, plan: Plan, own: Tallies, earlier: Sequence[Tallies]) -> Iterator[Measurement]:
    """Yield a measurement of each feature that the reference has values of, with the tests of every scale that has enough rows.

    own: the window's tallies of the segment. earlier: those of the windows before it, newest first; they do not overlap it.
    """
    closed = evidence.closed
    assert closed.reference is not None
    side = _side(closed.reference, plan, reference_segment(closed, closed.profile.layout.segments.index(evidence.segment)))
    calibration, ratio = closed.reference.calibration, _ratio(closed.reference.calibration, closed.window.size_ms)
    found: dict[str, list[ScaleTest]] = {name: [] for name in side.names}
    for scale in SCALES:
        together = merged(own, earlier, scale, plan)
        if together is not None:
            for name, test in _tests(plan, side, together, scale, side.laws(scale * ratio)):
                found[name].append(test)
    n, m = plan.rows(own.cells).tolist(), plan.rows(side.tallies.cells).tolist()
    for i, name in enumerate(side.names):
        if m[i]:
            distances = evidence.distances.get(name, {})
            yield Measurement(
                CHECK,
                name,
                value=distances.get("psi_corrected", 0.0),
                n=n[i],
                n_ref=m[i],
                min_n=MIN_ROWS,
                evidence={"psi": distances.get("psi", 0.0), "cells": len(evidence.features[name].cells[0])},
                segment=evidence.segment,
                scales=tuple(found[name]),
                is_provisional=not _is_known(calibration, name, ratio),
            )


def design_effects(reference: Reference | None, size_ms: int) -> dict[str, float]:
    """Return, by feature with a known φ of single windows, how many rows count as one."""
    if reference is None:
        return {}
    ratio = _ratio(reference.calibration, size_ms)
    laws = {name: found.at(ratio) for name, found in reference.calibration.features.items()} if ratio else {}
    effects = {}
    for feature in reference.layout.features:
        law = laws.get(feature.name)
        if law is not None:
            effects[feature.name] = law.phi if isinstance(feature, CategoryFeature) else max(law.phi_location, law.phi_dispersion)
    return effects


def _ratio(calibration: Calibration, size_ms: int) -> int:
    """Return how many windows of the calibration one window is; 0 where that was not measured."""
    if not calibration.size_ms or size_ms % calibration.size_ms:
        return 0
    ratio = size_ms // calibration.size_ms
    return ratio if ratio in SCALES else 0


def _is_known(calibration: Calibration, name: str, ratio: int) -> bool:
    found = calibration.features.get(name) if ratio else None
    return found is not None and any(found.at(scale) is not None for scale in SCALES if scale >= ratio)


def _side(reference: Reference, plan: Plan, segment: int) -> Side:
    """The counts of earlier traffic are those of one window only, and not cached."""
    if reference.panes is not None:
        return _make_side(reference, plan, segment)
    return _cached_side(_Own(reference, plan, segment))


def _make_side(reference: Reference, plan: Plan, segment: int) -> Side:
    features, counts = reference.layout.features, reference.profile.counts_of(segment)
    kinds = tuple(isinstance(feature, CategoryFeature) for feature in features)
    names = tuple(feature.name for feature in features)
    return Side(plan.tally(counts), sampled(plan, counts), names, kinds, reference.calibration)


class _Own(NamedTuple):
    """Equal where the reference is the same object."""

    reference: Reference
    plan: Plan
    segment: int

    def __hash__(self) -> int:
        return hash((id(self.reference), self.segment))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Own) and self.reference is other.reference and self.segment == other.segment


@lru_cache(maxsize=1_024)
def _cached_side(own: _Own) -> Side:
    return _make_side(*own)


_NOT_JUDGED = (0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0)
_UNKNOWN = (1.0, np.inf, 1.0, UNKNOWN_PHI, 1e9, UNKNOWN_PHI, UNKNOWN_PHI, 1e6)


def _law(calibration: Calibration, name: str, scale: int) -> tuple[float, ...]:
    found = calibration.features.get(name)
    if not scale or found is None:
        return _UNKNOWN
    law: ScaleLaw | None = found.at(scale) if scale in SCALES else None
    if law is None:
        return _NOT_JUDGED
    is_independent = law.phi == 1 and law.shape_dof == law.dof
    shape_dof = 0.0 if is_independent else max(law.shape_dof, 1.0)
    return 1.0, float(law.rows), float(law.dof), law.phi, shape_dof, law.phi_location, law.phi_dispersion, law.independent


def _tests(plan: Plan, side: Side, together: Merged, scale: int, laws: Laws) -> Iterator[tuple[str, ScaleTest]]:
    n, m = plan.rows(together.cells), plan.rows(side.tallies.cells)
    enough = together.windows >= np.ceil(MIN_MERGED_SHARE * scale)
    judged = np.flatnonzero(laws.is_judged & enough & (n >= MIN_ROWS) & (m >= MIN_ROWS))
    if not len(judged):
        return
    laws = laws.at(n.astype(np.float64))
    reference, window, widths = _pool(plan, side, together.cells, judged, n)
    p_values, is_used = np.ones((3, len(side.names))), np.zeros((3, len(side.names)), bool)
    p_values[0, judged] = _chi_square_p(reference, window, laws.of(judged))
    is_used[0, judged] = widths > 1
    p_values[1:, plan.numbers] = _rank_p(plan, side, together, laws).T
    is_used[1:, plan.numbers] = side.scored.deviation.T > 0
    joint = cauchy(p_values, is_used).tolist()
    phis = np.stack((laws.phi, laws.phi_location, laws.phi_dispersion))
    for place, i in enumerate(judged.tolist()):
        tests = {test: float(p_values[j, i]) for j, test in enumerate(TESTS) if is_used[j, i]}
        phi = {test: float(phis[j, i]) for j, test in enumerate(TESTS) if is_used[j, i]}
        cells = (reference[place, : widths[place]], window[place, : widths[place]])
        yield side.names[i], ScaleTest(scale, cells, joint[i], tests, phi)


def _pool(plan: Plan, side: Side, cells: Int, judged: Int, n: Int) -> tuple[Int, Int, Int]:
    """Return reference and window counts by pooled cell, (f, k) each, zeros behind the last; and how many cells each feature has."""
    steps = np.floor(GRID * np.log2(np.maximum(n, 1)) + 1e-9).astype(np.int64).tolist()
    ends = [*plan.starts[1:].tolist(), len(plan.feature_of_cell)]
    spans = [slice(int(plan.starts[i]), ends[i]) for i in judged]
    groups = [side.pooled(i, side.tallies.cells[at], steps[i]) for i, at in zip(judged.tolist(), spans, strict=True)]
    widths = np.array([int(group.max()) + 1 for group in groups])
    k = int(widths.max())
    flat = np.concatenate([place * k + group for place, group in enumerate(groups)])
    taken = np.concatenate([np.arange(at.start, at.stop) for at in spans])
    pooled = []
    for counts in (side.tallies.cells, cells):
        total = np.zeros(len(groups) * k, np.int64)
        np.add.at(total, flat, counts[taken])
        pooled.append(total.reshape(-1, k))
    return pooled[0], pooled[1], widths


def _chi_square_p(reference: Int, window: Int, laws: Laws) -> Float:
    n, m = window.sum(axis=-1), reference.sum(axis=-1)
    moments = chi_square_moments(reference / m[:, np.newaxis], np.minimum(n, m) / laws.phi)
    moments = Moments(*(np.asarray(part) for part in moments))
    dof = np.maximum(laws.dof, 1.0)  # the reference's windows may have filled one cell only
    calibrated = np.where(laws.shape_dof > 0, np.minimum(laws.shape_dof * moments.mean / dof, moments.mean), 0.0)
    shape_dof = np.where(laws.shape_dof > 0, np.maximum(calibrated, 1.0), 0.0)
    x2 = chi_square(window, reference)
    p = chi_square_p(x2, moments, laws.phi, shape_dof, laws.independent)
    far = np.flatnonzero((shape_dof == 0) & (p < ONE_CELL_BELOW))
    if len(far):
        shares, rows = reference[far] / m[far, np.newaxis], np.minimum(n, m)[far].astype(np.float64)
        p[far] = np.minimum(p[far] + one_cell_p(x2[far], shares, rows), 1.0)
    return p


def _rank_p(plan: Plan, side: Side, together: Merged, laws: Laws) -> Float:
    """Return p of location and dispersion of each number, (n_numbers, 2): n rows against m, both drawn from where the reference's are."""
    n = plan.rows(together.cells)[plan.numbers, np.newaxis].astype(np.float64)
    m = plan.rows(side.tallies.cells)[plan.numbers, np.newaxis].astype(np.float64)
    n, m = np.maximum(n, 1.0), np.maximum(m, 1.0)
    scored, error = side.scored, np.sqrt(1 / n + 1 / m)
    is_varied = scored.deviation > 0
    deviation = np.where(is_varied, scored.deviation, 1.0)
    z = np.where(is_varied, (together.scores / n - scored.mean) / (deviation * error), 0.0)
    phi = np.stack((laws.phi_location, laws.phi_dispersion), axis=-1)[plan.numbers]
    skewness = scored.skewness * (1 / n**2 - 1 / m**2) / error**3 * np.sqrt(phi)
    return two_sided_p(z, skewness, phi, laws.independent[plan.numbers, np.newaxis])
