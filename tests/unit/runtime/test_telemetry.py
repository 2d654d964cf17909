from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from monitor.runtime.telemetry import MAX_MODELS, METRICS, Observed, Telemetry
from tests.unit.runtime.counting import CountingStage

KEY = ("events", "m", "counted")


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return telemetry.registry.get_sample_value(name, labels)


def counted(telemetry: Telemetry) -> float | None:
    return value(telemetry, "monitor_events_total", source="s", model="m", outcome="counted")


def test_a_worker_counts_what_became_durable_while_it_owned_the_partition() -> None:
    telemetry = Telemetry()
    telemetry.taken_over("s", 0, {KEY: 1_000})
    telemetry.durable("s", 0, {KEY: 1_010})
    telemetry.durable("s", 0, {KEY: 1_015})
    assert counted(telemetry) == 15


def test_counters_never_fall_when_partitions_come_and_go() -> None:
    telemetry = Telemetry()
    telemetry.taken_over("s", 0, {KEY: 0})
    telemetry.durable("s", 0, {KEY: 10})
    telemetry.forget()
    telemetry.taken_over("s", 0, {KEY: 4})
    telemetry.durable("s", 0, {KEY: 4})
    assert counted(telemetry) == 10
    telemetry.durable("s", 0, {KEY: 7})
    assert counted(telemetry) == 13


def test_over_all_workers_nothing_is_counted_twice() -> None:
    first, second = Telemetry(), Telemetry()
    first.taken_over("s", 0, {})
    first.durable("s", 0, {KEY: 10})
    second.taken_over("s", 0, {KEY: 10})
    second.durable("s", 0, {KEY: 25})
    assert (counted(first) or 0) + (counted(second) or 0) == 25


def test_too_many_models_share_a_label() -> None:
    telemetry = Telemetry()
    telemetry.durable("s", 0, {("events", f"m{i}", "counted"): 1 for i in range(MAX_MODELS + 5)})
    assert value(telemetry, "monitor_events_total", source="s", model="other", outcome="counted") == 5
    telemetry.durable("s", 0, {("events", "m3", "counted"): 2})
    assert value(telemetry, "monitor_events_total", source="s", model="m3", outcome="counted") == 2


@pytest.mark.parametrize(
    ("key", "name", "labels"),
    [
        (("rejections", "late"), "monitor_rejections_total", {"source": "s", "reason": "late"}),
        (("windows", "m"), "monitor_windows_total", {"model": "m"}),
        (("alerts", "m", "warning"), "monitor_alerts_total", {"model": "m", "severity": "warning"}),
        (("gaps",), "monitor_gap_offsets_total", {"source": "s"}),
        (("lost",), "monitor_lost_offsets_total", {"source": "s"}),
    ],
)
def test_each_count_of_a_stage_has_its_metric(key: tuple[str, ...], name: str, labels: dict[str, str]) -> None:
    telemetry = Telemetry()
    telemetry.durable("s", 0, {key: 3, ("of no metric",): 9})
    assert value(telemetry, name, **labels) == 3


def test_gauges_of_partitions_that_are_gone_are_gone() -> None:
    telemetry = Telemetry()
    telemetry.observe([Observed("s", 0, CountingStage([(b"k", b"[0, 1]")]), 12)])
    assert value(telemetry, "monitor_lag_records", source="s", partition="0") == 12
    assert value(telemetry, "monitor_open_rows") == 1
    telemetry.forget()
    assert value(telemetry, "monitor_lag_records", source="s", partition="0") is None
    assert value(telemetry, "monitor_open_rows") == 0


def test_foreign_writes_are_a_total() -> None:
    telemetry = Telemetry()
    telemetry.foreign_writes(2)
    telemetry.foreign_writes(2)
    telemetry.foreign_writes(5)
    assert value(telemetry, "monitor_foreign_writes_total") == 5


def test_every_metric_has_a_prefix_a_help_and_bounded_labels() -> None:
    for metric in METRICS:
        assert metric.name.startswith("monitor_")
        assert metric.help
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert set(metric.labels) <= {"source", "model", "outcome", "reason", "severity", "partition", "topic", "part"}
    assert b"monitor_build_info" in generate_latest(Telemetry().registry)
