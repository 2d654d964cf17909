"""Distances between each feature's distribution and its reference's."""

from __future__ import annotations

from collections.abc import Iterator

from monitor.chance.laws import Sample, sample_of
from monitor.distances import Distance
from monitor.findings import Compared, Evidence, Measurement

MIN_ROWS = 100
"""Below, a distance says nothing (docs: what every number means)."""


def drift(evidence: Evidence) -> Iterator[Measurement]:
    """Yield `drift.<distance>` per feature and distance with a law, with the critical value at n, m and k."""
    with_law = [distance for distance in evidence.registry if distance.law is not None]
    for name, compared in evidence.features.items():
        if compared.reference.n:
            samples, values = _samples(compared), evidence.distances.get(name, {})
            for distance in with_law:
                if compared.feature_kind in distance.kinds:
                    yield _measure(name, samples[distance.cells], distance, values.get(distance.name, 0.0))


def _samples(compared: Compared) -> dict[str, Sample]:
    reported = sample_of(*compared.cells)
    return {"reported": reported, "fine": reported._replace(k=len(compared.window.values))}


def _measure(feature: str, sample: Sample, distance: Distance, value: float) -> Measurement:
    assert distance.law is not None
    critical = distance.law.critical(sample) if sample.n else None
    return Measurement(
        check=distance.check,
        feature=feature,
        value=value,
        n=sample.n,
        n_ref=sample.m,
        critical_value=critical,
        p_value=distance.law.p_value(value, sample) if critical is not None and value > critical else None,
        min_n=MIN_ROWS,
        evidence={"cells": sample.k},
    )
