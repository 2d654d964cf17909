"""Distances between each feature's distribution and its reference's."""

from __future__ import annotations

from collections.abc import Iterator

from monitor.distances import DISTANCES, Distance
from monitor.findings import Compared, Evidence, Measurement

MIN_ROWS = 100
"""Below, a distance says nothing (docs: what every number means)."""


def drift(evidence: Evidence) -> Iterator[Measurement]:
    """Yield `drift.<distance>` per feature, with the critical value at n, m and k."""
    for name, compared in evidence.features.items():
        for distance in DISTANCES:
            if distance.critical is not None and compared.feature_kind in distance.kinds and compared.reference.n:
                value = evidence.distances.get(name, {}).get(distance.name, 0.0)
                yield _measure(name, compared, distance, value)


def _measure(name: str, compared: Compared, distance: Distance, value: float) -> Measurement:
    n, m, k = compared.window.n, compared.reference.n, len(compared.cells[0])
    critical = distance.critical(n, m, k) if distance.critical and n else None
    return Measurement(
        check=f"drift.{distance.name}",
        feature=name,
        value=value,
        n=n,
        n_ref=m,
        critical_value=critical,
        p_value=distance.p_value(value, n, m, k) if critical is not None and value > critical else None,
        min_n=MIN_ROWS,
        evidence={"cells": k},
    )
