"""Comparison with earlier windows: which rows, whoever dies or wakes up, and what it takes to store them."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import pytest

from monitor.features import NumberFeature
from monitor.findings import ClosedWindow, Judgement
from monitor.formats.native import NativeFormat
from monitor.layout import Layout
from monitor.profiles import Profile
from monitor.reference import Reference, References
from monitor.stages.merge import trail as trails
from monitor.stages.merge.partition import MergePartition
from monitor.stages.settings import Settings, Trail
from tests.simulation import PARTITIONS, Topic, finish, places_of, run
from tests.unit.stages.test_learning import GRACE_MS, SPECS, event, is_alarmed, settings, tick

FEATURE = NumberFeature(name="x", edges=(0.0, 1.0), reported=(0.0, 1.0), minimum=-3.0, maximum=3.0, centre=0.0, exponent=-30)
OWN_ROWS = 77
MIN_ROWS = 8


def own_reference(model: str) -> Reference:
    profile = Profile(Layout((FEATURE,)))
    profile.rows[0] = OWN_ROWS
    return Reference.build(model, "1", profile)


def judge(closed: ClosedWindow, before: bytes, history: Sequence[bytes]) -> Judgement:
    """Publish what a window was compared with: rows, panes, and the counts of the three cells."""
    window, reference = closed.window, closed.reference
    assert reference is not None
    facts = [reference.profile.n, reference.panes, reference.profile.summary("x").values.tolist()]
    key = f"{closed.model}|{window.start_ms}|{window.size_ms}".encode()
    return Judgement(
        ((key, msgspec.json.encode(facts)),), (), b"", (), window.size_ms == 10 and is_alarmed(closed.model, window.start_ms)
    )


class World:
    """Two source partitions, one partition of `partials`, and what was published."""

    def __init__(self, seed: int, trail: Trail) -> None:
        self.dice = random.Random(seed)
        self.settings: Settings = settings(None)
        self.settings = replace(self.settings, defaults=replace(self.settings.defaults, trail=trail))
        self.trail = trail
        self.references = References()
        for model in ("a", "bb"):
            self.references.add(own_reference(model))
        self.logs = [self._events(70) for _ in range(PARTITIONS)]
        made = places_of(self.settings, NativeFormat(), judge, self.logs, lambda: self.references)
        self.places, self.partials, self.published = made

    def _events(self, n: int) -> Topic:
        log = Topic()
        for i in range(n):
            time = max(0, i * 2 + self.dice.randrange(-12, 4))
            log.records.append(event(i, self.dice.choice(["a", "bb"]), time, {"x": self.dice.gauss(0.5, 1)}))
        log.records.append(tick(n, 1_000))
        return log

    def expected(self) -> dict[bytes, object]:
        """What every window is compared with, by a plain loop over the logs."""
        panes: dict[tuple[str, int], list[float]] = defaultdict(list)
        for log in self.logs:
            clock = -(10**9)
            for item in log.records:
                body = msgspec.json.decode(item.value or b"")
                clock = max(clock, body.get("tick", body.get("time")))
                if "tick" not in body and body["time"] // 10 * 10 + 10 + GRACE_MS > clock:
                    panes[body["model"], body["time"] // 10 * 10].append(body["features"]["x"])
        found: dict[bytes, object] = {}
        for model, pane in panes:
            for spec in SPECS:
                for window in spec.windows_of(pane, pane + 1):
                    mine = []
                    for (name, start), rows in panes.items():
                        back = window.start_ms - start
                        if name != model or not 0 < back <= self.trail.span_ms or is_alarmed(model, start):
                            continue
                        moved = (
                            [start + k * self.trail.every_ms for k in range(1, 20)] if self.trail.every_ms else [window.start_ms]
                        )
                        if any(window.start_ms <= m < window.end_ms for m in moved):
                            mine.append(rows)
                    xs = [x for pane_xs in mine for x in pane_xs]
                    counts = [sum(x <= 0 for x in xs), sum(0 < x <= 1 for x in xs), sum(x > 1 for x in xs)]
                    own = [OWN_ROWS, None, [0, 0, 0]]
                    key = f"{model}|{window.start_ms}|{window.size_ms}".encode()
                    found[key] = [len(xs), len(mine), counts] if len(xs) >= MIN_ROWS else own
        return found

    def wrong(self) -> list[str]:
        """Every window with rows that was compared with something else, or differently each time."""
        found: dict[bytes, set[bytes]] = defaultdict(set)
        for message in self.published:
            assert message.key is not None and message.value is not None
            found[message.key].add(message.value)
        problems = [f"CHANGED {key!r}" for key, values in found.items() if len(values) > 1]
        for key, value in self.expected().items():
            got = msgspec.json.decode(next(iter(found.get(key, {b"null"}))))
            problems += [f"WRONG {key!r} {got} {value}"] if got != value else []
        return problems


@pytest.mark.parametrize("trail", [Trail(span_ms=50), Trail(span_ms=120, every_ms=40)])
def test_windows_are_compared_with_the_same_earlier_rows_whoever_dies_or_wakes_up(
    monkeypatch: pytest.MonkeyPatch, trail: Trail
) -> None:
    monkeypatch.setattr(trails, "MIN_ROWS", MIN_ROWS)
    for seed in range(12):
        world = World(seed, trail)
        run(world.places, world.dice, 600)
        assert world.wrong() == []
    compared = [value for value in world.expected().values() if value != [OWN_ROWS, None, [0, 0, 0]]]
    assert len(compared) > 5


def test_a_short_run_compares_with_what_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trails, "MIN_ROWS", MIN_ROWS)
    world = World(5, Trail(span_ms=50))
    run(world.places, world.dice, 200)
    assert world.wrong() == []


def test_panes_that_no_later_window_needs_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trails, "MIN_ROWS", MIN_ROWS)
    world = World(3, Trail(span_ms=50))
    run(world.places, world.dice, 300)
    for log in world.logs:  # a paused owner may have written some again, which the next window gives up
        log.records += [event(len(log.records), "a", 1_005, {"x": 1.0}), event(len(log.records) + 1, "bb", 1_005, {"x": 1.0})]
        log.records.append(tick(len(log.records), 1_100))
    for place in world.places:
        finish(place, world.dice)
    stage = world.places[-1].owner()
    assert isinstance(stage, MergePartition)
    for model in stage._models.values():
        last = model.final[SPECS[0]][-1][0].end_ms
        assert all(start >= last - 30 - 50 for start in model.kept)
    without = replace(world.settings, defaults=replace(world.settings.defaults, trail=None))
    world.settings = without
    for log in world.logs:
        log.records += [event(len(log.records), "a", 1_205, {"x": 1.0}), tick(len(log.records) + 1, 1_300)]
    run(world.places, world.dice, 50)
    assert not any(key.startswith(b"kept|a") for key in world.places[-1].changelog)
