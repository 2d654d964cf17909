"""A model under observation: a reference built as from a file, and windows judged one after another by `pipeline.judge_window`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson

from benchmarks.decisions.streams import MISSING, SPECS, UNSEEN, Array, Stream
from monitor.columns import ColumnBatch, Int, specials_of
from monitor.features import CategoryFeature
from monitor.findings import ClosedWindow
from monitor.layout import Layout, layout_of
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET, RuleSet
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.reference_build.windows import WindowCounts
from monitor.windows import Window
from tests.shapes import number_feature_of

HOUR_MS = 3_600_000
NAMES = [f"f{i:02d}" for i in range(len(SPECS))]
_TEXTS = np.array([*(f"v{i}" for i in range(100)), "new", None], object)
"""By code; the last two are UNSEEN and MISSING."""
assert (UNSEEN, MISSING) == (-2, -1)


def layout(columns: list[Array]) -> Layout:
    features: list[Any] = []
    for name, spec, column in zip(NAMES, SPECS, columns, strict=True):
        if not spec.n_values:
            features.append(number_feature_of(name, column[~np.isnan(column)]))
            continue
        counts = np.bincount(column[column >= 0])
        ranked = sorted(np.flatnonzero(counts).tolist(), key=lambda code: (-int(counts[code]), code))
        features.append(CategoryFeature(name=name, values=tuple(f"v{code}" for code in ranked)))
    return layout_of(features)


def batch(columns: list[Array]) -> ColumnBatch:
    numbers = np.array([column for spec, column in zip(SPECS, columns, strict=True) if not spec.n_values], np.float64)
    specials = specials_of(numbers)
    if specials is not None:
        specials[np.isnan(numbers)] = 1
    texts = [_TEXTS[column].tolist() for spec, column in zip(SPECS, columns, strict=True) if spec.n_values]
    return ColumnBatch(len(columns[0]), numbers, specials, texts)


@dataclass(frozen=True)
class Watched:
    """reference, and its raw columns: what other tools are given."""

    reference: Reference
    columns: list[Array]

    @classmethod
    def build(cls, stream: Stream, n: int, windows: int) -> Watched:
        """Build a reference of so many windows of n rows, calibrated by them."""
        parts = [stream.window(n) for _ in range(windows)]
        columns = [np.concatenate(each) for each in zip(*parts, strict=True)]
        rows, profile = batch(columns), Profile(layout(columns))
        profile.update(rows)
        scatter = WindowCounts(profile, HOUR_MS)
        times: Int = np.repeat(np.arange(windows, dtype=np.int64) * HOUR_MS, n)
        scatter.add(rows, times)
        calibration, _ = scatter.calibration()
        return cls(Reference.build("m", "1", profile, calibration=calibration), columns)


@dataclass
class Live:
    """Where a model's windows stand. before: decision state. history: of the windows before, newest first. told: what an incident is open about."""

    reference: Reference
    before: bytes = b""
    history: tuple[bytes, ...] = ()
    at: int = 0
    told: frozenset[tuple[str, str]] = frozenset()
    rules: RuleSet = field(default=DEFAULT_RULE_SET, repr=False)

    def copy(self) -> Live:
        """Return one that goes its own way from here."""
        return replace(self)

    def step(self, columns: list[Array]) -> Seen:
        """Judge the next window."""
        profile = Profile(self.reference.layout)
        profile.update(batch(columns))
        self.at += 1
        window = Window(self.at * HOUR_MS, HOUR_MS, HOUR_MS)
        closed = ClosedWindow("m", "1", window, profile, self.reference, 0, 0, 0, {})
        judged = judge_window(closed, self.before, self.rules, self.history)
        self.before, self.history = judged.after, (judged.tallies, *self.history[:22])
        result = orjson.loads(judged.results[0][1])
        told = {(one["check"], one["feature"]): one for one in result["findings"] if one["incident_id"]}
        fired = [one for key, one in told.items() if key not in self.told]
        self.told = frozenset(told)
        psi = [result["features"][name]["distances"].get("psi", 0.0) for name in NAMES]
        return Seen(fired, psi, result["insufficient"])


@dataclass(frozen=True)
class Seen:
    """What was said of a window: findings that an incident opened about or took in, psi of each feature, checks that had too few rows."""

    fired: list[dict[str, Any]]
    psi: list[float]
    insufficient: list[str]


def live_after(watched: Watched, n: int, dice: np.random.Generator, missing: float = 0.0, quiet: int = 23) -> tuple[Live, Stream]:
    """Return a model that has been quiet for so many windows."""
    live, stream = Live(watched.reference), Stream(dice, missing=missing)
    for _ in range(quiet):
        live.step(stream.window(n))
    return live, stream
