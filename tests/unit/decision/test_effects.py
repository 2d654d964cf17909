"""Sizes of effects, their intervals, and the bare rule."""

import numpy as np
import pytest

from monitor.decision.effects import count_interval, fixed_rules, psi_effect
from monitor.findings import CountTest

DICE = np.random.default_rng(10)
P = np.full(10, 0.1)


def test_without_drift_the_effect_is_nothing_on_average() -> None:
    effects = [psi_effect(DICE.multinomial(20_000, P), DICE.multinomial(1_000, P), 1.0)[0] for _ in range(2_000)]
    assert abs(np.mean(effects)) < 0.0005


@pytest.mark.parametrize(("shift", "n"), [(0.0, 1_000), (0.05, 300), (0.05, 1_000), (0.02, 10_000)])
def test_the_interval_holds_the_true_psi_about_as_often_as_it_says(shift: float, n: int) -> None:
    q = P.copy()
    q[0], q[-1] = q[0] - shift, q[-1] + shift
    true = float(np.sum((q - P) * np.log(q / P)))
    inside = 0
    for _ in range(1_500):
        _, (low, high) = psi_effect(DICE.multinomial(20_000, P), DICE.multinomial(n, q), 1.0)
        inside += low <= true <= high
    assert 0.92 <= inside / 1_500 <= (0.985 if shift else 1.0)


def test_phi_takes_off_what_clusters_put_in() -> None:
    effects = [psi_effect(DICE.multinomial(4_000, P) * 5, DICE.multinomial(200, P) * 5, 5.0)[0] for _ in range(1_000)]
    assert abs(np.mean(effects)) < 0.003


def test_the_interval_of_a_difference_of_shares_is_newcombes() -> None:
    """His example: 56/70 and 48/80, method 10."""
    low, high = count_interval(CountTest(56, 70, 48, 80, "excess"), 0.2, 1.0)
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_rows_that_count_as_one_widen_it() -> None:
    test = CountTest(30, 1_000, 100, 10_000, "excess")
    narrow, wide = (count_interval(test, 0.02, effect) for effect in (1.0, 5.0))
    assert wide[0] < narrow[0] < 0.02 < narrow[1] < wide[1]


@pytest.mark.parametrize(("n", "k"), [(300, 10), (1_000, 30), (1_000, 100)])
def test_how_often_the_bare_rule_fires_is_what_a_simulation_counts(n: int, k: int) -> None:
    from monitor.distances.psi import psi
    from monitor.sides import Sides

    p, m, runs = np.full(k, 1 / k), 20_000, 20_000
    values = psi(Sides(DICE.multinomial(m, p, runs), DICE.multinomial(n, p, runs)))
    [found] = fixed_rules([0.3], [(n, m, k)], [1.0])
    share = float(np.mean(values > 0.2))
    assert found.quiet_rate == pytest.approx(share, rel=0.5, abs=0.002)
    assert found.fires
    assert found.quiet_rate_phi == pytest.approx(found.quiet_rate)


def test_clusters_make_it_fire_more_often_and_a_large_window_never() -> None:
    found, large, single, empty = fixed_rules(
        [0.1] * 4, [(300, 20_000, 10), (100_000, 100_000, 10), (300, 20_000, 1), (0, 20_000, 10)], [5.0, 1.0, 1.0, 1.0]
    )
    assert not found.fires
    assert found.quiet_rate < 1e-6
    assert found.quiet_rate_phi > 0.1
    assert large.quiet_rate == single.quiet_rate == empty.quiet_rate == 0.0
