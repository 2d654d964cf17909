"""Means of a measurement's values over the last windows, for rules that judge these; what chance explains of them is bounded too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from monitor.decision_state import DecisionState, track_key
from monitor.findings import Measurement
from monitor.policy import RuleSet


def means(
    model: str, measurements: Sequence[Measurement], rules: RuleSet, state: DecisionState, *, is_complete: bool
) -> list[Measurement]:
    """Take a window's values into the state; return a measurement per mean that a rule is for, n summed over its windows.

    A window with too few rows is left out of the mean. Until there are enough windows n is 0, which is not enough data. The critical
    value is the mean of the windows' own: the mean of independent windows exceeds it less often than one of them does. What has an
    interval has no critical value: half of the interval is kept in its place, and the mean's is as of independent windows. is_complete:
    what is not measured in this window is gone, and so are its values.
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
            values.append((measurement.value, _chance(measurement), measurement.n))
        values = values[-max(overs) :]
        if values:
            kept[key] = values
        found += [_mean(measurement, values[-over:], over) for over in overs]
    state.values = kept | {key: values for key, values in state.values.items() if key not in measured and not is_complete}
    return found


def _mean(measurement: Measurement, values: Sequence[tuple[float, float | None, int]], over: int) -> Measurement:
    if len(values) < over:
        facts: dict[str, Any] = {"windows": len(values)}
        return measurement._replace(over=over, n=0, min_n=1, value=0.0, critical_value=None, evidence=facts, **_UNTESTED)
    chances = [chance for _, chance, _ in values if chance is not None]
    mean = measurement._replace(
        over=over,
        value=math.fsum(value for value, _, _ in values) / over,
        n=sum(n for _, _, n in values),
        critical_value=math.fsum(chances) / over if len(chances) == over else None,
        evidence={"windows": over, "newest": values[-1][0]},
        **_UNTESTED,
    )
    if "interval" not in measurement.evidence:
        return mean
    half = math.sqrt(math.fsum(chance * chance for chance in chances)) / over if len(chances) == over else None
    interval = [None, None] if half is None else [mean.value - half, mean.value + half]
    evidence = {**mean.evidence, "interval": interval}
    if "reference" in measurement.evidence:
        evidence["reference"] = measurement.evidence["reference"]
    return mean._replace(critical_value=None, evidence=evidence)


def _chance(measurement: Measurement) -> float | None:
    """Return what chance explains of a value: its critical value, or half of its interval."""
    low, high = measurement.evidence.get("interval") or (None, None)
    return measurement.critical_value if low is None or high is None else (high - low) / 2


_UNTESTED: dict[str, Any] = {"p_value": None, "counted": None, "scales": (), "is_provisional": False}
"""Tests are of the newest window, not of the mean."""
