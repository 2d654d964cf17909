"""Which feature a column becomes and which cells it gets, from what was counted: the same for a file and for a stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation
from typing import Literal, NamedTuple

import numpy as np
from msgspec import structs

from monitor.columns import Float
from monitor.features import AskedKind, NumberFeature, TimestampUnit
from monitor.sketches.moments import scale_of

FINE_CELLS = 128
FEW_ROWS = 512
"""Of a smaller reference every edge's value has a cell of its own: a single row is a large share of it."""
TAIL_POWERS = range(-6, 10)
"""Tail cells end at max + spread·2^k, and at the mirror image below the minimum."""
TAIL_DIGITS = 2
"""Significant digits of that step: where a tail cell ends is a matter of scale, and digits are most of a reference's bytes."""

FEW_VALUES = 20
"""Whole numbers with at most so many different values are codes or flags …"""
ROWS_PER_VALUE = 10
"""… if a value has at least so many rows on average; else there are too few rows to tell."""
TEXT_WORDS, TEXT_SHARE = 3.0, 0.5
"""A text has so many words on average, and more than this share of the rows have a value of their own."""
IDENTIFIER_SHARE, IDENTIFIER_ROWS = 0.9, 1_000
"""An identifier is different in more than this share of the rows, of more rows than this."""


NUMBERS: tuple[AskedKind, ...] = ("number", "integer", "real")


@dataclass(frozen=True, slots=True)
class FeatureOptions:
    """What the user says of a feature, over what is inferred.

    minimum, maximum: the range of a number, at least; that of the values is always inside.
    max_missing_ratio: in place of the bound that the rows give. unit: of a timestamp's numbers.
    """

    kind: AskedKind | None = None
    max_categories: int = 200
    keep_values: bool = False
    pii: Literal["none", "drop", "hash"] = "none"
    max_missing_ratio: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    unit: TimestampUnit | None = None


NOTHING_SAID = FeatureOptions()


class Shape(NamedTuple):
    """What the grid and the tails of a numeric feature are made from. interquartile: distance of the outer quartiles."""

    minimum: float
    maximum: float
    interquartile: float
    mean: float
    std: float

    def widened(self, options: FeatureOptions) -> Shape:
        """Return it with a range that is at least the configured one."""
        low = self.minimum if options.minimum is None else min(self.minimum, options.minimum)
        high = self.maximum if options.maximum is None else max(self.maximum, options.maximum)
        return self._replace(minimum=low, maximum=high)


class Ends(NamedTuple):
    """Where the cells of a numeric feature end.

    quantiles: at `fine_ranks`; each may be rounded up to below its successor, the next value. deciles: the reported ones.
    exact: others that are ends as they are. singles: values with a cell of their own.
    """

    quantiles: Float
    deciles: list[float]
    exact: Iterable[float]
    singles: list[float]


def number_layout(name: str, shape: Shape, ends: Ends, successors: Callable[[Float], Float]) -> NumberFeature:
    """Return a numeric feature with cells that end at `ends`.

    A quantile that is no other end is replaced by the roundest number from it up to below the next value: no value lies between, so the
    cells hold the same rows, and digits are most of a reference's bytes. Added are both ends of the range (`nextafter(min, −∞)` and max,
    so that `below_min` and `above_max` are exact) and 16 tail cells a side that end near max + s·2^(−6…9) and min − s·2^(−6…9); s is the
    interquartile range, or where that is 0 the standard deviation, |max|, or 1.

    successors: of rising values, the smallest value above each, or the value itself where that is not known.
    """
    low, high = shape.minimum, shape.maximum
    spread = shape.interquartile or shape.std or abs(high) or 1.0
    edges = {*ends.exact, *ends.deciles, *ends.singles, high}
    edges |= {math.nextafter(edge, -math.inf) for edge in (low, *ends.singles)}
    quantiles = np.unique(ends.quantiles[~np.isin(ends.quantiles, list(edges))])
    edges |= {roundest(q, above) for q, above in zip(quantiles.tolist(), successors(quantiles).tolist(), strict=True)}
    edges |= {edge for k in TAIL_POWERS for edge in _tails(low, high, spread * 2.0**k)}
    centre, exponent = scale_of(shape.mean, shape.std)
    return NumberFeature(
        name=name,
        edges=tuple(sorted(edge + 0.0 for edge in edges if math.isfinite(edge))),
        reported=tuple(sorted(set(ends.deciles))),
        minimum=low,
        maximum=high,
        centre=centre,
        exponent=exponent,
    )


def with_cells_of(view: NumberFeature, other: NumberFeature) -> NumberFeature:
    """Return a view with the cells, the range and the grid of another number."""
    return structs.replace(
        view,
        edges=other.edges,
        reported=other.reported,
        minimum=other.minimum,
        maximum=other.maximum,
        centre=other.centre,
        exponent=other.exponent,
    )


def atom_rows(n: int) -> float:
    """Return how many of n rows must have a value for a cell of its own, so that values between two atoms are seen.

    With it `ks` of a continuous feature is off by ≤ 1/128 + 1/512 for any n, of one whose values repeat by ≤ 2/128.
    """
    return n / FINE_CELLS if n > FEW_ROWS else 1


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


_DECIMALS = Context(prec=60)


def roundest(low: float, high: float) -> float:
    """Return the smallest multiple of the largest power of ten in [low, high); low where there is none short of it.

    >>> roundest(1.2345678, 1.2398), roundest(-0.5000123, 0.25), roundest(1234.0, 1250.0)
    (1.235, 0.0, 1240.0)
    """
    if not 0 < high - low < math.inf:
        return low
    exponent = math.floor(math.log10(high - low)) + 1
    for power in range(exponent, exponent - 19, -1):
        try:
            found = float(Decimal(low).quantize(Decimal(1).scaleb(power), ROUND_CEILING, _DECIMALS))
        except InvalidOperation:  # more digits than a double has
            return low
        if low <= found < high:
            return found + 0.0
    return low


def _tails(low: float, high: float, step: float) -> tuple[float, ...]:
    """Return the tail edges a step beyond both ends, those that can be told from them; decimals that matter to the step only.

    >>> _tails(0.1, 33.81, 0.0300459)
    (0.07, 33.84)
    """
    if not math.isfinite(step) or step == 0:
        return ()
    digits = TAIL_DIGITS - 1 - math.floor(math.log10(step))
    try:
        below, above = round(low - step, digits), round(high + step, digits)
    except OverflowError:  # rounded beyond the largest double
        return ()
    return tuple(edge for edge, is_beyond in ((below, below < low), (above, above > high)) if is_beyond)
