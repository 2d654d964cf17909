from __future__ import annotations

import pytest

from monitor.runtime.readiness import CONDITIONS, ON_PURPOSE, Readiness


def test_who_holds_nothing_and_asks_nothing_is_ready() -> None:
    readiness = Readiness()
    assert readiness.reasons() == {}
    assert not readiness.is_waiting


def test_a_question_is_asked_at_every_probe() -> None:
    readiness, answers = Readiness(), iter(["3 to go", "2 to go", None])
    readiness.ask("recovery", lambda: next(answers))
    assert [readiness.reasons() for _ in range(3)] == [{"recovery": "3 to go"}, {"recovery": "2 to go"}, {}]
    assert not readiness.is_waiting


def test_a_condition_holds_until_the_last_of_those_who_hold_it_lets_go() -> None:
    readiness = Readiness()
    readiness.hold("disk", "no space for t/0", "t/0")
    readiness.hold("disk", "no space for t/1", "t/1")
    readiness.release("disk", "t/0")
    assert readiness.reasons() == {"disk": "no space for t/1"}
    assert readiness.is_waiting
    readiness.release("disk", "t/1")
    readiness.release("disk", "t/1")
    assert readiness.reasons() == {}
    assert not readiness.is_waiting


def test_only_what_is_waited_for_on_purpose_is_a_standstill_that_is_meant() -> None:
    readiness = Readiness()
    for condition in set(CONDITIONS) - set(ON_PURPOSE):
        readiness.hold(condition, "x")
    assert not readiness.is_waiting
    for condition in ON_PURPOSE:
        readiness = Readiness()
        readiness.ask(condition, lambda: "asked, not held")
        assert readiness.is_waiting


def test_who_goes_takes_what_it_holds_along() -> None:
    readiness = Readiness()
    for condition in ("disk", "outputs"):
        readiness.hold(condition, "x", "t/0")
    readiness.hold("outputs", "y", "t/1")
    readiness.release_all("t/0")
    assert readiness.reasons() == {"outputs": "y"}


def test_what_matters_most_comes_first() -> None:
    readiness = Readiness()
    for condition in reversed(CONDITIONS):
        readiness.hold(condition, "x")
    assert list(readiness.reasons()) == list(CONDITIONS)


def test_a_condition_that_nobody_has_heard_of_is_an_error() -> None:
    with pytest.raises(KeyError):
        Readiness().hold("weather", "rain")
    with pytest.raises(KeyError):
        Readiness().ask("weather", lambda: "rain")
