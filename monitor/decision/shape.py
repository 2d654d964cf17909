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
from monitor.columns import Bool, Float, Int
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
    """How the scores are distributed, by scale and feature; (s, n_features) each. `calibration.ScaleLaw` says what they mean."""

    is_judged: Bool
    rows: Float
    dof: Float
    phi: Float
    shape_dof: Float
    """0 where rows are independent: the moments of X² are all there is to know."""
    phi_location: Float
    phi_dispersion: Float
    independent: Float

    @property
    def phis(self) -> Float:
        """φ of each of `TESTS`, (3, s, n_features)."""
        return np.stack((self.phi, self.phi_location, self.phi_dispersion))

    def at(self, n: Float) -> Laws:
        """Return them for n rows: what φ exceeds 1 by grows with the rows as it does under a cycle, and never falls below what was seen."""
        grown = np.maximum(1.0, n / self.rows)
        phis = {name: 1 + (getattr(self, name) - 1) * grown for name in ("phi", "phi_location", "phi_dispersion")}
        return self._replace(**phis)

    def of(self, judged: Bool) -> Laws:
        """Return those that (s, n_features) chooses, (r,) each."""
        return Laws(self.is_judged[judged], *(column[judged] for column in self[1:]))


class Pool(NamedTuple):
    """How small cells are joined for some number of rows; of the features that were asked for."""

    groups: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]
    """(g,) of each tallied cell: its group among those of its feature"""
    widths: Int
    """(n_features,) groups of each; 0: not made yet"""


@dataclass(frozen=True, eq=False)
class Side:
    """The reference's rows of a segment, as windows are compared with them."""

    tallies: Tallies
    rows: Int
    """(n_features,) with a value"""
    scored: Sampled
    names: tuple[str, ...]
    is_category: tuple[bool, ...]
    calibration: Calibration
    _pools: dict[int, Pool] = field(default_factory=dict)
    _laws: dict[tuple[int, ...], Laws] = field(default_factory=dict)

    def laws(self, scales: tuple[int, ...]) -> Laws:
        """Return the laws of scales of the calibration, 0: of none. Features that no scale of is known are judged by `UNKNOWN_PHI`."""
        if scales not in self._laws:
            laws = [[_law(self.calibration, name, scale) for name in self.names] for scale in scales]
            columns = np.moveaxis(np.array(laws, np.float64), -1, 0)
            self._laws[scales] = Laws(columns[0] > 0, *columns[1:])
        return self._laws[scales]

    def pool(self, plan: Plan, step: int, features: Bool) -> Pool:
        """Return groups of cells of which each expects enough of 2^(step/GRID) rows, right for some features, (n_features,)."""
        if step not in self._pools:
            if len(self._pools) >= MAX_STEPS:
                self._pools.clear()
            self._pools[step] = Pool(np.zeros(plan.n_groups, np.uint16), np.zeros(len(plan.starts), np.int64))
        pool, ends = self._pools[step], np.append(plan.starts[1:], plan.n_groups)
        for i in np.flatnonzero(features & (pool.widths == 0)).tolist():
            make, at = category_groups if self.is_category[i] else number_groups, slice(plan.starts[i], ends[i])
            pool.groups[at] = groups = make(self.tallies.cells[at], 2 ** (step / GRID))
            pool.widths[i] = groups.max() + 1
        return pool


def distribution(evidence: Evidence, plan: Plan, own: Tallies, earlier: Sequence[Tallies]) -> Iterator[Measurement]:
    """Yield a measurement of each feature that the reference has values of, with the tests of every scale that has enough rows.

    own: the window's tallies of the segment. earlier: those of the windows before it, newest first; they do not overlap it.
    """
    closed = evidence.closed
    assert closed.reference is not None
    side = _side(closed.reference, plan, reference_segment(closed, closed.profile.layout.segments.index(evidence.segment)))
    calibration, ratio = closed.reference.calibration, _ratio(closed.reference.calibration, closed.window.size_ms)
    found: dict[str, list[ScaleTest]] = {name: [] for name in side.names}
    together = merged(own, earlier, plan)
    for name, test in _tests(plan, side, together, side.laws(tuple(scale * ratio for scale in together.scales))):
        found[name].append(test)
    n, m = together.rows[0].tolist(), side.rows.tolist()
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
    tallies = plan.tally(counts)
    return Side(tallies, plan.rows(tallies.cells), sampled(plan, counts), names, kinds, reference.calibration)


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


def _tests(plan: Plan, side: Side, together: Merged, laws: Laws) -> Iterator[tuple[str, ScaleTest]]:
    """Yield the tests of every scale and feature that have enough rows, scale after scale; all are computed together."""
    n, enough = together.rows, np.ceil(MIN_MERGED_SHARE * np.array(together.scales))
    judged = laws.is_judged & (together.windows >= enough[:, np.newaxis]) & (n >= MIN_ROWS) & (side.rows >= MIN_ROWS)
    if not judged.any():
        return
    laws = laws.at(n.astype(np.float64))
    reference, window, widths = _pooled(plan, side, together, judged)
    p_values, is_used = np.ones((3, *judged.shape)), np.zeros((3, *judged.shape), bool)
    p_values[0, judged] = _chi_square_p(reference, window, laws.of(judged))
    is_used[0, judged] = widths > 1
    p_values[1:, :, plan.numbers] = np.moveaxis(_rank_p(plan, side, together, laws), -1, 0)
    is_used[1:, :, plan.numbers] = side.scored.deviation.T[:, np.newaxis] > 0
    of_test = zip(*(part[:, judged].T.tolist() for part in (p_values, is_used, laws.phis)), strict=True)
    joint, places = cauchy(p_values, is_used)[judged].tolist(), np.argwhere(judged).tolist()
    for row, ((scale, feature), width, p_value, (p, used, phi)) in enumerate(
        zip(places, widths.tolist(), joint, of_test, strict=True)
    ):
        tests = [test for test, is_made in enumerate(used) if is_made]
        cells = (reference[row, :width], window[row, :width])
        yield (
            side.names[feature],
            ScaleTest(together.scales[scale], cells, p_value, {TESTS[j]: p[j] for j in tests}, {TESTS[j]: phi[j] for j in tests}),
        )


def _pooled(plan: Plan, side: Side, together: Merged, judged: Bool) -> tuple[Int, Int, Int]:
    """Return reference and window counts by pooled cell, (r, k) each, zeros behind the last; and how many cells each row has.

    A row for each scale and feature of judged, (s, n_features).
    """
    steps = np.floor(GRID * np.log2(np.maximum(together.rows, 1)) + 1e-9).astype(np.int64)
    groups, widths = np.zeros(together.cells.shape, np.int64), np.zeros(judged.shape, np.int64)
    for scale, step in set(zip(np.nonzero(judged)[0].tolist(), steps[judged].tolist(), strict=True)):
        features = judged[scale] & (steps[scale] == step)
        pool = side.pool(plan, step, features)
        widths[scale, features] = pool.widths[features]
        cells = features[plan.feature_of_cell]
        groups[scale, cells] = pool.groups[cells]
    k, row = int(widths.max()), np.cumsum(judged).reshape(judged.shape) - 1
    taken = judged[:, plan.feature_of_cell]
    flat = (row[:, plan.feature_of_cell] * k + groups)[taken]
    pooled = []
    for counts in (np.broadcast_to(side.tallies.cells, taken.shape), together.cells):
        total = np.zeros(int(judged.sum()) * k, np.int64)
        np.add.at(total, flat, counts[taken])
        pooled.append(total.reshape(-1, k))
    return pooled[0], pooled[1], widths[judged]


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
    """Return p of location and dispersion of each number, (s, n_numbers, 2): n rows against m, both drawn from where the reference's are."""
    n, m = (np.maximum(rows[..., plan.numbers, np.newaxis].astype(np.float64), 1.0) for rows in (together.rows, side.rows))
    scored, error = side.scored, np.sqrt(1 / n + 1 / m)
    is_varied = scored.deviation > 0
    deviation = np.where(is_varied, scored.deviation, 1.0)
    z = np.where(is_varied, (together.scores / n - scored.mean) / (deviation * error), 0.0)
    phi = np.stack((laws.phi_location, laws.phi_dispersion), axis=-1)[:, plan.numbers]
    skewness = scored.skewness * (1 / n**2 - 1 / m**2) / error**3 * np.sqrt(phi)
    return two_sided_p(z, skewness, phi, laws.independent[:, plan.numbers, np.newaxis])
