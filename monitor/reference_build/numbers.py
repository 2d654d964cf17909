"""The layout of a numeric feature: which cells, from exact order statistics of the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monitor.cells import NOTHING_SAID, Ends, FeatureOptions, Shape, atom_rows, fine_ranks, number_layout, rank
from monitor.features import NumberFeature
from monitor.reference_build.spool import SORT_BYTES, Spool
from monitor.sketches.moments import exact_sums, mean_std, scale_of


def number_feature(name: str, spool: Path, sort_bytes: int = SORT_BYTES, options: FeatureOptions = NOTHING_SAID) -> NumberFeature:
    """Return the layout of a feature from its n ≥ 1 finite values, a file of float64 in any order.

    Edges are the inverted-CDF quantiles at i/10 (values of the reference) and at cells.fine_ranks, the smallest value, a singleton cell
    for every atom, both ends of the range and tails (cells.number_layout). The range is at least the configured one, whatever the values.

    `reported` are the deciles, duplicates removed; where one is the maximum, the last reported cell holds no row of the reference.
    """
    values = Spool(spool, sort_bytes)
    n = values.n
    lowest, highest, first_quartile, third_quartile, *deciles = values.at(
        [0, n - 1, rank(n, 1, 4), rank(n, 3, 4), *(rank(n, i, 10) for i in range(1, 10))]
    ).tolist()
    quantiles = values.at(fine_ranks(n))
    mean, std = _moments(values, lowest, highest)
    candidates = np.unique([lowest, highest, *deciles, *quantiles.tolist()])
    atoms = candidates[values.counts_of(candidates) >= atom_rows(n)].tolist()
    shape = Shape(lowest, highest, third_quartile - first_quartile, mean, std).widened(options)
    return number_layout(name, shape, Ends(quantiles, deciles, [lowest], atoms), values.successors)


def _moments(values: Spool, low: float, high: float) -> tuple[float, float]:
    """Return mean and standard deviation, to 2^−36 of the range, the same for any order of the values."""
    centre, exponent = scale_of(low / 2 + high / 2, high / 2 - low / 2)
    first = second = 0
    for chunk in values.chunks():
        more, more_squared = exact_sums(chunk, centre, exponent)
        first, second = first + more, second + more_squared
    mean, std = mean_std(values.n, first, second, centre, exponent)
    return min(max(mean, low), high), std
