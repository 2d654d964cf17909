"""A natural logarithm that every processor computes alike: sums, products and quotients only, which IEEE 754 rounds in one way.

A library's logarithm may differ in its last bit from processor to processor; a sum that is stored and compared may not.
"""

from __future__ import annotations

import math

import numpy as np

from monitor.columns import Float

_LN2_HIGH, _LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
"""Their sum is ln 2; the first has 21 trailing zero bits, so that its products with exponents are exact."""
_TERMS = 12


def log(values: Float) -> Float:
    """Return ln of positive finite values, (n,) float64, within 4e-16 of it relative to the larger of it and 1.

    ln(m · 2^e) = e ln 2 + 2 artanh((m − 1)/(m + 1)), m in [√½, √2).

    >>> float(log(np.array([1.0]))[0]), round(float(log(np.array([10.0]))[0]), 12)
    (0.0, 2.302585092994)
    """
    fraction, exponent = np.frexp(values)
    is_small = fraction < math.sqrt(0.5)
    m = np.where(is_small, fraction * 2.0, fraction)
    e = exponent - is_small
    s = (m - 1.0) / (m + 1.0)
    square = s * s
    series = np.full(len(values), 1.0 / (2 * _TERMS + 1))
    for k in range(_TERMS - 1, 0, -1):
        series = series * square + 1.0 / (2 * k + 1)
    return np.asarray(e * _LN2_HIGH + (2.0 * s + (2.0 * s * square * series + e * _LN2_LOW)))
