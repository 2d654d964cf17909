"""The scenarios: which faults, how many in the short and in the full run, on which traffic."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tests.chaos import faults
from tests.chaos.experiment import Experiment, Setting
from tests.chaos.ledger import Live, Series, wall_ms
from tests.chaos.plan import Plan

Disturb = Callable[[Experiment, bool], None]
"""(experiment, whether the full figures are asked for)"""

LIVE = Plan()
BY_EVENTS = Plan(clock="event", idle_after=600_000)
"""Only events and control records move the clock: nothing depends on how long a broker was away."""
EVERYWHERE = partial(Live, partitions=(0, 1, 2, 3))


@dataclass(frozen=True)
class Scenario:
    """One line of `python -m tests.chaos --list`. nodes, properties: of the cluster."""

    about: str
    disturb: Disturb
    setting: Setting = field(default_factory=lambda: Setting(LIVE))
    nodes: int = 1
    properties: Mapping[str, str] = field(default_factory=dict)


def _of(full: bool, few: int, many: int) -> range:
    return range(many if full else few)


def kills(experiment: Experiment, full: bool, few: int = 20, many: int = 50, longest_s: float = 10) -> None:
    """SIGKILL a random worker after 0.8–10 s, again and again."""
    for _ in _of(full, few, many):
        experiment.wait(experiment.dice.uniform(0.8, longest_s))
        faults.kill(experiment)


def some_kills(experiment: Experiment, full: bool) -> None:
    """Kill every few seconds."""
    kills(experiment, full, few=8, many=20)


def mixture(experiment: Experiment, full: bool) -> None:
    """Kill, pause, ask to end and rob of the disk, in turn at random."""
    kinds: list[Callable[[Experiment], None]] = [faults.kill] * 4 + [faults.wipe] * 2 + [faults.restart] * 2
    for _ in _of(full, 12, 40):
        experiment.wait(experiment.dice.uniform(1, 6))
        experiment.dice.choice(kinds)(experiment)


def third(experiment: Experiment, full: bool) -> None:
    """Kill every worker when a third has been sent, and one at two thirds; in the full run one at each sixth."""
    traffic = experiment.producing.traffic
    assert isinstance(traffic, Series)
    total = traffic.elements * len(traffic.plan.models)
    shares = (1 / 3, 2 / 3) if not full else (1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6)
    for share in shares:
        experiment.wait_for(lambda share=share: experiment.producing.sent >= share * total, 300)  # type: ignore[misc]
        for index in experiment.workers.indexes if share == 1 / 3 else [faults.pick(experiment)]:
            faults.kill(experiment, index)


def succession(experiment: Experiment, full: bool, every_s: float = 1.0) -> None:
    """Start a worker every second, and end the oldest, so that at most three are alive; by SIGTERM and SIGKILL in turn."""
    index = experiment.setting.workers
    for n in _of(full, 20, 60):
        experiment.wait(every_s)
        if len(experiment.workers.indexes) >= 3:
            oldest = experiment.workers.indexes[0]
            experiment.workers.stop(oldest, signal.SIGTERM if n % 2 else signal.SIGKILL)
            experiment.faults["stopped"] += 1
        faults.start(experiment, index + n)


def faust_schedule(experiment: Experiment, full: bool) -> None:
    """Faust's own schedule at ten times its speed: TERM or INT every 0.1–3 s, TERM every 0.5–10 s, KILL every 0.01–0.1 s."""
    for few, many, longest_s, numbers in (
        (10, 100, 3.0, (signal.SIGTERM, signal.SIGINT)),
        (5, 50, 10.0, (signal.SIGTERM,)),
        (3, 30, 0.1, (signal.SIGKILL,)),
    ):
        for _ in _of(full, few, many):
            experiment.wait(experiment.dice.uniform(longest_s / 20, longest_s))
            number = experiment.dice.choice(numbers)
            if number == signal.SIGKILL:
                faults.kill(experiment)
            else:
                faults.restart(experiment, number)
        experiment.await_progress(60, "a part of the schedule")


def rescale(experiment: Experiment, full: bool) -> None:
    """1 → 3 → 2 → 1 workers, in the middle of windows."""
    for _ in _of(full, 5, 20):
        for step, indexes in ((faults.start, (1, 2)), (faults.stop, (2,)), (faults.stop, (1,))):
            for index in indexes:
                step(experiment, index)
            experiment.wait(experiment.dice.uniform(6, 11))


def zombies(experiment: Experiment, full: bool, few: int = 3, longest_s: float = 60) -> None:
    """Pauses of 15–60 s, and as many times a worker that is cut off from the coordinator only."""
    for _ in _of(full, few, 20):
        faults.pause(experiment, experiment.dice.uniform(15, longest_s))
        experiment.wait(experiment.dice.uniform(3, 8))
        faults.cut_off(experiment, experiment.dice.uniform(8, 20))
        experiment.wait(experiment.dice.uniform(6, 10))


def broker_faults(experiment: Experiment, full: bool) -> None:
    """The broker is killed and returns after a few seconds; then it is away for 70 s."""
    for _ in _of(full, 3, 10):
        faults.broker_down(experiment, experiment.dice.uniform(0, 5))
        experiment.wait(experiment.dice.uniform(5, 10))
    for _ in _of(full, 1, 2):
        faults.broker_down(experiment, 70)
        experiment.wait(10)


def bounces(experiment: Experiment, full: bool) -> None:
    """Leaders end, cleanly and hard in turn."""
    for n in _of(full, 2, 10):
        faults.bounce(experiment, "hard" if n % 2 else "clean")
        experiment.wait(experiment.dice.uniform(3, 6))


def nothing(experiment: Experiment, full: bool) -> None:
    """No fault: what is impossible in the traffic is enough."""
    experiment.wait(120 if full else 30)


def _base_ms() -> int:
    """Return a whole minute of yesterday: a series is of the past, so that its times stay below those of its records."""
    return (wall_ms() - 86_400_000) // 60_000 * 60_000


def _names(n: int) -> tuple[str, ...]:
    return tuple(f"m{i:03d}" for i in range(n))


FLINK = Plan(
    models=_names(100), windows=((1_000, 1_000), (1_000, 100)), grace=100, clock="event", idle_after=600_000, rows_above=10**6
)
SMOKE = Plan(
    models=_names(20), windows=((2_000, 2_000), (2_000, 1_000)), grace=1_000, clock="event", idle_after=600_000, rows_above=10**6
)
SCENARIOS: Mapping[str, Scenario] = {
    "R1": Scenario("3 workers, 20 / 50 SIGKILL", kills),
    "R2-flink": Scenario(
        "100 models × 3,000 events, tumbling 1,000 and sliding 1,000/100; all workers killed at a third, one at two thirds",
        third,
        Setting(FLINK, lambda plan: Series(plan, 3_000, _base_ms(), rate=8_000), workers=2),
    ),
    "R2-smoke": Scenario(
        "20 models × 1,000 events; a new worker every second, the oldest ended, at most three alive",
        succession,
        Setting(SMOKE, lambda plan: Series(plan, 1_000, _base_ms(), spacing_ms=10, shuffled=10, rate=1_000), workers=1),
    ),
    "R2-relay": Scenario(
        "the same with a worker every 6 s, so that each of them works",
        partial(succession, every_s=6.0),
        Setting(SMOKE, lambda plan: Series(plan, 1_000, _base_ms(), spacing_ms=10, shuffled=10, rate=200), workers=1),
    ),
    "R3": Scenario("Faust's schedule × 10: 18 / 180 TERM, INT and KILL", faust_schedule),
    "R4": Scenario("1 → 3 → 2 → 1 workers, 5 / 20 times", rescale, Setting(LIVE, workers=1)),
    "R5": Scenario("3 / 20 pauses of 15–60 s, and as many cuts from the coordinator", zombies, Setting(LIVE, proxied=(0,))),
    "R6": Scenario(
        "3 / 10 SIGKILL of the only broker, 1 / 2 outages of 70 s", broker_faults, Setting(BY_EVENTS, EVERYWHERE, workers=2)
    ),
    "R7": Scenario(
        "three nodes: 2 / 10 leader bounces, clean and hard",
        bounces,
        Setting(
            Plan(clock="event", idle_after=600_000, replication=3, rows_above=2_600), partial(EVERYWHERE, rate=1_000), workers=2
        ),
        nodes=3,
        properties={"min.insync.replicas": "2"},
    ),
    "I3": Scenario(
        "1 in 100 events at an impossible time, no other fault",
        nothing,
        Setting(LIVE, partial(Live, impossible=0.01), workers=2),
    ),
    "I5": Scenario(
        "a partition that is silent half of the time, windows closed by silence, 12 / 40 kills, restarts and lost disks",
        mixture,
        Setting(Plan(idle_after=3_000), partial(Live, partitions=(0, 1), half_time=2, late=0.0), workers=2, ticks=False),
    ),
    "compaction": Scenario(
        "the changelogs are compacted all the time; 8 / 20 kills",
        some_kills,
        Setting(
            LIVE,
            workers=2,
            topic_settings=(
                ("min.compaction.lag.ms", "0"),
                ("max.compaction.lag.ms", "2000"),
                ("segment.ms", "1000"),
                ("min.cleanable.dirty.ratio", "0.01"),
            ),
        ),
    ),
    "transactions": Scenario(
        "every fourth transaction of the source is aborted: read uncommitted, all are counted; 8 / 20 kills",
        some_kills,
        Setting(BY_EVENTS, EVERYWHERE, workers=2, aborted=4),
    ),
    "graces": Scenario(
        "three models with graces of 2, 5 and 10 s and disorder of 8 s; 8 / 20 kills",
        some_kills,
        Setting(
            Plan(clock="event", idle_after=600_000, graces={"credit": 5_000, "fraud": 2_000, "churn": 10_000}),
            partial(EVERYWHERE, disorder_ms=8_000),
            workers=2,
        ),
    ),
}
