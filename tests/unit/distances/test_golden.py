"""Every distance against an independent computation from raw rows (numpy, scipy)."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from monitor.pipeline import gather
from tests.closed_windows import closed, reference_of

DICE = np.random.default_rng(11)
M = 8_000
NUMBERS = {
    "normal": lambda n, shift: DICE.normal(shift, 1, n),
    "lognormal": lambda n, shift: DICE.lognormal(shift, 1, n),
    "integers": lambda n, shift: DICE.poisson(3 + shift, n).astype(float),
    "mostly zero": lambda n, shift: DICE.normal(shift, 1, n) * (DICE.random(n) > 0.6),
    "heavy tails": lambda n, shift: DICE.standard_t(2, n) + shift,
}


def psi_of(p: np.ndarray, q: np.ndarray) -> float:
    """definitions: Σ (Q−P) ln(Q/P) on shares of (count + ½)/(n + ½k)."""
    ps, qs = (p + 0.5) / (p.sum() + 0.5 * len(p)), (q + 0.5) / (q.sum() + 0.5 * len(q))
    return float(((qs - ps) * np.log(qs / ps)).sum())


def check_both(distances: dict[str, float], p: np.ndarray, q: np.ndarray) -> None:
    psi = psi_of(p, q)
    assert distances["psi"] == pytest.approx(psi, rel=1e-9)
    assert distances["psi_corrected"] == pytest.approx(psi - (len(p) - 1) * (1 / p.sum() + 1 / q.sum()), rel=1e-9)
    assert distances["js"] == pytest.approx(jensenshannon(p / p.sum(), q / q.sum(), base=2), rel=1e-9)


@pytest.mark.parametrize("shape", NUMBERS)
@pytest.mark.parametrize("shift", [0.0, 0.2, 3.0])
@pytest.mark.parametrize("n", [150, 20_000])
def test_a_numbers_distances_are_those_of_its_reported_cells(shape: str, shift: float, n: int) -> None:
    before, after = NUMBERS[shape](M, 0.0), NUMBERS[shape](n, shift)
    reference = reference_of({"x": before.tolist()})
    edges = np.array(reference.layout.features[0].reported)
    deciles = np.unique(np.quantile(before, np.arange(1, 10) / 10, method="inverted_cdf"))
    assert set(edges) <= set(deciles)
    p, q = (np.bincount(np.searchsorted(edges, rows), minlength=len(edges) + 1) for rows in (before, after))
    evidence = gather(closed(reference, {"x": after.tolist()}))
    assert evidence.features["x"].cells[1].tolist() == q.tolist()
    check_both(evidence.distances["x"], p, q)


@pytest.mark.parametrize("n_new", [0, 3, 40])
@pytest.mark.parametrize("n", [150, 5_000])
def test_a_categorys_distances_are_those_of_the_union_of_values(n_new: int, n: int) -> None:
    before = [f"v{i}" for i in DICE.zipf(1.7, M) % 50]
    after = [f"v{i}" for i in DICE.zipf(1.5, n) % 50]
    after[: 2 * n_new] = [f"new{i % n_new}" for i in range(2 * n_new)]
    values = sorted({*before, *after})
    p, q = (np.array([rows.count(value) for value in values]) for rows in (before, after))
    evidence = gather(closed(reference_of({"c": before}), {"c": after}))
    check_both(evidence.distances["c"], p, q)


def test_values_beyond_the_dictionary_share_a_cell() -> None:
    before, after = ["a"] * 60 + ["b"] * 30 + ["c"] * 6 + ["d"] * 4, ["a"] * 70 + ["c"] * 20 + ["d"] * 10
    evidence = gather(closed(reference_of({"c": before}, max_categories=2), {"c": after}))
    check_both(evidence.distances["c"], np.array([60, 30, 10]), np.array([70, 0, 30]))


def test_without_a_value_on_one_side_there_is_no_distance() -> None:
    reference = reference_of({"x": [float(i) for i in range(200)]})
    assert gather(closed(reference, {"x": [None] * 200})).distances == {}
