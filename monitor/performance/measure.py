"""What rules are told of a model's performance: one measurement for each metric, with its interval and the reference's own value."""

from __future__ import annotations

from typing import NamedTuple

from monitor.findings import Measurement
from monitor.performance.estimated import Estimated
from monitor.performance.realised import Realised
from monitor.reference import ReferencePerformance
from monitor.segments import ALL

LOWER_IS_WORSE = frozenset({"accuracy", "precision", "recall", "f1", "auc", "r2"})


class Needed(NamedTuple):
    """What it takes to judge a window's performance. min_labelled: labels; min_coverage: share of its predictions that have one."""

    min_labelled: int = 30
    min_coverage: float = 0.0


ANY = Needed()


def measurements(
    realised: Realised,
    estimated: Estimated,
    reference: ReferencePerformance,
    segment: str = ALL,
    needed: Needed = ANY,
) -> list[Measurement]:
    """Return a measurement `performance.<metric>` of each realised value, sorted by name; n are its labels."""
    return [
        Measurement(
            f"performance.{name}",
            "",
            value.value,
            realised.n_labelled,
            reference.n,
            min_n=max(needed.min_labelled, int(-(-needed.min_coverage * realised.n_made // 1))),
            lower_is_worse=name in LOWER_IS_WORSE,
            evidence={"interval": [value.low, value.high], "coverage": realised.coverage},
            segment=segment,
        )
        for name, value in sorted(realised.values.items())
    ]
