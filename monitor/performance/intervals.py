"""95 % confidence intervals of what a window's outcomes estimate, from counts alone."""

from __future__ import annotations

import math
from typing import NamedTuple

Z = 1.959963984540054
"""97.5 % quantile of the normal law."""


class Estimate(NamedTuple):
    """A value and the ends of its 95 % confidence interval; None where no interval is known."""

    value: float
    low: float | None = None
    high: float | None = None


def wilson(hits: float, n: float) -> Estimate:
    """Return a share and Wilson's interval (1927); n > 0.

    >>> tuple(round(x, 4) for x in wilson(8, 10))
    (0.8, 0.4902, 0.9433)
    """
    share, square = hits / n, Z * Z
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = Z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return Estimate(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))
