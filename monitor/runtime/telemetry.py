"""Prometheus metrics: one table of them, a registry of their own, bounded labels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from monitor import __version__
from monitor.ports import PartitionStage
from monitor.runtime.exits import KILLED, REASONS
from monitor.runtime.window_gauges import WindowGauges

MAX_MODELS = 200
"""More models than this share the label `other`."""


class Metric(NamedTuple):
    """One metric as it is declared: models are bounded by `MAX_MODELS`, everything else by configuration and program."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


class Observed(NamedTuple):
    """What the gauges are made of, per partition owned."""

    topic: str
    partition: int
    stage: PartitionStage
    lag: int


METRICS: tuple[Metric, ...] = (
    Metric(
        "monitor_events_total",
        "counter",
        ("source", "model", "outcome"),
        "Events: counted, late, revised, duplicate or late_after_final",
    ),
    Metric("monitor_rejections_total", "counter", ("source", "reason"), "Records sent to the dead-letter topic"),
    Metric("monitor_windows_total", "counter", ("model",), "Final windows"),
    Metric("monitor_revisions_total", "counter", ("model",), "Final windows that were published anew with late events"),
    Metric(
        "monitor_events_without_id_total", "counter", ("source", "model"), "Events without an id, where duplicates are looked for"
    ),
    Metric(
        "monitor_unjoined_total",
        "counter",
        ("source", "model", "reason"),
        "Predictions and labels that cannot be joined: no_id, or no_reference that says what they are",
    ),
    Metric(
        "monitor_outcomes_total",
        "counter",
        ("model", "outcome"),
        "Ids joined: predictions, labels, joined (both); duplicate_predictions; duplicate_labels, conflicting_labels; orphan_labels, given up "
        "without a prediction; expired_predictions, expired_labels, which came after their retention",
    ),
    Metric(
        "monitor_outcomes_lost_total",
        "counter",
        (),
        "Source offsets that retention took from the outcomes topic before they were joined",
    ),
    Metric("monitor_performance_windows_total", "counter", ("model",), "Windows whose performance was reported"),
    Metric("monitor_performance_revisions_total", "counter", ("model",), "Later reports of the same windows"),
    Metric(
        "monitor_outcomes_late_total",
        "counter",
        ("model",),
        "Differences between outcomes as they were known, of a pane and cut, that came after the last report",
    ),
    Metric("monitor_alerts_total", "counter", ("model", "severity"), "Alerts that fired"),
    Metric("monitor_labels_total", "counter", ("source",), "Label events read"),
    Metric("monitor_ticks_total", "counter", ("source",), "Control records read"),
    Metric("monitor_dropped_total", "counter", ("source",), "Events of unknown models, dropped as configured"),
    Metric("monitor_gap_offsets_total", "counter", ("source",), "Offsets without a record: markers of transactions, compaction"),
    Metric("monitor_lost_offsets_total", "counter", ("source",), "Offsets that retention took before they were read"),
    Metric("monitor_duplicates_total", "counter", ("source",), "Partials that came again"),
    Metric("monitor_checkpoint_seconds", "histogram", (), "Duration of checkpoints"),
    Metric(
        "monitor_foreign_writes_total", "counter", (), "Checkpoints with changelog records of another owner between their own"
    ),
    Metric(
        "monitor_refusals_total", "counter", ("topic",), "Attempts to send to an output topic that it refused; they are repeated"
    ),
    Metric("monitor_stores_rebuilt_total", "counter", (), "Local stores that were damaged and made anew from the changelog"),
    Metric("monitor_store_memory_bytes", "gauge", (), "Memory of all local stores: block cache and write buffers"),
    Metric(
        "monitor_memory_bytes",
        "gauge",
        ("part",),
        "Memory by what takes it, about: stores, references, rows (waiting to be folded), panes, windows, other; together what is resident",
    ),
    Metric("monitor_rebalances_total", "counter", (), "Assignments of partitions"),
    Metric("monitor_rebalance_seconds", "histogram", (), "From giving partitions up, at first from the start, to reading again"),
    Metric(
        "monitor_worker_restarts_total", "counter", ("reason",), "Earlier lives of this worker that did not end by a clean stop"
    ),
    Metric("monitor_not_ready", "gauge", ("reason",), "1 while it keeps this worker from being ready"),
    Metric("monitor_loop_age_seconds", "gauge", (), "Time since the event loop turned last"),
    Metric("monitor_recovery_remaining_records", "gauge", (), "Changelog records that are still to be recovered"),
    Metric("monitor_partitions", "gauge", (), "Partitions owned"),
    Metric("monitor_idle_partitions", "gauge", (), "Source partitions that are silent and hold nothing back"),
    Metric("monitor_open_rows", "gauge", (), "Panes that are not closed"),
    Metric("monitor_state_rows", "gauge", (), "Rows of state in memory"),
    Metric("monitor_remembered_ids", "gauge", (), "Ids by which duplicates are found"),
    Metric("monitor_watermark_timestamp_seconds", "gauge", ("source", "partition"), "Event time that a partition has reached"),
    Metric(
        "monitor_watermark_lag_seconds",
        "gauge",
        ("source", "partition"),
        "Clock less the event time that a partition has reached",
    ),
    Metric("monitor_lag_records", "gauge", ("source", "partition"), "Records on the log that were not read yet, when last asked"),
    Metric("monitor_reference_age_seconds", "gauge", (), "Time since the references topic was known to be read to its end"),
)
"""Every metric; docs are made from this."""

_COUNTERS = {
    "events": ("monitor_events_total", True),
    "rejections": ("monitor_rejections_total", True),
    "windows": ("monitor_windows_total", False),
    "revisions": ("monitor_revisions_total", False),
    "without_id": ("monitor_events_without_id_total", True),
    "alerts": ("monitor_alerts_total", False),
    "unjoined": ("monitor_unjoined_total", True),
    "outcomes": ("monitor_outcomes_total", False),
    "outcomes_lost": ("monitor_outcomes_lost_total", False),
    "performance_windows": ("monitor_performance_windows_total", False),
    "performance_revisions": ("monitor_performance_revisions_total", False),
    "outcomes_late": ("monitor_outcomes_late_total", False),
    "outcome_duplicates": ("monitor_duplicates_total", True),
    "labels": ("monitor_labels_total", True),
    "ticks": ("monitor_ticks_total", True),
    "dropped": ("monitor_dropped_total", True),
    "gaps": ("monitor_gap_offsets_total", True),
    "lost": ("monitor_lost_offsets_total", True),
    "duplicates": ("monitor_duplicates_total", True),
}
"""A stage's counts → metric, and whether it has the label `source`."""

_WITH_MODEL = frozenset(
    {
        *("events", "windows", "alerts", "revisions", "without_id", "unjoined", "outcomes"),
        *("performance_windows", "performance_revisions", "outcomes_late"),
    }
)
_PER_PARTITION = ("monitor_watermark_timestamp_seconds", "monitor_watermark_lag_seconds", "monitor_lag_records")

Counts = Mapping[tuple[str, ...], int]


class Telemetry:
    """The metrics of one worker.

    A stage's counts are part of its state and go with it from owner to owner. A worker counts what became durable while it owned the
    partition; so its counters never fall, and over all workers nothing is counted twice, read again or not.
    """

    def __init__(self, windows: WindowGauges | None = None) -> None:
        self.registry = CollectorRegistry()
        self.windows = windows or WindowGauges((), 0)
        self.registry.register(self.windows)
        Info("monitor_build", "Version of the program", registry=self.registry).info({"version": __version__})
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._seen: dict[tuple[str, int], dict[tuple[str, ...], int]] = {}
        self._models: set[str] = set()
        self._foreign_writes = 0
        self._rebuilt = 0
        for metric in METRICS:
            if metric.kind == "counter":
                self._counters[metric.name] = Counter(metric.name, metric.help, metric.labels, registry=self.registry)
            elif metric.kind == "gauge":
                self._gauges[metric.name] = Gauge(metric.name, metric.help, metric.labels, registry=self.registry)
            else:
                self._histograms[metric.name] = Histogram(metric.name, metric.help, metric.labels, registry=self.registry)

    def count(self, name: str, amount: float = 1, labels: tuple[str, ...] = ()) -> None:
        """Add to a counter."""
        metric = self._counters[name]
        (metric.labels(*labels) if labels else metric).inc(amount)

    def gauge(self, name: str, value: float, labels: tuple[str, ...] = ()) -> None:
        """Set a gauge."""
        metric = self._gauges[name]
        (metric.labels(*labels) if labels else metric).set(value)

    def ask(self, name: str, question: Callable[[], float], labels: tuple[str, ...] = ()) -> None:
        """Ask for a gauge's value at each scrape, in the thread that answers it."""
        metric = self._gauges[name]
        (metric.labels(*labels) if labels else metric).set_function(question)

    def checkpointed(self, seconds: float) -> None:
        """Note the duration of a checkpoint."""
        self._histograms["monitor_checkpoint_seconds"].observe(seconds)

    def rebalanced(self, seconds: float) -> None:
        """Note for how long nothing was read."""
        self._histograms["monitor_rebalance_seconds"].observe(seconds)

    def restarted(self, restarts: Mapping[str, int]) -> None:
        """Count the earlier lives, once; every reason has a series, so that the first restart is an increase."""
        for reason in (*REASONS.values(), KILLED):
            if reason != REASONS[0]:
                self.count("monitor_worker_restarts_total", restarts.get(reason, 0), (reason,))

    def foreign_writes(self, total: int) -> None:
        """Note how often another owner was seen in a changelog, since the start."""
        self.count("monitor_foreign_writes_total", total - self._foreign_writes)
        self._foreign_writes = total

    def stores_rebuilt(self, total: int) -> None:
        """Note how many local stores were made anew since the start."""
        self.count("monitor_stores_rebuilt_total", total - self._rebuilt)
        self._rebuilt = total

    def taken_over(self, topic: str, partition: int, counts: Counts) -> None:
        """Remember a partition's counts at take-over: its former owner has counted them."""
        self._seen[topic, partition] = dict(counts)

    def durable(self, topic: str, partition: int, counts: Counts) -> None:
        """Count what has become durable since."""
        seen = self._seen.setdefault((topic, partition), {})
        for key, value in counts.items():
            before = seen.get(key, 0)
            if value > before and key[0] in _COUNTERS:
                seen[key] = value
                name, has_source = _COUNTERS[key[0]]
                labels = (self._model(key[1]), *key[2:]) if key[0] in _WITH_MODEL else key[1:]
                self.count(name, value - before, (topic, *labels) if has_source else labels)

    def forget(self) -> None:
        """All partitions are gone."""
        self._seen.clear()
        for name in _PER_PARTITION:
            self._gauges[name].clear()
        self.observe(())

    def observe(self, owned: Iterable[Observed]) -> None:
        """Take over current values."""
        totals = dict.fromkeys(("open_rows", "rows", "idle", "ids"), 0.0)
        n = 0
        for topic, partition, stage, lag in owned:
            n += 1
            labels = (topic, str(partition))
            gauges = stage.gauges()
            for name in totals:
                totals[name] += gauges.get((name,), 0.0)
            self.gauge("monitor_lag_records", lag, labels)
            watermark_s = gauges.get(("watermark_ms",), math.nan) / 1000
            if not math.isnan(watermark_s):
                self.gauge("monitor_watermark_timestamp_seconds", watermark_s, labels)
                self.gauge("monitor_watermark_lag_seconds", time.time() - watermark_s, labels)
        self.gauge("monitor_partitions", n)
        self.gauge("monitor_open_rows", totals["open_rows"])
        self.gauge("monitor_state_rows", totals["rows"])
        self.gauge("monitor_idle_partitions", totals["idle"])
        self.gauge("monitor_remembered_ids", totals["ids"])

    def _model(self, name: str) -> str:
        if name not in self._models and len(self._models) >= MAX_MODELS:
            return "other"
        self._models.add(name)
        return name
