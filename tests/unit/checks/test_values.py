"""Values next to the reference's: what is measured, what chance explains, against scipy and numpy from raw rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monitor.checks.values import values
from monitor.features import CategoryFeature
from monitor.findings import Measurement, gather
from monitor.layout import Layout
from monitor.reference import Reference
from tests.closed_windows import MISSING, Columns, closed, profile_of, reference_of

DICE = np.random.default_rng(5)
X = DICE.normal(50, 10, 4_000)
SPEND = np.where(DICE.random(4_000) < 0.4, 0.0, DICE.lognormal(1, 0.5, 4_000))
C = DICE.choice(["a", "b", "c"], 4_000, p=[0.5, 0.3, 0.2]).tolist()
REFERENCE = reference_of({"x": X.tolist(), "spend": SPEND.tolist(), "c": C})


def measured(columns: Columns, reference: Reference = REFERENCE) -> dict[tuple[str, str], Measurement]:
    return {(m.check, m.feature): m for m in values(gather(closed(reference, columns)))}


def quiet(n: int) -> dict[str, list[object]]:
    return {"x": DICE.choice(X, n).tolist(), "spend": DICE.choice(SPEND, n).tolist(), "c": DICE.choice(C, n).tolist()}


def test_a_frozen_number_is_constant_though_some_rows_miss_it() -> None:
    found = measured(quiet(90) | {"x": [42.5] * 60 + [MISSING] * 30})["health.constant", "x"]
    assert (found.value, found.n, found.critical_value, found.evidence) == (1.0, 60, 0.0, {"value": 42.5})
    assert found.p_value == pytest.approx(0.0, abs=1e-60)


def test_a_frozen_category_has_the_chance_of_its_reference() -> None:
    found = measured(quiet(60) | {"c": ["b"] * 60})["health.constant", "c"]
    shares = np.array([C.count(c) for c in "abc"]) / 4_000
    assert (found.value, found.evidence) == (1.0, {"value": "b"})
    assert found.p_value == pytest.approx((shares**60).sum(), rel=1e-9)


def test_a_value_that_nearly_all_rows_have_in_the_reference_too_may_be_the_only_one() -> None:
    rare = reference_of({"c": ["a"] * 9_990 + ["b"] * 10})
    found = measured({"c": ["a"] * 100}, rare)["health.constant", "c"]
    assert (found.value, found.critical_value) == (1.0, 1.0)
    assert found.p_value == pytest.approx(0.999**100, rel=1e-6)


def test_a_feature_that_never_varied_cannot_freeze() -> None:
    still = reference_of({"x": [7.0] * 200, "c": ["a"] * 200})
    assert ("health.constant", "x") not in measured({"x": [7.0] * 50, "c": ["a"] * 50}, still)
    assert ("health.constant", "c") not in measured({"x": [7.0] * 50, "c": ["a"] * 50}, still)


def test_values_beyond_the_dictionary_are_not_taken_for_one() -> None:
    wide = reference_of({"c": [f"v{i}" for i in range(300)]}, max_categories=10)
    assert measured({"c": ["v100", "v101"] * 50}, wide)["health.constant", "c"].value == 0.0
    assert measured({"c": ["new"] * 50}, wide)["health.constant", "c"].value == 1.0


def test_the_most_common_value_has_fishers_p_times_the_cells() -> None:
    column = ["a"] * 350 + ["b"] * 100 + ["c"] * 50
    found = measured(quiet(500) | {"c": column})["health.top_share", "c"]
    assert found.value == pytest.approx(0.7 - C.count("a") / 4_000)
    assert found.evidence["value"] == "a"
    assert found.p_value == pytest.approx(3 * stats.hypergeom.sf(349, 4_500, 350 + C.count("a"), 500), rel=1e-6)


def test_the_fullest_cell_of_a_number_is_named() -> None:
    found = measured(quiet(500) | {"spend": [0.0] * 400 + [1.0] * 100})["health.top_share", "spend"]
    assert found.evidence["rows"] == 400
    assert found.evidence["value"].endswith(", 0]")


def test_zeros_are_counted_apart_from_what_is_near() -> None:
    column = [0.0, -0.0] * 150 + [5e-324] * 100 + [1.0] * 100
    found = measured(quiet(500) | {"spend": column})["health.zeros", "spend"]
    assert found.evidence["rows"] == 300
    assert found.value == pytest.approx(0.6 - (SPEND == 0).mean())
    assert ("health.zeros", "x") not in measured(quiet(500))


def test_negatives_are_exact_where_zero_is_a_border() -> None:
    found = measured(quiet(500) | {"spend": [-1e-300, -3.0] * 5 + [0.0] * 490})["health.negative", "spend"]
    assert (found.value, found.evidence) == (0.02, {"rows": 10, "exact": True})
    assert found.p_value == pytest.approx(stats.hypergeom.pmf(10, 4_500, 10, 500), rel=1e-6)  # C(n, k)/C(n + m, k)


def test_negatives_of_a_feature_that_begins_above_zero_have_an_upper_bound() -> None:
    found = measured(quiet(500) | {"x": [-200.0] * 10 + [50.0] * 490})["health.negative", "x"]
    assert found.evidence["rows"] >= 10
    assert measured(quiet(500))["health.negative", "x"].value == 0.0


def test_a_feature_with_negatives_in_the_reference_may_have_them() -> None:
    both = reference_of({"x": (X - 50).tolist()})
    assert ("health.negative", "x") not in measured({"x": [-1.0] * 50}, both)


def boolean_reference(n_true: int, n: int) -> Reference:
    layout = Layout((CategoryFeature(name="flag", values=("false", "true"), value_type="boolean"),))
    return Reference.build("credit", "7", profile_of(layout, {"flag": [True] * n_true + [False] * (n - n_true)}))


@pytest.mark.parametrize("n_true", [20, 250, 480])
def test_the_share_of_true_has_fishers_p_on_the_side_where_it_moved(n_true: int) -> None:
    found = measured({"flag": [True] * n_true + [False] * (500 - n_true)}, boolean_reference(1_000, 2_000))[
        "health.boolean_share", "flag"
    ]
    assert found.value == pytest.approx(abs(n_true / 500 - 0.5))
    law = stats.hypergeom(2_500, 1_000 + n_true, 500)
    p = min(1.0, 2 * min(law.sf(n_true - 1), law.cdf(n_true)))
    assert (found.p_value is None) == (p > 0.001)
    if found.p_value is not None:
        assert found.p_value == pytest.approx(p, rel=1e-6)


def test_a_mean_that_moved_has_welchs_z() -> None:
    column = DICE.normal(53, 12, 700)
    found = measured(quiet(700) | {"x": column.tolist()})["health.mean", "x"]
    error = np.sqrt(column.var() / 700 + X.var() / 4_000)
    z = (column.mean() - X.mean()) / error
    assert found.evidence["z"] == pytest.approx(z, rel=1e-9)
    assert found.value == pytest.approx(abs(column.mean() - X.mean()) / X.std(), rel=1e-9)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-6)
    assert found.critical_value == pytest.approx(stats.norm.isf(0.0005) * error / X.std(), rel=1e-9)


def test_the_chance_of_a_spread_takes_the_tails_of_the_reference_into_account() -> None:
    for draw in (lambda n: DICE.normal(0, 1, n), lambda n: DICE.exponential(1, n), lambda n: DICE.uniform(0, 1, n)):
        rows = draw(20_000)
        reference = reference_of({"x": rows.tolist()})
        found = measured({"x": draw(1_000).tolist()}, reference)["health.std", "x"]
        kurtosis = stats.kurtosis(rows, fisher=False)
        exact = stats.norm.isf(0.0005) * np.sqrt((kurtosis - 1) / 4 * (1 / 1_000 + 1 / 20_000))
        assert found.critical_value is not None
        assert 0.95 * exact < found.critical_value < 1.35 * exact  # the middle of the outermost cells is far out: too careful


def test_quiet_windows_rarely_move_beyond_chance() -> None:
    beyond = 0
    for _ in range(150):
        found = measured(quiet(400)).values()
        beyond += sum(m.critical_value is not None and m.value > m.critical_value for m in found if m.check != "health.constant")
    assert beyond <= 8  # 150 windows, 8 measurements each, at 0.001 (the spread of a lognormal is approximate)


def test_the_sum_is_in_the_features_unit() -> None:
    column = DICE.normal(50, 10, 300)
    assert measured(quiet(300) | {"x": column.tolist()})["health.sum", "x"].value == pytest.approx(column.sum(), rel=1e-9)


def test_the_furthest_doubles_give_finite_numbers() -> None:
    found = measured(quiet(200) | {"x": [1.7e308, -1.7e308] * 100})
    for measurement in found.values():
        assert np.isfinite([measurement.value, measurement.critical_value or 0.0]).all()


def test_without_a_value_on_both_sides_nothing_is_said() -> None:
    assert measured({"x": [MISSING] * 50, "spend": [MISSING] * 50, "c": [MISSING] * 50}) == {}
