"""The size of a reference: what it takes on the topic, and how little that depends on the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from monitor.files import ColumnOptions
from monitor.reference import Reference
from monitor.reference_build import build_reference

HOUR_MS = 3_600_000
MAX_BYTES = 64 << 10


def test_a_hundred_features_take_at_most_64_kib_on_the_topic(tmp_path: Path) -> None:
    """80 numbers with all 52 bits of a double, 20 categories of up to 1,000 values, 40,000 rows in 200 windows: 60.1 kB.

    Ten times the rows are about a digit more per edge, 4 kB.
    """
    dice, n = np.random.default_rng(7), 40_000
    columns: dict[str, object] = {"time": 1_735_689_600_000 + np.arange(n) * (200 * HOUR_MS // n)}
    draws = (dice.normal, dice.lognormal, lambda size: dice.standard_t(3, size), dice.random)
    for i in range(80):
        columns[f"number_{i}"] = draws[i % 4](size=n)
    for i, k in enumerate([3] * 4 + [5] * 4 + [10] * 4 + [20] * 4 + [100] * 2 + [1_000] * 2):
        share = 1 / np.arange(1, k + 1) ** 1.1
        columns[f"category_{i}"] = pa.array([f"value {v}" for v in range(k)]).take(
            pa.array(dice.choice(k, n, p=share / share.sum()))
        )
    pa.parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    made = build_reference(tmp_path / "t.parquet", "m", "1", ColumnOptions(time="time"), window_ms=HOUR_MS)
    assert len(made.layout.features) == 100
    assert all(found.at(24) for found in made.calibration.features.values())
    assert 40_000 < len(made.to_packed()) <= MAX_BYTES
    assert Reference.from_bytes(made.to_packed()).profile.to_bytes() == made.profile.to_bytes()
