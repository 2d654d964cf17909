"""The last final window of each model, as gauges: rows, breaches, distances; and the last one of each age whose performance was reported.

Series are bounded; those that did not fit are counted.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from monitor.ports import Message
from monitor.rules import SEVERITIES
from monitor.segments import ALL
from monitor.windows import duration_text

WINDOW = ("model", "version", "window", "segment")
REPORT = (*WINDOW, "age")

GAUGES: dict[str, tuple[tuple[str, ...], str]] = {
    "monitor_window_end_timestamp_seconds": (WINDOW, "End of the last final window"),
    "monitor_window_rows": (WINDOW, "Rows of the last final window that were compared"),
    "monitor_window_breaches": ((*WINDOW, "severity"), "Values of the last final window that a rule calls bad"),
    "monitor_feature_missing_ratio": ((*WINDOW, "feature"), "Share of the rows of the last final window without a value"),
    "monitor_feature_distance": ((*WINDOW, "feature", "distance"), "Distance of the last final window from the reference"),
    "monitor_performance_end_timestamp_seconds": (REPORT, "End of the last window whose performance was reported at this age"),
    "monitor_performance": (
        (*REPORT, "metric", "kind"),
        "Its value: realised on labels, with low and high end of 95 %, or estimated",
    ),
    "monitor_performance_predictions": (REPORT, "Its predictions"),
    "monitor_performance_coverage_ratio": (REPORT, "Share of its predictions with a label"),
    "monitor_performance_breaches": ((*REPORT, "severity"), "Its values that a rule calls bad"),
    "monitor_performance_conflict": (
        REPORT,
        "1 where some of it is better than in the reference while some is worse; of all rows",
    ),
    "monitor_label_lag_seconds": ((*REPORT, "quantile"), "How long its labels took, of those that are known"),
}
"""Name → labels, help. `window` is a size, or size/step of hopping windows; `age` is how long after its end a window was reported."""
SUPPRESSED = "monitor_suppressed_series"

KEPT_SIZES = 3
"""A version, or a segment, that had no window for so many sizes while the model has newer ones is gone."""


class _Window(msgspec.Struct):
    end_ms: int
    size_ms: int
    step_ms: int


class _Feature(msgspec.Struct):
    missing_ratio: float | None
    distances: dict[str, float]


class _Breach(msgspec.Struct):
    severity: str


class _Estimate(msgspec.Struct):
    value: float
    low: float | None
    high: float | None


class _Estimated(msgspec.Struct):
    values: dict[str, _Estimate]


class _Lag(msgspec.Struct):
    p50_ms: int
    p90_ms: int
    p99_ms: int


class _Seen(msgspec.Struct):
    """What is read of a record; of the performance of a window its `type` says so."""

    model: str
    version: str
    window: _Window
    segment: str
    n: int
    findings: list[_Breach]
    revision: int = 0
    features: dict[str, _Feature] = {}
    type: str = ""
    as_of_ms: int = 0
    coverage: float = 0.0
    values: dict[str, _Estimate] = {}
    estimated: _Estimated = msgspec.field(default_factory=lambda: _Estimated({}))
    lag: _Lag | None = None
    conflict: dict[str, Any] | None = None

    @property
    def age(self) -> str:
        """How long after its end the window was reported; "" of a result of its events."""
        return duration_text(self.as_of_ms - self.window.end_ms) if self.type == "performance" else ""


class _Kind(msgspec.Struct):
    type: str = ""


_decode = msgspec.json.Decoder(_Seen).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode

Sample = tuple[str, tuple[str, ...], float]
"""Metric, values of its labels beyond those of the window, value."""


class _Group(NamedTuple):
    """The series of one window and segment. samples: none where they did not fit."""

    partition: int
    end_ms: int
    samples: tuple[Sample, ...]
    n: int
    revision: int


class WindowGauges(Collector):
    """What this worker published last, of the partitions that it owns. After a restart a window's series are back when the next one closes.

    distances: names of those that are told. max_series: at most so many series, of segments at most half as many.
    """

    def __init__(self, distances: Collection[str], max_series: int) -> None:
        self._distances = frozenset(distances)
        self._max_series = max_series
        self._groups: dict[tuple[str, str], dict[tuple[str, str, str], _Group]] = {}
        """(model, window) → (version, segment, age) → its series"""
        self._n_series = 0
        self._lock = threading.Lock()

    def take(self, partition: int, results: Iterable[Message]) -> None:
        """Take result records in that are on their topic; those of looks are of windows that are open."""
        records = [
            message.value for message in results if message.value is not None and _decode_kind(message.value).type != "look"
        ]
        seen = [_decode(value) for value in records]
        with self._lock:
            for one in seen:
                self._take(partition, one)

    def _take(self, partition: int, seen: _Seen) -> None:
        window = seen.window
        spec = duration_text(window.size_ms)
        if window.step_ms != window.size_ms:
            spec = f"{spec}/{duration_text(window.step_ms)}"
        groups = self._groups.setdefault((seen.model, spec), {})
        key = (seen.version, seen.segment, seen.age)
        if key in groups and (groups[key].end_ms, groups[key].revision) > (window.end_ms, seen.revision):
            return
        gone = [key]
        if seen.segment == ALL:  # the first record of every window
            oldest_ms = window.end_ms - KEPT_SIZES * window.size_ms
            gone += [k for k, group in groups.items() if k != key and k[2] == seen.age and group.end_ms < oldest_ms]
        for k in gone:
            if k in groups:
                self._n_series -= len(groups.pop(k).samples)
        samples = tuple(_performance(seen) if seen.age else self._samples(seen))
        room = (self._max_series if seen.segment == ALL else self._max_series // 2) - self._n_series
        kept = samples if len(samples) <= room else ()
        groups[key] = _Group(partition, window.end_ms, kept, len(samples), seen.revision)
        self._n_series += len(kept)

    def _samples(self, seen: _Seen) -> Iterator[Sample]:
        yield "monitor_window_end_timestamp_seconds", (), seen.window.end_ms / 1000
        yield "monitor_window_rows", (), seen.n
        for severity in SEVERITIES:
            yield "monitor_window_breaches", (severity,), sum(found.severity == severity for found in seen.findings)
        if not self._distances:
            return
        for name, feature in seen.features.items():
            if feature.missing_ratio is not None:
                yield "monitor_feature_missing_ratio", (name,), feature.missing_ratio
            for distance in self._distances & feature.distances.keys():
                yield "monitor_feature_distance", (name, distance), feature.distances[distance]

    def keep(self, partitions: Collection[int]) -> None:
        """Forget the series of other partitions: another worker has them."""
        with self._lock:
            for groups in self._groups.values():
                for key in [key for key, group in groups.items() if group.partition not in partitions]:
                    self._n_series -= len(groups.pop(key).samples)
            self._groups = {of: groups for of, groups in self._groups.items() if groups}

    def collect(self) -> Iterator[Metric]:
        """Return the current series, for a registry."""
        with self._lock:
            groups = [
                ((model, version, spec, segment, *filter(None, (age,))), group)
                for (model, spec), of_window in self._groups.items()
                for (version, segment, age), group in of_window.items()
            ]
        families = {name: GaugeMetricFamily(name, text, labels=labels) for name, (labels, text) in GAUGES.items()}
        for key, group in groups:
            for name, labels, value in group.samples:
                families[name].add_metric([*key, *labels], value)
        yield from families.values()
        suppressed = sum(group.n - len(group.samples) for _, group in groups)
        yield GaugeMetricFamily(SUPPRESSED, "Series of windows that metrics.max_series left out", value=suppressed)


def _performance(seen: _Seen) -> Iterator[Sample]:
    yield "monitor_performance_end_timestamp_seconds", (), seen.window.end_ms / 1000
    yield "monitor_performance_predictions", (), seen.n
    yield "monitor_performance_coverage_ratio", (), seen.coverage
    for severity in SEVERITIES:
        yield "monitor_performance_breaches", (severity,), sum(found.severity == severity for found in seen.findings)
    if seen.segment == ALL:
        yield "monitor_performance_conflict", (), float(seen.conflict is not None)
    for kind, values in (("realised", seen.values), ("estimated", seen.estimated.values)):
        for metric, one in values.items():
            yield "monitor_performance", (metric, kind), one.value
            if kind == "realised" and one.low is not None and one.high is not None:
                yield "monitor_performance", (metric, "low"), one.low
                yield "monitor_performance", (metric, "high"), one.high
    if seen.lag is not None:
        for quantile, lag_ms in (("0.5", seen.lag.p50_ms), ("0.9", seen.lag.p90_ms), ("0.99", seen.lag.p99_ms)):
            yield "monitor_label_lag_seconds", (quantile,), lag_ms / 1000
