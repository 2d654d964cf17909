"""Distances between each feature's distribution and its reference's."""

from __future__ import annotations

from collections.abc import Iterator

from monitor.distances import DISTANCES
from monitor.findings import Evidence, Measurement

MIN_ROWS = 100
"""Below, a distance says nothing (docs: what every number means)."""


def drift(evidence: Evidence) -> Iterator[Measurement]:
    """Yield `drift.<distance>` per feature, with the critical value at n, m and k."""
    for name, compared in evidence.features.items():
        n, m = compared.window.n, compared.reference.n
        for distance in DISTANCES:
            if distance.critical is None or not m:
                continue
            yield Measurement(
                check=f"drift.{distance.name}",
                feature=name,
                value=evidence.distances.get(name, {}).get(distance.name, 0.0),
                n=n,
                n_ref=m,
                critical_value=distance.critical(n, m, len(compared.cells[0])) if n else None,
                min_n=MIN_ROWS,
            )
