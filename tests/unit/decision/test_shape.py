"""Tests of distributions: what they are of, which scales speak, and what is known of φ."""

import numpy as np
import pytest
from scipy import stats

from monitor.chance.calibration import SCALES
from monitor.decision.shape import CHECK, UNKNOWN_PHI
from monitor.findings import ClosedWindow, ScaleTest
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.reference_build.windows import WindowCounts
from tests.unit.decision.observed import HOUR_MS, Rows, batch, closed, layout, measured, reference, rows

DICE = np.random.default_rng(7)


def after(*windows: ClosedWindow) -> tuple[bytes, ...]:
    """Return what is kept of windows, newest first."""
    return tuple(judge_window(window, b"", DEFAULT_RULE_SET).tallies for window in reversed(windows))


def scales_of(window: ClosedWindow, feature: str = "x", history: tuple[bytes, ...] = ()) -> dict[int, ScaleTest]:
    return {test.scale: test for test in measured(window, history)[CHECK, feature].scales}


def test_the_tests_of_a_number_are_those_of_its_raw_rows() -> None:
    of = reference(n=1_000)
    own, x_ref = rows(DICE, 1_000, 0.12), rows(np.random.default_rng(1), 60_000)[0]
    [test] = scales_of(closed(of, own)).values()
    wilcoxon = stats.mannwhitneyu(own[0], x_ref, method="asymptotic", use_continuity=False).pvalue
    mood = stats.mood(own[0], x_ref).pvalue
    assert test.tests["location"] == pytest.approx(wilcoxon, rel=0.15)
    assert test.tests["dispersion"] == pytest.approx(mood, rel=0.15)
    x2 = stats.chi2_contingency(np.array(test.cells)).pvalue
    assert test.tests["chi_square"] == pytest.approx(x2, rel=0.1)
    assert test.phi == {"chi_square": 1.0, "location": 1.0, "dispersion": 1.0}


def test_a_category_has_one_test_on_its_values() -> None:
    of = reference(n=1_000)
    [test] = scales_of(closed(of, rows(DICE, 1_000)), "colour").values()
    assert set(test.tests) == {"chi_square"}
    assert test.tests["chi_square"] == pytest.approx(stats.chi2_contingency(np.array(test.cells)).pvalue, rel=0.1)
    assert test.p_value == pytest.approx(test.tests["chi_square"], rel=1e-9)


def test_windows_in_a_row_are_looked_at_as_one() -> None:
    of = reference()
    parts = [rows(DICE, 200, 0.1) for _ in range(3)]
    history = after(*(closed(of, part, at) for at, part in enumerate(parts[:2])))
    found = scales_of(closed(of, parts[2], 2), history=history)
    together = (np.concatenate([x for x, _ in parts]), [c for _, colours in parts for c in colours])
    assert set(found) == {1, 3}
    assert np.array_equal(found[3].cells[1].sum(), 600)
    alone = scales_of(closed(of, together))[1]
    assert found[3].tests["location"] == pytest.approx(alone.tests["location"], rel=1e-9)


def test_a_scale_waits_until_there_are_so_many_windows() -> None:
    of = reference()
    windows = [closed(of, rows(DICE, 200), at) for at in range(24)]
    history = after(*windows[:-1])
    for n in (1, 2, 3, 5, 6, 23, 24):
        assert set(scales_of(windows[n - 1], history=history[24 - n :])) == {scale for scale in SCALES if scale <= n}


def test_windows_with_too_few_rows_are_left_to_larger_scales() -> None:
    of = reference(n=60, windows=100)
    parts = [closed(of, rows(DICE, 60, 1.0), at) for at in range(3)]
    assert scales_of(parts[0]) == {}
    assert judge_window(parts[0], b"", DEFAULT_RULE_SET).alerts == ()
    found = scales_of(parts[2], history=after(*parts[:2]))
    assert set(found) == {3}
    assert found[3].p_value < 1e-9


def test_a_window_that_speaks_for_itself_does_not_speak_again_with_later_ones() -> None:
    of = reference()
    broken = closed(of, rows(DICE, 200, 1.5))
    quiet = [closed(of, rows(DICE, 200), at) for at in (1, 2)]
    history = after(broken, quiet[0])
    found = scales_of(quiet[1], history=history)
    assert int(found[3].cells[1].sum()) == 400
    assert found[3].p_value > 1e-4
    assert int(scales_of(quiet[1], "colour", history)[3].cells[1].sum()) == 600


def test_another_reference_starts_anew() -> None:
    of, other = reference(), reference(n=400)
    history = after(*(closed(of, rows(DICE, 200), at) for at in range(2)))
    assert set(scales_of(closed(other, rows(DICE, 200), 2), history=history)) == {1}


def test_overlapping_windows_leave_nothing_behind() -> None:
    of = reference()
    hopping = closed(of, rows(DICE, 200), size_ms=HOUR_MS, step_ms=HOUR_MS // 2)
    assert judge_window(hopping, b"", DEFAULT_RULE_SET).tallies == b""


def test_rows_in_clusters_are_judged_by_the_phi_of_the_references_windows() -> None:
    of = reference(n=500, cluster=5)
    quiet = [scales_of(closed(of, rows(DICE, 500, cluster=5)))[1] for _ in range(60)]
    assert 3.5 < quiet[0].phi["location"] < 7
    assert 3.5 < quiet[0].phi["chi_square"] < 7
    assert min(test.p_value for test in quiet) > 1e-4
    naive = [stats.chi2_contingency(np.array(test.cells)).pvalue for test in quiet]
    assert np.mean(np.array(naive) < 1e-4) > 0.5


def test_more_rows_than_the_references_windows_had_are_allowed_to_scatter_more() -> None:
    of = reference(n=500, cluster=5)
    usual, more = (scales_of(closed(of, rows(DICE, n, cluster=5)))[1].phi["location"] for n in (500, 2_000))
    assert more - 1 == pytest.approx(4 * (usual - 1), rel=1e-6)
    fewer = scales_of(closed(of, rows(DICE, 200, cluster=5)))[1].phi["location"]
    assert fewer == usual


def test_where_phi_is_not_known_it_is_said_and_assumed() -> None:
    of = reference(is_calibrated=False)
    found = measured(closed(of, rows(DICE, 200)))[CHECK, "x"]
    assert found.is_provisional
    assert set(found.scales[0].phi.values()) == {UNKNOWN_PHI}
    assert not measured(closed(reference(), rows(DICE, 200)))[CHECK, "x"].is_provisional


def test_a_day_is_judged_by_what_24_hours_of_the_reference_show() -> None:
    of = reference()
    day = closed(of, rows(DICE, 4_800), size_ms=24 * HOUR_MS, step_ms=24 * HOUR_MS)
    [test] = scales_of(day).values()
    law = of.calibration.features["x"].at(24)
    assert law is not None
    assert test.phi["location"] == pytest.approx(law.phi_location)
    unknown = measured(closed(of, rows(DICE, 200), size_ms=2 * HOUR_MS, step_ms=2 * HOUR_MS))[CHECK, "x"]
    assert unknown.is_provisional


def test_an_empty_window_and_a_feature_without_values_say_nothing() -> None:
    of = reference()
    assert all(not m.scales for m in measured(closed(of, (np.zeros(0), []))).values())


@pytest.mark.filterwarnings("error")
def test_a_feature_whose_windows_fill_one_cell_is_judged_where_a_window_fills_two() -> None:
    """200 rows expect a fifth of a rare value, 20,000 expect 20."""
    dice = np.random.default_rng(21)

    def drawn(n: int, rare: float) -> Rows:
        return dice.normal(size=n), np.where(dice.random(n) < rare, "green", "red").tolist()

    size, windows = 200, 60
    all_rows = drawn(size * windows, 0.001)
    profile = Profile(layout(all_rows[0]))
    profile.update(batch(all_rows))
    counts = WindowCounts(profile, HOUR_MS)
    counts.add(batch(all_rows), np.repeat(np.arange(windows, dtype=np.int64) * HOUR_MS, size))
    calibration = counts.calibration()[0]
    assert calibration.features["colour"].dof[0] == 0
    of = Reference.build("m", "1", profile, calibration=calibration)
    quiet, changed = (measured(closed(of, drawn(20_000, rare)))["drift.distribution", "colour"] for rare in (0.001, 0.01))
    assert 1e-3 < quiet.scales[0].p_value <= 1
    assert changed.scales[0].p_value < 1e-9
