"""A route that is killed between any two of its steps: nothing is lost, nothing is told out of order, whatever fails in between."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from monitor.alerts import Alert
from monitor.config.notify import RouteConfig
from monitor.notify.breaker import Breaker
from monitor.notify.each_alert import EachAlert
from monitor.notify.notice import Bury, Notice, Verdict
from monitor.notify.progress import Progress, withheld_in
from monitor.notify.what_fires import WhatFires
from tests.unit.notify.notices import OPENED_MS, Desk, alert, notice

SEEDS = 100
N_INCIDENTS = 12


def log_of(dice: random.Random) -> list[Notice]:
    """Return a partition: incidents that fire, are restated, end, fire again because the end is taken back, end again or go on.

    Some follow others under the same labels; some records come twice.
    """
    alerts: list[Alert] = []
    open_on: dict[str, list[Alert]] = {}
    for i in range(N_INCIDENTS):
        feature, facts = f"x{i % 5}", {"feature": f"x{i % 5}", "opened_ms": OPENED_MS + i}
        alerts += open_on.pop(feature, [])
        alerts.append(alert(f"f{i}", **facts))
        if dice.random() < 0.3:
            alerts.append(alert(f"f{i}.1", "firing", f"f{i}", supersedes=f"f{i}", **facts))
        if dice.random() < 0.3:
            alerts.append(alert(f"r{i}", "resolved", f"f{i}", **facts))
            alerts.append(alert(f"f{i}.2", "firing", f"f{i}", supersedes=f"r{i}", **facts))
        open_on[feature] = [alert(f"r{i}.2", "resolved", f"f{i}", **facts)]
        if dice.random() < 0.4:
            alerts.append(dice.choice(alerts))
    for end in open_on.values():
        alerts += end if dice.random() < 0.5 else []
    return [notice(one, offset) for offset, one in enumerate(alerts)]


class Took(NamedTuple):
    """What a receiver accepted."""

    incident_id: str
    is_firing: bool
    id: str


class Lives:
    """The lives of one route on one partition, and everything that its receiver took."""

    def __init__(self, seed: int, receiver: str, *, silences: bool = False) -> None:
        self.dice = random.Random(seed)
        self.desk = Desk()
        self.log = log_of(self.dice)
        self.receiver = receiver
        self.silences = silences
        self.committed = (0, "")
        self.now_ms = OPENED_MS + 100_000
        self.took: list[Took] = []
        self.ends: dict[str, int] = {}
        self.begin()

    def begin(self) -> None:
        breaker = Breaker(self.dice.random)
        if self.receiver == "alertmanager":
            self.course: EachAlert | WhatFires = WhatFires(60_000, self.desk, breaker, lambda _: True)
        else:
            facts = {"urls_env": "X"} if self.receiver == "people" else {"url": "https://a.example", "secret_env": "X"}
            route = RouteConfig.model_validate({"receiver": self.receiver, "max_age": "10d"} | facts)
            self.course = EachAlert(route, self.desk, breaker, lambda _: True)
        self.course.assigned(0, Progress(self.committed[0], withheld_in(self.committed[1])))
        self.read_to = 0

    def read(self, n: int) -> None:
        for one in self.log[self.read_to : self.read_to + n]:
            self.course.take(one)
        self.read_to = min(len(self.log), self.read_to + n)
        if self.read_to == len(self.log):
            self.course.loaded(0)

    def step(self, failing: float, crashing: float) -> bool:
        """Do one step, if there is one; it can fail, and the process can end after it and before the commit."""
        step = self.course.next(self.now_ms)
        if step is None:
            return False
        assert not isinstance(step, Bury)
        if self.dice.random() < failing:
            self.course.done(step, Verdict("failed"), self.now_ms)
        else:
            for posted in step.posted:
                self.took.append(Took(posted.notice.incident_id, posted.is_firing, ""))
                self.ends[posted.labels["feature"]] = posted.ends_ms
            if not step.posted:
                self.took.append(Took(step.notices[0].incident_id, step.notices[0].is_firing, step.notices[0].id))
            if not self.silences and self.dice.random() < crashing:
                self.begin()
                return True
            self.course.done(step, Verdict("delivered"), self.now_ms)
        if self.silences or self.dice.random() < 0.8:
            self.committed = self.course.positions()[0]
        return True

    def run(self) -> None:
        for _ in range(120):
            what = self.dice.random()
            if what < 0.4:
                self.read(self.dice.randrange(1, 6))
            elif what < 0.8:
                self.step(0.3, 0.2)
            elif what < 0.9:
                self.begin()
            elif self.silences:
                self.desk.silenced ^= {"credit"}
            self.now_ms += self.dice.randrange(5_000)
        self.desk.silenced = set()
        for _ in range(400):
            self.read(100)
            while self.step(0.0, 0.0):
                pass
            self.now_ms += 1_000
        self.committed = self.course.positions()[0]

    @property
    def is_open(self) -> dict[str, bool]:
        """Return, by incident, whether it fires in the end; a repeated record changes nothing."""
        by_id = {one.id: one for one in reversed(self.log)}
        return {one.incident_id: one.is_firing for one in sorted(by_id.values(), key=lambda one: one.offset)}

    def believed(self, incident_id: str) -> bool | None:
        """Return whether the receiver takes an incident to fire; None if it never heard of it."""
        return next((one.is_firing for one in reversed(self.took) if one.incident_id == incident_id), None)


@pytest.mark.parametrize("part", range(4))
def test_a_webhook_gets_each_alert_and_those_of_an_incident_in_order(part: int) -> None:
    """The process also ends between the receiver's answer and the commit."""
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        lives = Lives(seed, "webhook")
        lives.run()
        first = {one.id: i for i, one in reversed(list(enumerate(lives.took)))}
        assert set(first) == {one.id for one in lives.log}, seed
        places: dict[str, list[int]] = {}
        for one in lives.log:
            places.setdefault(one.incident_id, []).append(first[one.id])
        by_id = {one.id: one for one in reversed(lives.log)}
        for incident_id in places:
            ordered = [first[one.id] for one in sorted(by_id.values(), key=lambda o: o.offset) if one.incident_id == incident_id]
            assert ordered == sorted(ordered), (seed, incident_id)
        assert all(lives.believed(incident_id) == is_open for incident_id, is_open in lives.is_open.items()), seed
        assert lives.committed == (len(lives.log), ""), seed


@pytest.mark.parametrize("part", range(4))
def test_people_know_in_the_end_what_fires_and_what_is_over(part: int) -> None:
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        lives = Lives(seed, "people")
        lives.run()
        assert all(lives.believed(incident_id) == is_open for incident_id, is_open in lives.is_open.items()), seed
        assert lives.committed == (len(lives.log), ""), seed


@pytest.mark.parametrize("receiver", ["people", "webhook"])
@pytest.mark.parametrize("part", range(4))
def test_with_silences_they_know_too_except_of_what_was_over_before_its_silence_was(part: int, receiver: str) -> None:
    """What was answered is committed here: else nobody can know that it was told."""
    n_untold = 0
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        lives = Lives(seed, receiver, silences=True)
        lives.run()
        assert len(lives.took) == len(set(lives.took)), seed
        for incident_id, is_open in lives.is_open.items():
            believed = lives.believed(incident_id)
            n_untold += believed is None
            assert believed == is_open or (believed is None and not is_open), (seed, incident_id)
            firsts = [one.is_firing for one in lives.took if one.incident_id == incident_id]
            assert firsts[:1] != [False], (seed, incident_id)
        assert lives.committed == (len(lives.log), ""), seed
    assert n_untold


@pytest.mark.parametrize("part", range(4))
def test_alertmanager_ends_with_what_fires_and_saw_each_incident_fire_first(part: int) -> None:
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        lives = Lives(seed, "alertmanager")
        lives.run()
        for incident_id in lives.is_open:
            assert next(one.is_firing for one in lives.took if one.incident_id == incident_id), (seed, incident_id)
        open_features = {one.labels["feature"] for one in lives.log if lives.is_open[one.incident_id]}
        assert {feature for feature, end in lives.ends.items() if end > lives.now_ms} == open_features, seed
        assert lives.committed == (len(lives.log), ""), seed
