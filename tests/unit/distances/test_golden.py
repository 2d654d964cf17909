"""Every distance of made-up rows against an independent computation from the raw rows."""

import json
from typing import Any

import numpy as np
import pytest

from monitor.findings import gather
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULES, RuleSet
from tests.closed_windows import ABSENT, MISSING, closed, reference_of
from tests.unit.distances import oracle
from tests.unit.distances.comparing import check_cells, check_rows

DICE = np.random.default_rng(11)
M = 8_000
CONTINUOUS = {
    "normal": lambda n: DICE.normal(size=n),
    "uniform": DICE.random,
    "exponential": lambda n: DICE.exponential(size=n),
    "bimodal": lambda n: np.where(DICE.random(n) < 0.5, DICE.normal(-2, 0.5, n), DICE.normal(2, 1, n)),
    "lognormal": lambda n: DICE.lognormal(size=n),
    "heavy tails": lambda n: DICE.standard_t(2, n),
}
WITH_ATOMS = {
    "integers": lambda n: DICE.poisson(3, n).astype(float),
    "40 % zeros": lambda n: np.where(DICE.random(n) < 0.4, 0.0, DICE.lognormal(size=n)),
    "two values": lambda n: DICE.integers(0, 2, n) * 2.5,
    "cents": lambda n: np.round(DICE.exponential(5, n), 2),
}
SHAPES = CONTINUOUS | WITH_ATOMS
DRIFTS = {
    "none": lambda rows, sigma: rows,
    "0.2 sigma": lambda rows, sigma: rows + 0.2 * sigma,
    "3 sigma": lambda rows, sigma: rows + 3 * sigma,
    "wider": lambda rows, sigma: rows.mean() + 1.5 * (rows - rows.mean()),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("n", [1, 150, 5_000])
def test_a_numbers_distances_are_those_of_its_rows(shape: str, drift: str, n: int) -> None:
    before = SHAPES[shape](M)
    after = DRIFTS[drift](SHAPES[shape](n), before.std())
    reference = reference_of({"x": before.tolist()})
    evidence = gather(closed(reference, {"x": after.tolist()}))
    p, q = oracle.decile_counts(before, after)
    assert [side.tolist() for side in evidence.features["x"].cells] == [p.tolist(), q.tolist()]
    check_cells(evidence.distances["x"], p, q)
    check_rows(evidence, before, after, ks_error=0.01 if shape in CONTINUOUS else None)


@pytest.mark.parametrize("shape", ["normal", "uniform", "exponential", "bimodal"])
@pytest.mark.parametrize("n", [150, 5_000])
def test_rows_far_outside_the_reference_are_as_far_as_they_are(shape: str, n: int) -> None:
    before, after = SHAPES[shape](M), SHAPES[shape](n)
    after[: n // 10] += 20 * before.std()
    evidence = gather(closed(reference_of({"x": before.tolist()}), {"x": after.tolist()}))
    check_rows(evidence, before, after, ks_error=0.01)


@pytest.mark.parametrize("window", [[5.0] * 40, [5.0] * 20 + [6.0] * 20, [-1e9, 5.0]])
def test_a_constant_reference_has_no_sigma_and_all_other_distances(window: list[float]) -> None:
    before, after = np.full(300, 5.0), np.array(window)
    evidence = gather(closed(reference_of({"x": before.tolist()}), {"x": window}))
    check_cells(evidence.distances["x"], *oracle.decile_counts(before, after))
    rows = oracle.of_rows(before, after)
    assert evidence.distances["x"]["ks"] == pytest.approx(rows["ks"], rel=1e-12)
    assert evidence.distances["x"]["w1"] == pytest.approx(rows["w1"], rel=1e-12)
    assert "w1_sigma" not in evidence.distances["x"]


@pytest.mark.parametrize("n_new", [0, 3, 40])
@pytest.mark.parametrize("n", [1, 150, 5_000])
def test_a_categorys_distances_are_those_of_the_union_of_values(n_new: int, n: int) -> None:
    before = [f"v{i}" for i in DICE.zipf(1.7, M) % 50]
    after = [f"v{i}" for i in DICE.zipf(1.5, n) % 50]
    after[: 2 * n_new] = [f"new{i % n_new}" for i in range(min(n, 2 * n_new))]
    evidence = gather(closed(reference_of({"c": before}), {"c": after}))
    check_cells(evidence.distances["c"], *oracle.value_counts(before, after))


def test_values_beyond_the_dictionary_share_a_cell() -> None:
    before, after = ["a"] * 60 + ["b"] * 30 + ["c"] * 6 + ["d"] * 4, ["a"] * 70 + ["c"] * 20 + ["d"] * 10
    evidence = gather(closed(reference_of({"c": before}, max_categories=2), {"c": after}))
    check_cells(evidence.distances["c"], *oracle.value_counts(before, after, dictionary=2))


@pytest.mark.parametrize("column", [[MISSING] * 200, [ABSENT] * 200, [float("nan")] * 200, [float("inf")] * 200])
def test_without_a_value_on_one_side_there_is_no_distance(column: list[Any]) -> None:
    reference = reference_of({"x": [float(i) for i in range(200)]})
    if isinstance(column[0], float):
        from monitor.columns import ColumnBatch, specials_of
        from monitor.profiles import Profile

        profile, numbers = Profile(reference.layout), np.array([column])
        profile.update(ColumnBatch(200, numbers, specials_of(numbers), []))
        assert gather(closed(reference, {}, profile=profile)).distances == {}
    else:
        assert gather(closed(reference, {"x": column})).distances == {}


@pytest.mark.parametrize("eps", [1e-4, 1e-6, 0.01])
def test_the_share_in_place_of_empty_ones_is_settable_and_part_of_the_rules_identity(eps: float) -> None:
    before, after = DICE.normal(size=2_000), DICE.normal(2, 0.2, 500)
    window = closed(reference_of({"x": before.tolist()}), {"x": after.tolist()})
    rules = RuleSet(dict(DEFAULT_RULES), eps)
    record = json.loads(judge_window(window, b"", rules).results[0][1])
    distances = record["features"]["x"]["distances"]
    expected = oracle.of_cells(*oracle.decile_counts(before, after), eps=eps)
    assert distances["psi_eps"] == pytest.approx(expected["psi_eps"], rel=1e-9)
    assert distances["psi"] == pytest.approx(expected["psi"], rel=1e-9)
    assert record["policy"] == rules.sha256


def test_the_degrees_of_freedom_are_of_the_cells_that_hold_a_row() -> None:
    before = [1.0] * 300 + [2.0] * 300  # nothing above the last decile, on either side
    window = closed(reference_of({"x": before}), {"x": [1.0] * 50 + [2.0] * 70})
    feature = json.loads(judge_window(window, b"", RuleSet({})).results[0][1])["features"]["x"]
    assert (len(feature["cells"]["counts"]), feature["chi2_dof"]) == (3, 1)


def test_values_at_the_ends_of_the_number_line_give_finite_distances() -> None:
    evidence = gather(closed(reference_of({"x": [1.0, 2.0, 3.0] * 100}), {"x": [1e308, -1.7e308, 2.0]}))
    assert all(np.isfinite(value) for value in evidence.distances["x"].values())
    assert evidence.distances["x"]["w1"] == pytest.approx(1e308 / 3 + 1.7e308 / 3, rel=1e-9)
