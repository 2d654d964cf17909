from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from monitor.config.settings import Watchdog as Limits
from monitor.runtime import health as module
from monitor.runtime.exits import EXIT_LOOP, EXIT_PROGRESS, EXIT_RECOVERY
from monitor.runtime.health import Health
from monitor.runtime.readiness import Readiness
from monitor.runtime.telemetry import Telemetry
from monitor.runtime.watchdog import Watchdog


class Ended(Exception):
    def __init__(self, reason: str, code: int, **facts: Any) -> None:
        super().__init__(reason, code)
        self.facts = facts


class Recovery:
    def __init__(self) -> None:
        self.completed = asyncio.Event()
        self.n_taken = 0

    def n_remaining(self) -> int:
        return 100 - self.n_taken


class Owners:
    n_loaded = 0

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def standing(self) -> dict[str, int]:
        return self.places

    def __len__(self) -> int:
        return 4


class Scene:
    """A worker that is well, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time_s, self.reference_age_s = 1_000.0, 1.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.time_s)

        def end(reason: str, code: int, **facts: Any) -> None:
            raise Ended(reason, code, **facts)

        monkeypatch.setattr(module, "end_process", end)
        self.recovery, self.owners, self.readiness = Recovery(), Owners(), Readiness()
        self.topics = SimpleNamespace(unreachable=None, changed=None)
        tables = SimpleNamespace(begun_recovery=self.recovery)
        self.app = SimpleNamespace(owned_generation=3, rebalancing=False, tables=tables, readiness=self.readiness)
        self.recovery.completed.set()
        self.health = Health(self.app, self.owners, self.topics, lambda: self.reference_age_s)  # type: ignore[arg-type]
        assert self.health.readyz() == (True, "4 partitions")

    def not_ready(self) -> str:
        is_ready, text = self.health.readyz()
        assert not is_ready
        return text

    def watch(self, watchdog: Watchdog, seconds: int, *, turns: bool = True) -> None:
        for _ in range(seconds):
            self.time_s += 1
            self.health.n_turns += turns
            watchdog.look(1)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_a_loop_that_has_not_turned_for_4_s_is_not_alive_and_one_that_reads_rows_is(scene: Scene) -> None:
    assert scene.health.livez()[0]
    scene.time_s += 4.1
    assert scene.health.livez() == (False, "event loop turned 4.1 s ago")
    assert scene.not_ready() == "loop: event loop turned 4.1 s ago"
    scene.owners.n_loaded += 1
    assert scene.health.livez()[0]


def test_each_condition_is_told_and_none_but_the_loop_is_a_matter_of_life(scene: Scene) -> None:
    scene.topics.unreachable = "no broker answers"
    assert scene.not_ready() == "broker: no broker answers"
    scene.topics.unreachable, scene.topics.changed = None, "t was deleted"
    assert scene.not_ready() == "topics: t was deleted"
    scene.topics.changed = None
    scene.app.owned_generation = None
    assert scene.not_ready() == "assignment: no partitions are assigned yet"
    scene.app.owned_generation, scene.app.rebalancing = 4, True
    assert scene.not_ready() == "recovery: state is being recovered: 100 changelog records to go"
    scene.app.rebalancing = False
    scene.reference_age_s = 31
    assert scene.not_ready() == "references: not known to be read to their end for 31 s"
    scene.reference_age_s = 1
    for condition in ("disk", "outputs", "stopping"):
        scene.readiness.hold(condition, "so it is")
        assert scene.not_ready() == f"{condition}: so it is"
        scene.readiness.release(condition)
    assert scene.health.livez()[0]
    assert scene.health.readyz()[0]


def test_scrapes_ask_for_themselves(scene: Scene) -> None:
    telemetry = Telemetry()
    scene.health.tell(telemetry, {"loop": 2})
    value = telemetry.registry.get_sample_value
    assert value("monitor_not_ready", {"reason": "disk"}) == 0
    scene.readiness.hold("disk", "full")
    scene.time_s += 2
    assert value("monitor_not_ready", {"reason": "disk"}) == 1
    assert value("monitor_loop_age_seconds") == 2
    assert value("monitor_recovery_remaining_records") == 100
    assert value("monitor_worker_restarts_total", {"reason": "loop"}) == 2
    assert value("monitor_worker_restarts_total", {"reason": "killed"}) == 0
    assert value("monitor_worker_restarts_total", {"reason": "stopped"}) is None


class TestWatchdog:
    limits = Limits.model_validate({"loop": "30s", "recovery": "60s", "progress": "20s"})

    def test_a_well_worker_is_never_ended(self, scene: Scene) -> None:
        scene.watch(scene.health.watchdog(self.limits), 300)

    def test_a_stalled_loop(self, scene: Scene) -> None:
        watchdog = scene.health.watchdog(self.limits)
        with pytest.raises(Ended, match=str(EXIT_LOOP)) as caught:
            scene.watch(watchdog, 40, turns=False)
        assert caught.value.facts["not_ready"] == {"loop": "event loop turned 32.0 s ago"}

    def test_a_recovery_that_gets_on_takes_as_long_as_it_takes_and_one_that_does_not_is_ended(self, scene: Scene) -> None:
        watchdog = scene.health.watchdog(self.limits)
        scene.recovery.completed.clear()
        for _ in range(20):
            scene.watch(watchdog, 50)
            scene.recovery.n_taken += 1
        with pytest.raises(Ended, match=str(EXIT_RECOVERY)):
            scene.watch(watchdog, 70)

    def test_an_assignment_that_never_comes(self, scene: Scene) -> None:
        watchdog = scene.health.watchdog(self.limits)
        scene.app.owned_generation = None
        with pytest.raises(Ended, match=str(EXIT_RECOVERY)):
            scene.watch(watchdog, 70)

    def test_records_that_wait_while_nothing_is_waited_for(self, scene: Scene) -> None:
        watchdog = scene.health.watchdog(self.limits)
        scene.owners.places = {"t/0: records wait to be read": 5}
        scene.readiness.hold("disk", "full")
        scene.watch(watchdog, 300)
        scene.readiness.release("disk")
        with pytest.raises(Ended, match=str(EXIT_PROGRESS)):
            scene.watch(watchdog, 30)
