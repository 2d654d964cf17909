"""A route that is killed between any two of its steps: nothing is lost, nothing is told out of order, whatever fails in between."""

from __future__ import annotations

import random

import pytest

from monitor.config_notify import RouteConfig
from monitor.notify.breaker import Breaker
from monitor.notify.each_alert import EachAlert
from monitor.notify.notice import Bury, Notice, Verdict
from monitor.notify.progress import Progress, withheld_in
from monitor.notify.what_fires import WhatFires
from tests.unit.notify.notices import OPENED_MS, Desk, alert, notice

SEEDS = 150
N_INCIDENTS = 12


def log_of(dice: random.Random) -> list[Notice]:
    """Return a partition: incidents that fire, end, fire again under the same labels, and records that come twice."""
    alerts, left = [], {}
    for i in range(N_INCIDENTS):
        feature = f"x{i % 5}"
        if feature in left:
            alerts.append(left.pop(feature))
        alerts.append(alert(f"f{i}", feature=feature, opened_ms=OPENED_MS + i))
        left[feature] = alert(f"r{i}", "resolved", f"f{i}", feature=feature, opened_ms=OPENED_MS + i)
        if dice.random() < 0.4:
            alerts.append(dice.choice(alerts))
    ended = [left.pop(feature) for feature in list(left) if dice.random() < 0.5]
    return [notice(one, offset) for offset, one in enumerate([*alerts, *ended])]


class Lives:
    """The lives of one route on one partition, and everything that its receiver took."""

    def __init__(self, seed: int, *, alertmanager: bool = False, silences: bool = False) -> None:
        self.dice = random.Random(seed)
        self.desk = Desk()
        self.log = log_of(self.dice)
        self.alertmanager = alertmanager
        self.silences = silences
        self.committed = (0, "")
        self.now_ms = OPENED_MS + 100_000
        self.took: list[tuple[str, bool]] = []
        self.ends: dict[str, int] = {}
        self.begin()

    def begin(self) -> None:
        breaker = Breaker(self.dice.random)
        if self.alertmanager:
            self.course: EachAlert | WhatFires = WhatFires(60_000, self.desk, breaker, lambda _: True)
        else:
            self.course = EachAlert(
                RouteConfig(receiver="people", urls_env="X", max_age="10d"), self.desk, breaker, lambda _: True
            )
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
                self.took.append((posted.notice.incident_id, posted.is_firing))
                self.ends[posted.notice.labels["feature"]] = posted.ends_ms
            if not step.posted:
                self.took.append((step.notices[0].incident_id, step.notices[0].is_firing))
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

    def first(self, incident_id: str, *, is_firing: bool) -> int | None:
        return next((i for i, one in enumerate(self.took) if one == (incident_id, is_firing)), None)


def status(lives: Lives) -> tuple[set[str], set[str]]:
    fired = {one.incident_id for one in lives.log if one.is_firing}
    return fired, {one.incident_id for one in lives.log if not one.is_firing}


@pytest.mark.parametrize("part", range(4))
def test_each_alert_is_told_and_an_incident_before_its_end(part: int) -> None:
    """The process also ends between the receiver's answer and the commit."""
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        lives = Lives(seed)
        lives.run()
        fired, over = status(lives)
        for incident_id in fired:
            told, ended = (lives.first(incident_id, is_firing=is_firing) for is_firing in (True, False))
            assert told is not None, (seed, incident_id)
            assert (ended is not None) == (incident_id in over) and told < (ended or len(lives.took)), (seed, incident_id)
        assert {incident_id for incident_id, _ in lives.took} == fired
        assert lives.committed == (len(lives.log), ""), seed


@pytest.mark.parametrize("part", range(4))
def test_with_silences_an_incident_is_told_with_its_end_or_not_at_all(part: int) -> None:
    """Not at all: when a silence covered all of it. What was answered is committed here: else nobody can know that it was told."""
    n_untold = 0
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        lives = Lives(seed, silences=True)
        lives.run()
        fired, over = status(lives)
        assert len(lives.took) == len(set(lives.took)), seed
        for incident_id in fired:
            told, ended = (lives.first(incident_id, is_firing=is_firing) for is_firing in (True, False))
            n_untold += told is None
            assert told is not None or incident_id in over, (seed, incident_id)
            assert (ended is not None) == (told is not None and incident_id in over), (seed, incident_id)
            assert told is None or ended is None or told < ended, (seed, incident_id)
        assert lives.committed == (len(lives.log), ""), seed
    assert n_untold


@pytest.mark.parametrize("part", range(4))
def test_alertmanager_ends_with_what_fires_and_saw_each_incident_fire_before_it_ended(part: int) -> None:
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        lives = Lives(seed, alertmanager=True)
        lives.run()
        fired, over = status(lives)
        for incident_id in fired:
            told, ended = (lives.first(incident_id, is_firing=is_firing) for is_firing in (True, False))
            assert told is not None, (seed, incident_id)
            assert ended is None or told < ended, (seed, incident_id)
        open_features = {one.labels["feature"] for one in lives.log if one.incident_id in fired - over}
        assert {feature for feature, end in lives.ends.items() if end > lives.now_ms} == open_features, seed
        assert lives.committed == (len(lives.log), ""), seed
