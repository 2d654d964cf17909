from __future__ import annotations

import json
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from monitor.ports import Message
from monitor.runtime.window_gauges import GAUGES, SUPPRESSED, WindowGauges

HOUR_MS = 3_600_000


def result(
    at: int = 0,
    segment: str = "all",
    version: str = "7",
    psi: float = 0.1,
    n_features: int = 1,
    hop: bool = False,
    revision: int = 0,
) -> Message:
    window = {
        "start_ms": at * HOUR_MS,
        "end_ms": (at + 1) * HOUR_MS,
        "size_ms": HOUR_MS,
        "step_ms": HOUR_MS // 2 if hop else HOUR_MS,
    }
    features = {f"f{i}": {"missing_ratio": 0.25, "distances": {"psi": psi, "js": 0.3}, "n": 3} for i in range(n_features)}
    findings = [{"severity": "warning"}, {"severity": "warning"}, {"severity": "notice"}]
    record: dict[str, Any] = {
        "revision": revision,
        "model": "m",
        "version": version,
        "window": window,
        "segment": segment,
        "n": 40,
    }
    return Message("results", b"k", json.dumps(record | {"features": features, "findings": findings, "more": [1]}).encode())


def look() -> Message:
    window = {"start_ms": 0, "end_ms": HOUR_MS, "size_ms": HOUR_MS, "step_ms": HOUR_MS}
    record = {"type": "look", "model": "m", "version": "7", "window": window, "upto_ms": 60_000, "n": 5, "unlikely": {}}
    return Message("results", b"k", json.dumps(record).encode())


def report(at: int = 0, age: int = 0, accuracy: float = 0.9, segment: str = "all") -> Message:
    record: dict[str, Any] = {
        "type": "performance",
        "model": "m",
        "version": "7",
        "window": {"start_ms": at * HOUR_MS, "end_ms": (at + 1) * HOUR_MS, "size_ms": HOUR_MS, "step_ms": HOUR_MS},
        "segment": segment,
        "revision": 0,
        "as_of_ms": (at + 1 + age) * HOUR_MS,
        "n": 50,
        "coverage": 0.8,
        "values": {"accuracy": {"value": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.05}},
        "estimated": {"values": {"accuracy": {"value": 0.88, "low": None, "high": None}}},
        "lag": {"p50_ms": 60_000, "p90_ms": 120_000, "p99_ms": 600_000},
        "conflict": {"better": [], "worse": [], "text": ""},
        "findings": [{"severity": "critical"}],
    }
    return Message("results", b"k", json.dumps(record).encode())


def value(gauges: WindowGauges, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(gauges)
    window = {"model": "m", "version": "7", "window": "1h", "segment": "all"} | labels
    return registry.get_sample_value(name, {} if name == SUPPRESSED else {k: v for k, v in window.items() if v})


def series(gauges: WindowGauges) -> int:
    registry = CollectorRegistry()
    registry.register(gauges)
    return sum(line.startswith(b"monitor_") for line in generate_latest(registry).splitlines()) - 1


def test_the_last_window_is_told() -> None:
    gauges = WindowGauges(("psi",), 100)
    gauges.take(0, [result(0, psi=0.1), result(1, psi=0.2), result(3, psi=0.4, hop=True)])
    assert value(gauges, "monitor_feature_distance", feature="f0", distance="psi") == 0.2
    assert value(gauges, "monitor_feature_distance", feature="f0", distance="psi", window="1h/30m") == 0.4
    assert value(gauges, "monitor_feature_distance", feature="f0", distance="js") is None
    assert value(gauges, "monitor_feature_missing_ratio", feature="f0") == 0.25
    assert value(gauges, "monitor_window_rows") == 40
    assert value(gauges, "monitor_window_end_timestamp_seconds") == 2 * 3600
    assert [value(gauges, "monitor_window_breaches", severity=s) for s in ("notice", "warning", "critical")] == [1, 2, 0]


def test_a_revision_of_the_last_window_replaces_it_and_one_of_an_earlier_window_does_not() -> None:
    gauges = WindowGauges(("psi",), 100)
    gauges.take(0, [result(1, psi=0.2), result(1, psi=0.3, revision=1), result(0, psi=0.9, revision=4), result(1, psi=0.2)])
    assert value(gauges, "monitor_feature_distance", feature="f0", distance="psi") == 0.3


def test_a_look_into_an_open_window_is_not_told() -> None:
    gauges = WindowGauges(("psi",), 100)
    gauges.take(0, [look(), result(0, psi=0.2), look()])
    assert value(gauges, "monitor_window_rows") == 40
    assert series(gauges) > 0


def test_a_record_that_comes_again_changes_nothing() -> None:
    gauges = WindowGauges(("psi",), 100)
    gauges.take(0, [result(1, psi=0.2)])
    gauges.take(0, [result(0, psi=0.9)])
    assert value(gauges, "monitor_feature_distance", feature="f0", distance="psi") == 0.2


def test_series_stay_within_the_budget_segments_within_half_of_it_and_the_rest_is_counted() -> None:
    gauges = WindowGauges(("psi", "js"), 100)
    each = 5 + 3 * 5
    gauges.take(0, [result(0, f"country={i}", n_features=5) for i in range(10)])
    assert series(gauges) == 2 * each
    assert value(gauges, SUPPRESSED) == 8 * each
    gauges.take(0, [result(0, n_features=5)])
    assert series(gauges) == 3 * each
    assert value(gauges, "monitor_window_rows") == 40
    gauges.take(0, [result(1, f"country={i}", n_features=5) for i in range(10_000)])
    assert series(gauges) <= 100
    assert value(gauges, SUPPRESSED) == (10_000 - (series(gauges) // each - 1)) * each


def test_a_version_without_windows_is_gone_after_a_while() -> None:
    gauges = WindowGauges((), 100)
    gauges.take(0, [result(0, version="6"), result(3)])
    assert value(gauges, "monitor_window_rows", version="6") == 40
    gauges.take(0, [result(4)])
    assert value(gauges, "monitor_window_rows", version="6") is None
    assert value(gauges, "monitor_window_rows") == 40


def test_only_series_of_partitions_that_are_kept_stay() -> None:
    gauges = WindowGauges((), 100)
    gauges.take(0, [result(0)])
    gauges.take(1, [result(0, version="8")])
    gauges.keep([1, 2])
    assert value(gauges, "monitor_window_rows") is None
    assert value(gauges, "monitor_window_rows", version="8") == 40


def test_every_gauge_has_a_prefix_a_unit_and_a_help() -> None:
    for name, (labels, text) in GAUGES.items():
        assert name.startswith(("monitor_window_", "monitor_feature_", "monitor_performance", "monitor_label_"))
        assert labels[:4] == ("model", "version", "window", "segment")
        assert text


def test_the_last_report_of_each_age_is_told() -> None:
    gauges = WindowGauges((), 100)
    gauges.take(0, [result(5), report(5, 0, 0.7), report(0, 4, 0.9), report(1, 4, 0.8)])
    about = {"metric": "accuracy", "kind": "realised"}
    assert value(gauges, "monitor_performance", age="0s", **about) == 0.7
    assert value(gauges, "monitor_performance", age="4h", **about) == 0.8
    assert value(gauges, "monitor_performance", age="4h", metric="accuracy", kind="high") == 0.8 + 0.05
    assert value(gauges, "monitor_performance", age="4h", metric="accuracy", kind="estimated") == 0.88
    assert value(gauges, "monitor_performance_coverage_ratio", age="4h") == 0.8
    assert value(gauges, "monitor_performance_breaches", age="4h", severity="critical") == 1
    assert value(gauges, "monitor_performance_conflict", age="4h") == 1
    assert value(gauges, "monitor_label_lag_seconds", age="4h", quantile="0.9") == 120
    assert value(gauges, "monitor_window_rows") == 40


def test_a_report_of_an_old_window_leaves_the_newest_windows_of_other_ages() -> None:
    gauges = WindowGauges((), 100)
    gauges.take(0, [report(9, 0), report(9, 0, segment="s"), report(1, 8), report(2, 8), result(9)])
    assert value(gauges, "monitor_performance_predictions", age="0s", segment="s") == 50
    gauges.take(0, [report(13, 0)])
    assert value(gauges, "monitor_performance_predictions", age="0s", segment="s") is None
    assert value(gauges, "monitor_performance_predictions", age="8h") == 50
