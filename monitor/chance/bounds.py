"""How far chance carries what a reference of finite size shows."""

from __future__ import annotations

import math

from monitor.chance.counts import wilson_upper

_MILLION = 1_000_000


def most_missing(missing: int, rows: int) -> float:
    """Return the largest missing ratio that such a reference may come from: the upper end of Wilson's interval, 99.9 % one-sided.

    In (0, 1], rounded up to the sixth decimal. The observed ratio is no bound: none missing of 1,000 rows still allows 0.95 %.
    Source: Wilson, J. Am. Stat. Assoc. 22 (1927), 209.

    >>> most_missing(0, 1_000), most_missing(300, 1_000), most_missing(5, 5)
    (0.00946, 0.346502, 1.0)
    """
    return min(1.0, math.ceil(wilson_upper(missing, rows) * _MILLION) / _MILLION)
