"""φ of a reference's own windows, against scipy and plain loops over the raw rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from scipy import stats

from monitor.chance.calibration import SCALES, FeatureCalibration, ScaleLaw, independent_windows
from monitor.chance.scores import MIN_EXPECTED
from monitor.distances.psi import psi
from monitor.features import NumberFeature
from monitor.files import ColumnOptions
from monitor.reference import Reference
from monitor.reference_build import build_reference, windows
from monitor.sides import Sides

HOUR_MS = 3_600_000
START_MS = 1_735_689_600_000
TIMES = ColumnOptions(time="time")


def build(path: Path, rows: pa.Table, size_ms: int | None = HOUR_MS, options: ColumnOptions = TIMES) -> Reference:
    pa.parquet.write_table(rows, path / "t.parquet")
    return build_reference(path / "t.parquet", "m", "1", options, window_ms=size_ms)


def traffic(hours: int, rows_per_hour: int = 200, *, copies: int = 1, seed: int = 5) -> pa.Table:
    """Rows of independent entities, each of them `copies` times within its hour."""
    dice = np.random.default_rng(seed)
    n = hours * rows_per_hour // copies
    hour = np.repeat(np.arange(hours), rows_per_hour // copies)
    columns = {
        "time": START_MS + hour * HOUR_MS + dice.integers(0, HOUR_MS, n),
        "x": dice.normal(size=n),
        "zeros": np.where(dice.random(n) < 0.4, 0.0, dice.normal(size=n)),
        "place": dice.choice(["a", "b", "c", "d", "e"], n, p=[0.5, 0.3, 0.15, 0.04, 0.01]),
    }
    return pa.table({name: np.repeat(values, copies) for name, values in columns.items()})


def merged_hours(rows: pa.Table, name: str, scale: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every run of consecutive hours as (its rows, all other rows), from the raw rows."""
    hour = rows["time"].to_numpy() // HOUR_MS
    present = np.unique(hour)
    values = rows[name].to_numpy(zero_copy_only=False)
    runs = [present[i : i + scale] for i in range(len(present) - scale + 1)]
    return [(values[np.isin(hour, run)], values[~np.isin(hour, run)]) for run in runs]


def moments(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.var(values))


def at(spread: object, i: int) -> tuple[float, float]:
    return spread.mean[i], spread.variance[i]  # type: ignore[attr-defined]


@pytest.mark.parametrize("copies", [1, 5])
@pytest.mark.parametrize("name", ["x", "zeros"])
def test_a_numbers_windows_score_against_the_other_rows_as_scipy_says(tmp_path: Path, name: str, copies: int) -> None:
    rows = traffic(30, copies=copies)
    made = build(tmp_path, rows)
    feature = made.layout.features[made.layout.index[name]]
    assert isinstance(feature, NumberFeature)
    found = made.calibration.features[name]
    for i, scale in enumerate(SCALES[:3]):
        shape, location, dispersion = [], [], []
        for window, rest in merged_hours(rows, name, scale):
            tables = [
                np.bincount(np.searchsorted(feature.reported, side), minlength=len(feature.reported) + 1)
                for side in (window, rest)
            ]
            table = np.array(tables)
            while (small := np.flatnonzero(table.sum(axis=0) * len(window) < MIN_EXPECTED * len(rows))).size:
                table[:, small[0] + 1] += table[:, small[0]]  # the only small cell, the one just below zero
                table = np.delete(table, small[0], axis=1)
            shape.append(stats.chi2_contingency(table, correction=False).statistic)
            cells = [np.searchsorted(feature.edges, side) for side in (window, rest)]
            location.append(stats.mannwhitneyu(*cells, use_continuity=False, method="asymptotic"))
            dispersion.append(stats.mood(*cells).statistic)
        assert at(found.chi_square, i) == pytest.approx(moments(shape), rel=6e-4)
        z = [np.sign(r.statistic - len(w) * (len(rows) - len(w)) / 2) * stats.norm.isf(r.pvalue / 2)
             for r, (w, _) in zip(location, merged_hours(rows, name, scale), strict=True)]  # fmt: skip
        assert at(found.location, i) == pytest.approx(moments(z), rel=6e-4, abs=1e-6)
        assert at(found.dispersion, i) == pytest.approx(moments(dispersion), rel=6e-4, abs=1e-6)
        assert found.windows[i] == len(z)
        assert found.rows[i] == 200 * scale


def test_a_categorys_windows_score_on_the_cells_that_expect_enough_rows(tmp_path: Path) -> None:
    rows = traffic(60)
    found = build(tmp_path, rows).calibration.features["place"]
    assert (found.location, found.dispersion) == (None, None)
    for i, scale in enumerate(SCALES[:3]):
        share = {v: (rows["place"].to_numpy(zero_copy_only=False) == v).mean() for v in "abcde"}
        alone = [v for v in "abcde" if share[v] * 200 * scale >= MIN_EXPECTED]
        rest = [v for v in "abcde" if v not in alone]
        if rest and sum(share[v] for v in rest) * 200 * scale < MIN_EXPECTED:
            rest = [*rest, alone.pop()]
        groups = [[v] for v in alone] + ([rest] if rest else [])
        scores = []
        for window, others in merged_hours(rows, "place", scale):
            table = [[np.isin(side, group).sum() for group in groups] for side in (window, others)]
            scores.append(stats.chi2_contingency(np.array(table), correction=False).statistic)
        assert at(found.chi_square, i) == pytest.approx(moments(scores), rel=6e-4)
        assert found.dof[i] == len(groups) - 1
    assert found.dof[:2] == [3, 4]


def laws(found: FeatureCalibration) -> list[ScaleLaw]:
    return [law for scale in SCALES if (law := found.at(scale)) is not None]


def test_independent_rows_are_left_to_sampling_noise(tmp_path: Path) -> None:
    made = build(tmp_path, traffic(168))
    for found in made.calibration.features.values():
        for law in laws(found)[:3]:
            assert (law.phi, law.shape_dof, law.phi_location, law.phi_dispersion) == (1, law.dof, 1, 1)
    assert made.record.warnings == []


def test_rows_that_come_five_times_scatter_five_times_as_much(tmp_path: Path) -> None:
    made = build(tmp_path, traffic(168, copies=5))
    assert made.calibration.windows == 168
    for name, found in made.calibration.features.items():
        law = found.at(1)
        assert law is not None
        assert law.phi == pytest.approx(5, rel=0.2)
        if name != "place":
            assert law.phi_location == pytest.approx(5, rel=0.35)
            assert law.phi_dispersion == pytest.approx(5, rel=0.35)
        assert law.independent == 167


def test_a_window_is_not_compared_with_itself(tmp_path: Path) -> None:
    """Four independent hours, each against a reference that it is a quarter of, would scatter a quarter too little."""
    shapes = []
    for seed in range(16):
        found = build(tmp_path, traffic(4, 2_000, seed=seed)).calibration.features["x"]
        assert found.chi_square.mean[0] is not None
        shapes.append(found.chi_square.mean[0])
    assert np.mean(shapes) == pytest.approx(9, abs=3 * np.std(shapes) / np.sqrt(16))


def test_any_order_of_the_rows_and_any_batches_give_the_same_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = traffic(30, copies=5)
    whole = build(tmp_path, rows).to_bytes()
    shuffled = rows.take(np.random.default_rng(1).permutation(len(rows)))
    assert build(tmp_path, shuffled).to_bytes() == whole
    monkeypatch.setattr("monitor.files.parquet.BATCH_ROWS", 97)
    assert build(tmp_path, shuffled).to_bytes() == whole


def test_of_too_many_windows_the_newest_are_kept_whatever_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_WINDOWS", 20)
    monkeypatch.setattr("monitor.files.parquet.BATCH_ROWS", 997)
    rows = traffic(50)
    shuffled = rows.take(np.random.default_rng(2).permutation(len(rows)))
    made, again = build(tmp_path, rows), build(tmp_path, shuffled)
    assert made.to_bytes() == again.to_bytes()
    found = made.calibration
    assert (found.windows, found.is_complete) == (20, False)
    assert found.range_ms == (START_MS + 30 * HOUR_MS, START_MS + 50 * HOUR_MS)
    scores = []
    feature = made.layout.features[made.layout.index["x"]]
    assert isinstance(feature, NumberFeature)
    for window, rest in merged_hours(rows, "x", 1)[30:]:  # against all other rows, those of the older windows too
        cells = [np.searchsorted(feature.edges, side) for side in (window, rest)]
        scores.append(stats.mood(*cells).statistic)
    assert found.features["x"].dispersion is not None
    assert at(found.features["x"].dispersion, 0) == pytest.approx(moments(scores), rel=6e-4, abs=1e-6)


def test_hours_without_rows_are_no_windows_and_small_ones_wait_for_a_larger_scale(tmp_path: Path) -> None:
    rows = traffic(40, 60)
    rows = rows.filter(pa.compute.greater_equal(rows["time"], START_MS + 3 * HOUR_MS))
    rows = rows.filter(pa.compute.invert(pa.compute.equal(pa.array(rows["time"].to_numpy() // HOUR_MS % 5), pa.scalar(0))))
    found = build(tmp_path, rows).calibration
    assert found.windows == len(np.unique(rows["time"].to_numpy() // HOUR_MS))
    assert found.features["x"].windows[0] == 0
    assert found.features["x"].at(1) is None
    assert found.features["x"].windows[1] == found.windows - 2
    assert found.features["x"].rows[1] == 180


@pytest.mark.parametrize(
    ("hours", "rows_per_hour", "size_ms", "options", "why"),
    [
        (5, 200, HOUR_MS, ColumnOptions(), "no time column"),
        (5, 200, None, TIMES, "no time, or no length of a window"),
        (1, 200, HOUR_MS, TIMES, "all rows lie in one window; their scatter cannot be seen"),
        (3, 20, HOUR_MS, TIMES, "of 3 windows, fewer than two have 100 rows with a value; name a longer one with --window"),
    ],
)
def test_where_nothing_can_be_seen_phi_is_unknown_and_the_record_says_why(
    tmp_path: Path, hours: int, rows_per_hour: int, size_ms: int | None, options: ColumnOptions, why: str
) -> None:
    found = build(tmp_path, traffic(hours, rows_per_hour), size_ms, options).calibration
    assert (found.unknown, found.features) == (why, {})


def test_rows_without_a_time_are_in_no_window_but_in_the_reference(tmp_path: Path) -> None:
    rows = traffic(30)
    times = rows["time"].to_numpy()
    late = rows.set_column(0, "time", pa.array(times, mask=times // HOUR_MS % 2 == 0))
    found = build(tmp_path, late)
    assert found.calibration.windows == 15
    assert found.record.rows == 6_000


def test_a_reference_whose_windows_differ_is_called_not_homogeneous(tmp_path: Path) -> None:
    rows = traffic(48)
    hour = (rows["time"].to_numpy() - START_MS) // HOUR_MS
    moving = rows.set_column(1, "x", pa.array(rows["x"].to_numpy() + np.where(hour < 24, 0.0, 3.0)))
    warnings = build(tmp_path, moving).record.warnings
    assert [w.split(";")[0].split(" (φ")[0][:33] for w in warnings] == [
        "reference not homogeneous: up to ",
        "reference not homogeneous: window",
    ]
    assert all(" in x;" in w for w in warnings)
    assert "100% of its own windows pass psi 0.2" in warnings[0]


def test_the_share_of_windows_that_pass_psi_is_that_of_the_registry(tmp_path: Path) -> None:
    rows = traffic(40, copies=10)
    made = build(tmp_path, rows)
    feature = made.layout.features[made.layout.index["x"]]
    assert isinstance(feature, NumberFeature)
    k = len(feature.reported) + 1
    tables = [
        [np.bincount(np.searchsorted(feature.reported, side), minlength=k) for side in pair]
        for pair in merged_hours(rows, "x", 1)
    ]
    limit = (1 / 200 + 1 / (len(rows) - 200)) * stats.chi2.isf(0.001, k - 1)
    expected = np.mean([psi(Sides(rest, window)) > max(0.2, limit) for window, rest in tables])
    counts, total = (np.array([t[0] for t in tables]), tables[0][0] + tables[0][1])
    assert 0 < expected < 1
    assert windows._psi_share(counts, total) == expected


def test_independent_windows_are_counted_as_the_overlap_allows() -> None:
    assert independent_windows(1, 1) == 2
    assert independent_windows(48 - 23, 24) == 2
    assert independent_windows(240 - 23, 24) == pytest.approx(9)
