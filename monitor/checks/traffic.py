"""How much came, and whether all of it was read."""

from __future__ import annotations

from collections.abc import Iterator

from monitor.findings import Evidence, Measurement
from monitor.segments import ALL


def traffic(evidence: Evidence) -> Iterator[Measurement]:
    """Yield the segment's rows; of all rows those under any layout, and the source offsets that retention took before they were read."""
    closed, is_whole = evidence.closed, evidence.segment == ALL
    rows = evidence.n + (closed.rows_other_layout if is_whole else 0)
    yield Measurement("traffic.low", "", float(rows), rows, evidence.n_ref, lower_is_worse=True)
    if is_whole:
        yield Measurement("telemetry.gap", "", float(closed.lost_offsets), rows, evidence.n_ref)
