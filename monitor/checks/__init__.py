"""Checks: evidence about a closed window → measurements. One callable each, one line in `CHECKS`, and a line per id in its `TABLE`.

Which of them somebody is told about is a matter of rules (policy.py): a default rule, or silence until a rule is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from monitor.checks import health as _health
from monitor.checks import segments as _segments
from monitor.checks import stream as _stream
from monitor.checks import traffic as _traffic
from monitor.checks import values as _values
from monitor.checks.cardinality import cardinality
from monitor.checks.drift import drift
from monitor.checks.health import health
from monitor.checks.segments import segments
from monitor.checks.stream import stream
from monitor.checks.traffic import traffic
from monitor.checks.values import values
from monitor.findings import CheckInfo, Evidence, Measurement

Check = Callable[[Evidence], Iterable[Measurement]]

CHECKS: tuple[Check, ...] = (drift, health, values, traffic)
"""Asked about every segment that a rule is for."""

WHOLE_CHECKS: tuple[Check, ...] = (cardinality, stream, segments)
"""Asked about all rows together only."""

HEALTH_TABLE: tuple[CheckInfo, ...] = (*_health.TABLE, *_values.TABLE, *_traffic.TABLE, *_stream.TABLE)
"""Every check of data health: tests/health_vectors.py has a case of each."""

TABLE: tuple[CheckInfo, ...] = (*HEALTH_TABLE, *_segments.TABLE)
"""Every check but drift's, which the registry of distances tells: docs/checks.md is made from it."""
