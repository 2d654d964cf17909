"""Exact on Apache Kafka whatever dies; and the harness that says so finds a planted defect."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial

import pytest

from tests.chaos import faults, scenarios
from tests.chaos.experiment import Experiment, run, with_command
from tests.chaos.ledger import Live
from tests.chaos.report import Report
from tests.kafka import KafkaCluster

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]


def exact(report: Report) -> Report:
    print(report)
    assert report.anomalies == []
    return report


def test_twenty_kills_of_three_workers_change_nothing_and_impossible_times_close_no_window(kafka: KafkaCluster, app: str) -> None:
    setting = replace(scenarios.SCENARIOS["R1"].setting, traffic=partial(Live, impossible=0.01))
    figures = exact(run(kafka, app, setting, partial(scenarios.kills, full=False, longest_s=6), seed=11)).figures
    assert figures["events"] > 60_000
    assert figures["alerts"] > 10
    assert figures["late"] > 0 and figures["rejected"] > 0
    assert figures["faults"] == {"kill": 20}


def test_a_hundred_models_with_sliding_windows_are_exact_through_the_loss_of_all_workers(kafka: KafkaCluster, app: str) -> None:
    scenario = scenarios.SCENARIOS["R2-flink"]
    figures = exact(run(kafka, app, scenario.setting, partial(scenario.disturb, full=False), seed=12)).figures
    assert figures["events"] == 300_000
    assert figures["windows"] == 100 * (3 + 39)


def test_a_paused_worker_and_one_cut_off_from_its_group_change_nothing(kafka: KafkaCluster, app: str) -> None:
    def disturb(experiment: Experiment) -> None:
        for seconds in (8, 15, 10):
            faults.pause(experiment, seconds)
            experiment.wait(4)
        for seconds in (10, 8):
            faults.cut_off(experiment, seconds)
            experiment.wait(6)

    figures = exact(run(kafka, app, scenarios.SCENARIOS["R5"].setting, disturb, seed=13)).figures
    assert figures["faults"] == {"live zombie": 2, "zombie": 3}
    assert figures["exits"].get("83", 0) >= 4, "a worker that has lost its group ends itself"


def test_a_planted_defect_is_found(kafka: KafkaCluster, app: str) -> None:
    """Rows that are folded twice, where checkpoints are slow enough for a kill to fall into them; in three runs at the most.

    The other defects are found by the simulation (tests/unit/stages), and by `python -m tests.chaos R1 --defect NAME`.
    """
    command = (sys.executable, "-m", "tests.defects", "skip_row_offset_check+slow_meta")
    setting = with_command(replace(scenarios.SCENARIOS["R1"].setting, workers=2, final_read_s=30), command)
    for attempt in range(3):
        report = run(
            kafka, f"{app}{attempt}", setting, partial(scenarios.kills, full=False, few=6, longest_s=5), seed=3 + attempt
        )
        print(report)
        if report.words["OVERCOUNTED"]:
            return
    pytest.fail("the harness has not found it")
