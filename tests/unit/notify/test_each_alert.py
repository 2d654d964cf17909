"""What a webhook and people are sent, on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from monitor.config.notify import RouteConfig
from monitor.notify.breaker import Breaker
from monitor.notify.each_alert import MAX_QUEUE, TRIES, EachAlert
from monitor.notify.notice import Bury, Notice, Send, Verdict
from monitor.notify.progress import MAX_SEEN, Progress, SeenIds, packed, withheld_in
from tests.unit.notify.notices import HOUR_MS, OPENED_MS, Desk, alert, notice

DELIVERED, FAILED, REFUSED = Verdict("delivered"), Verdict("failed", "status 503"), Verdict("refused", "status 400")
MINUTE_MS = 60_000


class Route:
    """A route on one partition, and its receiver: what it got, and what it answers."""

    def __init__(self, *, known: int = 0, withheld: Iterable[int] = (), desk: Desk | None = None, **settings: Any) -> None:
        settings = {"receiver": "people", "urls_env": "X"} | settings
        if settings["receiver"] == "webhook":
            settings = {"url": "https://a.example", "secret_env": "X"} | settings
            del settings["urls_env"]
        self.desk = desk or Desk()
        self.course = EachAlert(RouteConfig(**settings), self.desk, Breaker(lambda: 0.0), lambda n: n.alert.data.model != "other")
        self.course.assigned(0, Progress(known, withheld))
        self.now_ms = OPENED_MS
        self.got: list[str] = []
        self.buried: list[tuple[str, str]] = []
        self.answers: dict[str, Verdict] = {}
        self.down = False

    def read(self, *notices: Notice, to_end: bool = True) -> None:
        for one in notices:
            self.course.take(one)
        if to_end:
            self.course.loaded(0)

    def work(self, ms: int = 0, *, step_ms: int = 500) -> list[str]:
        """Let `ms` pass, doing what is due; return the ids that the receiver got meanwhile."""
        before = len(self.got)
        end = self.now_ms + ms
        while True:
            while (step := self.course.next(self.now_ms)) is not None:
                self.course.done(step, self.answer(step), self.now_ms)
            if self.now_ms >= end:
                return self.got[before:]
            self.now_ms += step_ms

    def answer(self, step: Send | Bury) -> Verdict:
        if isinstance(step, Bury):
            self.buried.append((step.notice.id, step.reason))
            return DELIVERED
        (one,) = step.notices
        verdict = FAILED if self.down else self.answers.get(one.id, DELIVERED)
        if verdict is DELIVERED:
            self.got.append(one.id)
        return verdict

    @property
    def position(self) -> tuple[int, str]:
        return self.course.positions()[0]


FIRES = alert("f1")
ENDS = alert("r1", "resolved", "f1")


def test_each_alert_is_sent_once_and_in_order_and_its_offset_may_then_be_committed() -> None:
    route = Route()
    route.read(notice(FIRES, 0), notice(alert("f2", feature="income"), 1), notice(ENDS, 2), to_end=False)
    assert route.position == (0, "")
    assert route.work() == ["f1", "f2", "r1"]
    assert route.position == (3, "")
    assert route.course.counts == {"delivered": 3}


def test_a_repeated_record_is_sent_once() -> None:
    route = Route()
    route.read(notice(FIRES, 0), notice(ENDS, 1), notice(FIRES, 2), notice(ENDS, 3))
    assert route.work() == ["f1", "r1"]
    assert (route.position, route.course.counts["duplicate"]) == ((4, ""), 2)


def test_alerts_of_no_interest_and_records_that_are_no_alerts_move_the_position() -> None:
    route = Route()
    route.read(notice(alert("x", model="other"), 0))
    route.course.skip(0, 1)
    assert route.work() == []
    assert (route.position, route.course.counts) == ((2, ""), {"malformed": 1})


def test_a_resolution_reaches_whoever_was_told_even_if_the_route_does_not_match_it_any_more() -> None:
    route = Route()
    route.course._is_wanted = lambda n: n.alert.data.severity == "critical"
    route.read(notice(alert("f1", severity="critical"), 0), notice(alert("r1", "resolved", "f1", severity="notice"), 1))
    assert route.work() == ["f1", "r1"]


class TestRevisions:
    RESTATED = alert("f1.1", "firing", "f1", supersedes="f1", value=0.5)
    BACK = alert("f1.2", "firing", "f1", supersedes="r1")

    @pytest.mark.parametrize(("receiver", "got"), [("webhook", ["f1", "f1.1", "r1"]), ("people", ["f1", "r1"])])
    def test_restated_numbers_are_for_webhooks_only(self, receiver: str, got: list[str]) -> None:
        route = Route(receiver=receiver)
        route.read(notice(FIRES, 0))
        route.work()
        route.read(notice(self.RESTATED, 1), notice(ENDS, 2))
        route.work()
        assert (route.got, route.position) == (got, (3, ""))

    @pytest.mark.parametrize("receiver", ["webhook", "people"])
    def test_an_end_that_is_taken_back_is_told_and_the_next_end_too(self, receiver: str) -> None:
        route = Route(receiver=receiver)
        route.read(notice(FIRES, 0), notice(ENDS, 1), notice(self.BACK, 2), notice(alert("r2", "resolved", "f1"), 3))
        assert route.work() == ["f1", "r1", "f1.2", "r2"]

    def test_reminders_have_the_newest_numbers(self) -> None:
        route = Route(resend="4h")
        route.read(notice(FIRES, 0), notice(self.RESTATED, 1))
        assert route.work(5 * HOUR_MS, step_ms=MINUTE_MS) == ["f1", "f1.1"]
        assert route.course.counts == {"delivered": 1, "restated": 1, "reminded": 1}

    def test_people_are_told_of_an_end_once(self) -> None:
        route = Route()
        route.read(notice(FIRES, 0), notice(ENDS, 1), notice(alert("r1.1", "resolved", "f1", supersedes="r1"), 2))
        assert route.work() == ["f1", "r1"]


class TestAfterACrash:
    def test_what_was_committed_is_not_sent_again_and_what_was_not_is(self) -> None:
        route = Route(known=2)
        route.read(notice(FIRES, 0), notice(alert("f2", feature="b"), 1), notice(alert("f3", feature="c"), 2), notice(FIRES, 3))
        assert route.work(HOUR_MS, step_ms=MINUTE_MS) == ["f3"]
        assert route.position == (4, "")

    def test_a_resolution_of_an_incident_that_was_told_before_is_told(self) -> None:
        route = Route(known=1)
        route.read(notice(FIRES, 0), notice(ENDS, 1))
        assert route.work() == ["r1"]

    def test_a_partition_that_comes_back_is_read_anew(self) -> None:
        route = Route()
        route.read(notice(FIRES, 0), notice(alert("f2", feature="b"), 1))
        route.course.revoked(0)
        assert route.work() == []
        assert route.course.positions() == {}
        route.course.assigned(0, Progress(1))
        route.read(notice(FIRES, 0), notice(alert("f2", feature="b"), 1))
        assert route.work() == ["f2"]

    def test_a_step_whose_partition_was_taken_away_meanwhile_is_nothing(self) -> None:
        route = Route()
        route.read(notice(FIRES, 0))
        step = route.course.next(route.now_ms)
        assert step is not None
        route.course.revoked(0)
        route.course.done(step, DELIVERED, route.now_ms)
        assert route.course.counts == {}


class TestFailure:
    def test_a_receiver_that_is_down_gets_everything_when_it_is_back_and_the_position_waits(self) -> None:
        route = Route()
        route.down = True
        route.read(*(notice(alert(f"f{i}", feature=f"x{i}"), i) for i in range(20)))
        assert route.work(2 * HOUR_MS, step_ms=1_000) == []
        assert (route.position, route.course.breaker.is_open, route.buried) == ((0, ""), True, [])
        tries = route.course.counts["failed"]
        assert 2 * HOUR_MS / 60_000 <= tries <= 2 * HOUR_MS / 30_000
        route.down = False
        assert sorted(route.work(10 * MINUTE_MS)) == sorted(f"f{i}" for i in range(20))
        assert (route.position, route.course.breaker.is_open) == ((20, ""), False)

    def test_waits_double_up_to_a_minute_and_jitter_shortens_them_by_up_to_half(self) -> None:
        waits = []
        for dice in (0.0, 0.5):
            breaker = Breaker(lambda dice=dice: dice)
            for _ in range(8):
                breaker.failed(0)
                waits.append(breaker.due_ms / 1000)
        assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 0.75, 1.5, 3, 6, 12, 24, 45, 45]
        breaker.succeeded()
        assert (breaker.due_ms, breaker.is_open) == (0, False)

    def test_an_alert_that_a_receiver_refuses_is_a_dead_letter_at_once_and_delays_no_other(self) -> None:
        route = Route()
        route.answers = {"f1": REFUSED}
        route.read(notice(FIRES, 0), notice(alert("f2", feature="b"), 1), notice(ENDS, 2))
        assert route.work() == ["f2"]
        assert route.buried == [("f1", "refused")]
        assert (route.position, route.course.counts["untold"]) == ((3, ""), 1)

    def test_an_alert_that_alone_does_not_get_through_is_a_dead_letter_after_its_tries(self) -> None:
        route = Route()
        route.answers = {"f1": FAILED}
        route.read(notice(FIRES, 0), notice(alert("f2", feature="b"), 1), notice(alert("f3", feature="c"), 2))
        assert route.work(10 * MINUTE_MS) == ["f2", "f3"]
        assert route.buried == [("f1", "undeliverable")]
        assert route.course.counts["failed"] == TRIES + 1

    def test_a_resolution_never_overtakes_its_incident(self) -> None:
        route = Route()
        route.answers = {"f1": FAILED}
        route.read(notice(FIRES, 0), notice(ENDS, 1))
        assert route.work(MINUTE_MS) == []
        route.answers = {}
        assert route.work(2 * MINUTE_MS) == ["f1", "r1"]

    def test_what_waits_for_longer_than_max_age_is_a_dead_letter(self) -> None:
        route = Route(max_age="1h")
        route.down = True
        route.read(notice(FIRES, 0))
        route.work(HOUR_MS - MINUTE_MS, step_ms=MINUTE_MS)
        assert route.buried == []
        route.work(2 * MINUTE_MS, step_ms=MINUTE_MS)
        assert (route.buried, route.position) == ([("f1", "expired")], (1, ""))

    def test_a_dead_letter_that_is_not_acknowledged_is_tried_again(self) -> None:
        route = Route(max_age="1h")
        route.now_ms += 2 * HOUR_MS
        route.read(notice(FIRES, 0))
        step = route.course.next(route.now_ms)
        assert isinstance(step, Bury)
        route.course.done(step, FAILED, route.now_ms)
        assert route.position == (0, "")
        route.work()
        assert (route.buried, route.position) == ([("f1", "expired")], (1, ""))

    def test_a_full_queue_says_so(self) -> None:
        route = Route()
        route.down = True
        route.read(*(notice(alert(f"f{i}", feature=f"x{i}"), i) for i in range(MAX_QUEUE)))
        assert route.course.is_full
        assert route.course.gauges() == {
            "queue": MAX_QUEUE,
            "oldest_ms": OPENED_MS,
            "firing": MAX_QUEUE,
            "silenced": 0,
            "acknowledged": 0,
        }
        route.down = False
        assert len(route.work()) == MAX_QUEUE
        assert not route.course.is_full


class TestSilences:
    def test_a_silenced_incident_is_told_when_the_silence_ends_while_it_fires(self) -> None:
        route = Route()
        route.desk.silenced = {"credit"}
        route.read(notice(FIRES, 0))
        assert route.work(HOUR_MS, step_ms=MINUTE_MS) == []
        assert (route.position, route.course.gauges()["silenced"]) == ((1, "withheld:0"), 1)
        route.desk.silenced = set()
        assert route.work() == ["f1"]
        assert (route.position, route.course.counts) == ((1, ""), {"silenced": 1, "delivered": 1})

    def test_one_that_is_resolved_under_the_silence_is_not_told_at_all(self) -> None:
        route = Route()
        route.desk.silenced = {"credit"}
        route.read(notice(FIRES, 0))
        route.work()
        route.read(notice(ENDS, 1))
        route.desk.silenced = set()
        assert route.work(HOUR_MS, step_ms=MINUTE_MS) == []
        assert (route.position, route.course.counts) == ((2, ""), {"silenced": 2})

    def test_who_was_told_before_the_silence_is_told_of_the_end(self) -> None:
        route = Route()
        route.read(notice(FIRES, 0))
        route.work()
        route.desk.silenced = {"credit"}
        route.read(notice(ENDS, 1))
        assert route.work() == ["r1"]

    def test_what_is_held_back_outlives_a_crash(self) -> None:
        route = Route(known=3, withheld=[1])
        route.desk.silenced = {"credit"}
        route.read(notice(FIRES, 0), notice(alert("f2", feature="b"), 1), notice(alert("f3", feature="c"), 2))
        assert route.work() == []
        assert route.position == (3, "withheld:1")
        route.desk.silenced = set()
        assert route.work() == ["f2"]
        assert route.position == (3, "")

    def test_nothing_held_back_is_told_before_the_topic_was_read_to_its_end(self) -> None:
        route = Route(known=1, withheld=[0])
        route.read(notice(FIRES, 0), to_end=False)
        assert route.work(MINUTE_MS) == []
        route.read(notice(ENDS, 1))
        assert route.work(MINUTE_MS) == []
        assert route.position == (2, "")


class TestReminders:
    def test_while_it_fires_it_is_told_again_at_the_interval_until_it_is_resolved(self) -> None:
        route = Route(resend="4h")
        route.read(notice(FIRES, 0))
        assert route.work(9 * HOUR_MS, step_ms=MINUTE_MS) == ["f1", "f1", "f1"]
        route.read(notice(ENDS, 1))
        assert route.work(9 * HOUR_MS, step_ms=MINUTE_MS) == ["r1"]
        assert route.course.counts == {"delivered": 2, "reminded": 2}

    def test_an_acknowledged_incident_is_not_told_to_people_again_but_its_end_is(self) -> None:
        route = Route(resend="4h")
        route.read(notice(FIRES, 0))
        route.work()
        route.desk.acknowledge("f1")
        assert route.work(24 * HOUR_MS, step_ms=MINUTE_MS) == []
        assert route.course.gauges()["acknowledged"] == 1
        route.read(notice(ENDS, 1))
        assert route.work() == ["r1"]

    def test_one_that_was_acknowledged_before_it_could_be_told_is_not_told_but_a_webhook_is(self) -> None:
        for receiver, got, outcome in (("people", [], "acknowledged"), ("webhook", ["f1"], "delivered")):
            route = Route(receiver=receiver)
            route.down = True
            route.read(notice(FIRES, 0))
            route.work()
            route.desk.acknowledge("f1")
            route.down = False
            assert route.work(MINUTE_MS) == got
            assert (route.position, route.course.counts[outcome]) == ((1, ""), 1)

    def test_after_a_crash_they_go_on_at_their_interval(self) -> None:
        route = Route(resend="4h", known=1)
        route.now_ms += 3 * HOUR_MS
        route.read(notice(FIRES, 0))
        assert route.work(MINUTE_MS) == []
        assert route.work(HOUR_MS, step_ms=MINUTE_MS) == ["f1"]

    def test_one_that_fails_holds_no_commit_back(self) -> None:
        route = Route(resend="4h")
        route.read(notice(FIRES, 0))
        route.work()
        route.down = True
        route.work(5 * HOUR_MS, step_ms=MINUTE_MS)
        assert route.course.counts["failed"] > 3
        assert route.position == (1, "")

    def test_one_that_cannot_be_told_is_no_dead_letter_and_goes_when_its_incident_ends(self) -> None:
        route = Route(resend="4h", max_age="1h")
        route.read(notice(FIRES, 0))
        route.work()
        route.down = True
        route.work(7 * HOUR_MS, step_ms=MINUTE_MS)
        assert (route.buried, route.course.gauges()["queue"]) == ([], 0)
        route.work(HOUR_MS + 30 * MINUTE_MS, step_ms=MINUTE_MS)
        assert route.course.gauges()["queue"] == 1
        route.read(notice(ENDS, 1, at_ms=route.now_ms))
        route.down = False
        assert route.work(2 * MINUTE_MS) == ["r1"]


@pytest.mark.parametrize("text", [None, "", "other", "withheld:", "withheld:x,-1"])
def test_a_commit_with_other_words_withholds_nothing(text: str | None) -> None:
    assert withheld_in(text) == []


def test_what_a_commit_can_hold_is_bounded_and_the_newest_stay() -> None:
    text = packed(range(10_000_000, 10_001_000))
    assert len(text) < 4_000
    assert withheld_in(text)[-1] == 10_000_999


def test_the_memory_of_ids_is_bounded() -> None:
    seen = SeenIds()
    assert all(seen.add(str(i)) for i in range(MAX_SEEN + 1))
    assert seen.add("0")
    assert not seen.add(str(MAX_SEEN))
