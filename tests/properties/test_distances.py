"""Laws of distances beyond what the registry promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.columns import Int
from monitor.distances.jensen_shannon import contributions as js_contributions
from monitor.distances.jensen_shannon import jensen_shannon
from monitor.distances.psi import contributions as psi_contributions
from monitor.distances.psi import psi


def sides(n: int, k: int = 6) -> st.SearchStrategy[tuple[Int, ...]]:
    side = st.lists(st.integers(0, 5000), min_size=k, max_size=k).filter(any).map(lambda counts: np.array(counts, np.int64))
    return st.tuples(*[side] * n)


@settings(max_examples=150, deadline=None)
@given(sides(3))
def test_jensen_shannon_keeps_the_triangle_inequality(three: tuple[Int, Int, Int]) -> None:
    a, b, c = three
    assert jensen_shannon(a, c) <= jensen_shannon(a, b) + jensen_shannon(b, c) + 1e-12


@settings(max_examples=150, deadline=None)
@given(sides(2), st.integers(2, 50))
def test_jensen_shannon_depends_on_shares_only(two: tuple[Int, Int], factor: int) -> None:
    a, b = two
    assert jensen_shannon(a * factor, b) == pytest.approx(jensen_shannon(a, b), rel=1e-9, abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(sides(2))
def test_merging_two_cells_never_adds_to_jensen_shannon(two: tuple[Int, Int]) -> None:
    a, b = two
    coarse = [np.append(side[:4], side[4] + side[5]) for side in two]
    assert jensen_shannon(*coarse) <= jensen_shannon(a, b) + 1e-12


@settings(max_examples=150, deadline=None)
@given(sides(2))
def test_contributions_add_up(two: tuple[Int, Int]) -> None:
    assert sum(psi_contributions(*two)) == pytest.approx(psi(*two), rel=1e-12)
    assert sum(js_contributions(*two)) == pytest.approx(jensen_shannon(*two) ** 2, rel=1e-9, abs=1e-15)


@settings(max_examples=150, deadline=None)
@given(sides(2))
def test_small_differences_give_a_psi_of_eight_divergences(two: tuple[Int, Int]) -> None:
    a = two[0] * 1000 + 200_000
    b = a + two[1] % 50
    divergence = jensen_shannon(a, b) ** 2 * np.log(2)
    assert psi(a, b) == pytest.approx(8 * divergence, rel=1e-3, abs=1e-15)
