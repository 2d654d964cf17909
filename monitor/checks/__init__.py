"""Checks: evidence about a closed window → measurements. One callable each, one line in `CHECKS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from monitor.checks.cardinality import cardinality
from monitor.checks.drift import drift
from monitor.checks.health import health
from monitor.checks.traffic import traffic
from monitor.checks.worst_segments import worst_segments
from monitor.findings import Evidence, Measurement

Check = Callable[[Evidence], Iterable[Measurement]]

CHECKS: tuple[Check, ...] = (drift, health, cardinality, traffic, worst_segments)
