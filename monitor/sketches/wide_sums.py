"""Exact sums of doubles of which nothing is known: Σx and Σx² as integers, the same whatever the order and the partitioning.

Where a centre and a spread are known, `moments.py` does it with smaller integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monitor.columns import Float

UNIT_EXPONENT = -1126
"""Σx counts 2^−1126, Σx² counts 2^−2252: the last bit of the smallest double, normalised to 53 bits."""

_LEAST = UNIT_EXPONENT + 53
_LIMB = 18
_MASK = (1 << _LIMB) - 1
_CHUNK = 1 << 16  # of products below 2^36: their sums are exact in a double


def wide_sums(values: Float) -> tuple[int, int]:
    """Return (Σx, Σx²) of finite values, shape (n,) float64, in units of 2^−1126 and 2^−2252. Cost: about 0.15 µs per value.

    >>> first, second = wide_sums(np.array([1.5, -0.5]))
    >>> first == 1 << 1126, second == 5 << 2251
    (True, True)
    """
    first = second = 0
    for start in range(0, len(values), _CHUNK):
        fractions, exponents = np.frexp(values[start : start + _CHUNK])
        whole = np.ldexp(fractions, 53).astype(np.int64)  # three limbs of 18 bits, the highest one signed
        limbs = (whole >> 2 * _LIMB, (whole >> _LIMB) & _MASK, whole & _MASK)
        a, b, c = (limb.astype(np.float64) for limb in limbs)
        least = int(exponents.min())
        places = exponents - least
        firsts = _by_place(places, ((a, 36), (b, 18), (c, 0)))
        seconds = _by_place(places, ((a * a, 72), (a * b, 55), (a * c, 37), (b * b, 36), (b * c, 19), (c * c, 0)))
        first += sum(total << (least + place - _LEAST) for place, total in enumerate(firsts) if total)
        second += sum(total << 2 * (least + place - _LEAST) for place, total in enumerate(seconds) if total)
    return first, second


def _by_place(places: npt.NDArray[np.integer], terms: Sequence[tuple[Float, int]]) -> list[int]:
    """Return, by place, the sum of whole-numbered terms, each shifted to the left."""
    sums = [(np.bincount(places, weights=term).tolist(), shift) for term, shift in terms]
    return [sum(int(by_place[place]) << shift for by_place, shift in sums) for place in range(len(sums[0][0]))]
