"""Wasserstein distance of order 1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from monitor.columns import Float, Int
from monitor.sides import FineSides, Spread

_LARGEST = float(np.finfo(np.float64).max)
_NARROW = 1e-200
"""Of a range of 1: rows in a piece that is no wider are at its end."""


@lru_cache(maxsize=1)  # w1_sigma follows on the same sides
def w1(sides: FineSides) -> Float:
    """Return ∫|F − G| dx, the area between the two distribution functions, in the feature's unit: a metric, unbounded.

    F − G is exact at the fine cells' edges; the first and the last cell end at the smallest and the largest value of both sides. Within
    a cell the rows of a side are taken as evenly spread, around a place that makes the side's mean exact. Off by ≤ 0.02 standard
    deviations of the reference on continuous features, and never by more than Σ cell width × (P + Q). Cut off at the largest double.

    >>> sides = FineSides(np.array([2, 2]), np.array([0, 4]), np.array([1.0]), Spread(1.0, 3.0, 2.0, 1.0), Spread(3.0, 3.0, 3.0, 0.0))
    >>> float(w1(sides)), float(w1_sigma(sides))
    (1.0, 1.0)
    """
    before, after = sides.reference_spread, sides.window_spread
    low = np.minimum(_column(before.minimum), _column(after.minimum))
    high = np.maximum(_column(before.maximum), _column(after.maximum))
    exponent = np.frexp(np.maximum(np.abs(low), np.abs(high)))[1]  # a power of two: no digit is lost, no square overflows
    borders = np.ldexp(np.clip(_ended(sides.edges, low, high), low, high), -exponent)
    p, q = sides.shares
    loss = _placed(sides.reference, p, borders, _scaled(before, exponent))
    gain = _placed(sides.window, q, borders, _scaled(after, exponent))
    begins = sides.cumulative_differences - sides.differences
    area = _one_ramp(
        (begins, sides.cumulative_differences), borders, _Ramp(*(np.where(q > 0, *of) for of in zip(gain, loss, strict=True)))
    )
    both = np.flatnonzero((p > 0) & (q > 0))
    cells = [part.ravel()[both] for part in (borders[..., :-1], borders[..., 1:], begins)]
    area.reshape(-1)[both] = _two_ramps(cells, loss.of(both), gain.of(both))
    area = area.sum(axis=-1)
    with np.errstate(over="ignore"):
        return np.asarray(np.minimum(np.ldexp(area, exponent[..., 0]), _LARGEST))


def w1_sigma(sides: FineSides) -> Float:
    """Return `w1` in standard deviations of the reference; NaN, not defined, where the reference has only one value."""
    sigma = np.asarray(sides.reference_spread.std)
    with np.errstate(over="ignore"):
        return np.where(sigma > 0, np.minimum(w1(sides) / np.where(sigma > 0, sigma, 1.0), _LARGEST), np.nan)


class _Ramp(NamedTuple):
    """How the rows of one side lie in each cell: evenly between two places; (..., k) each."""

    share: Float
    start: Float
    end: Float

    def of(self, cells: Int) -> _Ramp:
        """Return those in some cells, given by their places in all of it, (c,)."""
        return _Ramp(*(part.ravel()[cells] for part in self))

    def below(self, at: Float) -> tuple[Float, Float]:
        """Return how much of each cell's share lies below a place, and the slope there; at: (…, *shape), never where rows start or end."""
        width = self.end - self.start
        is_wide = width > _NARROW
        is_inside = is_wide & (self.start < at) & (at < self.end)
        slope = np.where(is_inside, self.share / np.where(is_wide, width, 1.0), 0.0)
        return np.where(at >= self.end, self.share, slope * (at - self.start)), slope


def _one_ramp(gaps: tuple[Float, Float], borders: Float, rows: _Ramp) -> Float:
    """Return the area in each cell, (..., k), where at most one side has rows.

    gaps: F − G where a cell begins, and where it ends. rows: of that side; where there are none it does not matter where they lie.
    """
    before, after = gaps
    flat = np.abs(before) * (rows.start - borders[..., :-1]) + np.abs(after) * (borders[..., 1:] - rows.end)
    return np.asarray(flat + _under((before + after) / 2, (after - before) / 2, rows.end - rows.start))


def _two_ramps(cells: Sequence[Float], loss: _Ramp, gain: _Ramp) -> Float:
    """Return the area in each of some cells, (c,), where both sides have rows: in five pieces, in each of which F − G is linear.

    cells: where they begin and end, and F − G where they begin; (c,) each.
    """
    low, high, begins = cells
    (start, later_start), (earlier_end, end) = _ordered(loss.start, gain.start), _ordered(loss.end, gain.end)
    knots = np.stack((low, start, *_ordered(later_start, earlier_end), end, high))
    middle, length = (knots[1:] + knots[:-1]) / 2, knots[1:] - knots[:-1]
    (lost, falls), (gained, rises) = loss.below(middle), gain.below(middle)
    return np.asarray(_under(begins + gained - lost, (rises - falls) * length / 2, length).sum(axis=0))


def _ordered(one: Float, other: Float) -> tuple[Float, Float]:
    """Return the smaller and the larger of each two."""
    return np.minimum(one, other), np.maximum(one, other)


def _under(middle: Float, half: Float, length: Float) -> Float:
    """Return the area between 0 and lines that go from middle − half to middle + half over a length; (...) each."""
    gap, half = np.abs(middle), np.abs(half)
    is_crossed = gap < half
    return np.asarray(length * np.where(is_crossed, (gap * gap + half * half) / np.where(is_crossed, 2 * half, 1.0), gap))


def _column(values: Float | float) -> Float:
    return np.asarray(values, np.float64)[..., np.newaxis]


def _ended(edges: Float, low: Float, high: Float) -> Float:
    shape = (*low.shape[:-1], edges.shape[-1])
    return np.concatenate((low, np.broadcast_to(edges, shape), high), axis=-1)


def _scaled(spread: Spread, exponent: Int) -> tuple[Float, Float, Float]:
    """Return minimum, maximum and mean over 2^exponent, shape (..., 1) each."""
    minimum, maximum, mean = (np.ldexp(_column(value), -exponent) for value in (spread.minimum, spread.maximum, spread.mean))
    return minimum, maximum, mean


def _placed(counts: Int, shares: Float, borders: Float, spread: tuple[Float, Float, Float]) -> _Ramp:
    """Return where a side's rows lie in each cell: evenly within its own range, narrowed so that all rows together have the side's mean.

    A lone row in the outermost cell is the minimum or the maximum. Wide cells with many rows, whose mean is known least, give way
    first: by λ·share·width², at most to one end.
    """
    minimum, maximum, mean = spread
    start, end = np.clip(borders[..., :-1], minimum, maximum), np.clip(borders[..., 1:], minimum, maximum)
    up_to = counts.cumsum(axis=-1)
    is_lone = counts == 1
    start = np.where(is_lone & (up_to == up_to[..., -1:]), end, start)
    end = np.where(is_lone & (up_to == 1), start, end)
    width = end - start
    missing = mean - (shares * (start + end)).sum(axis=-1, keepdims=True) / 2
    weight = shares * width * width
    shift, is_free = np.zeros_like(width), weight > 0
    for _ in range(len(width.T)):
        given = (shares * np.where(is_free, 0.0, shift)).sum(axis=-1, keepdims=True)
        pull = (shares * np.where(is_free, weight, 0.0)).sum(axis=-1, keepdims=True)
        wanted = weight * (np.abs(missing) - given) / np.where(pull > 0, pull, 1.0)
        is_full = is_free & (wanted > width / 2)
        shift = np.where(is_free, np.minimum(wanted, width / 2), shift)
        is_free &= ~is_full
        if not is_full.any():
            break
    narrowed = 2 * shift
    return _Ramp(shares, np.where(missing > 0, start + narrowed, start), np.where(missing < 0, end - narrowed, end))
