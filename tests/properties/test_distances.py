"""Laws of distances beyond what the registry promises."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monitor.columns import Int
from monitor.distances import DISTANCES
from monitor.distances.kullback_leibler import kl
from monitor.distances.psi import psi
from monitor.distances.wasserstein import w1, w1_sigma
from monitor.sides import FineSides, Sides, Spread

OF = {distance.name: distance for distance in DISTANCES}
EXAMPLES = settings(max_examples=100, deadline=None)


def sides(n: int, k: int = 6) -> st.SearchStrategy[tuple[Int, ...]]:
    side = st.lists(st.integers(0, 5000), min_size=k, max_size=k).filter(any).map(lambda counts: np.array(counts, np.int64))
    return st.tuples(*[side] * n)


def value(name: str, reference: Int, window: Int) -> float:
    return float(OF[name].function(Sides(reference, window)))


@pytest.mark.parametrize("name", ["js", "hellinger", "tv", "linf"])
@EXAMPLES
@given(sides(3))
def test_metrics_keep_the_triangle_inequality(name: str, three: tuple[Int, Int, Int]) -> None:
    a, b, c = three
    assert value(name, a, c) <= value(name, a, b) + value(name, b, c) + 1e-12


@pytest.mark.parametrize("name", ["js", "hellinger", "tv", "linf", "psi_eps"])
@EXAMPLES
@given(sides(2), st.integers(2, 50))
def test_what_is_not_smoothed_depends_on_shares_only(name: str, two: tuple[Int, Int], factor: int) -> None:
    a, b = two
    assert value(name, a * factor, b) == pytest.approx(value(name, a, b), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["js", "hellinger", "tv", "chi2"])
@EXAMPLES
@given(sides(2))
def test_merging_two_cells_never_adds(name: str, two: tuple[Int, Int]) -> None:
    coarse = [np.append(side[:4], side[4] + side[5]) for side in two]
    assert value(name, *coarse) <= value(name, *two) * (1 + 1e-12) + 1e-12


@EXAMPLES
@given(sides(2))
def test_contributions_add_up(two: tuple[Int, Int]) -> None:
    n, m = int(two[1].sum()), int(two[0].sum())
    for distance in DISTANCES:
        if distance.contributions is None:
            continue
        total, found = math.fsum(distance.contributions(Sides(*two)).tolist()), value(distance.name, *two)
        if distance.name in {"js", "hellinger"}:
            found = found**2
        elif distance.name == "psi_corrected":
            found += 5 * (1 / n + 1 / m)
        assert total == pytest.approx(found, rel=1e-9, abs=1e-13), distance.name


@EXAMPLES
@given(sides(2))
def test_psi_is_both_divergences_together(two: tuple[Int, Int]) -> None:
    a, b = two
    assert float(psi(Sides(a, b))) == pytest.approx(float(kl(Sides(a, b))) + float(kl(Sides(b, a))), rel=1e-9, abs=1e-13)


@EXAMPLES
@given(sides(2))
def test_known_inequalities(two: tuple[Int, Int]) -> None:
    """Le Cam, Cauchy–Schwarz; and the largest gap is at most half of all gaps."""
    tv, h = value("tv", *two), value("hellinger", *two)
    assert h**2 <= tv * (1 + 1e-12)
    assert tv <= h * math.sqrt(2 - h**2) + 1e-12
    assert value("linf", *two) <= tv * (1 + 1e-12)
    assert 4 * tv**2 <= value("chi2", *two) * (1 / two[0].sum() + 1 / two[1].sum()) * (1 + 1e-9)


@EXAMPLES
@given(sides(2))
def test_for_small_differences_all_divergences_are_one_up_to_a_factor(two: tuple[Int, Int]) -> None:
    a = two[0] * 1000 + 200_000
    b = a + two[1] % 50
    p = value("psi", a, b)
    for name, power, factor in (("js", 2, 8 * math.log(2)), ("hellinger", 2, 8), ("kl", 1, 2), ("psi_eps", 1, 1)):
        assert factor * value(name, a, b) ** power == pytest.approx(p, rel=1e-2, abs=1e-13), name


@st.composite
def rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    number = st.one_of(st.floats(-1e6, 1e6), st.integers(-20, 20).map(float))
    sample = st.lists(number, min_size=1, max_size=40)
    edges = sorted({*draw(st.lists(number, min_size=1, max_size=12))})
    return np.array(draw(sample)), np.array(draw(sample)), np.array(edges)


def fine(reference: np.ndarray, window: np.ndarray, edges: np.ndarray) -> FineSides:
    counts = [np.bincount(np.searchsorted(edges, side), minlength=len(edges) + 1) for side in (reference, window)]
    spreads = [Spread(side.min(), side.max(), side.mean(), side.std()) for side in (reference, window)]
    return FineSides(*counts, edges, *spreads)


@EXAMPLES
@given(rows())
@example((np.array([0.0]), np.array([0.0, 1.0, -1.0]), np.array([2.3e-311])))
def test_w1_lies_between_the_difference_of_means_and_the_whole_range(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    reference, window, edges = drawn
    found = float(w1(fine(reference, window, edges)))
    width = max(reference.max(), window.max()) - min(reference.min(), window.min())
    assert abs(reference.mean() - window.mean()) <= found * (1 + 1e-9) + 1e-9
    assert found <= width * (1 + 1e-9)


@EXAMPLES
@given(rows())
def test_more_edges_than_rows_make_w1_exact(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    reference, window, _ = drawn
    values = np.unique(np.concatenate((reference, window)))
    edges = np.unique(np.concatenate((values, np.nextafter(values, -np.inf))))
    by_hand = 0.0
    for low, high in itertools.pairwise(values):
        by_hand += abs((reference <= low).mean() - (window <= low).mean()) * (high - low)
    assert float(w1(fine(reference, window, edges))) == pytest.approx(by_hand, rel=1e-9, abs=1e-9)


@EXAMPLES
@given(rows(), st.sampled_from([0.125, 2.0, 1024.0]))
def test_w1_is_in_the_features_unit_and_w1_sigma_in_none(drawn: tuple[np.ndarray, np.ndarray, np.ndarray], factor: float) -> None:
    plain, scaled = fine(*drawn), fine(*(part * factor for part in drawn))
    assert float(w1(scaled)) == pytest.approx(factor * float(w1(plain)), rel=1e-9, abs=1e-12)
    assert float(w1_sigma(scaled)) == pytest.approx(float(w1_sigma(plain)), rel=1e-9, nan_ok=True)
