"""Means over the last windows."""

from __future__ import annotations

import math

import pytest

from monitor.decision.rolling import means
from monitor.decision.state import DecisionState
from monitor.findings import Measurement
from monitor.policy import RuleSet
from monitor.rules import Rule
from tests.shapes import judged_alone as decide

RULES = RuleSet({"drift.psi": Rule(above=0.2, over=3)})


def run(values: list[tuple[float, float | None, int]], rules: RuleSet = RULES) -> list[Measurement]:
    """Feed (value, critical value, n); return the mean of each window, the state going through bytes in between."""
    data, found = b"", []
    for value, critical, n in values:
        state = DecisionState.load(data)
        found += means("m", [Measurement("drift.psi", "x", value, n, 5_000, critical, min_n=100)], rules, state, is_complete=True)
        data = state.to_bytes()
    return found


def test_a_mean_is_of_so_many_windows_with_enough_rows() -> None:
    found = run([(0.1, 0.05, 500), (9.0, 0.4, 20), (0.3, 0.05, 300), (0.5, 0.11, 400), (0.7, None, 500)])
    assert [(m.n, m.min_n) for m in found[:3]] == [(0, 1)] * 3
    assert (found[3].value, found[3].critical_value, found[3].n, found[3].over) == (
        pytest.approx(0.3),
        pytest.approx(0.07),
        1_200,
        3,
    )
    assert (found[4].value, found[4].critical_value) == (pytest.approx(0.5), None)


def test_it_is_not_enough_data_until_there_are_so_many() -> None:
    verdicts = [decide("m", [m], RULES)[0].verdict for m in run([(0.9, 0.05, 500)] * 3)]
    assert verdicts == ["insufficient", "insufficient", "breach"]


def test_chance_is_bounded_for_a_mean_too() -> None:
    rules = RuleSet({"drift.psi": Rule(above=0.0, over=2)})
    assert [decide("m", [m], rules)[0].verdict for m in run([(0.05, 0.06, 200), (0.06, 0.06, 200), (0.08, 0.06, 200)], rules)] == [
        "insufficient", "ok", "breach",
    ]  # fmt: skip


def test_a_gap_in_what_can_be_measured_keeps_the_values_and_the_end_of_it_does_not() -> None:
    state = DecisionState({}, {}, {})
    means("m", [Measurement("drift.psi", "x", 0.1, 500, 5_000)], RULES, state, is_complete=True)
    means("m", [], RULES, state, is_complete=False)
    assert list(state.values) == ['["drift.psi","all","x"]']
    means("m", [], RULES, state, is_complete=True)
    assert state.to_bytes() == b""


def test_an_empty_window_counts_where_rows_are_the_value() -> None:
    rules = RuleSet({"traffic.low": Rule(below=50.0, over=2)})
    state = DecisionState({}, {}, {})
    for rows in (80, 0):
        found = means("m", [Measurement("traffic.low", "", float(rows), rows, 0)], rules, state, is_complete=False)
    assert (found[0].value, decide("m", found, rules)[0].verdict) == (40.0, "breach")


def performance(windows: list[tuple[float, float, int]], rule: Rule) -> Measurement:
    """Feed (accuracy, half its interval, labels), the state going through bytes in between; return the last mean."""
    data, rules = b"", RuleSet({"performance.accuracy": rule})
    for value, half, n in windows:
        state = DecisionState.load(data)
        measured = Measurement("performance.accuracy", "", value, n, 9_000, interval=(value - half, value + half))
        [found] = means("m", [measured], rules, state, is_complete=True)
        data = state.to_bytes()
    return found


def test_performance_is_weighted_by_rows_unless_the_rule_says_otherwise() -> None:
    windows = [(0.9, 0.02, 900), (0.5, 0.08, 100)]
    assert performance(windows, Rule(below=0.8, over=2)).value == pytest.approx(0.86)
    assert performance(windows, Rule(below=0.8, over=2, weighting="windows")).value == pytest.approx(0.7)
    rules = RuleSet({"drift.psi": Rule(above=0.2, over=3, weighting="rows")})
    assert run([(0.1, None, 100), (0.2, None, 200), (0.3, None, 700)], rules)[-1].value == pytest.approx(0.26)


def test_the_interval_of_a_mean_is_made_of_those_of_its_windows() -> None:
    found = performance([(0.8, 0.04, 500)] * 4, Rule(below=0.85, over=4))
    assert found.interval == (pytest.approx(0.78), pytest.approx(0.82))
    rules = RuleSet({"performance.accuracy": Rule(below=0.82, over=4)})
    assert decide("m", [found], rules)[0].verdict == "insufficient"
    found = performance([(0.8, 0.04, 500)] * 3 + [(0.8, math.inf, 500)], Rule(below=0.85, over=4))
    assert found.interval == (-math.inf, math.inf)
