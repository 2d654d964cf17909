"""How much came, and whether all of it was read."""

from __future__ import annotations

from collections.abc import Iterator

from monitor.findings import Evidence, Measurement


def traffic(evidence: Evidence) -> Iterator[Measurement]:
    """Yield the window's rows, whatever their layout, and the source offsets that retention took before they were read."""
    closed = evidence.closed
    n_ref = closed.reference.profile.n if closed.reference else 0
    rows = closed.profile.n + closed.rows_other_layout
    yield Measurement("traffic.low", "", float(rows), rows, n_ref, lower_is_worse=True)
    yield Measurement("telemetry.gap", "", float(closed.lost_offsets), rows, n_ref)
