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


def fixed_rules(psi_values: Sequence[float], rows: Sequence[tuple[int, int, int]], phis: Sequence[float]) -> list[FixedRule]:
    """Return what psi > `PSI_RULE` says of several windows, and how often it does of quiet data; rows: (n, m, cells) of each window alone."""
    n, m, cells = np.array(rows, np.int64).reshape(-1, 3).T
    sample = Sample(np.maximum(n, 1), np.maximum(m, 1), cells, cells, 0)
    can_fire = (n > 0) & (cells > 1)
    statistics = PSI_RULE / (1 / sample.n + 1 / sample.m)
    quiet = np.where(can_fire, PSI_LAW.p_value(PSI_RULE, sample), 0.0).tolist()
    quiet_phi = np.where(can_fire, survival(statistics / np.array(phis, np.float64), cells - 1), 0.0).tolist()
    return [
        FixedRule(psi=value, threshold=PSI_RULE, fires=value > PSI_RULE, quiet_rate=rate, quiet_rate_phi=rate_phi)
        for value, rate, rate_phi in zip(psi_values, quiet, quiet_phi, strict=True)
    ]
