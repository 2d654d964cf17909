"""Quantiles of χ² against scipy."""

import pytest
from scipy.stats import chi2

from monitor.chance.chi_square import critical, survival

DOFS = (1, 2, 3, 4, 9, 10, 31, 99, 200, 265, 400)


@pytest.mark.parametrize("dof", DOFS)
@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.001, 1e-6])
def test_the_critical_value_is_scipys_to_1e_9(dof: int, alpha: float) -> None:
    assert critical(dof, alpha) == pytest.approx(chi2.isf(alpha, dof), rel=1e-9)


@pytest.mark.parametrize("dof", DOFS)
def test_the_survival_function_is_scipys_in_both_tails(dof: int) -> None:
    for x in (1e-6, 0.1, dof / 2, dof, 2 * dof, 5 * dof + 20):
        assert survival(x, dof) == pytest.approx(chi2.sf(x, dof), rel=1e-9, abs=1e-300)


def test_without_degrees_of_freedom_nothing_exceeds_zero() -> None:
    assert critical(0, 0.001) == 0.0


def test_nothing_is_below_zero() -> None:
    assert survival(0.0, 3) == survival(-1.0, 3) == 1.0


def test_a_value_far_out_has_a_probability_of_zero_and_no_overflow() -> None:
    assert survival(1e6, 9) == 0.0
