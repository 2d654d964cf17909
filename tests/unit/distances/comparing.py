"""What the monitor says of a feature, held against `oracle`."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monitor.features import NumberFeature
from monitor.findings import Evidence
from tests.unit.distances import oracle
from tests.unit.distances.oracle import Array

W1_ERROR = 0.02


def check_cells(distances: dict[str, float], reference: Array, window: Array) -> None:
    """Assert the distances of cells, to 1e-9; p-values to the 1e-9 of their statistic."""
    expected = oracle.of_cells(reference, window)
    for name in oracle.CELL_DISTANCES:
        rel = 1e-9 * max(1.0, expected["chi2"]) if name == "chi2_p" else 1e-9
        # scipy's divergence of nearly equal shares is off by 1e-16, its root by far more; test_digits.py has all digits
        absolute = 1e-15 / distances["js"] if name == "js" and distances["js"] else 1e-13
        assert distances[name] == pytest.approx(expected[name], rel=rel, abs=absolute), name


def check_rows(evidence: Evidence, reference: Array, window: Array, *, ks_error: float | None, name: str = "x") -> None:
    """Assert ks, w1 and w1_sigma: within the bounds of the cells; with `ks_error`, of a continuous feature, within the stated errors."""
    found, expected = evidence.distances[name], oracle.of_rows(reference, window)
    compared = evidence.features[name]
    assert isinstance(compared.feature, NumberFeature)
    edges, sigma = np.array(compared.feature.edges), float(np.std(reference))
    cells = [np.searchsorted(edges, rows) for rows in (reference, window)]
    shares = [np.bincount(cell, minlength=len(edges) + 1) / len(cell) for cell in cells]
    both = np.concatenate((reference, window))
    widths = np.diff(np.concatenate(([both.min()], np.clip(edges, both.min(), both.max()), [both.max()])))
    bound = float((widths * (shares[0] + shares[1])).sum())
    assert -1e-12 <= expected["ks"] - found["ks"] <= np.minimum(*shares).max() + 1e-12
    assert abs(found["w1"] - expected["w1"]) <= bound + 1e-9 * max(sigma, expected["w1"])
    assert found["w1"] >= abs(np.mean(window) - np.mean(reference)) * (1 - 1e-9) - 1e-9 * sigma
    if sigma:
        assert found["w1_sigma"] == pytest.approx(found["w1"] / sigma, rel=1e-9)
    if ks_error is not None:
        assert expected["ks"] - found["ks"] <= ks_error
        assert math.isclose(found["w1_sigma"], expected["w1_sigma"], abs_tol=W1_ERROR)
