"""Prometheus metrics: one table of them, a registry of their own, bounded labels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Info

from monitor import __version__
from monitor.ports import PartitionStage

MAX_MODELS = 200
"""More models than this share the label `other`."""


class Metric(NamedTuple):
    """One metric as it is declared: labels beside `model` are bounded by the program."""

    name: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    help: str


METRICS: tuple[Metric, ...] = (
    Metric(
        "monitor_events_total", "counter", ("model", "outcome"), "Events by what became of them: counted, late, late_after_final"
    ),
    Metric("monitor_rejections_total", "counter", ("reason",), "Records sent to the dead-letter topic"),
    Metric("monitor_windows_total", "counter", ("model",), "Final windows"),
    Metric("monitor_alerts_total", "counter", ("model", "severity"), "Alerts that fired"),
    Metric("monitor_labels_total", "counter", (), "Label events read"),
    Metric("monitor_ticks_total", "counter", (), "Control records read"),
    Metric("monitor_dropped_total", "counter", (), "Events of unknown models, dropped as configured"),
    Metric("monitor_gap_offsets_total", "counter", (), "Offsets without a record: markers of transactions, compacted records"),
    Metric("monitor_lost_offsets_total", "counter", (), "Offsets that retention took before they were read"),
    Metric("monitor_duplicates_total", "counter", (), "Partials that were sent again"),
    Metric("monitor_checkpoints_total", "counter", (), "Checkpoints"),
    Metric("monitor_checkpoint_seconds_total", "counter", (), "Time spent in checkpoints"),
    Metric("monitor_foreign_writes_total", "counter", (), "Changelog records of another owner found between our own"),
    Metric("monitor_rebalances_total", "counter", (), "Assignments of partitions"),
    Metric("monitor_partitions", "gauge", (), "Partitions owned"),
    Metric("monitor_idle_partitions", "gauge", (), "Source partitions that are silent and hold nothing back"),
    Metric("monitor_open_rows", "gauge", (), "Panes that are not closed"),
    Metric("monitor_state_rows", "gauge", (), "Rows of state in memory"),
    Metric(
        "monitor_watermark_timestamp_seconds", "gauge", ("topic", "partition"), "Event time that a source partition has reached"
    ),
    Metric("monitor_reference_age_seconds", "gauge", (), "Time since the references topic was known to be read to its end"),
)
"""Every metric; docs are made from this."""

_SIMPLE = {
    "labels": "monitor_labels_total",
    "ticks": "monitor_ticks_total",
    "dropped": "monitor_dropped_total",
    "gaps": "monitor_gap_offsets_total",
    "lost": "monitor_lost_offsets_total",
    "duplicates": "monitor_duplicates_total",
    "rejections": "monitor_rejections_total",
    "events": "monitor_events_total",
    "windows": "monitor_windows_total",
    "alerts": "monitor_alerts_total",
}


class Telemetry:
    """The metrics of one worker. Counters never fall: a stage's counts are added as differences since it was taken over."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        Info("monitor_build", "Version of the program", registry=self.registry).info({"version": __version__})
        self._metrics: dict[str, Counter | Gauge] = {}
        for metric in METRICS:
            make = Counter if metric.kind == "counter" else Gauge
            self._metrics[metric.name] = make(metric.name, metric.help, metric.labels, registry=self.registry)
        self._seen: dict[tuple[int, tuple[str, ...]], int] = {}
        self._models: set[str] = set()

    def count(self, name: str, amount: float = 1, labels: tuple[str, ...] = ()) -> None:
        """Add to a counter."""
        metric = self._metrics[name]
        (metric.labels(*labels) if labels else metric).inc(amount)

    def gauge(self, name: str, value: float, labels: tuple[str, ...] = ()) -> None:
        """Set a gauge."""
        metric = self._metrics[name]
        assert isinstance(metric, Gauge)
        (metric.labels(*labels) if labels else metric).set(value)

    def taken_over(self, stage: PartitionStage) -> None:
        """Remember a stage's counts at take-over: they were counted by its former owner."""
        for key, value in stage.counters().items():
            self._seen[id(stage), key] = value

    def forget(self) -> None:
        """All stages are gone."""
        self._seen.clear()
        watermark = self._metrics["monitor_watermark_timestamp_seconds"]
        watermark.clear()

    def observe(self, stages: Iterable[tuple[str, int, PartitionStage]]) -> None:
        """Take over counts and current values of (topic, partition, stage)."""
        totals = dict.fromkeys(("open_rows", "rows", "idle"), 0.0)
        n = 0
        for topic, partition, stage in stages:
            n += 1
            for key, value in stage.counters().items():
                before = self._seen.get((id(stage), key), 0)
                if value > before and key[0] in _SIMPLE:
                    self._seen[id(stage), key] = value
                    labels = (self._model(key[1]), *key[2:]) if len(key) > 1 and key[0] != "rejections" else key[1:]
                    self.count(_SIMPLE[key[0]], value - before, labels)
            gauges = stage.gauges()
            for name in totals:
                totals[name] += gauges.get((name,), 0.0)
            watermark = gauges.get(("watermark_ms",), math.nan)
            if not math.isnan(watermark):
                self.gauge("monitor_watermark_timestamp_seconds", watermark / 1000, (topic, str(partition)))
        self.gauge("monitor_partitions", n)
        self.gauge("monitor_open_rows", totals["open_rows"])
        self.gauge("monitor_state_rows", totals["rows"])
        self.gauge("monitor_idle_partitions", totals["idle"])

    def _model(self, name: str) -> str:
        if name not in self._models and len(self._models) >= MAX_MODELS:
            return "other"
        self._models.add(name)
        return name
