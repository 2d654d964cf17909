"""A small run, ended at every single step of it: inside checkpoints, outboxes and finalisations, with the record under way lost or not."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.scenario import Scenario
from tests.simulation.world import Faults, World

SEED, N_EVENTS, N_STEPS = 2, 9, 300
EVERYWHERE = {"recover", "read", "write row", "write meta", "store", "commit", "send first", "send then", "note what was sent"}


def small(*, arrives: bool, keeps_disk: bool, is_live: bool) -> World:
    """Two source partitions whose producers have finished, one worker, no faults but the one that is asked for."""
    faults = Faults(in_flight=float(arrives), lost_disk=0.0 if keeps_disk else 1.0)
    world = World(SEED, Scenario.of({"x": 2}, is_live=is_live, end_ms=60), faults, N_EVENTS)
    while not all(producer.is_finished for producer in world.producers):
        world.pass_time()
        for producer in world.producers:
            producer.produce(world.now_ms)
    world.generation = 1
    process = world.start()
    for place in world.places:
        world.own(process, place)
    return world


def steps(world: World, n: int) -> Counter[tuple[str, str]]:
    """Let the worker do `n` things; return where in its code it was about to do each."""
    seen: Counter[tuple[str, str]] = Counter()
    for _ in range(n):
        world.pass_time()
        (process,) = world.processes
        owner = world.dice.choice(list(process.owners.values()))
        world.advance(process, owner)
        seen[owner.place.name.split("/")[0], owner.at] += 1
    return seen


@pytest.mark.parametrize("is_live", [False, True])
@pytest.mark.parametrize("keeps_disk", [True, False])
@pytest.mark.parametrize("arrives", [True, False])
def test_a_crash_at_any_step_of_a_run_changes_nothing(arrives: bool, keeps_disk: bool, is_live: bool) -> None:
    failing = {}
    for crash_at in range(N_STEPS):
        world = small(arrives=arrives, keeps_disk=keeps_disk, is_live=is_live)
        steps(world, crash_at)
        world.kill(world.processes[0])
        world.finish()
        if found := world.anomalies():
            failing[crash_at] = found
    assert failing == {}


def test_the_steps_lie_everywhere_in_checkpoints_outboxes_and_finalisations() -> None:
    world = small(arrives=True, keeps_disk=True, is_live=False)
    seen = steps(world, N_STEPS)
    assert len(world.published["results"]) > 5 and world.published["alerts"]
    assert {at for place, at in seen if place == "x"} >= EVERYWHERE - {"recover"} | {"send before meta"}
    assert {at for place, at in seen if place == "partials"} >= EVERYWHERE - {"recover", "send then"}
