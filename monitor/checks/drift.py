"""Distances between each feature's distribution and its reference's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from monitor.chance.laws import Sample, sample_of
from monitor.distances import Distance
from monitor.findings import Evidence, Measurement

MIN_ROWS = 100
"""Below, a distance says nothing (docs: what every number means)."""


def drift(evidence: Evidence) -> Iterator[Measurement]:
    """Yield `drift.<distance>` per distance with a law and feature, with the critical value at n, m and k."""
    compared = {name: one for name, one in evidence.features.items() if one.reference.n}
    if not compared:
        return
    names = list(compared)
    reported = sample_of([one.cells for one in compared.values()])
    samples = {"reported": reported, "fine": reported._replace(k=np.array([len(one.window.values) for one in compared.values()]))}
    kinds = [one.feature_kind for one in compared.values()]
    for distance in evidence.registry:
        if distance.law is not None:
            places = np.array([i for i, kind in enumerate(kinds) if kind in distance.kinds], np.int64)
            yield from _measure(distance, evidence, [names[i] for i in places.tolist()], samples[distance.cells].of(places))


def _measure(distance: Distance, evidence: Evidence, names: Sequence[str], sample: Sample) -> Iterator[Measurement]:
    assert distance.law is not None
    values = [evidence.distances.get(name, {}).get(distance.name, 0.0) for name in names]
    some = sample._replace(n=np.maximum(sample.n, 1))
    columns = (sample.n, sample.m, sample.k, distance.law.critical(some), distance.law.p_value(np.array(values), some))
    for name, value, n, m, k, critical, p_value in zip(names, values, *(np.asarray(c).tolist() for c in columns), strict=True):
        yield Measurement(
            distance.check,
            name,
            value,
            n,
            m,
            critical if n else None,
            p_value if n and value > critical else None,
            MIN_ROWS,
            evidence={"cells": k},
        )
