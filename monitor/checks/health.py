"""Data health per feature: missing, never seen, out of range, wrong type, absent; and names that nobody expects."""

from __future__ import annotations

from collections.abc import Iterator

from monitor.chance import critical_excess, critical_extremes, excess_p, extremes_p
from monitor.findings import Compared, Evidence, Measurement
from monitor.layout import NumberFeature

MIN_ROWS = 30
"""Below, a ratio says nothing."""

HAD_IT_RATIO = 0.1
"""A feature that fewer of the reference's rows had is a sparse one: its absence is nothing new."""


def health(evidence: Evidence) -> Iterator[Measurement]:
    """Yield the ratios of bad values, each with its value in the reference.

    What is missing, absent or of a wrong type is told once per feature of the event: by its primary view.
    """
    rows = evidence.closed.profile.n
    for name, compared in evidence.features.items():
        rows_ref = evidence.closed.reference.profile.n if evidence.closed.reference else 0
        if not compared.feature.is_secondary:
            yield _missing(name, compared, rows, rows_ref)
            yield _ratio("schema.wrong_type", name, compared.window.wrong_type, rows, rows_ref)
            yield _absent(name, compared, rows, rows_ref)
        if isinstance(compared.feature, NumberFeature):
            yield _out_of_range(name, compared)
        if not isinstance(compared.feature, NumberFeature) or compared.feature.is_integral:
            yield _never_seen(name, compared)
    yield from _unexpected(evidence)


def _ratio(check: str, feature: str, bad: int, n: int, n_ref: int) -> Measurement:
    value = bad / n if n else 0.0
    return Measurement(check, feature, value, n, n_ref, min_n=MIN_ROWS, evidence={"rows": bad})


def _missing(name: str, compared: Compared, rows: int, rows_ref: int) -> Measurement:
    """Return by how much the missing ratio exceeds the reference's; p: Fisher's exact test, one-sided.

    What the reference allows (`max_missing_ratio`) is no more critical than what chance explains.
    """
    missing, missing_ref = compared.window.missing, compared.reference.missing
    ratio_ref = missing_ref / rows_ref if rows_ref else 0.0
    measured = _ratio("health.missing", name, missing, rows, rows_ref)
    facts = {"rows": missing, "missing_ratio": measured.value, "missing_ratio_ref": ratio_ref}
    measured = measured._replace(value=measured.value - ratio_ref, evidence=facts)
    measured = _with_excess(measured, missing, missing_ref, ratio_ref)
    allowed = compared.feature.max_missing_ratio
    if allowed is None or measured.critical_value is None:
        return measured
    return measured._replace(
        critical_value=max(measured.critical_value, allowed - ratio_ref), evidence=facts | {"max_missing_ratio": allowed}
    )


def _with_excess(measured: Measurement, bad: int, bad_ref: int, ratio_ref: float = 0.0) -> Measurement:
    """Add the largest value that chance still explains, and beyond it the exact p."""
    n, m = measured.n, measured.n_ref
    if not (n and m):
        return measured
    enough = critical_excess(n, bad_ref, m)
    p_value = excess_p(bad, n, bad_ref, m) if bad >= enough else None
    return measured._replace(critical_value=(enough - 1) / n - ratio_ref, p_value=p_value)


def _absent(name: str, compared: Compared, rows: int, rows_ref: int) -> Measurement:
    """Return the share of events without the feature, where the reference's data had it."""
    had_it = compared.reference.n >= HAD_IT_RATIO * rows_ref > 0
    absent = compared.window.absent if had_it else 0
    measured = _ratio("schema.missing_feature", name, absent, rows, rows_ref)
    return _with_excess(measured, absent, compared.reference.missing)


def _never_seen(name: str, compared: Compared) -> Measurement:
    """Return the share of values that the reference does not have; of an integer, of fractional values."""
    bad, bad_ref = compared.window.never_seen, compared.reference.never_seen
    measured = _ratio("health.never_seen", name, bad, compared.window.n, compared.reference.n)
    return _with_excess(measured, bad, bad_ref)


def _out_of_range(name: str, compared: Compared) -> Measurement:
    """Return the share of values outside the reference's range; p: a bound that holds for any distribution."""
    n, m, k = compared.window.n, compared.reference.n, compared.below_min + compared.above_max
    measured = _ratio("health.out_of_range", name, k, n, m)
    facts = {"rows": k, "below_min": compared.below_min, "above_max": compared.above_max}
    if not (n and m):
        return measured._replace(evidence=facts)
    enough = critical_extremes(n, m)
    p_value = extremes_p(k, n, m) if k else None
    return measured._replace(critical_value=(enough - 1) / n, p_value=p_value, evidence=facts)


def _unexpected(evidence: Evidence) -> Iterator[Measurement]:
    """Yield the share of inspected rows with the most frequent name that the reference does not have."""
    profile = evidence.closed.profile
    if evidence.closed.reference is None:
        return
    names = dict(sorted(profile.unexpected.items()))
    measured = _ratio("schema.unexpected_feature", "", max(names.values(), default=0), profile.inspected, 0)
    yield measured._replace(min_n=1, evidence={"rows_inspected": profile.inspected, "names": names})  # a name seen is a fact
