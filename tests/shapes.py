"""Layouts and profiles from arrays, for tests."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from monitor.columns import Float
from monitor.features import NumberFeature
from monitor.reference_build import number_feature


def number_feature_of(name: str, values: Float) -> NumberFeature:
    """Return the layout that a file with these values would get."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Path(folder) / "values"
        np.asarray(values, np.float64).tofile(spool)
        return number_feature(name, spool)
