"""Simulated runs of both stages, a seed each: whoever dies, wakes up, moves or forgets, and what the harness finds when it should."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from monitor.ports import StoredRecord
from tests.defects import BY_SIMULATION, planted
from tests.simulation.__main__ import anomalies_of_chunk
from tests.simulation.broker import Log
from tests.simulation.oracle import expect
from tests.simulation.scenario import IDLE_AFTER_MS, MAX_FUTURE_MS, Scenario
from tests.simulation.world import Faults, World, simulate

SEEDS, CHUNKS = 1_000, 8


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_window_alert_and_count_is_exact_whoever_dies_or_wakes_up(chunk: int) -> None:
    """R9. A failing seed is told; `python -m tests.simulation --seed N` runs it again, record by record."""
    n = SEEDS // CHUNKS
    assert anomalies_of_chunk(chunk * n, n) == []


def test_the_runs_have_every_fault_and_every_kind_of_record() -> None:
    happened: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    n_alerts = 0
    for seed in range(40):
        world = simulate(seed)
        happened += world.happened
        expected = expect(world.scenario, world.logs)
        outcomes += expected.outcomes
        n_alerts += len(expected.alerts)
    faults = {"kill", "zombie", "in flight", "lost disk", "old disk", "compaction", "reset", "stale"}
    assert faults <= happened.keys()
    assert {"counted", "late", "ticks", "malformed_json", "future_timestamp"} <= outcomes.keys()
    assert n_alerts > 500


def test_a_seed_is_one_run_record_by_record_in_any_process() -> None:
    first, again = simulate(11), simulate(11)
    assert first.trace() == again.trace()
    assert first.trace() != simulate(12).trace()
    command = (sys.executable, "-m", "tests.simulation", "--seed", "11")
    told = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "77"}, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == f"0 anomalies, trace {first.trace()}"


@pytest.mark.parametrize("defect", [found.__name__ for found in BY_SIMULATION])
def test_a_planted_defect_is_found(defect: str) -> None:
    with planted(defect):
        assert any(anomalies_of_chunk(seed, 1) for seed in range(150))


class TestFarTimestamps:
    """I3: events an hour to a century ahead, nanoseconds taken for milliseconds, the year 9999."""

    def test_they_close_no_window_early_and_make_no_good_event_late(self) -> None:
        """What is expected is what it would be without them; that it is published is asserted by every seed."""
        refused = 0
        for seed in range(30):
            world = simulate(seed)
            if world.scenario.is_live:
                continue
            expected = expect(world.scenario, world.logs)
            without = expect(world.scenario, [_without_far(log) for log in world.logs])
            refused += expected.outcomes["future_timestamp"]
            assert expected.outcomes["late"] == without.outcomes["late"]
            for key, facts in without.results.items():  # which windows are published empty depends on panes that only saw them
                assert expected.results.get(key, {"n": 0})["n"] == facts["n"]
            assert world.anomalies() == []
        assert refused > 20


def _without_far(log: Log) -> Log:
    import msgspec

    def is_far(record: StoredRecord) -> bool:
        try:
            body = msgspec.json.decode(record.value or b"")
        except msgspec.DecodeError:
            return False
        return len(body) in (4, 5) and body[2] > record.timestamp + MAX_FUTURE_MS

    return Log([None if record is None or is_far(record) else record for record in log.records])


class TestSilence:
    """I5: idle partitions, and workers whose clocks are an hour off."""

    def test_windows_are_the_same_on_workers_whose_clocks_are_an_hour_ahead_or_behind(self) -> None:
        for seed in range(20):
            faults = Faults(kill=0.02, rebalance=0.03, zombie=0.3, skew=1.0)
            world = World(seed, Scenario.of({"x": 3}, is_live=True), faults)
            for _ in range(400):
                world.step()
            world.finish()
            assert world.anomalies() == []

    def test_three_of_four_idle_partitions_hold_no_window_back_and_the_last_is_closed_after_idle_after(self) -> None:
        world = World(1, Scenario.of({"x": 4}, is_live=True), Faults(), n_events=60)
        world.generation = 1
        process = world.start()
        owners = [world.own(process, place) for place in world.places]
        published: dict[bytes, int] = {}
        for _ in range(500):
            world.producers[0].produce(world.now_ms)
            for owner in owners:
                owner.settle()
            world.pass_time()
            for key, _ in world.published["results"]:
                published.setdefault(key, world.now_ms)
        assert world.producers[0].is_finished
        expected = {key for key, facts in expect(world.scenario, world.logs).results.items() if facts["n"]}
        assert len(expected) > 20
        for key in expected:
            model, _, start, size, _ = key.decode().split("|")
            grace_ms, pane_ms = world.scenario.settings.model(model).grace_ms, world.scenario.settings.model(model).pane_ms
            assert published[key] <= int(start) + int(size) + grace_ms + pane_ms + IDLE_AFTER_MS + 5
