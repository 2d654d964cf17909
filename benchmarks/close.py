"""Time to judge a closed window of 50 features: all distances, checks, decision, records. `python -m benchmarks.close`.

The decision is the default one: a calibrated reference, and 23 windows before that are judged with it.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from monitor.columns import ColumnBatch
from monitor.decision.scales import MAX_EARLIER
from monitor.distances import DISTANCES
from monitor.features import CategoryFeature
from monitor.findings import ClosedWindow, compare, measure
from monitor.layout import Layout, layout_of
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.reference_build.windows import WindowCounts
from monitor.windows import Window
from tests.shapes import number_feature_of

N_NUMBERS, N_CATEGORIES = 35, 15
ROWS, ROWS_REFERENCE = 1_000, 20_000
HOUR_MS = 3_600_000
REPEATS = 50
FEW = tuple(distance for distance in DISTANCES if distance.name in {"psi", "psi_corrected", "js"})


def columns(dice: np.random.Generator, n: int, shift: float) -> tuple[list[np.ndarray], list[list[str]]]:
    numbers = [dice.normal(shift, 1, n) for _ in range(N_NUMBERS)]
    return numbers, [[f"v{v}" for v in dice.zipf(1.5, n) % 200] for _ in range(N_CATEGORIES)]


def batch_of(numbers: list[np.ndarray], categories: list[list[str]]) -> ColumnBatch:
    return ColumnBatch(len(numbers[0]), np.array(numbers), None, categories, inspected=16)


def profile_of(layout: Layout, numbers: list[np.ndarray], categories: list[list[str]]) -> Profile:
    profile = Profile(layout)
    profile.update(batch_of(numbers, categories))
    return profile


class Times(NamedTuple):
    """CPU milliseconds: fastest, median and 95th percentile of `REPEATS`."""

    fastest: float
    median: float
    high: float

    @classmethod
    def of(cls, seconds: list[float]) -> Times:
        """Sum up single times."""
        times = [1e3 * second for second in seconds]
        return cls(min(times), statistics.median(times), statistics.quantiles(times, n=20)[-1])

    def __str__(self) -> str:
        return f"{self.fastest:6.1f} ms fastest, {self.median:6.1f} ms median, {self.high:6.1f} ms p95"


def closed_window(shift: float) -> tuple[ClosedWindow, tuple[bytes, ...]]:
    """Return a window, and what is kept of those before it."""
    dice = np.random.default_rng(1)
    numbers, categories = columns(dice, ROWS_REFERENCE, 0.0)
    features = [number_feature_of(f"n{i:02d}", values) for i, values in enumerate(numbers)]
    texts = [
        CategoryFeature(name=f"c{i:02d}", values=tuple(v for v, _ in Counter(values).most_common()))
        for i, values in enumerate(categories)
    ]
    layout = layout_of([*features, *texts])
    whole = profile_of(layout, numbers, categories)
    scatter = WindowCounts(whole, HOUR_MS)
    scatter.add(batch_of(numbers, categories), np.arange(ROWS_REFERENCE, dtype=np.int64) // ROWS * HOUR_MS)
    reference = Reference.build("m", "1", whole, calibration=scatter.calibration()[0])
    window, span = Window(HOUR_MS, HOUR_MS, HOUR_MS), {"p": {"0": [0, 999]}}
    history: tuple[bytes, ...] = ()
    for _ in range(MAX_EARLIER):
        quiet = ClosedWindow("m", "1", window, profile_of(layout, *columns(dice, ROWS, 0.0)), reference, 0, 0, 0, span)
        history = (judge_window(quiet, b"", DEFAULT_RULE_SET, history).tallies, *history)
    profile = profile_of(layout, *columns(dice, ROWS, shift))
    return ClosedWindow("m", "1", window, profile, reference, 0, 0, 0, span), history


def timed(*actions: Callable[[], object]) -> list[Times]:
    """Time actions in turns, so that what else the machine does hits all alike."""
    seconds: list[list[float]] = [[] for _ in actions]
    for _ in range(REPEATS):
        for spent, action in zip(seconds, actions, strict=True):
            start = time.process_time()
            action()
            spent.append(time.process_time() - start)
    return [Times.of(spent) for spent in seconds]


def main() -> None:
    print(f"{N_NUMBERS} numbers + {N_CATEGORIES} categories, {ROWS} rows against {ROWS_REFERENCE}; CPU time of one core")
    for name, shift in (("quiet", 0.0), ("every number shifted by 1 σ", 1.0)):
        closed, history = closed_window(shift)
        judged = judge_window(closed, b"", DEFAULT_RULE_SET, history)
        features = compare(closed)
        whole, few, all_ = timed(
            lambda closed=closed, history=history: judge_window(closed, b"", DEFAULT_RULE_SET, history),
            lambda features=features: measure(features, FEW),
            lambda features=features: measure(features, DISTANCES),
        )
        print(f"{name}: result {len(judged.results[0][1])} bytes, {len(judged.alerts)} alerts")
        print(f"  judge_window              {whole}")
        print(f"  {len(FEW):2} distances alone        {few}   ({', '.join(d.name for d in FEW)})")
        print(f"  {len(DISTANCES):2} distances alone        {all_}")
        print(f"  ratio of the two          {all_.fastest / few.fastest:6.2f}")


if __name__ == "__main__":
    main()
