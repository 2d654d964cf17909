"""How much came, whether it stopped, and whether all of it was read."""

from __future__ import annotations

import math
from collections.abc import Iterator

from msgspec.structs import replace

from monitor.chance.counts import critical_silence, normal_p, normal_quantile, silence_p
from monitor.findings import CheckInfo, ClosedWindow, Evidence, Measurement
from monitor.segments import ALL

MIN_STOP_ROWS = 30
"""Below, a silence says nothing."""

_POISSON = "Poisson streams of steady rate, window and reference: approximate (normal law), bursts are not chance here"

TABLE = (
    CheckInfo(
        "traffic.low",
        "rows of the window, whatever their reference; lower is worse. By default: no row at all",
        "",
        0,
        "TFDV NO_DATA_IN_SPAN, DATASET_LOW_NUM_EXAMPLES, Deequ hasSize",
    ),
    CheckInfo("traffic.high", "rows of the window", "", 0, "TFDV DATASET_HIGH_NUM_EXAMPLES, Deequ hasSize"),
    CheckInfo(
        "traffic.rate_low",
        "rows as a share of what the reference's own rate makes one expect (its rows over its time range); lower is worse",
        _POISSON,
        0,
        "TFDV COMPARATOR_LOW_NUM_EXAMPLES",
    ),
    CheckInfo("traffic.rate_high", "the same; higher is worse", _POISSON, 0, "TFDV COMPARATOR_HIGH_NUM_EXAMPLES"),
    CheckInfo(
        "traffic.stop",
        "silence at the window's end, as a share of the window",
        "(1 − silence)ⁿ: exact for a Poisson stream of steady rate; a batch job is none",
        MIN_STOP_ROWS,
        "",
    ),
    CheckInfo("telemetry.gap", "source offsets that retention took before they were read", "", 0, ""),
)


def traffic(evidence: Evidence) -> Iterator[Measurement]:
    """Yield the segment's rows; of all rows those under any layout, their rate, and the source offsets that retention took."""
    closed, n_ref, is_whole = evidence.closed, evidence.n_ref, evidence.segment == ALL
    rows = evidence.n + (closed.rows_other_layout if is_whole else 0)
    yield Measurement("traffic.low", "", float(rows), rows, n_ref, lower_is_worse=True)
    yield Measurement("traffic.high", "", float(rows), rows, n_ref)
    if is_whole:
        yield from _rates(closed, rows, n_ref)
        yield from _stop(closed)
        yield Measurement("telemetry.gap", "", float(closed.lost_offsets), rows, n_ref)


def _rates(closed: ClosedWindow, rows: int, n_ref: int) -> Iterator[Measurement]:
    """Only where the reference's rows have times that span a window."""
    span = closed.reference.record.time_range_ms if closed.reference else None
    if span is None or span[1] - span[0] < closed.window.size_ms:
        return
    expected = n_ref * closed.window.size_ms / (span[1] - span[0])
    spread = math.sqrt(expected * (1 + expected / n_ref))
    z = (rows - expected) / spread
    reach = normal_quantile() * spread
    facts = {"expected_rows": expected}
    low = Measurement("traffic.rate_low", "", rows / expected, rows, n_ref, lower_is_worse=True, evidence=facts)
    yield replace(low, critical_value=1 - reach / expected, p_value=normal_p(-z))
    high = Measurement("traffic.rate_high", "", rows / expected, rows, n_ref, evidence=facts)
    yield replace(high, critical_value=1 + reach / expected, p_value=normal_p(z))


def _stop(closed: ClosedWindow) -> Iterator[Measurement]:
    facts = closed.profile.stream
    last, n = facts.most("last"), facts.count("rows")
    if last is None:
        return
    silence = (closed.window.end_ms - last) / closed.window.size_ms
    measured = Measurement("traffic.stop", "", silence, n, 0, critical_silence(n), silence_p(silence, n), MIN_STOP_ROWS)
    yield replace(measured, evidence={"last_ms": last})
