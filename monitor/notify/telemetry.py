"""Prometheus metrics of `monitor notify`: a registry of their own, labels bounded by the configuration."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Info

from monitor import __version__
from monitor.runtime.telemetry import Metric

METRICS: tuple[Metric, ...] = (
    Metric(
        "monitor_notifications_total",
        "counter",
        ("route", "outcome"),
        "Alerts by outcome: delivered, reminded, failed (a try), silenced, acknowledged, restated, untold, duplicate, malformed, "
        "refused, undeliverable or expired (the last three are dead letters)",
    ),
    Metric("monitor_notification_queue_length", "gauge", ("route",), "Alerts read and not dealt with"),
    Metric("monitor_notification_lag_records", "gauge", ("route",), "Records of the alerts topic behind what is committed"),
    Metric(
        "monitor_notification_oldest_undelivered_seconds",
        "gauge",
        ("route",),
        "Age of the oldest alert not dealt with, 0 without one",
    ),
    Metric("monitor_notification_breaker_open", "gauge", ("route",), "1 while the receiver counts as dead"),
    Metric(
        "monitor_notification_incidents", "gauge", ("route", "state"), "Incidents: firing; among them silenced and acknowledged"
    ),
    Metric("monitor_silences", "gauge", (), "Silences of Alertmanager in force"),
    Metric("monitor_silences_age_seconds", "gauge", (), "Time since silences were read"),
)
"""Every metric; docs are made from this."""

STATES = ("firing", "silenced", "acknowledged")


class NotifyTelemetry:
    """The metrics of one notifier."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        Info("monitor_build", "Version of the program", registry=self.registry).info({"version": __version__})
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._seen: dict[tuple[str, str], int] = {}
        for metric in METRICS:
            if metric.kind == "counter":
                self._counters[metric.name] = Counter(metric.name, metric.help, metric.labels, registry=self.registry)
            else:
                self._gauges[metric.name] = Gauge(metric.name, metric.help, metric.labels, registry=self.registry)

    def counted(self, route: str, counts: Mapping[str, int]) -> None:
        """Take a route's counts since its start over."""
        for outcome, total in counts.items():
            before = self._seen.get((route, outcome), 0)
            self._counters["monitor_notifications_total"].labels(route, outcome).inc(total - before)
            self._seen[route, outcome] = total

    def observe(self, route: str, gauges: Mapping[str, float], *, is_open: bool, lag: int, now_ms: int) -> None:
        """Take a route's current values over."""
        oldest_ms = gauges["oldest_ms"]
        self.gauge("queue_length", gauges["queue"], route)
        self.gauge("lag_records", lag, route)
        self.gauge("oldest_undelivered_seconds", max(0.0, (now_ms - oldest_ms) / 1_000) if oldest_ms else 0.0, route)
        self.gauge("breaker_open", is_open, route)
        for state in STATES:
            self.gauge("incidents", gauges[state], route, state)

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge of routes."""
        self._gauges[f"monitor_notification_{name}"].labels(*labels).set(value)

    def silences(self, in_force: int, age_s: float) -> None:
        """Note how many silences are in force, and when they were read."""
        self._gauges["monitor_silences"].set(in_force)
        self._gauges["monitor_silences_age_seconds"].set(age_s)
