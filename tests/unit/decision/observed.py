"""A model with a calibrated reference, and its windows, for tests of decisions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from monitor.columns import ColumnBatch
from monitor.features import CategoryFeature
from monitor.findings import ClosedWindow, Measurement, gather
from monitor.layout import Layout, layout_of
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.reference_build.windows import WindowCounts
from monitor.windows import Window
from tests.shapes import number_feature_of

HOUR_MS = 3_600_000
COLOURS = ["red", "green", "blue", "black"]
SHARES = [0.5, 0.3, 0.15, 0.05]

Rows = tuple[Any, list[str]]
"""Values of `x` and of `colour`."""


def rows(dice: np.random.Generator, n: int, shift: float = 0.0, cluster: int = 1) -> Rows:
    """Return rows of a normal number and a category; of a cluster all are alike."""
    x = np.repeat(dice.normal(shift, 1, -(-n // cluster)), cluster)[:n]
    colours = np.repeat(dice.choice(COLOURS, -(-n // cluster), p=SHARES), cluster)[:n]
    return x, colours.tolist()


def batch(of: Rows) -> ColumnBatch:
    return ColumnBatch(len(of[0]), np.array([of[0]]), None, [of[1]])


def layout(x: Any) -> Layout:
    return layout_of([number_feature_of("x", x), CategoryFeature(name="colour", values=tuple(COLOURS))])


@lru_cache(maxsize=8)
def reference(n: int = 200, windows: int = 60, cluster: int = 1, *, is_calibrated: bool = True) -> Reference:
    """Return a reference of so many windows of n rows."""
    all_rows = rows(np.random.default_rng(1), n * windows, cluster=cluster)
    profile = Profile(layout(all_rows[0]))
    profile.update(batch(all_rows))
    if not is_calibrated:
        return Reference.build("m", "1", profile)
    counts = WindowCounts(profile, HOUR_MS)
    counts.add(batch(all_rows), np.repeat(np.arange(windows, dtype=np.int64) * HOUR_MS, n))
    return Reference.build("m", "1", profile, calibration=counts.calibration()[0])


def closed(of: Reference, columns: Rows, at: int = 0, size_ms: int = HOUR_MS, step_ms: int = HOUR_MS) -> ClosedWindow:
    profile = Profile(of.layout)
    profile.update(batch(columns))
    return ClosedWindow("m", "1", Window((at + 1) * step_ms, size_ms, step_ms), profile, of, 0, 0, 0, {})


def measured(window: ClosedWindow, history: tuple[bytes, ...] = ()) -> dict[tuple[str, str], Measurement]:
    """Return what the distributions of a window measure, by check and feature."""
    from monitor.decision.distributions import Distributions
    from monitor.policy import DEFAULT_RULE_SET

    found = Distributions(window, DEFAULT_RULE_SET).measured({"all": gather(window)}, history)
    return {(m.check, m.feature): m for m in found}
