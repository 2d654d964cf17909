"""Metrics of `monitor notify`."""

from __future__ import annotations

import re

from monitor.notify.telemetry import METRICS, NotifyTelemetry


def test_names_have_units_and_labels_are_bounded() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"monitor_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert set(metric.labels) <= {"route", "outcome", "state"}


def test_counters_follow_a_routes_counts_and_gauges_its_state() -> None:
    telemetry = NotifyTelemetry()
    gauges = {"queue": 2, "oldest_ms": 4_000, "firing": 3, "silenced": 1, "acknowledged": 0}
    for delivered in (2, 5, 5):
        telemetry.counted("hook", {"delivered": delivered})
        telemetry.observe("hook", gauges, is_open=True, lag=7, now_ms=10_000)
    telemetry.observe("idle", gauges | {"queue": 0, "oldest_ms": 0}, is_open=False, lag=0, now_ms=10_000)
    telemetry.silences(2, 1.5)

    def value(name: str, **labels: str) -> float | None:
        return telemetry.registry.get_sample_value(name, labels)

    assert value("monitor_notifications_total", route="hook", outcome="delivered") == 5
    assert value("monitor_notification_oldest_undelivered_seconds", route="hook") == 6
    assert value("monitor_notification_oldest_undelivered_seconds", route="idle") == 0
    assert value("monitor_notification_breaker_open", route="hook") == 1
    assert value("monitor_notification_incidents", route="hook", state="silenced") == 1
    assert value("monitor_notification_lag_records", route="hook") == 7
    assert (value("monitor_silences"), value("monitor_silences_age_seconds")) == (2, 1.5)
