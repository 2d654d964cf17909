"""How many different values a category has, against what as many rows of its reference would have.

Calibrated for rows that are drawn independently: the reference's counts bound the expected number from both sides, and chance is allowed
for. Not calibrated where rows come in bursts: five rows per customer in an hour give a fifth of the customers that independent rows
would. The default rule therefore minds factors of eight only: an identifier that becomes a constant, a category that becomes free text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from monitor.chance.counts import normal_quantile
from monitor.columns import Float
from monitor.findings import Compared, Evidence, Measurement
from monitor.profiles import FeatureSummary
from monitor.sketches.hyperloglog import RELATIVE_STANDARD_ERROR

MIN_ROWS = 100
"""Below, the number of different values says little."""


class Expected(NamedTuple):
    """Bounds of the expected number of different values, and of its variance."""

    low: float
    high: float
    variance: float


def cardinality(evidence: Evidence) -> Iterator[Measurement]:
    """Yield `health.cardinality` per category: doublings (log2) by which it leaves the expected range, 0 inside."""
    for name, compared in evidence.features.items():
        if compared.feature_kind == "category" and compared.reference.n and compared.reference.distinct is not None:
            yield _measure(name, compared, compared.reference.distinct)


def _measure(name: str, compared: Compared, distinct_ref: int) -> Measurement:
    window, n_ref = compared.window, compared.reference.n
    if not window.n or window.distinct is None:  # unknown: a part was counted by a version that did not count values
        return Measurement("health.cardinality", name, 0.0, 0, n_ref, min_n=MIN_ROWS)
    distinct = max(window.distinct, 1)
    bounds = expected(window.n, compared.reference, distinct_ref)
    counted = RELATIVE_STANDARD_ERROR * (distinct - int(np.count_nonzero(window.values[:-1])))
    slack = normal_quantile() * math.sqrt(bounds.variance + counted**2)
    if distinct > bounds.high:
        value, critical = math.log2(distinct / bounds.high), math.log2(1 + slack / bounds.high)
    else:
        value = max(0.0, math.log2(bounds.low / distinct))
        critical = math.log2(bounds.low / max(bounds.low - slack, min(bounds.low, 0.5)))
    facts = {"distinct": distinct, "expected_low": bounds.low, "expected_high": bounds.high, "distinct_ref": distinct_ref}
    return Measurement("health.cardinality", name, value, window.n, n_ref, critical, min_n=MIN_ROWS, evidence=facts)


def expected(n: int, reference: FeatureSummary, distinct_ref: int) -> Expected:
    """Return what n rows drawn from a reference with `distinct_ref` different values would have.

    Of a value with c of m rows, n rows have one with probability 1 − (1 − c/m)^n. Of the values beyond the dictionary only their rows
    and their number are known: fewest come where some are as frequent as the rarest of the dictionary and the others came once, most
    where all are equally frequent. Values that even the reference does not have may come with the share of those that it had once, and
    one more (Good, 1953).
    """
    m = reference.n
    counts = reference.values[:-1][reference.values[:-1] > 0]
    chances = _chance(n, counts / m)
    rows = int(reference.values[-1]) + reference.never_seen
    beyond = min(distinct_ref - len(counts), rows)
    fewest = most = once = 0.0
    if beyond > 0:
        rarest = max(float(counts.min(initial=m)), math.ceil(rows / beyond))
        frequent = (rows - beyond) / (rarest - 1) if rarest > 1 else 0.0
        once = beyond - frequent
        fewest = frequent * _one_chance(n, rarest / m) + once * _one_chance(n, 1 / m)
        most = beyond * _one_chance(n, rows / beyond / m)
    new = n * (once + int(np.count_nonzero(counts == 1)) + 1) / m
    low = float(chances.sum()) + fewest
    high = min(float(n), float(chances.sum()) + most + new)
    counted = RELATIVE_STANDARD_ERROR * most  # how many are beyond was estimated too
    return Expected(low, high, float((chances * (1 - chances)).sum()) + most + new + counted**2)


def _chance(n: int, shares: Float) -> Float:
    with np.errstate(divide="ignore"):
        chances: Float = -np.expm1(n * np.log1p(-shares))
    return chances


def _one_chance(n: int, share: float) -> float:
    return -math.expm1(n * math.log1p(-share)) if share < 1 else 1.0
