"""Rows far out, on either side, of a number."""

import numpy as np
import pytest

from monitor.decision.tails import CHECK, DEPTHS
from tests.unit.decision.observed import closed, measured, reference, rows

DICE = np.random.default_rng(9)
REFERENCE = reference(n=1_000)
X_REF = np.sort(rows(np.random.default_rng(1), 60_000)[0])


@pytest.mark.parametrize(("side", "sign"), [("low", -1), ("high", 1)])
@pytest.mark.parametrize("depth", range(len(DEPTHS)))
def test_rows_beyond_a_quantile_are_counted_exactly(side: str, sign: int, depth: int) -> None:
    n_ref = int(DEPTHS[depth] * 60_000)
    border = X_REF[n_ref - 1] if sign < 0 else X_REF[-n_ref]
    x, colours = rows(DICE, 1_000)
    x = np.clip(x, -2, 2)
    x[:40] = border
    found = measured(closed(REFERENCE, (x, colours)))[CHECK, "x"]
    assert found.counted is not None
    assert (found.evidence["side"], found.evidence["rows"]) == (side, 40)
    assert abs(found.counted.bad_ref - n_ref) <= 1 or found.counted.bad_ref >= n_ref
    assert found.value == pytest.approx(0.04 - found.counted.bad_ref / 60_000)
    assert found.p_value is not None
    assert found.p_value < 1e-12


def test_both_sides_and_all_depths_are_paid_for() -> None:
    found = measured(closed(REFERENCE, rows(DICE, 1_000)))[CHECK, "x"]
    assert found.counted is not None
    assert found.counted.parts == 2 * len(DEPTHS)


def test_quiet_windows_pass_the_p_of_one_in_a_thousand_less_often() -> None:
    found = [measured(closed(REFERENCE, rows(DICE, 300)))[CHECK, "x"] for _ in range(300)]
    assert sum(m.p_value is not None and m.p_value <= 1e-3 for m in found) <= 2


def test_a_category_has_no_tails() -> None:
    assert (CHECK, "colour") not in measured(closed(REFERENCE, rows(DICE, 300)))
