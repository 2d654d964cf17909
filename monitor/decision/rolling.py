"""Means of a measurement's values over the last windows, for rules that judge these; what chance explains of them is bounded too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from monitor.decision.state import DecisionState, track_key
from monitor.findings import Measurement
from monitor.policy import RuleSet


def means(
    model: str, measurements: Sequence[Measurement], rules: RuleSet, state: DecisionState, *, is_complete: bool
) -> list[Measurement]:
    """Take a window's values into the state; return a measurement per mean that a rule is for, n summed over its windows.

    A window with too few rows is left out of the mean. Until there are enough windows n is 0, which is not enough data. The critical
    value is the mean of the windows' own: the mean of independent windows exceeds it less often than one of them does. Where an interval
    judges, the windows' standard errors make that of their mean. Performance is weighted by rows, all else alike, unless the rule says
    otherwise. is_complete: what is not measured in this window is gone, and so are its values.
    """
    found = []
    kept: dict[str, list[tuple[float, float | None, int]]] = {}
    measured = set()
    for measurement in measurements:
        overs = rules.overs(measurement.check, model, measurement.segment, measurement.feature)
        if not overs:
            continue
        key = track_key(measurement)
        measured.add(key)
        values = list(state.values.get(key, ()))
        if measurement.n >= measurement.min_n and not math.isnan(measurement.value):
            values.append((measurement.value, _uncertainty(measurement), measurement.n))
        values = values[-max(overs) :]
        if values:
            kept[key] = values
        for over in overs:
            rule = rules.rule(measurement.check, model, measurement.segment, measurement.feature, over)
            weighting = (rule.weighting if rule is not None else "") or ("windows" if measurement.interval is None else "rows")
            found.append(_mean(measurement, values[-over:], over, weighting))
    state.values = kept | {key: values for key, values in state.values.items() if key not in measured and not is_complete}
    return found


def _uncertainty(measurement: Measurement) -> float | None:
    """Return the critical value or, where an interval judges, the standard error; None where it is not known."""
    if not _is_by_interval(measurement) or measurement.interval is None:
        return measurement.critical_value
    low, high = measurement.interval
    return (high - low) / (2 * _Z) if math.isfinite(high - low) else None


def _is_by_interval(measurement: Measurement) -> bool:
    return measurement.interval is not None and measurement.critical_value is None


def _mean(measurement: Measurement, values: Sequence[tuple[float, float | None, int]], over: int, weighting: str) -> Measurement:
    if len(values) < over:
        facts = {"windows": len(values)}
        return replace(measurement, over=over, n=0, min_n=1, value=0.0, critical_value=None, evidence=facts, **_UNTESTED)
    n = sum(rows for _, _, rows in values)
    weights = [rows / n if weighting == "rows" and n else 1 / over for _, _, rows in values]
    value = math.fsum(weight * one for weight, (one, _, _) in zip(weights, values, strict=True))
    known = [uncertainty for _, uncertainty, _ in values if uncertainty is not None]
    made = replace(
        measurement,
        over=over,
        value=value if weighting == "rows" else math.fsum(one for one, _, _ in values) / over,
        n=n,
        critical_value=math.fsum(known) / over if len(known) == over else None,
        evidence={"windows": over, "newest": values[-1][0]},
        **_UNTESTED,
    )
    if not _is_by_interval(measurement):
        return made
    if len(known) < over:
        return replace(made, critical_value=None, interval=(-math.inf, math.inf))
    half = _Z * math.sqrt(math.fsum((weight * error) ** 2 for weight, error in zip(weights, known, strict=True)))
    ends = (made.value - half, made.value + half)
    return replace(made, critical_value=None, interval=ends, evidence={**made.evidence, "interval": list(ends)})


_Z = 1.959963984540054
"""97.5 % quantile of the normal law: intervals are of 95 %."""
_UNTESTED: dict[str, Any] = {
    "p_value": None, "counted": None, "scales": (), "is_provisional": False, "interval": None,
}  # fmt: skip
"""Tests are of the newest window, not of the mean."""
