"""Exact sums of numbers: the same bits whatever the order, the batching or the partitioning.

A value x is turned into an integer q = round((x − centre) / 2^exponent); Σq and Σq² are kept as integers of any size, so merging is
integer addition. With the quantum 2^exponent ≈ spread · 2^−36 the mean is right to 1e-11 of the reference's spread, and values with
up to 36 significant bits around the centre (integers, cents) are represented without any error.
"""

from __future__ import annotations

import math

import numpy as np

from monitor.columns import Float, Int, Objects

QUANTUM_BITS = 36
_HALF_BITS = 23
_LIMIT = float(1 << (2 * _HALF_BITS))
_CHUNK_ROWS = 1 << 14  # 2^14 squares of 2^46 stay below 2^63


def scale_of(centre: float, spread: float) -> tuple[float, int]:
    """Return (centre on the grid, exponent) for a feature with that centre and spread (say, mean and standard deviation).

    >>> scale_of(41.3, 10.0)
    (41.300000000046566, -32)
    """
    if not math.isfinite(spread) or spread <= 0:
        spread = abs(centre) if centre else 1.0
    exponent = max(math.frexp(spread)[1] - QUANTUM_BITS, -1000)
    if math.frexp(centre)[1] - 53 >= exponent:  # so far from zero every double lies on the grid
        return centre, exponent
    quanta = math.ldexp(centre, -exponent)
    try:
        return math.ldexp(round(quanta), exponent), exponent
    except OverflowError:  # rounded beyond the largest double
        return math.ldexp(math.trunc(quanta), exponent), exponent


def exact_sums(values: Float, centre: float, exponent: int) -> tuple[int, int]:
    """Return (Σq, Σq²) of finite values, shape (n,) float64, as Python integers.

    Cost: about 3 ns per value; values further than 2^10 spreads from the centre take an exact path of about 1 µs each.
    """
    first, second = exact_sums_by_group(values[np.newaxis], np.array([centre]), np.array([exponent]), np.zeros(1, np.int64))[0, 0]
    return first, second


def exact_sums_by_group(values: Float, centres: Float, exponents: Int, starts: Int) -> Objects:
    """Return `exact_sums` of each row of finite values and each group of columns: shape (n_groups, k, 2), Python integers.

    values: (k, n), every row with its own centre and exponent, shape (k,). starts: (n_groups,) rising, the first column of each group,
    none of them empty.
    """
    k, n = values.shape
    sums = np.zeros((len(starts), k, 2), object)
    scale = np.ldexp(1.0, -exponents)[:, np.newaxis]
    for begin in range(0, n, _CHUNK_ROWS):
        chunk = values[:, begin : begin + _CHUNK_ROWS]
        with np.errstate(over="ignore"):
            scaled = np.rint((chunk - centres[:, np.newaxis]) * scale)
        far = ~(np.abs(scaled) < _LIMIT)
        if far.any():
            scaled[far] = 0.0
            for row, column in np.argwhere(far).tolist():
                q = quantise_far(float(chunk[row, column]), float(centres[row]), int(exponents[row]))
                sums[np.searchsorted(starts, begin + column, side="right") - 1, row] += (q, q * q)
        first = int(np.searchsorted(starts, begin, side="right")) - 1
        upto = int(np.searchsorted(starts, begin + chunk.shape[1]))
        sums[first:upto] += _sums_of_integers(scaled.astype(np.int64), np.maximum(starts[first:upto] - begin, 0))
    return sums


def _sums_of_integers(q: Int, starts: Int) -> Objects:
    """Return (Σq, Σq²) by group and row, |q| < 2^46: squared in halves, so that no sum leaves 63 bits."""
    high = q >> _HALF_BITS
    low = q & ((1 << _HALF_BITS) - 1)
    if len(starts) == 1:
        parts = [q.sum(axis=1), *(np.einsum("ij,ij->i", *pair) for pair in ((high, high), (high, low), (low, low)))]
        first, hh, hl, ll = (part[np.newaxis].astype(object) for part in parts)
    else:
        parts = [np.add.reduceat(part, starts, axis=1).T for part in (q, high * high, high * low, low * low)]
        first, hh, hl, ll = (part.astype(object) for part in parts)
    return np.stack((first, (hh << (2 * _HALF_BITS)) + (hl << (_HALF_BITS + 1)) + ll), axis=-1)


def quantise_far(value: float, centre: float, exponent: int) -> int:
    """Round (value − centre) / 2^exponent half to even, with integers only."""
    numerator, denominator = value.as_integer_ratio()
    c_numerator, c_denominator = centre.as_integer_ratio()
    top = numerator * c_denominator - c_numerator * denominator
    bottom = denominator * c_denominator
    if exponent < 0:
        top <<= -exponent
    else:
        bottom <<= exponent
    quotient, rest = divmod(top, bottom)
    return quotient + (2 * rest > bottom or (2 * rest == bottom and quotient % 2 == 1))


def mean_std(n: int, first: int, second: int, centre: float, exponent: int) -> tuple[float, float]:
    """Return mean and population standard deviation (ddof 0) of n ≥ 1 values from their exact sums.

    >>> c, e = scale_of(0.0, 1.0)
    >>> mean_std(2, *exact_sums(np.array([1.0, 3.0]), c, e), c, e)
    (2.0, 1.0)
    """
    mean = centre + _ldexp_ratio(first, n, exponent)
    variance = n * second - first * first
    return mean, _ldexp_root(variance, n * n, exponent)


def _ldexp_ratio(top: int, bottom: int, exponent: int) -> float:
    """Top / bottom · 2^exponent, ±inf where a double cannot hold it."""
    try:
        if exponent >= 0:
            return (top << exponent) / bottom
        return top / (bottom << -exponent)
    except OverflowError:
        return math.copysign(math.inf, top)


def _ldexp_root(top: int, bottom: int, exponent: int) -> float:
    """√(top / bottom) · 2^exponent for integers of any size: 64 significant bits of the root are taken."""
    if top <= 0:
        return 0.0
    shift = max(0, 128 - top.bit_length() + bottom.bit_length())
    shift += shift & 1
    root = math.isqrt((top << shift) // bottom)
    excess = max(0, root.bit_length() - 64)
    try:
        return math.ldexp(float(root >> excess), excess - shift // 2 + exponent)
    except OverflowError:
        return math.inf
