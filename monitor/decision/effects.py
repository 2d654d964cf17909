"""How large a change is, with an interval; and what a bare threshold on psi would have made of the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from monitor.chance.chi_square import survival
from monitor.chance.laws import Sample
from monitor.columns import Int
from monitor.distances import PSI_LAW
from monitor.distances.psi import psi
from monitor.findings import CountTest, FixedRule
from monitor.sides import Sides

Z95 = 1.959964
PSI_RULE = 0.2
"""The threshold that most guides give."""


def psi_effect(reference: Int, window: Int, phi: float) -> tuple[float, tuple[float, float]]:
    """Return psi less its expectation without drift, φ(k−1)(1/n + 1/m), and a 95 % interval; counts (k,) of the same cells.

    Its variance is that of the first-order term, φ (Var_Q g / n + Var_P h / m) with g = ln(Q/P) − P/Q and h = ln(P/Q) − Q/P (delta
    method), plus that of the second, 2 φ² (k−1) (1/n + 1/m)². Right where cells hold some rows; where P = Q, too wide: the first-order
    term is none then, but is estimated from the same noise.

    >>> value, (low, high) = psi_effect(np.full(10, 1_000), np.array([80, 90, 100, 100, 100, 100, 100, 100, 110, 120]), 1.0)
    >>> round(value, 4), round(low, 4), round(high, 4)
    (0.0001, -0.0158, 0.016)
    """
    [effect] = psi_effects([(reference, window)], [phi])
    return effect


def psi_effects(cells: Sequence[tuple[Int, Int]], phis: Sequence[float]) -> list[tuple[float, tuple[float, float]]]:
    """Return `psi_effect` of several comparisons, (reference, window) counts each; those of as many cells are computed together."""
    effects = [(0.0, (0.0, 0.0))] * len(cells)
    alike: dict[int, list[int]] = {}
    for i, (reference, _) in enumerate(cells):
        alike.setdefault(len(reference), []).append(i)
    for k, places in alike.items():
        sides = Sides(np.stack([cells[i][0] for i in places]), np.stack([cells[i][1] for i in places]))
        rows = zip(places, psi(sides).tolist(), _first_order(sides), sides.n[:, 0].tolist(), sides.m[:, 0].tolist(), strict=True)
        for i, value, first, n, m in rows:
            phi, each = phis[i], 1 / n + 1 / m
            middle = value - phi * (k - 1) * each
            error = math.sqrt(phi * first + 2 * phi * phi * (k - 1) * each * each)
            effects[i] = middle, (middle - Z95 * error, middle + Z95 * error)
    return effects


def _first_order(sides: Sides) -> list[float]:
    """Return the variance of psi's first-order term of each comparison, without φ."""
    p, q, _ = sides.smoothed
    of_q, of_p = np.log(q / p) - p / q, np.log(p / q) - q / p
    parts = ((q, of_q, sides.n[:, 0]), (p, of_p, sides.m[:, 0]))
    variances = [((share * g * g).sum(axis=-1) - (share * g).sum(axis=-1) ** 2) / rows for share, g, rows in parts]
    found: list[float] = (variances[0] + variances[1]).tolist()
    return found


def count_interval(test: CountTest, value: float, design_effect: float) -> tuple[float, float]:
    """Return the 95 % interval of a difference of shares, moved to `value` (Newcombe 1998, method 10: of two Wilson intervals)."""
    (low, high), (low_ref, high_ref) = (
        _wilson(bad / rows, rows / design_effect) for bad, rows in ((test.bad, test.n), (test.bad_ref, test.m))
    )
    share, share_ref = test.bad / test.n, test.bad_ref / test.m
    return value - math.hypot(share - low, high_ref - share_ref), value + math.hypot(high - share, share_ref - low_ref)


def _wilson(share: float, rows: float) -> tuple[float, float]:
    extra = Z95 * Z95 / rows
    centre, reach = share + extra / 2, Z95 * math.sqrt(share * (1 - share) / rows + extra / (4 * rows))
    return (centre - reach) / (1 + extra), (centre + reach) / (1 + extra)


def fixed_rule(psi_value: float, rows: tuple[int, int, int], phi: float) -> FixedRule:
    """Return what psi > `PSI_RULE` says, and how often it does of quiet data; rows: (n, m, cells) of the window alone."""
    sample = Sample(*rows, rows[2], 0)
    statistic = PSI_RULE / (1 / max(rows[0], 1) + 1 / max(rows[1], 1))
    return FixedRule(
        psi=psi_value,
        threshold=PSI_RULE,
        fires=psi_value > PSI_RULE,
        quiet_rate=PSI_LAW.p_value(PSI_RULE, sample) if rows[0] else 0.0,
        quiet_rate_phi=survival(statistic / phi, rows[2] - 1) if rows[0] and rows[2] > 1 else 0.0,
    )
