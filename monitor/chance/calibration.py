"""How a feature's windows scatter when nothing is wrong: φ, the over-dispersion beside independent rows, per scale.

Rows of one entity, hour or batch resemble one another, so that windows differ by more than n independent rows would. What a model's own
windows show is what a decision has to allow for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np

from monitor.chance.scores import category_groups, chi_square, grouped, number_groups, rank_scores, rank_z
from monitor.columns import Float, Int

SCALES = (1, 3, 6, 24)
"""So many consecutive windows are merged and judged as one."""
MIN_ROWS = 100
"""A merged window with fewer rows that have a value is not measured: it will not be judged either."""
MAX_CATEGORY_CELLS = 256
"""The most frequent values of a category have a cell of their own, the rest shares the last one."""
SCORE_BITS = 30
"""Rank scores are summed as multiples of 2^−30: the same sum for any order of the rows, exact up to 2^33 rows a window."""

_NOISE = 3.0
"""Standard errors that sampling alone may explain …"""
_SLACK = 1.25
"""… and a ratio that is never taken for noise, however few the windows."""
_VARIANCE_NOISE = 5.0
_DIGITS = 4

Numbers = list[float | None]


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A score over the merged windows, one entry per scale; null: too few windows."""

    mean: Numbers
    variance: Numbers
    phi: Numbers
    """Over-dispersion: of X² its mean over its degrees of freedom, of a z its mean square; 1 where sampling noise explains it."""


class FeatureCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """One feature's windows against the rest of the rows; one entry per scale."""

    windows: list[int]
    """Merged windows that were measured; they overlap."""
    rows: list[int]
    """Median rows with a value of a merged window: its small cells are those that expect too few of so many."""
    dof: list[int]
    """Cells of X² less one, after small ones were pooled."""
    chi_square: Spread
    shape_dof: Numbers
    """h: X² is like (mean/h)·χ²(h) (Satterthwaite); `dof` where φ is 1 and it varies as χ² does."""
    location: Spread | None = None
    """z of Wilcoxon's test; null for a category."""
    dispersion: Spread | None = None
    """z of Mood's test; null for a category."""

    def at(self, scale: int) -> ScaleLaw | None:
        """Return what is known of a number of merged windows, or None."""
        i = SCALES.index(scale)
        shape, h = self.chi_square.phi[i], self.shape_dof[i]
        if not self.windows[i] or shape is None or h is None:
            return None
        z = [(spread.phi[i] or 1.0) if spread else 1.0 for spread in (self.location, self.dispersion)]
        return ScaleLaw(self.rows[i], self.dof[i], shape, h, z[0], z[1], independent_windows(self.windows[i], scale))


class ScaleLaw(NamedTuple):
    """How the scores of merged windows are distributed when nothing is wrong.

    X² / (phi·dof) ~ F(shape_dof, max(4, independent·shape_dof)), or X² ~ χ²(dof) where phi is 1 and shape_dof is dof;
    z / √phi_location ~ t(max(3, independent)), or normal where phi_location is 1; likewise the dispersion.
    """

    rows: int
    dof: int
    phi: float
    shape_dof: float
    phi_location: float
    phi_dispersion: float
    independent: float


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The reference cut into windows of production length, and how far these scatter."""

    size_ms: int | None = None
    """Length of a window."""
    windows: int = 0
    """Windows that have rows: consecutive ones were merged."""
    range_ms: tuple[int, int] | None = None
    """Start of the first, end of the last."""
    is_complete: bool = True
    """false: there were more windows, and only the newest were kept."""
    features: dict[str, FeatureCalibration] = {}
    """By name; without an entry: too few windows have enough of its rows."""
    unknown: str | None = None
    """Why φ is not known; null where it is."""


class WindowSums(NamedTuple):
    """A feature in w windows, in the order of time, and in all rows that it is calibrated on."""

    counts: Int
    """(w, k) of its cells"""
    scores: Int
    """(w, 2) sums of location and dispersion scores, in multiples of 2^−`SCORE_BITS`; zeros for a category."""
    total: Int
    """(k,) of all rows, those of the windows among them"""
    fine: Int | None
    """All rows by fine cell, in the order of the values; None for a category."""


def quantised_scores(fine: Int) -> tuple[Int, Int]:
    """Return location and dispersion scores of the fine cells, all rows pooled, as multiples of 2^−`SCORE_BITS`; (k,) each."""
    location, dispersion = (np.rint(np.ldexp(s, SCORE_BITS)).astype(np.int64) for s in rank_scores(fine))
    return location, dispersion


def independent_windows(measured: int, scale: int) -> float:
    """Return how many independent windows that many overlapping merged ones are worth, less the one that the mean costs; at least 2.

    >>> independent_windows(168, 1), independent_windows(145, 24)
    (167.0, 6.0)
    """
    return max(2.0, (measured + scale - 1) / scale - 1)


def calibrate(sums: WindowSums) -> FeatureCalibration | None:
    """Return a feature's calibration; None where fewer than two windows of any scale can be measured.

    Each merged window is compared with the rows that are not in it: never with itself.
    """
    measured = [_measure(sums, scale) for scale in SCALES]
    if not any(found.windows for found in measured):
        return None
    is_number = sums.fine is not None
    return FeatureCalibration(
        windows=[found.windows for found in measured],
        rows=[found.rows for found in measured],
        dof=[found.dof for found in measured],
        chi_square=_spread([found.shape for found in measured]),
        shape_dof=[found.shape_dof for found in measured],
        location=_spread([found.location for found in measured]) if is_number else None,
        dispersion=_spread([found.dispersion for found in measured]) if is_number else None,
    )


_Moments = tuple[float | None, float | None, float | None]
"""mean, variance, φ"""
_NONE: _Moments = (None, None, None)


class _Measured(NamedTuple):
    windows: int = 0
    rows: int = 0
    dof: int = 0
    shape: _Moments = _NONE
    shape_dof: float | None = None
    location: _Moments = _NONE
    dispersion: _Moments = _NONE


def _measure(sums: WindowSums, scale: int) -> _Measured:
    merged, n_total = _merged(sums.counts, scale), int(sums.total.sum())
    n = merged.sum(axis=-1)
    enough = (n >= MIN_ROWS) & (n_total - n >= MIN_ROWS)
    windows = int(enough.sum())
    if windows < scale + 1:
        return _Measured()
    merged, n = merged[enough], n[enough]
    rows = int(np.median(n))
    independent = independent_windows(windows, scale)
    make: Callable[[Int, float], Int] = category_groups if sums.fine is None else number_groups
    groups = make(sums.total, rows)
    cells = grouped(merged, groups)
    dof = cells.shape[-1] - 1
    shape, h = _shape(chi_square(cells, grouped(sums.total, groups) - cells), dof, independent)
    if sums.fine is None:
        return _Measured(windows, rows, dof, shape, h)
    totals = _merged(sums.scores, scale)[enough]
    z = [rank_z(totals[:, i], n, sums.fine, s) for i, s in enumerate(quantised_scores(sums.fine))]
    return _Measured(windows, rows, dof, shape, h, _normal(z[0], independent), _normal(z[1], independent))


def _merged(values: Int, scale: int) -> Int:
    """Return sums over `scale` consecutive rows, overlapping; (w, …) → (w − scale + 1, …)."""
    if len(values) < scale:
        return values[:0]
    total = np.concatenate((np.zeros((1, *values.shape[1:]), np.int64), np.cumsum(values, axis=0, dtype=np.int64)))
    return np.asarray(total[scale:] - total[:-scale])


def _shape(values: Float, dof: int, independent: float) -> tuple[_Moments, float | None]:
    """Return mean, variance and φ of X², and the degrees of freedom h of the multiple of χ² that has these moments."""
    if dof < 1:
        return (0.0, 0.0, 1.0), 0.0
    mean, variance = float(values.mean()), float(values.var())
    is_mean_noise = mean < dof + _NOISE * np.sqrt(2 * dof / independent) and mean < _SLACK * dof
    is_variance_noise = variance < 2 * dof * (1 + _VARIANCE_NOISE * np.sqrt((2 + 12 / dof) / independent))
    if is_mean_noise and is_variance_noise:
        return (_short(mean), _short(variance), 1.0), float(dof)
    level = max(mean, float(dof))
    h = min(max(2 * level * level / max(variance, 1e-9), 1.0), float(dof))
    return (_short(mean), _short(variance), _short(level / dof)), _short(h)


def _normal(z: Float, independent: float) -> _Moments:
    """Return mean, variance and φ of a z; φ is its mean square, for without drift its mean is 0."""
    square = float(np.mean(z * z))
    is_noise = square <= 1 + _NOISE * np.sqrt(2 / independent) and square <= _SLACK
    return _short(float(z.mean())), _short(float(z.var())), 1.0 if is_noise else _short(square)


def _spread(moments: list[_Moments]) -> Spread:
    mean, variance, phi = ([m[i] for m in moments] for i in range(3))
    return Spread(mean=mean, variance=variance, phi=phi)


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
