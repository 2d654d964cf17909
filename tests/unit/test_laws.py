"""Critical values and p-values of distances, against scipy."""

import math

import numpy as np
import pytest
from scipy.stats import chi2, ks_2samp

from monitor.chance.laws import ExponentialBound, Sample, sample_of
from monitor.distances import DISTANCES

OF = {distance.name: distance for distance in DISTANCES}
SAMPLE = Sample(n=500, m=20_000, k=12, filled=10, rare=2)
S = 1 / 500 + 1 / 20_000


@pytest.mark.parametrize(
    ("name", "statistic", "dof"),
    [
        ("psi", lambda d: d / S, 11),
        ("psi_eps", lambda d: d / S, 9 + 2),
        ("psi_corrected", lambda d: d / S + 11, 11),
        ("kl", lambda d: 2 * d / S, 11 + 2 + 2),
        ("js", lambda d: 8 * math.log(2) * d * d / S, 9 + 2),
        ("hellinger", lambda d: 8 * d * d / S, 9 + 2),
        ("tv", lambda d: 4 * d * d / S, 9),
        ("chi2", lambda d: d, 9 + 2),
    ],
)
def test_divergences_follow_chi_square(name: str, statistic, dof: int) -> None:
    law = OF[name].law
    assert law is not None
    assert statistic(law.critical(SAMPLE)) == pytest.approx(chi2.isf(0.001, dof), rel=1e-9)
    for value in (0.01, 0.05, 0.3):
        assert law.p_value(value, SAMPLE) == pytest.approx(chi2.sf(statistic(value), dof), rel=1e-9)


def test_without_a_second_cell_nothing_is_unlikely() -> None:
    law, sample = OF["chi2"].law, Sample(100, 100, 2, 1, 0)
    assert law is not None
    assert (float(law.critical(sample)), float(law.p_value(0.0, sample))) == (0.0, 1.0)


@pytest.mark.parametrize(("n", "m"), [(100, 100), (100, 1000), (500, 500), (300, 5000)])
def test_the_exact_law_of_ks_stays_below_the_bound(n: int, m: int) -> None:
    """Rows with exactly that distance: the window's smallest ones lie below all of the reference."""
    law = ExponentialBound()
    critical = law.critical(Sample(n, m, 200, 200, 0))
    below = math.ceil(critical * n)
    rows = np.concatenate((np.full(below, -1.0), np.linspace(0.001, 0.999, n - below)))
    exact = ks_2samp(np.linspace(0.0, 1.0, m), rows, method="exact")
    assert exact.statistic >= critical
    assert exact.pvalue <= 0.001
    assert exact.pvalue <= law.p_value(critical, Sample(n, m, 200, 200, 0)) * (1 + 1e-9)


def test_a_bound_is_never_above_one() -> None:
    law = ExponentialBound(is_per_cell=True)
    assert law.critical(Sample(1, 1, 10, 10, 0)) == 1.0
    assert law.p_value(0.0, Sample(100, 100, 10, 10, 0)) == 1.0


def test_rare_cells_expect_fewer_than_ten_rows_on_the_smaller_side() -> None:
    reference, window = np.array([9_000, 900, 90, 10, 0, 0]), np.array([880, 100, 19, 0, 1, 0])
    pooled = (reference + window) / 11_000 * 1_000
    assert pooled.round(2).tolist() == [898.18, 90.91, 9.91, 0.91, 0.09, 0.0]
    assert [column.tolist() for column in sample_of([(reference, window)])] == [[1_000], [10_000], [6], [5], [3]]
