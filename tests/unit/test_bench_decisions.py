"""The benchmark of decisions runs through the pipeline's own code, repeats with its seed, and tells quiet days from drift."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.decisions import power, quiet
from benchmarks.decisions.__main__ import sections
from benchmarks.decisions.models import HOUR_MS
from benchmarks.decisions.power import Power
from benchmarks.decisions.quiet import Quiet
from benchmarks.decisions.streams import SPECS, Drift, Stream
from benchmarks.decisions.table import GOALS, table
from monitor.decision.calibrated import counts_alpha
from monitor.policy import DEFAULT_RULES
from monitor.rules import DEFAULT_FALSE_ALARMS
from monitor.windows import WindowSpec


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, Any]]:
    two_sigma = Power("0.2 σ", 1_000, Drift("shift", 2.0), 6, 3, ("normal",))
    return {
        "iid-100": quiet.measure(Quiet("iid", 100, 1), np.random.default_rng(1), {}),
        "0.2 σ, n=1000": power.measure(two_sigma, np.random.default_rng(2), {}),
    }


def test_a_quiet_day_is_quiet_and_the_bare_rule_is_not(figures: dict[str, dict[str, Any]]) -> None:
    found = figures["iid-100"]
    assert (found["days_with_alarm"], found["alerts"]) == (0, {})
    assert found["rules"]["PSI > 0.2"]["feature_windows"] > 0.05


def test_a_large_drift_is_found_in_the_first_window(figures: dict[str, dict[str, Any]]) -> None:
    assert figures["0.2 σ, n=1000"]["within"] == {"1": 1.0, "2": 1.0, "3": 1.0}


def test_a_seed_repeats_a_run(figures: dict[str, dict[str, Any]]) -> None:
    assert quiet.measure(Quiet("iid", 100, 1), np.random.default_rng(1), {}) == figures["iid-100"]


def test_every_section_has_a_goal_in_the_table(figures: dict[str, dict[str, Any]]) -> None:
    for name in sections(quick=True):
        assert any(name.startswith(start) for start in GOALS)
    lines = table(figures).splitlines()
    assert lines[2].startswith("| iid | 100 | 1 | 0: 0.00%")
    assert any(line.startswith("| 0.2 σ | 1000 | 6 | 100.0% | 100.0% | 1, 1 |") for line in lines)


def test_no_test_of_missing_rows_finds_more_than_the_limit_that_spends_the_whole_budget() -> None:
    """27 of 1000 where 10 are usual: chance passes that in 1 of 120,000 windows."""
    more = Power("2 % more missing", 1_000, Drift("missing", 0.02), 1, 1, missing=0.01)
    assert stats.binom.sf(26, 1_000, 0.01) < 1 / 2_400 / 50 < stats.binom.sf(25, 1_000, 0.01)
    assert power.ceiling(more, 1 / 2_400) == pytest.approx(float(stats.binom.sf(26, 1_000, 0.03)))


def test_within_what_exact_tests_spend_no_test_finds_more_than_two_thirds() -> None:
    """28 of 1000; the reference's own share is known to a fortieth of it, so that now and then it is 29."""
    more = Power("2 % more missing", 1_000, Drift("missing", 0.02), 1, 1, missing=0.01)
    spent = counts_alpha(DEFAULT_FALSE_ALARMS, WindowSpec(HOUR_MS, HOUR_MS))
    assert power.ceiling(more, spent) == pytest.approx(float(stats.binom.sf(27, 1_000, 0.03))) == pytest.approx(0.67, abs=0.005)
    assert stats.binom.sf(28, 1_000, 0.03) == pytest.approx(0.60, abs=0.005)


def test_a_tenth_of_sigma_is_nearer_to_the_floor_than_six_windows_tell() -> None:
    """Psi on the reported cells of a normal feature, and the deviation of what is measured of it in 6000 rows."""
    borders = stats.norm.ppf(np.arange(11) / 10)
    before, after = np.full(10, 0.1), np.diff(stats.norm.cdf(borders - 0.1))
    psi = float(((after - before) * np.log(after / before)).sum())
    shares = np.random.default_rng(5).multinomial(6_000, after, 20_000) / 6_000
    measured = ((shares - before) * np.log(np.maximum(shares, 1e-9) / before)).sum(axis=1) - 9 / 6_000
    assert (psi, measured.std()) == (pytest.approx(0.0096, abs=5e-5), pytest.approx(0.0026, abs=1e-4))
    floor = DEFAULT_RULES["drift.distribution"].threshold
    assert (measured > floor).mean() > 0.75
    assert (measured > 0.01).mean() < 0.5


@pytest.mark.parametrize(
    ("kind", "share"), [("moved", 0.1), ("missing", 0.05), ("unseen", 0.05), ("outliers", 0.05), ("shift", 1.0), ("scale", 3.0)]
)
def test_a_drift_is_what_it_says(kind: Any, share: float) -> None:
    of = SPECS.index(next(spec for spec in SPECS if bool(spec.n_values) == (kind in ("moved", "unseen"))))
    quiet_rows = Stream(np.random.default_rng(3)).window(40_000)[of]
    rows = Stream(np.random.default_rng(4)).window(40_000, Drift(kind, share), frozenset([of]))[of]
    measured = {
        "moved": lambda: np.mean(quiet_rows == 0) - np.mean(rows == 0),
        "missing": lambda: np.isnan(rows).mean(),
        "unseen": lambda: np.mean(rows < 0),
        "outliers": lambda: np.mean(rows > 10),
        "shift": lambda: rows.mean() - quiet_rows.mean(),
        "scale": lambda: rows.std() / quiet_rows.std(),
    }[kind]()
    assert measured == pytest.approx(share, rel=0.1)
