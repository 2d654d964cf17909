"""How much came."""

import pytest

from monitor.checks.traffic import traffic
from monitor.findings import gather
from monitor.policy import DEFAULT_RULE_SET
from tests.closed_windows import closed, reference_of
from tests.shapes import judged_alone as decide

REFERENCE = reference_of({"x": [1.0, 2.0, 3.0]})


@pytest.mark.parametrize(("n", "other", "verdict"), [(0, 0, "breach"), (1, 0, "ok"), (0, 1, "ok"), (500, 0, "ok")])
def test_a_window_without_a_row_under_any_layout_is_low_traffic(n: int, other: int, verdict: str) -> None:
    window = closed(REFERENCE, {"x": [1.0] * n}, rows_other_layout=other)
    low, _ = decide("credit", traffic(gather(window)), DEFAULT_RULE_SET)
    assert (low.measurement.check, low.verdict, low.measurement.value) == ("traffic.low", verdict, n + other)


def test_low_traffic_needs_no_reference() -> None:
    assert decide("credit", traffic(gather(closed(None, {}))), DEFAULT_RULE_SET)[0].verdict == "breach"


@pytest.mark.parametrize(("lost", "verdict"), [(0, "ok"), (7, "breach")])
def test_offsets_lost_to_retention_are_a_gap(lost: int, verdict: str) -> None:
    _, gap = decide("credit", traffic(gather(closed(REFERENCE, {}, lost_offsets=lost))), DEFAULT_RULE_SET)
    assert (gap.measurement.check, gap.verdict, gap.severity) == ("telemetry.gap", verdict, "critical")
