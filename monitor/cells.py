"""Which feature a column becomes and which cells it gets, from what was counted: the same for a file and for a stream."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from monitor.layout import NumberFeature
from monitor.sketches.moments import scale_of

FINE_CELLS = 128
ATOM_SHARE = 0.02
"""A value that so many rows have gets a cell of its own, so that values between two atoms are seen."""
TAIL_POWERS = range(-6, 10)
"""Tail cells end at max + spread·2^k, and at the mirror image below the minimum."""
TAIL_DIGITS = 4
"""Significant digits of that step: where a tail cell ends is a matter of scale, and digits are most of a reference's bytes."""

FEW_VALUES = 20
"""Whole numbers with at most so many different values are codes or flags …"""
ROWS_PER_VALUE = 10
"""… if a value has at least so many rows on average; else there are too few rows to tell."""
IDENTIFIER_SHARE, IDENTIFIER_ROWS = 0.9, 1_000
"""An identifier: more than this share of the rows have a value of their own, of more rows than this."""
MAX_CATEGORIES = 200
"""Values in a dictionary, unless the user says otherwise."""


class Shape(NamedTuple):
    """What the grid and the tails of a numeric feature are made from. interquartile: distance of the outer quartiles."""

    minimum: float
    maximum: float
    interquartile: float
    mean: float
    std: float


def number_layout(
    name: str, shape: Shape, ends: Iterable[float], deciles: Iterable[float], singles: Iterable[float]
) -> NumberFeature:
    """Return a numeric feature with cells that end at `ends` and `deciles`, and a cell of its own for every value of `singles`.

    Added are both ends of the range (`nextafter(min, −∞)` and max, so that `below_min` and `above_max` are exact) and 16 tail cells a
    side that end at max + s·2^(−6…9) and min − s·2^(−6…9); s is the interquartile range, or where that is 0 the standard deviation,
    |max|, or 1.
    """
    low, high = shape.minimum, shape.maximum
    spread = shape.interquartile or shape.std or abs(high) or 1.0
    single = set(singles)
    edges = {*ends, *deciles, *single, high, *(math.nextafter(edge, -math.inf) for edge in (low, *single))}
    edges |= {edge for k in TAIL_POWERS for edge in _tails(low, high, spread * 2.0**k)}
    centre, exponent = scale_of(shape.mean, shape.std)
    return NumberFeature(
        name=name,
        edges=tuple(sorted(edge + 0.0 for edge in edges if math.isfinite(edge))),
        reported=tuple(sorted(set(deciles))),
        minimum=low,
        maximum=high,
        centre=centre,
        exponent=exponent,
    )


def rank(n: int, top: int, bottom: int) -> int:
    """Return the 0-based rank of the inverted-CDF quantile top/bottom: the first value with at least that share at or below it.

    >>> rank(10, 1, 10), rank(11, 1, 10), rank(1, 9, 10)
    (0, 1, 0)
    """
    return max(0, -(-top * n // bottom) - 1)


def fine_ranks(n: int) -> list[int]:
    """Return the 0-based ranks of the quantiles at i/128, and at 2^−8, 2^−9 … from both ends: shares that halve down to single rows.

    >>> fine_ranks(512)[-4:]
    [1, 509, 0, 510]
    """
    parts = [FINE_CELLS << i for i in range(1, n.bit_length()) if n >= FINE_CELLS << i]
    inner = [rank(n, i, FINE_CELLS) for i in range(1, FINE_CELLS)]
    return inner + [of_tail for part in parts for of_tail in (rank(n, 1, part), rank(n, part - 1, part))]


def _tails(low: float, high: float, step: float) -> tuple[float, ...]:
    """Return the tail edges a step beyond both ends, those that can be told from them; decimals that matter to the step only.

    >>> _tails(0.1, 33.81, 0.0300459)
    (0.06995, 33.84005)
    """
    if not math.isfinite(step) or step == 0:
        return ()
    digits = TAIL_DIGITS - 1 - math.floor(math.log10(step))
    try:
        below, above = round(low - step, digits), round(high + step, digits)
    except OverflowError:  # rounded beyond the largest double
        return ()
    return tuple(edge for edge, is_beyond in ((below, below < low), (above, above > high)) if is_beyond)
