"""Layouts from arrays, and what the fixed rules say of measurements, for tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from monitor.columns import Float
from monitor.decision import fixed
from monitor.features import NumberFeature
from monitor.findings import Finding, Measurement
from monitor.policy import RuleSet
from monitor.reference_build import number_feature


def number_feature_of(name: str, values: Float) -> NumberFeature:
    """Return the layout that a file with these values would get."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Path(folder) / "values"
        np.asarray(values, np.float64).tofile(spool)
        return number_feature(name, spool)


def judged_alone(model: str, measurements: Iterable[Measurement], rules: RuleSet) -> list[Finding]:
    """Return what the fixed rules say of measurements, each judged by itself."""
    return [fixed.judge(measurement, rule) for measurement, rule in fixed.matched(model, measurements, rules)]
