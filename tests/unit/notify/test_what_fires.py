"""What Alertmanager is sent, on a clock that the test turns, and what a model of Alertmanager makes of it."""

from __future__ import annotations

from monitor.notify.breaker import Breaker
from monitor.notify.notice import Bury, Notice, Posted, Send, Verdict
from monitor.notify.progress import Progress
from monitor.notify.what_fires import MAX_POST, RESEND_RESOLVED_MS, WhatFires
from tests.unit.notify.notices import HOUR_MS, OPENED_MS, Desk, alert, notice

MINUTE_MS = 60_000
NOW_MS = OPENED_MS + 2 * HOUR_MS


class Peer:
    """A route on one partition and an Alertmanager: what it was sent, and what is active there."""

    def __init__(self, *, known: int = 0) -> None:
        self.desk = Desk()
        self.course = WhatFires(MINUTE_MS, self.desk, Breaker(lambda: 0.0), lambda n: n.alert.data.model != "other")
        self.course.assigned(0, Progress(known))
        self.now_ms = NOW_MS
        self.sent: list[Posted] = []
        self.ends: dict[frozenset[tuple[str, str]], int] = {}
        self.buried: list[str] = []
        self.down = False
        self.refuses: set[str] = set()

    def read(self, *notices: Notice, to_end: bool = True) -> None:
        for one in notices:
            self.course.take(one)
        if to_end:
            self.course.loaded(0)

    def work(self, ms: int = 0, *, step_ms: int = 1_000) -> list[tuple[str, str]]:
        """Let `ms` pass; return (id, firing or resolved) of what was accepted meanwhile."""
        before, end = len(self.sent), self.now_ms + ms
        while True:
            while (step := self.course.next(self.now_ms)) is not None:
                self.course.done(step, self.answer(step), self.now_ms)
            if self.now_ms >= end:
                return [(p.notice.id, "firing" if p.is_firing else "resolved") for p in self.sent[before:]]
            self.now_ms += step_ms

    def answer(self, step: Send | Bury) -> Verdict:
        if isinstance(step, Bury):
            self.buried.append(step.notice.id)
            return Verdict("delivered")
        if self.down:
            return Verdict("failed")
        refused = frozenset(i for i, p in enumerate(step.posted) if p.notice.id in self.refuses)
        for i, posted in enumerate(step.posted):
            if i not in refused:
                self.sent.append(posted)
                self.ends[frozenset(posted.labels.items())] = posted.ends_ms
        return Verdict("delivered", "", refused)

    @property
    def active(self) -> int:
        return sum(end > self.now_ms for end in self.ends.values())


FIRES = alert("f1")
ENDS = alert("r1", "resolved", "f1")


def test_what_fires_is_sent_again_at_the_interval_so_that_it_stays_active_and_ends_itself_if_it_is_not() -> None:
    peer = Peer()
    peer.read(notice(FIRES, 0))
    for _ in range(100):
        peer.work(10_000)
        assert peer.active == 1
    assert len(peer.sent) == 17
    assert peer.course.positions()[0] == (1, "")
    peer.down = True
    peer.work(5 * MINUTE_MS)
    assert peer.active == 0


def test_a_resolution_is_sent_at_once_with_the_windows_end_and_again_for_five_minutes() -> None:
    peer = Peer()
    peer.read(notice(FIRES, 0))
    peer.work(90_000)
    peer.read(notice(ENDS, 1))
    sent = peer.work(2 * RESEND_RESOLVED_MS)
    assert sent == [("f1", "resolved")] * 5
    assert {p.ends_ms for p in peer.sent[2:]} == {OPENED_MS + HOUR_MS}
    assert peer.active == 0
    assert peer.course.gauges() == {"queue": 0, "oldest_ms": 0, "firing": 0, "silenced": 0, "acknowledged": 0}


def test_an_incident_that_was_over_before_it_was_posted_is_posted_as_firing_first() -> None:
    peer = Peer()
    peer.down = True
    peer.read(notice(FIRES, 0), notice(ENDS, 1))
    peer.work(10 * MINUTE_MS)
    assert peer.course.positions()[0] == (0, "")
    peer.down = False
    assert peer.work(MINUTE_MS)[:2] == [("f1", "firing"), ("f1", "resolved")]
    assert (peer.active, peer.course.positions()[0]) == (0, (2, ""))


def test_the_state_is_rebuilt_from_the_topic_and_nothing_is_sent_before_it_is() -> None:
    peer = Peer(known=3)
    peer.read(notice(FIRES, 0), notice(alert("f2", feature="b"), 1), notice(ENDS, 2), to_end=False)
    assert peer.work(10_000) == []
    peer.read(to_end=True)
    assert peer.work(10_000) == [("f2", "firing")]
    assert peer.course.counts == {"reminded": 1}


def test_a_resolution_shortly_before_a_crash_is_sent_again_after_it() -> None:
    peer = Peer(known=2)
    peer.read(notice(FIRES, 0), notice(ENDS, 1, at_ms=NOW_MS - 3 * MINUTE_MS))
    assert peer.work(HOUR_MS) == [("f1", "resolved")] * 2


def test_an_incident_with_the_labels_of_one_that_is_over_fires_and_is_not_resolved_by_the_old_one() -> None:
    peer = Peer()
    peer.read(notice(FIRES, 0))
    peer.work()
    peer.read(notice(ENDS, 1))
    peer.work(MINUTE_MS)
    peer.read(notice(alert("f9", opened_ms=OPENED_MS + 2 * HOUR_MS), 2))
    sent = peer.work(10 * MINUTE_MS)
    assert set(sent) == {("f9", "firing")}
    assert peer.active == 1
    assert peer.course.positions()[0] == (3, "")


def test_a_repeated_firing_after_the_resolution_does_not_open_it_again() -> None:
    peer = Peer()
    peer.read(notice(FIRES, 0), notice(ENDS, 1), notice(FIRES, 2))
    peer.work(MINUTE_MS)
    assert (peer.active, peer.course.positions()[0]) == (0, (3, ""))


def test_it_resolves_under_the_labels_with_which_it_fired_whatever_the_rules_say_by_then() -> None:
    peer = Peer()
    peer.read(notice(alert("f1", severity="critical"), 0))
    peer.work()
    peer.read(notice(alert("r1", "resolved", "f1", severity="notice"), 1))
    peer.work()
    assert {p.labels["severity"] for p in peer.sent} == {"critical"}
    assert peer.active == 0


def test_restated_numbers_are_posted_under_the_first_labels_and_an_end_that_is_taken_back_fires_again() -> None:
    peer = Peer()
    peer.read(notice(FIRES, 0))
    peer.work()
    peer.read(notice(alert("f1.1", "firing", "f1", supersedes="f1", severity="critical"), 1))
    assert peer.work() == [("f1.1", "firing")]
    assert {p.labels["severity"] for p in peer.sent} == {"warning"}
    peer.read(notice(ENDS, 2))
    peer.work()
    assert peer.active == 0
    peer.read(notice(alert("f1.2", "firing", "f1", supersedes="r1"), 3))
    peer.work(10 * MINUTE_MS)
    assert (peer.active, peer.course.positions()[0]) == (1, (4, ""))


def test_only_alerts_that_it_refuses_are_dead_letters() -> None:
    peer = Peer()
    peer.refuses = {"f1"}
    peer.read(notice(FIRES, 0), notice(alert("f2", feature="b"), 1))
    assert peer.work() == [("f2", "firing")]
    assert (peer.buried, peer.course.positions()[0]) == (["f1"], (2, ""))


def test_many_are_sent_in_several_requests() -> None:
    peer = Peer()
    peer.read(*(notice(alert(f"f{i}", feature=f"x{i}"), i) for i in range(MAX_POST + 10)))
    step = peer.course.next(NOW_MS)
    assert isinstance(step, Send)
    assert len(step.posted) == MAX_POST
    assert len(peer.work()) == MAX_POST + 10


def test_who_looks_after_it_is_told_with_the_alert() -> None:
    peer = Peer()
    peer.read(notice(FIRES, 0))
    peer.work()
    peer.desk.acknowledge("f1")
    peer.work(MINUTE_MS)
    assert [p.ack.by if p.ack else None for p in peer.sent] == [None, "eva"]


def test_a_partition_that_is_taken_away_is_not_sent_any_more() -> None:
    peer = Peer()
    peer.read(notice(FIRES, 0))
    peer.course.revoked(0)
    assert peer.work(HOUR_MS, step_ms=MINUTE_MS) == []
