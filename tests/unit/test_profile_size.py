from __future__ import annotations

import numpy as np
import pytest

from monitor.columns import ColumnBatch
from monitor.layout import layout_of
from monitor.profiles import Profile
from tests.shapes import number_feature_of


@pytest.mark.parametrize("shape", ["normal", "lognormal", "cauchy", "zeros", "constant"])
@pytest.mark.parametrize("rows", [1, 1_000, 200_000])
def test_a_number_takes_at_most_700_bytes_of_a_window(shape: str, rows: int) -> None:
    dice = np.random.default_rng(rows)

    def drawn(n: int) -> np.ndarray:
        made = {
            "normal": dice.normal(size=n),
            "lognormal": dice.lognormal(size=n),
            "cauchy": dice.standard_cauchy(n),
            "zeros": np.where(dice.random(n) < 0.4, 0.0, dice.normal(size=n)),
            "constant": np.full(n, 7.5),
        }
        return made[shape]

    n_features = 20
    layout = layout_of(number_feature_of(f"f{i}", drawn(20_000)) for i in range(n_features))
    profile = Profile(layout)
    profile.update(ColumnBatch(rows, np.stack([drawn(rows) for _ in range(n_features)]), None, []))
    assert profile.summary("f3").n == rows
    assert len(profile.to_bytes()) <= 700 * n_features
