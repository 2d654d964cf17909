"""E-processes of counts in an open window: Ville's bound at every look, whatever the order of the rows, and what severe breaks show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from monitor.decision.early import (
    REFERENCE_ALPHA,
    SHOWN,
    SPENT,
    OpenWindow,
    Suspect,
    alpha,
    believed,
    checks_of,
    log_evidence,
    sets_of,
    share_limits,
    shown_p,
    unlikely,
)
from monitor.decision.scales import plan_of, to_bytes
from monitor.layout import layout_of
from monitor.policy import DEFAULT_RULE_SET, RuleSet
from monitor.profiles import Profile
from monitor.rules import FalseAlarms
from monitor.windows import WindowSpec
from tests.unit.decision.observed import HOUR_MS, Rows, closed, reference, rows

LOOKS = 48


@pytest.mark.parametrize(("share", "rows_of_look"), [(0.3, 20), (0.01, 100), (0.001, 100)])
@pytest.mark.parametrize("limit", [0.1, 0.02])
def test_ever_exceeding_one_over_alpha_is_as_rare_as_ville_says(share: float, rows_of_look: int, limit: float) -> None:
    dice = np.random.default_rng(round(1 / share))
    bad = np.cumsum(dice.binomial(rows_of_look, share, (20_000, LOOKS)), axis=1).astype(float)
    expected = np.full_like(bad, share * rows_of_look) * np.arange(1, LOOKS + 1)
    ever = (log_evidence(bad, expected).max(axis=1) >= np.log(1 / limit)).mean()
    assert ever <= limit + 3 * np.sqrt(limit / 20_000)


@pytest.mark.parametrize("first", [1, 6, LOOKS])
def test_it_is_as_rare_when_all_bad_rows_of_a_window_come_in_its_first_looks(first: int) -> None:
    dice = np.random.default_rng(first)
    bad = np.zeros((20_000, LOOKS))
    bad[:, :first] = dice.poisson(40 / first, (20_000, first))
    ever = (log_evidence(np.cumsum(bad, axis=1), np.full_like(bad, 40.0)).max(axis=1) >= np.log(20)).mean()
    assert ever <= 0.05 + 3 * np.sqrt(0.05 / 20_000)


def test_its_mean_is_at_most_one() -> None:
    bad = np.random.default_rng(4).poisson(3.0, 200_000).astype(float)
    assert np.exp(log_evidence(bad, np.full_like(bad, 3.0))).mean() < 1.05


def test_the_share_of_a_reference_is_exceeded_as_seldom_as_stated() -> None:
    dice = np.random.default_rng(5)
    counts = dice.poisson(12.0, 400_000)
    limits = share_limits(counts, np.full(len(counts), 10_000), np.ones(len(counts)))
    assert (limits * 10_000 < 12.0).mean() <= 1.5 * REFERENCE_ALPHA


def test_looks_spend_a_tenth_of_the_budget() -> None:
    daily = WindowSpec(24 * HOUR_MS, 24 * HOUR_MS)
    assert alpha(FalseAlarms(1.0, 100 * 24 * HOUR_MS), daily) == pytest.approx(0.01 * SPENT)


def test_the_sets_of_a_feature_are_each_cell_and_the_tails_and_weigh_one() -> None:
    sets = sets_of(reference().ranked)
    weights = np.bincount(sets.hypothesis, sets.weight)
    assert weights == pytest.approx(np.ones(len(sets.checks)))
    layout = reference().layout
    at = sets.checks.index("health.missing")
    assert (sets.spans.stop - sets.spans.first)[sets.hypothesis == at].tolist() == [2]
    of_x = [check for check, position in zip(sets.checks, sets.features, strict=True) if position == layout.index["x"]]
    of_colour = [check for check, position in zip(sets.checks, sets.features, strict=True) if position == layout.index["colour"]]
    assert {"drift.distribution", "drift.tails", "health.out_of_range", "health.nan"} <= set(of_x)
    assert {"drift.distribution", "health.never_seen"} <= set(of_colour)
    assert "drift.tails" not in of_colour
    assert sorted(of_x) == sorted(checks_of(is_number=True, is_secondary=False))
    assert sorted(of_colour) == sorted(checks_of(is_number=False, is_secondary=False))


def suspects(window: OpenWindow, rules: RuleSet, history: tuple[bytes, ...]) -> list[Suspect]:
    tested, found = unlikely(window, rules, history)
    return believed(found, tested, rules)


def look(columns: Rows, elapsed: float, history: tuple[bytes, ...] = ()) -> set[tuple[str, str]]:
    """Return the suspects of a window of which a share is over."""
    window = closed(reference(n=1_000), columns)
    upto_ms = window.window.start_ms + round(elapsed * window.window.size_ms)
    found = suspects(OpenWindow(window, upto_ms), DEFAULT_RULE_SET.of(window.window.spec), history)
    assert all(one.of.p_value <= one.p_limit for one in found)
    return {(one.of.check, one.of.feature) for one in found}


def test_a_number_that_moves_by_ten_sigma_is_seen_in_a_forty_eighth_of_the_window() -> None:
    x, colours = rows(np.random.default_rng(6), 500)
    assert look((x, colours), 0.5) == set()
    x[-20:] += 10
    assert look((x, colours), 0.5) == {(check, "x") for check in ("drift.distribution", "drift.tails", "health.out_of_range")}


def test_values_that_are_missing_or_new_are_seen() -> None:
    x, colours = rows(np.random.default_rng(7), 500)
    assert ("health.never_seen", "colour") in look((x, [*colours[:-20], *["pink"] * 20]), 0.5)
    assert ("health.missing", "colour") in look((x, [*colours[:-20], *[None] * 20]), 0.5)  # type: ignore[list-item]


def test_half_a_window_of_one_usual_value_is_what_the_whole_may_hold() -> None:
    x, _ = rows(np.random.default_rng(8), 500)
    assert look((x, ["red"] * 500), 0.5) == set()


def test_a_share_of_the_window_with_few_rows_holds_what_the_windows_before_tell() -> None:
    of = reference(n=1_000)
    x, _ = rows(np.random.default_rng(9), 110)
    night = (x, ["black"] * 110)
    quiet = rows(np.random.default_rng(10), 5_000)
    before = to_bytes(of, {"all": plan_of(of.ranked).tally(closed(of, quiet).profile.counts[0])})
    assert look(night, 0.5) == {("drift.distribution", "colour")}
    assert look(night, 0.5, (before,)) == set()


def test_too_few_rows_say_nothing() -> None:
    x, colours = rows(np.random.default_rng(11), 99)
    assert look((x + 50, colours), 0.5) == set()


def test_without_reference_or_features_nothing_is_looked_at() -> None:
    window = closed(reference(), rows(np.random.default_rng(12), 200))
    empty = window._replace(profile=Profile(layout_of([])))
    for one in (window._replace(reference=None), empty):
        assert suspects(OpenWindow(one, window.window.end_ms - 1), DEFAULT_RULE_SET, ()) == []


def test_without_a_known_phi_rows_count_in_fives() -> None:
    x, colours = rows(np.random.default_rng(13), 500)
    x[-8:] += 10
    found = {}
    for known in (True, False):
        window = closed(reference(n=1_000, is_calibrated=known), (x, colours))
        upto = window.window.start_ms + window.window.size_ms // 2
        found[known] = suspects(OpenWindow(window, upto), DEFAULT_RULE_SET, ())
    assert {one.of.is_known for one in found[True]} == {True}
    assert found[False] == []


def test_rules_say_what_is_looked_at() -> None:
    x, colours = rows(np.random.default_rng(14), 500)
    x[-50:] += 10
    window = closed(reference(n=1_000), (x, colours))
    rules = replace(DEFAULT_RULE_SET, rules={"drift.tails": DEFAULT_RULE_SET.rules["drift.tails"]})
    assert [one.of.check for one in suspects(OpenWindow(window, window.window.end_ms - 1), rules, ())] == ["drift.tails"]


def test_what_is_shown_is_all_that_a_budget_of_one_in_ten_windows_believes_or_the_rules_own() -> None:
    """So the rules themselves always find what they believe among it, and a stricter budget finds what it believes."""
    daily = WindowSpec(24 * HOUR_MS, 24 * HOUR_MS)
    wide = replace(DEFAULT_RULE_SET, false_alarms=FalseAlarms(3.0, 24 * HOUR_MS))
    assert shown_p(DEFAULT_RULE_SET, daily) == SHOWN == pytest.approx(alpha(FalseAlarms(1.0, 10 * 24 * HOUR_MS), daily))
    assert shown_p(wide, daily) == pytest.approx(0.3)
    x, colours = rows(np.random.default_rng(16), 500)
    x[-5:] += 10
    open_window = OpenWindow(closed(reference(n=1_000), (x, colours)), HOUR_MS // 2)
    shown = {name: unlikely(open_window, rules, ())[1] for name, rules in (("default", DEFAULT_RULE_SET), ("wide", wide))}
    assert set(shown["default"]) <= set(shown["wide"])
    assert {one.check for one in shown["default"] if one.p_value < SHOWN} == {
        "health.out_of_range",
        "drift.distribution",
        "drift.tails",
    }
