"""A few seeds and no more: what the mutation score can afford."""

from __future__ import annotations

import pytest

from tests.simulation.scenario import Scenario
from tests.simulation.world import Faults, World

FAULTS = Faults(kill=0.03, rebalance=0.03, zombie=0.5, lost_disk=0.2, in_flight=0.5, compaction=0.05, duplicates=0.05)


@pytest.mark.parametrize(("is_live", "has_segments", "end_ms"), [(False, False, 180), (False, True, 180), (True, False, 180)])
def test_a_short_run_is_exact(is_live: bool, has_segments: bool, end_ms: int) -> None:
    world = World(7, Scenario.of({"x": 2}, is_live=is_live, has_segments=has_segments, end_ms=end_ms), FAULTS, n_events=20)
    for _ in range(250):
        world.step()
    world.finish()
    assert world.anomalies() == []
