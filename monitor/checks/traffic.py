"""How much came, and whether all of it was read."""

from __future__ import annotations

from collections.abc import Iterator

from monitor.findings import Evidence, Measurement


def traffic(evidence: Evidence) -> Iterator[Measurement]:
    """Yield the window's rows, and the source offsets that retention took before they were read."""
    closed = evidence.closed
    n_ref = closed.reference.profile.n if closed.reference else 0
    yield Measurement("traffic.low", "", float(closed.profile.n), closed.profile.n, n_ref, lower_is_worse=True)
    yield Measurement("telemetry.gap", "", float(closed.lost_offsets), closed.profile.n, n_ref)
