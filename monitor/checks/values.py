"""How a feature's values behave next to the reference's: frozen, one value too frequent, zeros, negatives, mean, spread, sum."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from msgspec.structs import replace

from monitor.chance.counts import ALPHA, normal_p, normal_quantile
from monitor.columns import Float
from monitor.features import OTHER, CategoryFeature, NumberFeature
from monitor.findings import CheckInfo, Compared, CountTest, Evidence, Measurement
from monitor.ratios import MIN_ROWS, excess, extremes

MIN_MOMENT_ROWS = 100
"""Below, the normal law says too little of a mean or a spread."""

_BELOW_ZERO = math.nextafter(0.0, -math.inf)

TABLE = (
    CheckInfo(
        "health.constant",
        "1 where all values are the same while the reference's vary, else 0",
        "Σ pⁿ over the reference's cells: an upper bound, its shares p taken as true",
        MIN_ROWS,
        "Evidently AllConstantValues; a frozen sensor or a stuck default",
    ),
    CheckInfo(
        "health.top_share",
        "share of the most common value (of a number: of the fullest fine cell), less the same value's share in the reference",
        "Fisher's exact test, one-sided, Bonferroni over the cells",
        MIN_ROWS,
        "Evidently MostCommonValueShare, TFDV distribution_constraints",
    ),
    CheckInfo(
        "health.zeros",
        "share of zeros, less the reference's share; where 0 has a cell of its own: the reference's minimum, or 1/128 of its rows",
        "Fisher's exact test, one-sided",
        MIN_ROWS,
        "Deequ hasZerosCount",
    ),
    CheckInfo(
        "health.negative",
        "share of values below zero, of a feature that the reference has none of (upper bound unless `exact`)",
        "exact but for ties: C(n, k)/C(n + m, k)",
        MIN_ROWS,
        "Deequ isNonNegative, SageMaker is_non_negative",
    ),
    CheckInfo(
        "health.boolean_share",
        "distance between the shares of true (booleans)",
        "Fisher's exact test, both sides at half of α",
        MIN_ROWS,
        "TFDV BOOL_TYPE_*, whylogs condition counts",
    ),
    CheckInfo(
        "health.mean",
        "distance between the means, in standard deviations of the reference",
        "normal law with both variances (Welch): approximate, better the larger n",
        MIN_MOMENT_ROWS,
        "Deequ hasMean, Evidently MeanInNSigmas",
    ),
    CheckInfo(
        "health.std",
        "relative distance between the standard deviations",
        "normal law with the kurtosis of the reference's fine cells: approximate, up to a third too careful",
        MIN_MOMENT_ROWS,
        "Deequ hasStandardDeviation, hasVariance",
    ),
    CheckInfo("health.sum", "sum of the values, in the feature's unit", "", 1, "Deequ hasSum"),
)


def values(evidence: Evidence) -> Iterator[Measurement]:
    """Yield what can be said of each feature that both sides have values of."""
    for name, compared in evidence.features.items():
        if not (compared.window.n and compared.reference.n):
            continue
        yield from _constant(name, compared)
        yield _top_share(name, compared)
        if isinstance(compared.feature, NumberFeature):
            yield from _zeros(name, compared, compared.feature)
            yield from _negative(name, compared, compared.feature)
            yield from _moments(name, compared, compared.feature)
        elif compared.feature.value_type == "boolean":
            yield _boolean_share(name, compared, compared.feature)


def _constant(name: str, compared: Compared) -> Iterator[Measurement]:
    """Only of a feature that varies in the reference."""
    window, reference = compared.window, compared.reference
    if isinstance(compared.feature, NumberFeature):
        varies, is_constant, cells = reference.minimum != reference.maximum, window.minimum == window.maximum, reference.values
    else:
        varies = bool(np.count_nonzero(compared.cells[0]) > 1)
        is_constant = bool(np.count_nonzero(compared.cells[1]) == 1 and not window.values[-1])  # `other` may be many values
        cells = compared.cells[0]
    if not varies:
        return
    measured = Measurement("health.constant", name, float(is_constant), window.n, reference.n, min_n=MIN_ROWS)
    if is_constant:
        p_value = float(np.sum((cells / reference.n) ** window.n))
        limit = 0.0 if p_value <= ALPHA else 1.0
        measured = replace(measured, critical_value=limit, p_value=p_value, evidence={"value": _only_value(compared)})
    yield measured


def _only_value(compared: Compared) -> Any:
    if isinstance(compared.feature, NumberFeature):
        return compared.window.minimum
    return _cell_name(compared, int(np.argmax(compared.cells[1])))


def _top_share(name: str, compared: Compared) -> Measurement:
    window, reference = compared.window, compared.reference
    if isinstance(compared.feature, NumberFeature):
        now, before = window.values, reference.values
    else:
        before, now = compared.cells
    top = int(np.argmax(now))
    k, k_ref, cells = int(now[top]), int(before[top]), int(np.count_nonzero(now + before))
    facts = {"rows": k, "share": k / window.n, "share_ref": k_ref / reference.n, "value": _cell_name(compared, top)}
    return excess("health.top_share", name, CountTest(k, window.n, k_ref, reference.n, "excess", max(cells, 1)), evidence=facts)


def _cell_name(compared: Compared, cell: int) -> str | None:
    """Return a value of the dictionary, `(other)`, the interval of a fine cell, or None for a value never seen."""
    feature = compared.feature
    if isinstance(feature, CategoryFeature):
        has_other = len(compared.cells[0]) > len(feature.values) and (compared.window.values[-1] or compared.reference.values[-1])
        if cell < len(feature.values):
            return feature.values[cell]
        return f"({OTHER})" if has_other and cell == len(feature.values) else None
    low = feature.edges[cell - 1] if cell else -math.inf
    high = feature.edges[cell] if cell < len(feature.edges) else math.inf
    return f"({low:.12g}, {high:.12g}]"


def _zeros(name: str, compared: Compared, feature: NumberFeature) -> Iterator[Measurement]:
    edges = np.asarray(feature.edges)
    at = int(edges.searchsorted(0.0))
    if 0 < at < len(edges) and edges[at] == 0 and edges[at - 1] == _BELOW_ZERO:
        window, reference = compared.window, compared.reference
        test = CountTest(int(window.values[at]), window.n, int(reference.values[at]), reference.n, "excess")
        yield excess("health.zeros", name, test)


def _negative(name: str, compared: Compared, feature: NumberFeature) -> Iterator[Measurement]:
    if feature.minimum < 0:
        return
    window, edges = compared.window, np.asarray(feature.edges)
    surely = int(edges.searchsorted(_BELOW_ZERO, side="right"))  # cells that end below zero
    is_exact = surely > 0 and bool(edges[surely - 1] == _BELOW_ZERO)
    has_some = window.minimum is not None and window.minimum < 0
    k = int(window.values[: surely + (not is_exact)].sum()) if has_some else 0
    facts = {"rows": k, "exact": is_exact or not has_some}
    yield extremes("health.negative", name, CountTest(k, window.n, 0, compared.reference.n, "extremes"), facts)


def _boolean_share(name: str, compared: Compared, feature: CategoryFeature) -> Measurement:
    true = feature.values.index("true") if "true" in feature.values else None
    sides = (compared.window, compared.reference)
    bad, bad_ref = (int(side.values[true]) if true is not None else side.never_seen for side in sides)
    n, m = (side.n for side in sides)
    share, share_ref = bad / n, bad_ref / m
    is_more = share >= share_ref
    if not is_more:  # as many too few are an excess of false
        bad, bad_ref = n - bad, m - bad_ref
    facts = {"share": share, "share_ref": share_ref}
    return excess("health.boolean_share", name, CountTest(bad, n, bad_ref, m, "excess", 2), evidence=facts)


def _moments(name: str, compared: Compared, feature: NumberFeature) -> Iterator[Measurement]:
    """Sum always; mean and spread where the reference varies."""
    window, reference = compared.window, compared.reference
    n, m = window.n, reference.n
    mean, std, mean_ref, std_ref = (float(x or 0.0) for x in (window.mean, window.std, reference.mean, reference.std))
    if math.isfinite(mean * n):
        yield Measurement("health.sum", name, mean * n, n, m, min_n=1, evidence={"mean": mean})
    if not (std_ref > 0 and all(map(math.isfinite, (mean, std, mean_ref, std_ref)))):
        return
    yield _mean(name, compared, (mean, std), (mean_ref, std_ref))
    yield _std(name, compared, feature, std, std_ref)


def _mean(name: str, compared: Compared, window: tuple[float, float], reference: tuple[float, float]) -> Measurement:
    (mean, std), (mean_ref, std_ref) = window, reference
    n, m = compared.window.n, compared.reference.n
    shift = _finite((mean - mean_ref) / std_ref)
    error = _finite(math.hypot(std / std_ref / math.sqrt(n), 1 / math.sqrt(m)))
    facts = {"mean": mean, "mean_ref": mean_ref, "std_ref": std_ref, "z": shift / error}
    limit = _finite(normal_quantile(ALPHA / 2) * error)
    return Measurement(
        "health.mean", name, abs(shift), n, m, limit, 2 * normal_p(abs(shift) / error), MIN_MOMENT_ROWS, evidence=facts
    )


def _std(name: str, compared: Compared, feature: NumberFeature, std: float, std_ref: float) -> Measurement:
    n, m = compared.window.n, compared.reference.n
    value = _finite(abs(std / std_ref - 1))
    error = math.sqrt((_kurtosis(feature, compared.reference.values.tobytes()) - 1) / 4 * (1 / n + 1 / m))
    p_value = 2 * normal_p(value / error) if error else None  # 0: two values, as often each; no law then
    limit = normal_quantile(ALPHA / 2) * error
    facts = {"std": std, "std_ref": std_ref}
    return Measurement("health.std", name, value, n, m, limit, p_value, MIN_MOMENT_ROWS, evidence=facts)


def _finite(value: float) -> float:
    """Return the nearest finite number: JSON has no other."""
    return min(max(value, -sys.float_info.max), sys.float_info.max)


@lru_cache(maxsize=4_096)
def _kurtosis(feature: NumberFeature, counts: bytes) -> float:
    """Return the kurtosis (normal: 3) of rows, each in the middle of its fine cell, int64 counts; at least 1, as of any distribution."""
    rows = np.frombuffer(counts, np.int64)
    edges = np.clip([-math.inf, *feature.edges, math.inf], feature.minimum, feature.maximum)
    middles: Float = edges[:-1] / 2 + edges[1:] / 2
    weights = rows / rows.sum()
    centred = middles - float(np.sum(weights * middles))
    largest = float(np.abs(centred).max())
    if not largest:
        return 3.0
    centred = centred / largest
    variance = float(np.sum(weights * centred**2))
    return max(1.0, float(np.sum(weights * centred**4)) / variance**2) if variance else 3.0
