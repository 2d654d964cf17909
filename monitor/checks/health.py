"""Data health per feature: missing, never seen, out of range, not finite, wrong type, absent; and names that nobody expects."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from monitor.chance.counts import wilson_upper
from monitor.features import NumberFeature
from monitor.findings import CheckInfo, Compared, CountTest, Evidence, Measurement
from monitor.ratios import MIN_ROWS, excess, extremes, ratio
from monitor.segments import ALL

HAD_IT_RATIO = 0.1
"""A feature that fewer of the reference's rows had is a sparse one: its absence is nothing new."""

_FISHER = "Fisher's exact test, one-sided"

TABLE = (
    CheckInfo(
        "health.missing",
        "share of rows where the feature is null or absent, less the reference's share",
        _FISHER,
        MIN_ROWS,
        "TFDV FEATURE_TYPE_LOW_FRACTION_PRESENT, Deequ hasCompleteness, SageMaker completeness_check",
    ),
    CheckInfo(
        "health.incomplete",
        "share of rows where the feature is null or absent, less the upper Wilson bound of the reference's share; above 0: "
        "the reference's own completeness no longer holds",
        _FISHER,
        MIN_ROWS,
        "Deequ RetainCompleteness",
    ),
    CheckInfo(
        "health.never_seen",
        "share of values that the reference does not have (categories)",
        _FISHER,
        MIN_ROWS,
        "TFDV ENUM_TYPE_UNEXPECTED_STRING_VALUES, Deequ isContainedIn, SageMaker categorical_values_check",
    ),
    CheckInfo(
        "health.out_of_range",
        "share of values outside the reference's range (numbers)",
        "a bound for any distribution: (k + 1)·C(n, k)/C(n + m, k)",
        MIN_ROWS,
        "TFDV FLOAT_TYPE_BIG_FLOAT, INT_TYPE_SMALL_INT and kin, Deequ isContainedIn (range), Evidently NumColumnsOutOfRangeValues",
    ),
    CheckInfo(
        "health.below_min",
        "share of values below the reference's minimum",
        "exact but for ties: C(n, k)/C(n + m, k)",
        MIN_ROWS,
        "TFDV FLOAT_TYPE_SMALL_FLOAT, INT_TYPE_SMALL_INT, Deequ hasMin",
    ),
    CheckInfo(
        "health.above_max",
        "share of values above the reference's maximum",
        "exact but for ties: C(n, k)/C(n + m, k)",
        MIN_ROWS,
        "TFDV FLOAT_TYPE_BIG_FLOAT, INT_TYPE_BIG_INT, Deequ hasMax",
    ),
    CheckInfo("health.nan", "share of rows with NaN, less the reference's share", _FISHER, MIN_ROWS, "TFDV FLOAT_TYPE_HAS_NAN"),
    CheckInfo(
        "health.infinite",
        "share of rows with an infinite value, less the reference's share",
        _FISHER,
        MIN_ROWS,
        "TFDV FLOAT_TYPE_HAS_INF",
    ),
    CheckInfo(
        "schema.wrong_type",
        "share of rows whose value has another type than the reference's",
        "",
        MIN_ROWS,
        "TFDV INT_TYPE_EXPECTED, STRING_TYPE_NOW_INT, UNEXPECTED_DATA_TYPE and kin, Deequ hasDataType, SageMaker data_type_check",
    ),
    CheckInfo(
        "schema.missing_feature",
        f"share of events that do not have the feature; 0 where fewer than {HAD_IT_RATIO:.0%} of the reference's rows had it",
        _FISHER,
        MIN_ROWS,
        "TFDV SCHEMA_MISSING_COLUMN, FEATURE_TYPE_NOT_PRESENT, Deequ hasColumn, SageMaker missing_column_check",
    ),
    CheckInfo(
        "schema.unexpected_feature",
        "share of inspected rows (every 64th offset) with the most frequent name that the reference does not have",
        "",
        1,
        "TFDV SCHEMA_NEW_COLUMN, SageMaker extra_column_check",
    ),
)


def health(evidence: Evidence) -> Iterator[Measurement]:
    """Yield the ratios of bad values, each with its value in the reference.

    What is missing, absent or of a wrong type is told once per feature of the event: by its primary view.
    """
    rows, rows_ref = evidence.n, evidence.n_ref
    for name, compared in evidence.features.items():
        window, reference = compared.window, compared.reference
        if not compared.feature.is_secondary:
            yield _missing(name, compared, rows, rows_ref)
            yield _incomplete(name, compared, rows, rows_ref)
            yield ratio("schema.wrong_type", name, window.wrong_type, rows, rows_ref)
            yield _absent(name, compared, rows, rows_ref)
        if isinstance(compared.feature, NumberFeature):
            yield _out_of_range(name, compared)
            yield _beyond("health.below_min", name, compared, compared.below_min)
            yield _beyond("health.above_max", name, compared, compared.above_max)
            yield excess("health.nan", name, CountTest(window.nan, rows, reference.nan, rows_ref, "excess"))
            yield excess("health.infinite", name, CountTest(window.infinite, rows, reference.infinite, rows_ref, "excess"))
        if not isinstance(compared.feature, NumberFeature) or compared.feature.is_integral:
            yield _never_seen(name, compared)
    yield from _unexpected(evidence)


def _missing(name: str, compared: Compared, rows: int, rows_ref: int) -> Measurement:
    """Return by how much the missing ratio exceeds the reference's; what it allows is no more critical than what chance explains."""
    missing, missing_ref = compared.window.missing, compared.reference.missing
    ratio_ref = missing_ref / rows_ref if rows_ref else 0.0
    facts = {"rows": missing, "missing_ratio": missing / rows if rows else 0.0, "missing_ratio_ref": ratio_ref}
    measured = excess("health.missing", name, CountTest(missing, rows, missing_ref, rows_ref, "excess"), ratio_ref, facts)
    allowed = compared.feature.max_missing_ratio
    if allowed is None or measured.critical_value is None:
        return measured
    return replace(
        measured,
        critical_value=max(measured.critical_value, allowed - ratio_ref),
        evidence=facts | {"max_missing_ratio": allowed},
    )


def _incomplete(name: str, compared: Compared, rows: int, rows_ref: int) -> Measurement:
    missing, missing_ref = compared.window.missing, compared.reference.missing
    bound = wilson_upper(missing_ref, rows_ref)
    facts = {"rows": missing, "missing_ratio": missing / rows if rows else 0.0, "missing_ratio_bound": bound}
    return excess("health.incomplete", name, CountTest(missing, rows, missing_ref, rows_ref, "excess"), bound, facts)


def _absent(name: str, compared: Compared, rows: int, rows_ref: int) -> Measurement:
    had_it = compared.reference.n >= HAD_IT_RATIO * rows_ref > 0
    absent = compared.window.absent if had_it else 0
    test = CountTest(absent, rows, compared.reference.missing, rows_ref, "excess")
    return excess("schema.missing_feature", name, test, 0.0, {"rows": absent})


def _never_seen(name: str, compared: Compared) -> Measurement:
    """Return the share of values that the reference does not have; of an integer, of fractional values."""
    window, reference = compared.window, compared.reference
    test = CountTest(window.never_seen, window.n, reference.never_seen, reference.n, "excess")
    return excess("health.never_seen", name, test, 0.0, {"rows": window.never_seen})


def _out_of_range(name: str, compared: Compared) -> Measurement:
    k = compared.below_min + compared.above_max
    facts = {"rows": k, "below_min": compared.below_min, "above_max": compared.above_max}
    return extremes("health.out_of_range", name, _outside(compared, k, sides=2), facts)


def _beyond(check: str, name: str, compared: Compared, k: int) -> Measurement:
    return extremes(check, name, _outside(compared, k, sides=1))


def _outside(compared: Compared, k: int, sides: int) -> CountTest:
    return CountTest(k, compared.window.n, 0, compared.reference.n, "extremes", sides)


def _unexpected(evidence: Evidence) -> Iterator[Measurement]:
    profile = evidence.closed.profile
    if evidence.closed.reference is None or evidence.segment != ALL:
        return
    left_out = evidence.closed.reference.record.left_out or ()
    names = {name: rows for name, rows in sorted(profile.unexpected.items()) if name not in left_out}
    measured = ratio("schema.unexpected_feature", "", max(names.values(), default=0), profile.inspected)
    yield replace(measured, min_n=1, evidence={"rows_inspected": profile.inspected, "names": names})  # a name seen is a fact
