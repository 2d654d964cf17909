"""Wasserstein distance of order 1."""

from __future__ import annotations

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
    first = _placed(sides.reference, p, borders, _scaled(before, exponent))
    second = _placed(sides.window, q, borders, _scaled(after, exponent))
    knots = np.sort(np.stack((*first, *second)), axis=0)
    knots = np.concatenate((borders[np.newaxis, ..., :-1], knots, borders[np.newaxis, ..., 1:]))
    middle, length = (knots[1:] + knots[:-1]) / 2, knots[1:] - knots[:-1]
    at_start = sides.cumulative_differences - sides.differences
    gain, gain_slope = _ramp(q, second, middle)
    loss, loss_slope = _ramp(p, first, middle)
    gap = np.abs(at_start + gain - loss)
    half = np.abs(gain_slope - loss_slope) * length / 2  # the gap at a piece's ends is gap ± half
    is_crossed = gap < half
    crossing = (gap * gap + half * half) / np.where(is_crossed, 2 * half, 1.0)
    area = (length * np.where(is_crossed, crossing, gap)).sum(axis=(0, -1))
    with np.errstate(over="ignore"):
        return np.asarray(np.minimum(np.ldexp(area, exponent[..., 0]), _LARGEST))


def w1_sigma(sides: FineSides) -> Float:
    """Return `w1` in standard deviations of the reference; NaN, not defined, where the reference has only one value."""
    sigma = np.asarray(sides.reference_spread.std)
    with np.errstate(over="ignore"):
        return np.where(sigma > 0, np.minimum(w1(sides) / np.where(sigma > 0, sigma, 1.0), _LARGEST), np.nan)


class _Pieces(NamedTuple):
    """Where the rows of one side begin and end in each cell, shape (..., k) each."""

    start: Float
    end: Float


def _column(values: Float | float) -> Float:
    return np.asarray(values, np.float64)[..., np.newaxis]


def _ended(edges: Float, low: Float, high: Float) -> Float:
    shape = (*low.shape[:-1], edges.shape[-1])
    return np.concatenate((low, np.broadcast_to(edges, shape), high), axis=-1)


def _scaled(spread: Spread, exponent: Int) -> tuple[Float, Float, Float]:
    """Return minimum, maximum and mean over 2^exponent, shape (..., 1) each."""
    minimum, maximum, mean = (np.ldexp(_column(value), -exponent) for value in (spread.minimum, spread.maximum, spread.mean))
    return minimum, maximum, mean


def _placed(counts: Int, shares: Float, borders: Float, spread: tuple[Float, Float, Float]) -> _Pieces:
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
    return _Pieces(np.where(missing > 0, start + narrowed, start), np.where(missing < 0, end - narrowed, end))


def _ramp(shares: Float, pieces: _Pieces, at: Float) -> tuple[Float, Float]:
    """Return how much of each cell's share lies below a place, and the slope there; `at`: (5, ..., k), never on a piece's end."""
    start, end = pieces
    is_wide = end - start > _NARROW
    slope = np.where(is_wide & (start < at) & (at < end), shares / np.where(is_wide, end - start, 1.0), 0.0)
    return np.where(at >= end, shares, slope * (at - start)), slope
