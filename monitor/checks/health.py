"""Data health per feature: missing, never seen, out of range, wrong type, absent; and names that nobody expects."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from monitor.findings import Compared, Evidence, Measurement
from monitor.layout import CategoryFeature, NumberFeature

MIN_ROWS = 30
"""Below, a ratio says nothing."""

_Z = 3.0902323061678132
"""Standard normal quantile of 1 − 0.001."""


def health(evidence: Evidence) -> Iterator[Measurement]:
    """Yield the ratios of bad values, each with its value in the reference."""
    rows = evidence.closed.profile.n
    for name, compared in evidence.features.items():
        rows_ref = evidence.closed.reference.profile.n if evidence.closed.reference else 0
        yield _missing(name, compared, rows, rows_ref)
        yield _ratio("schema.wrong_type", name, compared.window.wrong_type, rows, rows_ref)
        yield _absent(name, compared, rows, rows_ref)
        if isinstance(compared.feature, CategoryFeature):
            yield _ratio("health.never_seen", name, compared.window.never_seen, compared.window.n, compared.reference.n)
        else:
            yield _out_of_range(name, compared)
    yield from _unexpected(evidence)


def _ratio(check: str, feature: str, bad: int, n: int, n_ref: int, **evidence: object) -> Measurement:
    value = bad / n if n else 0.0
    return Measurement(check, feature, value, n, n_ref, min_n=MIN_ROWS, evidence={"rows": bad, **evidence})


def _missing(name: str, compared: Compared, rows: int, rows_ref: int) -> Measurement:
    """Return by how much the missing ratio exceeds the reference's; critical: the two-proportion z test, one-sided, pooled."""
    missing, missing_ref = compared.window.missing, compared.reference.missing
    ratio = missing / rows if rows else 0.0
    ratio_ref = missing_ref / rows_ref if rows_ref else 0.0
    critical = None
    if rows and rows_ref:
        pooled = (missing + missing_ref + 1) / (rows + rows_ref + 2)
        critical = _Z * math.sqrt(pooled * (1 - pooled) * (1 / rows + 1 / rows_ref))
    facts = {"rows": missing, "missing_ratio": ratio, "missing_ratio_ref": ratio_ref}
    return Measurement("health.missing", name, ratio - ratio_ref, rows, rows_ref, critical, min_n=MIN_ROWS, evidence=facts)


def _absent(name: str, compared: Compared, rows: int, rows_ref: int) -> Measurement:
    """Return the share of events without the feature, where the reference's data had it."""
    had_it = rows_ref > 0 and compared.reference.absent < rows_ref / 2
    return _ratio("schema.missing_feature", name, compared.window.absent if had_it else 0, rows, rows_ref)


def below_above(compared: Compared) -> tuple[int, int]:
    """Return the rows below the reference's minimum and above its maximum; exact, both are cell borders."""
    feature = compared.feature
    if not isinstance(feature, NumberFeature):
        return 0, 0
    edges = np.array(feature.edges)
    below = int(np.searchsorted(edges, math.nextafter(feature.minimum, -math.inf), side="right"))
    above = int(np.searchsorted(edges, feature.maximum, side="left")) + 1
    return int(compared.window.values[:below].sum()), int(compared.window.values[above:].sum())


def _out_of_range(name: str, compared: Compared) -> Measurement:
    """Return the share of values outside the reference's range; p: all of k extremes of n + m fall into the window."""
    below, above = below_above(compared)
    n, m, k = compared.window.n, compared.reference.n, below + above
    p_value = None
    if k and m:
        log_p = math.lgamma(n + 1) - math.lgamma(n - k + 1) - math.lgamma(n + m + 1) + math.lgamma(n + m - k + 1)
        p_value = math.exp(log_p)
    measured = _ratio("health.out_of_range", name, k, n, m, below_min=below, above_max=above)
    return measured._replace(p_value=p_value)


def _unexpected(evidence: Evidence) -> Iterator[Measurement]:
    """Yield the share of inspected rows with the most frequent name that the reference does not have."""
    profile = evidence.closed.profile
    if evidence.closed.reference is None or not profile.inspected:
        return
    names = dict(sorted(profile.unexpected.items()))
    value = max(names.values(), default=0) / profile.inspected
    facts = {"rows_inspected": profile.inspected, "names": names}
    yield Measurement("schema.unexpected_feature", "", value, profile.n, 0, min_n=MIN_ROWS, evidence=facts)
