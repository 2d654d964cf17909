"""Shares that differ in their last digits: against decimals with 60 of them."""

from collections.abc import Sequence
from decimal import Decimal, getcontext

import numpy as np
import pytest

from monitor.distances import DISTANCES
from monitor.sides import Sides

getcontext().prec = 60
HALF = Decimal("0.5")
NEARLY_EQUAL = [
    ([10**6, 10**6, 10**6], [10**6 + 1, 10**6, 10**6 - 1]),
    ([10**8, 3 * 10**8], [10**8 + 1, 3 * 10**8]),
    ([10**12 + 7, 10**12, 5, 0], [10**12, 10**12 + 3, 5, 0]),
    ([1000, 2000, 3000], [1001, 2002, 3003]),
    ([4 * 10**9, 10**9, 3], [4 * 10**9 + 1, 10**9, 3]),
]


def expected(name: str, reference: Sequence[int], window: Sequence[int]) -> Decimal:
    k, m, n = len(reference), Decimal(sum(reference)), Decimal(sum(window))
    p, q = [r / m for r in map(Decimal, reference)], [w / n for w in map(Decimal, window)]
    ps, qs = [(r + HALF) / (m + k * HALF) for r in reference], [(w + HALF) / (n + k * HALF) for w in window]
    eps = Decimal("1e-4")
    pe, qe = [max(x, eps) for x in p], [max(x, eps) for x in q]
    psi = sum((b - a) * (b / a).ln() for a, b in zip(ps, qs, strict=True))
    halves = [(a, (a + b) / 2) for a, b in zip(p, q, strict=True)] + [(b, (a + b) / 2) for a, b in zip(p, q, strict=True)]
    pooled = [(r + w) / (n + m) for r, w in zip(reference, window, strict=True)]
    gaps = [b - a for a, b in zip(p, q, strict=True)]
    found = {
        "psi": lambda: psi,
        "psi_eps": lambda: sum((b - a) * (b / a).ln() for a, b in zip(pe, qe, strict=True)),
        "psi_corrected": lambda: psi - (k - 1) * (1 / n + 1 / m),
        "kl": lambda: sum(b * (b / a).ln() for a, b in zip(ps, qs, strict=True)),
        "js": lambda: Decimal.sqrt(sum(a * (a / mid).ln() for a, mid in halves if a) / 2 / Decimal(2).ln()),
        "hellinger": lambda: Decimal.sqrt(sum((a.sqrt() - b.sqrt()) ** 2 for a, b in zip(p, q, strict=True)) / 2),
        "tv": lambda: sum(map(abs, gaps)) / 2,
        "linf": lambda: max(map(abs, gaps)),
        "chi2": lambda: sum(g * g / c for g, c in zip(gaps, pooled, strict=True) if c) / (1 / n + 1 / m),
    }
    return Decimal(found[name]())


@pytest.mark.parametrize(("reference", "window"), NEARLY_EQUAL)
@pytest.mark.parametrize("distance", [d for d in DISTANCES if d.cells == "reported" and d.name != "chi2_p"], ids=lambda d: d.name)
def test_nearly_equal_shares_lose_no_digits(distance, reference: list[int], window: list[int]) -> None:
    value = float(distance.function(Sides(np.array(reference), np.array(window))))
    assert value == pytest.approx(float(expected(distance.name, reference, window)), rel=1e-9, abs=1e-300)
