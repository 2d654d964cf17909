"""The layout of a numeric feature: which cells, from exact order statistics of the reference."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from monitor.columns import Float
from monitor.layout import NumberFeature
from monitor.reference_build.spool import SORT_BYTES, Spool
from monitor.sketches.moments import exact_sums, mean_std, scale_of

FINE_CELLS = 128
ATOM_SHARE = 0.02
"""A value that so many rows have gets a cell of its own, so that values between two atoms are seen."""
TAIL_POWERS = range(-6, 10)
"""Tail cells end at max + spread·2^k, and at the mirror image below the minimum."""
TAIL_DIGITS = 2
"""Significant digits of that step: where a tail cell ends is a matter of scale, and digits are most of a reference's bytes."""


def number_feature(
    name: str,
    spool: Path,
    sort_bytes: int = SORT_BYTES,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
) -> NumberFeature:
    """Return the layout of a feature from its n ≥ 1 finite values, a file of float64 in any order.

    Edges are the inverted-CDF quantiles at i/10 (values of the reference), those at i/128 and at 2^−8, 2^−9 … from both ends (the roundest
    number from the quantile up to below the reference's next value), a singleton cell for every atom, both ends of the range
    (`nextafter(min, −∞)` and max, so that `below_min` and `above_max` are exact), and 16 tail cells a side that end near max + s·2^(−6…9)
    and min − s·2^(−6…9); s is the interquartile range, or where that is 0 the standard deviation, |max|, or 1.

    minimum, maximum: the range is at least this, whatever the values are.
    `reported` are the deciles, duplicates removed; where one is the maximum, the last reported cell holds no row of the reference.
    """
    values = Spool(spool, sort_bytes)
    n = values.n
    lowest, highest, first_quartile, third_quartile, *deciles = values.at(
        [0, n - 1, _rank(n, 1, 4), _rank(n, 3, 4), *(_rank(n, i, 10) for i in range(1, 10))]
    ).tolist()
    quantiles = values.at([*(_rank(n, i, FINE_CELLS) for i in range(1, FINE_CELLS)), *_tail_ranks(n)])
    mean, std = _moments(values, lowest, highest)
    low = lowest if minimum is None else min(lowest, minimum)
    high = highest if maximum is None else max(highest, maximum)
    spread = (third_quartile - first_quartile) or std or abs(high) or 1.0
    candidates = np.unique([lowest, highest, *deciles, *quantiles.tolist()])
    atoms = candidates[values.counts_of(candidates) >= ATOM_SHARE * n].tolist()
    edges = {lowest, high, *deciles, *atoms, *(math.nextafter(edge, -math.inf) for edge in (low, *atoms))}
    edges |= set(_round_edges(values, quantiles[~np.isin(quantiles, list(edges))]))
    edges |= {edge for k in TAIL_POWERS for edge in _tails(low, high, spread * 2.0**k)}
    centre, exponent = scale_of(mean, std)
    return NumberFeature(
        name=name,
        edges=tuple(sorted(edge + 0.0 for edge in edges if math.isfinite(edge))),
        reported=tuple(sorted(set(deciles))),
        minimum=low,
        maximum=high,
        centre=centre,
        exponent=exponent,
    )


def _rank(n: int, top: int, bottom: int) -> int:
    """Return the 0-based rank of the inverted-CDF quantile top/bottom: the first value with at least that share at or below it.

    >>> _rank(10, 1, 10), _rank(11, 1, 10), _rank(1, 9, 10)
    (0, 1, 0)
    """
    return max(0, -(-top * n // bottom) - 1)


def _tail_ranks(n: int) -> list[int]:
    """Return the 0-based ranks of the quantiles between the outermost 1/128 and the extremes: shares that halve down to single rows.

    >>> _tail_ranks(512)
    [1, 509, 0, 510]
    """
    parts = [FINE_CELLS << i for i in range(1, n.bit_length()) if n >= FINE_CELLS << i]
    return [rank for part in parts for rank in (_rank(n, 1, part), _rank(n, part - 1, part))]


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


def _round_edges(values: Spool, quantiles: Float) -> list[float]:
    """Return, for each of some values of the reference, the roundest number from it up to below the next value.

    No value of the reference lies between: the cells hold the same rows. Digits are most of a reference's bytes.
    """
    distinct = np.unique(quantiles)
    return [roundest(q, above) for q, above in zip(distinct.tolist(), values.successors(distinct).tolist(), strict=True)]


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


def _moments(values: Spool, low: float, high: float) -> tuple[float, float]:
    """Return mean and standard deviation, to 2^−36 of the range, the same for any order of the values."""
    centre, exponent = scale_of(low / 2 + high / 2, high / 2 - low / 2)
    first = second = 0
    for chunk in values.chunks():
        more, more_squared = exact_sums(chunk, centre, exponent)
        first, second = first + more, second + more_squared
    mean, std = mean_std(values.n, first, second, centre, exponent)
    return min(max(mean, low), high), std
