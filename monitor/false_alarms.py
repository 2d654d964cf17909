"""How often the rules in force would alarm though nothing has changed: at most so many incidents in 30 days, by what chance does.

The reference is looked at by the live checks as if it were a window: what they measure of it is what rules judge. Rows are taken as
independent, windows of a tumbling kind too; findings that open together are one incident, so that the sum is an upper bound.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from msgspec.structs import replace

from monitor.chance.calibration import MIN_ROWS, SCALES
from monitor.chance.counts import ALPHA, excess_p, extremes_p, normal_p, normal_quantile
from monitor.chance.laws import sample_of
from monitor.checks import CHECKS, WHOLE_CHECKS
from monitor.checks.cardinality import expected
from monitor.decision import early
from monitor.decision.calibrated import count_weight, counts_alpha, distribution_alpha
from monitor.decision.distributions import Distributions
from monitor.decision.shape import CHECK
from monitor.distances import DISTANCES
from monitor.findings import ClosedWindow, Compared, Evidence, Measurement, gather
from monitor.policy import DEFAULT_POLICY, RuleSet, is_of_model
from monitor.reference import Reference
from monitor.rules import MONTH_MS, FalseAlarms, Rule
from monitor.segments import ALL
from monitor.windows import Window, WindowSpec

_LAWS = {distance.check: distance for distance in DISTANCES}
_EXCESS = ("health.missing", "health.incomplete", "health.nan", "health.infinite", "health.zeros")
"""Their value is a share of bad rows less the reference's."""
_SHARES = ("health.never_seen", "schema.missing_feature")
_EXTREMES = {"health.out_of_range": 2, "health.below_min": 1, "health.above_max": 1, "health.negative": 1}
_NORMAL = ("health.mean", "health.std")


class Expected(NamedTuple):
    """What one check's rules do on quiet data."""

    policy: str
    check: str
    model: str
    spec: WindowSpec
    n: int
    """Rows of a window."""
    measured: int
    """Features and segments that it is measured of."""
    per_month: float | None
    """Incidents in 30 days, at most; None: no law tells."""
    bare_ratio: float | None
    """Share of quiet windows in which one feature's value would be beyond the threshold, were it compared with that alone."""


class Measured(NamedTuple):
    """Everything that the checks measure of a reference, as if it were a window."""

    reference: Reference
    evidence: dict[str, Evidence]
    measurements: list[Measurement]


def measure(reference: Reference, rules: RuleSet) -> Measured:
    """Let the live checks look at a reference, in every segment that a rule is for."""
    times = reference.record.time_range_ms or (0, 1)
    size = max(1, times[1] - times[0])
    closed = ClosedWindow(
        reference.model, reference.version, Window(times[1], size, size), reference.profile, reference, 0, 0, 0, {}
    )
    evidence = {name: gather(closed, i) for i, name in enumerate(reference.layout.segments) if name == ALL or rules.minds(name)}
    found = [
        replace(measurement, segment=name)
        for name, of_segment in evidence.items()
        for check in (CHECKS + WHOLE_CHECKS if name == ALL else CHECKS)
        for measurement in check(of_segment)
    ]
    return Measured(reference, evidence, found + list(Distributions(closed, rules).measured(evidence, ())))


def rows_of(reference: Reference, spec: WindowSpec) -> int | None:
    """Return the rows of a window as the reference's own windows had them, or None where they are not known."""
    calibration = reference.record.calibration
    if calibration and calibration.size_ms:
        rows = [feature.rows[0] for feature in calibration.features.values() if feature.windows[0]]
        if rows:
            return max(1, round(max(rows) * spec.size_ms / calibration.size_ms))
    times = reference.record.time_range_ms
    if times is None or times[1] <= times[0]:
        return None
    return max(1, round(reference.record.rows * spec.size_ms / (times[1] - times[0])))


def expected_alarms(measured: Measured, rules: RuleSet, spec: WindowSpec, n: int, *, is_early: bool = False) -> list[Expected]:
    """Return, by policy and check, what quiet windows of n rows lead to in 30 days. is_early: they are looked at while they are open."""
    sums: dict[tuple[str, str], list[Expected]] = {}
    narrowed, model = rules.of(spec), measured.reference.model
    alphas = _alphas(measured, narrowed, spec)
    looks = _alphas_of_looks(measured, narrowed, spec) if is_early and n >= MIN_ROWS else {}
    for one in measured.measurements:
        for over in (1, *narrowed.overs(one.check, model, one.segment, one.feature)):
            rule = narrowed.rule(one.check, model, one.segment, one.feature, over)
            if rule is None:
                continue
            alpha = alphas.get((_family(one), rule.false_alarms or narrowed.false_alarms)) if over == 1 else None
            alpha = alpha * _weight(one) if alpha is not None else None
            chance, bare = _chance(measured, one, rule, n, ALPHA if alpha is None else alpha)
            month = None if chance is None else _openings(chance, rule, spec, is_alone=one.check != CHECK)
            if month is not None and over == 1 and one.check in early.LOOKED:
                month += MONTH_MS / spec.step_ms * looks.get(rule.false_alarms or narrowed.false_alarms, 0.0)
            name = rule.policy or DEFAULT_POLICY
            sums.setdefault((name, one.check), []).append(Expected(name, one.check, model, spec, n, 1, month, bare))
    for check in sorted(set(narrowed.by_check) - {one.check for one in measured.measurements}):
        rule = (
            narrowed.rule(check, model, ALL, "") if is_of_model(check) else None
        )  # of the stream, of which a reference knows nothing
        if rule is not None:
            name = rule.policy or DEFAULT_POLICY
            sums[name, check] = [Expected(name, check, model, spec, n, 1, None, None)]
    return [_sum(found) for _, found in sorted(sums.items())]


def _family(one: Measurement) -> Literal["distributions", "counts", "none"]:
    """Return with what a measurement is judged together."""
    return "distributions" if one.check == CHECK else "counts" if one.counted is not None else "none"


def _weight(one: Measurement) -> float:
    """Return what a measurement's hypothesis may spend next to others of its family."""
    return count_weight(one) if _family(one) == "counts" else 1.0


def _alphas(measured: Measured, rules: RuleSet, spec: WindowSpec) -> dict[tuple[str, FalseAlarms], float]:
    """Return, by family and budget, the part of what the budget gives a quiet window that each of its hypotheses of weight 1 has."""
    found: dict[tuple[str, FalseAlarms], float] = {}
    for one in measured.measurements:
        rule = rules.rule(one.check, measured.reference.model, one.segment, one.feature)
        if rule is not None and _family(one) != "none":
            key = (_family(one), rule.false_alarms or rules.false_alarms)
            found[key] = found.get(key, 0.0) + _weight(one)
    scales = SCALES if spec.kind == "tumbling" else SCALES[:1]
    return {
        (family, budget): (
            counts_alpha(budget, spec)
            if family == "counts"
            else math.fsum(distribution_alpha(budget, spec, scale) for scale in scales)
        )
        / weight
        for (family, budget), weight in found.items()
    }


def _alphas_of_looks(measured: Measured, rules: RuleSet, spec: WindowSpec) -> dict[FalseAlarms, float]:
    """Return, by budget, the part of what the looks into a window may spend that each of their hypotheses has."""
    found: Counter[FalseAlarms] = Counter()
    for one in measured.measurements:
        rule = rules.rule(one.check, measured.reference.model, one.segment, one.feature)
        if rule is not None and one.check in early.LOOKED:
            found[rule.false_alarms or rules.false_alarms] += 1
    return {budget: early.alpha(budget, spec) / hypotheses for budget, hypotheses in found.items()}


def _sum(found: Sequence[Expected]) -> Expected:
    months = [one.per_month for one in found if one.per_month is not None]
    bare = [one.bare_ratio for one in found if one.bare_ratio is not None]
    return found[0]._replace(
        measured=len(found),
        per_month=math.fsum(months) if len(months) == len(found) else None,
        bare_ratio=max(bare) if bare else None,
    )


def _openings(chance: float, rule: Rule, spec: WindowSpec, *, is_alone: bool) -> float:
    """Return in how many windows of 30 days a track opens, at most, where each is bad with a chance.

    Windows that overlap, or that are judged with those before them (is_alone false), are bad together: a run of them is as likely as one.
    """
    is_independent = spec.kind == "tumbling" and rule.over == 1 and is_alone
    n, m = (rule.windows, rule.of or rule.windows) if is_independent else (1, 1)
    return MONTH_MS / spec.step_ms * min(chance, math.comb(m - 1, n - 1) * chance**n)


def _chance(measured: Measured, one: Measurement, rule: Rule, n: int, alpha: float) -> tuple[float | None, float | None]:
    """Return the chance that a quiet window is bad, at most, and that its value is beyond the bare threshold; None where no law tells.

    alpha: what chance alone is let through.
    """
    limit, m = max(rule.threshold, rule.floor or -math.inf), one.n_ref
    if rule.below is not None or not m or n < one.min_n:
        return (0.0 if n < one.min_n else None), None
    compared = measured.evidence[one.segment].features.get(one.feature)
    if one.check in _LAWS and compared is not None:
        return _of_distance(one.check, compared, limit, n)
    if one.check == CHECK and compared is not None:
        return (alpha, _of_distance("drift.psi_corrected", compared, limit, n)[1]) if rule.over == 1 else (None, None)
    bare: float | None = None
    if one.check in (*_EXCESS, *_SHARES):
        bad_ref = int(one.evidence["rows"])
        less = bad_ref / m if one.check in _EXCESS else 0.0
        bare = excess_p(math.floor((limit + less) * n) + 1, n, bad_ref, m)
    elif one.check in _EXTREMES:
        bare = extremes_p(math.floor(limit * n) + 1, n, m, _EXTREMES[one.check]) if limit >= 0 else 1.0
    elif one.check in _NORMAL and one.critical_value:
        z = normal_quantile(ALPHA / 2) / one.critical_value * math.sqrt((2 / m) / (1 / n + 1 / m))
        bare = min(1.0, 2 * normal_p(limit * z))
    elif one.check == "health.constant" and compared is not None:
        bare = float(np.sum((compared.cells[0] / max(1, compared.reference.n)) ** n)) if limit < 1 else 0.0
    elif one.check == "health.cardinality" and compared is not None:
        bare = _of_cardinality(compared, limit, n)
    elif one.critical_value is None and one.check != "segments.drift":
        return None, None
    return min(alpha, 1.0 if bare is None else bare), bare


def _of_distance(check: str, compared: Compared, limit: float, n: int) -> tuple[float | None, float | None]:
    distance = _LAWS[check]
    assert distance.law is not None
    reference = compared.cells[0]
    sample = sample_of([(reference, np.rint(reference * (n / max(1, int(reference.sum())))).astype(np.int64))])
    sample = sample._replace(n=n, k=sample.k if distance.cells == "reported" else len(compared.reference.values))
    bare = float(distance.law.p_value(limit, sample)[0]) if limit > 0 else 1.0
    return min(ALPHA, bare), bare


def _of_cardinality(compared: Compared, limit: float, n: int) -> float:
    bounds = expected(n, compared.reference, compared.reference.distinct or 0)
    spread = math.sqrt(bounds.variance) or 1e-9
    up = bounds.high * (math.pow(2, limit) - 1) / spread
    down = bounds.low * (1 - math.pow(2, -limit)) / spread
    return min(1.0, normal_p(up) + normal_p(down))


def totals(found: Sequence[Expected]) -> Iterator[tuple[str, float, list[str]]]:
    """Yield, by policy, incidents in 30 days at most, and the checks that no law tells of."""
    for name in sorted({one.policy for one in found}):
        mine = [one for one in found if one.policy == name]
        yield name, math.fsum(one.per_month or 0.0 for one in mine), sorted({one.check for one in mine if one.per_month is None})
