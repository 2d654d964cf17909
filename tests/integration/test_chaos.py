"""Exact on Apache Kafka whatever dies; and the harness that says so finds planted defects."""

from __future__ import annotations

import random
import sys

import pytest

from tests import chaos
from tests.kafka import KafkaCluster

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]


def test_every_window_is_exact_through_kills_pauses_stops_and_lost_disks(kafka: KafkaCluster, app: str) -> None:
    faults = ["kill"] * 10 + ["stop"] * 5 + ["term"] * 3 + ["wipe"] * 2
    random.Random(11).shuffle(faults)
    report = chaos.run(kafka, app, faults, seed=11, pause=(1.0, 3.0))
    print(report)
    assert report.anomalies == []
    assert report.produced > 100_000


@pytest.mark.parametrize(
    ("defect", "faults"),
    [
        ("skip_row_offset_check+slow_meta", ["kill"] * 5),
        ("late_by_timer", ["kill"] * 2),
        ("meta_before_rows", ["kill"] * 5),
    ],
)
def test_a_planted_defect_is_found(kafka: KafkaCluster, app: str, defect: str, faults: list[str]) -> None:
    """Those that a few minutes of real faults show, in three runs at the most; all are found by the simulation (tests/unit/stages)."""
    command = (sys.executable, "-m", "tests.defects", defect)
    for attempt in range(3):
        report = chaos.run(kafka, f"{app}{attempt}", faults, seed=3 + attempt, command=command, pause=(2.5, 4.5), settle_s=30)
        print(report)
        if [a for a in report.anomalies if not a.startswith("NEVER_CLOSED")]:
            return
    pytest.fail("the harness has not found it")


def test_slow_checkpoints_alone_are_harmless(kafka: KafkaCluster, app: str) -> None:
    command = (sys.executable, "-m", "tests.defects", "slow_meta")
    report = chaos.run(kafka, app, ["kill"] * 5, seed=3, command=command, pause=(1.0, 3.0))
    print(report)
    assert report.anomalies == []
