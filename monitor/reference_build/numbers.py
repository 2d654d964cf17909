"""The layout of a numeric feature: which cells, from exact order statistics of the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monitor.cells import ATOM_SHARE, Shape, fine_ranks, number_layout, rank
from monitor.layout import NumberFeature
from monitor.reference_build.spool import SORT_BYTES, Spool
from monitor.sketches.moments import exact_sums, mean_std, scale_of


def number_feature(name: str, spool: Path, sort_bytes: int = SORT_BYTES) -> NumberFeature:
    """Return the layout of a feature from its n ≥ 1 finite values, a file of float64 in any order.

    Edges are the inverted-CDF quantiles at cells.fine_ranks and at i/10 (values of the reference), a singleton cell for every atom, both
    ends of the range and tails (cells.number_layout).

    `reported` are the deciles, duplicates removed; where one is the maximum, the last reported cell holds no row of the reference.
    """
    values = Spool(spool, sort_bytes)
    n = values.n
    ranks = [0, n - 1, rank(n, 1, 4), rank(n, 3, 4), *fine_ranks(n)]
    fine = values.at(ranks)
    deciles = values.at([rank(n, i, 10) for i in range(1, 10)])
    low, high, first_quartile, third_quartile = fine[:4].tolist()
    mean, std = _moments(values, low, high)
    candidates = np.unique(np.concatenate((fine, deciles)))
    atoms = candidates[values.counts_of(candidates) >= ATOM_SHARE * n]
    shape = Shape(low, high, third_quartile - first_quartile, mean, std)
    return number_layout(name, shape, candidates.tolist(), deciles.tolist(), atoms.tolist())


def _moments(values: Spool, low: float, high: float) -> tuple[float, float]:
    """Return mean and standard deviation, to 2^−36 of the range, the same for any order of the values."""
    centre, exponent = scale_of(low / 2 + high / 2, high / 2 - low / 2)
    first = second = 0
    for chunk in values.chunks():
        more, more_squared = exact_sums(chunk, centre, exponent)
        first, second = first + more, second + more_squared
    mean, std = mean_std(values.n, first, second, centre, exponent)
    return min(max(mean, low), high), std
