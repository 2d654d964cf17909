"""Scores on cells against scipy on raw rows, and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from monitor.chance import scores
from monitor.chance.scores import category_groups, chi_square, grouped, number_groups, rank_scores, rank_tests
from monitor.columns import Int

SEEDS = range(6)
CELLS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=12).filter(
    lambda cells: sum(w for w, _ in cells) > 0 and sum(r for _, r in cells) > 0
)


def tied(seed: int) -> tuple[Int, Int, Int, Int]:
    """Rows of a window and of a reference that are whole numbers, and their counts by number: no binning is left."""
    dice = np.random.default_rng(seed)
    window, reference = dice.integers(0, 12, 300), dice.poisson(6, 900).clip(0, 13)
    return window, reference, np.bincount(window, minlength=14), np.bincount(reference, minlength=14)


@pytest.mark.parametrize("seed", SEEDS)
def test_chi_square_is_that_of_scipy(seed: int) -> None:
    _, _, w, r = tied(seed)
    expected = stats.chi2_contingency(np.array([w, r])[:, w + r > 0], correction=False).statistic
    assert chi_square(w[np.newaxis], r)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_location_is_the_mann_whitney_test_of_scipy_with_ties(seed: int) -> None:
    window, reference, w, r = tied(seed)
    z = rank_tests(w[np.newaxis], r)[0][0]
    found = stats.mannwhitneyu(window, reference, use_continuity=False, method="asymptotic")
    assert 2 * stats.norm.sf(abs(z)) == pytest.approx(found.pvalue, rel=1e-9)
    assert (z > 0) == (found.statistic > len(window) * len(reference) / 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_dispersion_is_the_mood_test_of_scipy_with_ties(seed: int) -> None:
    window, reference, w, r = tied(seed)
    assert rank_tests(w[np.newaxis], r)[1][0] == pytest.approx(stats.mood(window, reference).statistic, rel=1e-9)


@pytest.mark.parametrize("shape", ["normal", "lognormal", "heavy tails"])
@pytest.mark.parametrize("n", [100, 1_000])
def test_binning_a_continuous_feature_moves_neither_z_by_much(shape: str, n: int) -> None:
    dice = np.random.default_rng(n)
    draw = {"normal": dice.normal, "lognormal": dice.lognormal, "heavy tails": lambda size: dice.standard_t(2, size)}[shape]
    reference, window = draw(size=20_000), draw(size=n) * 1.2 + 0.1
    edges = np.quantile(reference, np.arange(1, 128) / 128, method="inverted_cdf")
    w, r = (np.bincount(np.searchsorted(edges, rows), minlength=128) for rows in (window, reference))
    location, dispersion = rank_tests(w[np.newaxis], r)
    assert location[0] == pytest.approx(stats.ranksums(window, reference).statistic, abs=0.05)
    assert dispersion[0] == pytest.approx(stats.mood(window, reference).statistic, abs=0.05)


@given(CELLS)
def test_every_score_is_that_of_a_plain_loop_over_rows(cells: list[tuple[int, int]]) -> None:
    w, r = np.array([c[0] for c in cells]), np.array([c[1] for c in cells])
    n, n_rows = int(w.sum()), int(w.sum() + r.sum())
    owners = [c for c, count in enumerate((w + r).tolist()) for _ in range(count)]
    for found, score_of in (
        (rank_tests(w[np.newaxis], r)[0][0], lambda rank: rank),
        (rank_tests(w[np.newaxis], r)[1][0], lambda rank: (rank - (n_rows + 1) / 2) ** 2),
    ):
        raw = [score_of(rank) for rank in range(1, n_rows + 1)]
        mine = [sum(raw[j] for j in range(n_rows) if owners[j] == c) / max(1, owners.count(c)) for c in range(len(cells))]
        mean = sum(raw) / n_rows
        total = sum(count * mine[c] for c, count in enumerate(w.tolist()))
        squares = sum((mine[c] - mean) ** 2 for c in owners)
        variance = n * (n_rows - n) / (n_rows * (n_rows - 1)) * squares
        scale = max(map(abs, raw))
        if variance > (1e-6 * scale) ** 2:
            assert found == pytest.approx((total - n * mean) / math.sqrt(variance), abs=1e-6)


@given(CELLS)
def test_scores_of_many_windows_are_those_of_each_alone(cells: list[tuple[int, int]]) -> None:
    r = np.array([c[1] for c in cells])
    windows = np.array([[c[0] for c in cells], [c[0] + c[1] for c in cells], r])
    rests = np.array([r, r + 1, r])
    for reference in (r, rests):
        alone = [
            chi_square(w[np.newaxis], rest)[0] for w, rest in zip(windows, np.broadcast_to(reference, windows.shape), strict=True)
        ]
        assert chi_square(windows, reference).tolist() == alone
        zs = [rank_tests(w[np.newaxis], rest) for w, rest in zip(windows, np.broadcast_to(reference, windows.shape), strict=True)]
        location, dispersion = rank_tests(windows, reference)
        assert location == pytest.approx([z[0][0] for z in zs], rel=1e-12)
        assert dispersion == pytest.approx([z[1][0] for z in zs], rel=1e-12)


@given(CELLS)
def test_a_window_like_its_reference_scores_nothing(cells: list[tuple[int, int]]) -> None:
    r = np.array([c[1] for c in cells])
    assert chi_square(3 * r[np.newaxis], r)[0] == pytest.approx(0, abs=1e-9)
    location, dispersion = rank_tests(r[np.newaxis], r)
    assert (location[0], dispersion[0]) == pytest.approx((0, 0), abs=1e-6)


def test_a_shift_up_has_a_positive_location_and_a_wider_window_a_positive_dispersion() -> None:
    reference = np.array([10, 20, 40, 20, 10])
    up, wide = np.array([[2, 4, 8, 6, 20]]), np.array([[20, 5, 5, 5, 20]])
    assert rank_tests(up, reference)[0][0] > 2
    assert rank_tests(wide, reference)[1][0] > 2
    assert rank_tests(wide, reference)[0][0] == pytest.approx(0)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=15).filter(any), st.integers(1, 500))
def test_groups_expect_enough_rows_or_are_one_and_numbers_join_neighbours_only(reference: list[int], n: int) -> None:
    counts = np.array(reference)
    for make in (number_groups, category_groups):
        groups = make(counts, n)
        assert sorted(set(groups.tolist())) == list(range(int(groups.max()) + 1))
        totals = grouped(counts, groups)
        assert totals.sum() == counts.sum()
        assert len(totals) == 1 or (totals * n >= scores.MIN_EXPECTED * counts.sum()).all()
    assert (np.diff(number_groups(counts, n)) >= 0).all()


@given(st.lists(st.integers(0, 200), min_size=1, max_size=15).filter(any), st.integers(1, 500))
def test_a_category_that_expects_enough_rows_is_alone_unless_the_rest_is_too_small(reference: list[int], n: int) -> None:
    counts = np.array(reference)
    groups = category_groups(counts, n)
    large = [c for c in range(len(counts)) if counts[c] * n >= scores.MIN_EXPECTED * counts.sum()]
    shared = [c for c in large if (groups == groups[c]).sum() > 1]
    rest = counts.sum() - counts[large].sum()
    assert len(shared) <= (1 if rest * n < scores.MIN_EXPECTED * counts.sum() else 0)


def test_ranks_do_not_overflow_where_there_are_very_many_rows() -> None:
    reference = np.array([4 * 10**12, 3 * 10**12, 10**12])
    found = rank_scores(reference)
    assert found.location == pytest.approx([0.25, 0.6875, 0.9375])
    location, _ = rank_tests(np.array([[400, 300, 100]]), reference)
    assert location[0] == pytest.approx(0, abs=1e-3)


def test_no_rows_have_no_ranks_and_nothing_is_divided_by_their_number() -> None:
    with np.errstate(all="raise"):
        none, one = rank_scores(np.zeros((2, 3), np.int64)), rank_scores(np.array([[0, 0, 0], [1, 2, 1]]))
    assert not none.location.any()
    assert not none.dispersion.any()
    assert one.location.tolist() == [[0.0, 0.0, 0.0], [0.125, 0.5, 0.875]]
