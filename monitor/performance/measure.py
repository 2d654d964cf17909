"""What rules are told of a model's performance: one measurement for each metric, with its interval and the reference's own value."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from monitor.findings import Measurement
from monitor.performance.estimated import Estimated
from monitor.performance.intervals import Estimate
from monitor.performance.realised import Realised
from monitor.reference import ReferencePerformance
from monitor.segments import ALL

LOWER_IS_WORSE = frozenset({"accuracy", "precision", "recall", "f1", "auc", "r2"})
BIAS_ALPHA = 0.001
"""Labelled rows are called unlike the others where chance does it more rarely."""


class Needed(NamedTuple):
    """What it takes to judge a window's performance. min_labelled: labels; min_coverage: share of its predictions that have one."""

    min_labelled: int = 30
    min_coverage: float = 0.0


ANY = Needed()


def measurements(
    realised: Realised, estimated: Estimated, reference: ReferencePerformance, segment: str = ALL, needed: Needed = ANY
) -> list[Measurement]:
    """Return a measurement `performance.<metric>` of each realised value, sorted by name; n are its labels.

    A rule is broken where the whole interval lies beyond its threshold. With fewer labels than needed there is not enough data, nor where
    no interval is known. What the labels do not tell of (coverage, selection bias, the estimate) is evidence.
    """
    enough = max(needed.min_labelled, math.ceil(needed.min_coverage * realised.n_made))
    n_ref, own = reference.of_segment(segment)
    shared = _shared(realised, estimated)
    return [
        Measurement(
            f"performance.{name}",
            "",
            value.value,
            realised.n_labelled,
            n_ref,
            critical_value=realised.ece_by_chance if name == "ece" else None,
            min_n=enough,
            lower_is_worse=name in LOWER_IS_WORSE,
            evidence={**_of_metric(value, own.get(name), estimated.values.get(name)), **shared},
            segment=segment,
            interval=_ends(value),
            reference_value=own.get(name),
        )
        for name, value in sorted(realised.values.items())
    ]


def _ends(value: Estimate) -> tuple[float, float]:
    return (-math.inf, math.inf) if value.low is None or value.high is None else (value.low, value.high)


def _of_metric(value: Estimate, own: float | None, expected: Estimate | None) -> dict[str, Any]:
    found: dict[str, Any] = {} if value.low is None else {"interval": [value.low, value.high]}
    if own is not None:
        found["reference"] = own
    if expected is not None:
        found["estimated"] = list(expected)
    return found


def _shared(realised: Realised, estimated: Estimated) -> dict[str, Any]:
    found: dict[str, Any] = {"predictions": realised.n_made, "coverage": realised.coverage}
    bias = realised.selection_bias
    if bias is not None and bias.p_value < BIAS_ALPHA:
        found["selection_bias"] = {"by": bias.by, "difference": bias.difference, "p_value": bias.p_value}
    if estimated.unknown is not None:
        found["not_estimated"] = estimated.unknown
    return found
