"""Time to judge a closed window of 50 features: distances, checks, decision, records. `python -m benchmarks.close`."""

from __future__ import annotations

import statistics
import time
from collections import Counter

import numpy as np

from monitor.columns import ColumnBatch
from monitor.findings import ClosedWindow
from monitor.layout import CategoryFeature, Layout, layout_of
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.windows import Window
from tests.shapes import number_feature_of

N_NUMBERS, N_CATEGORIES = 35, 15
ROWS, ROWS_REFERENCE = 1_000, 20_000
HOUR_MS = 3_600_000
REPEATS = 50


def columns(dice: np.random.Generator, n: int, shift: float) -> tuple[list[np.ndarray], list[list[str]]]:
    numbers = [dice.normal(shift, 1, n) for _ in range(N_NUMBERS)]
    return numbers, [[f"v{v}" for v in dice.zipf(1.5, n) % 200] for _ in range(N_CATEGORIES)]


def profile_of(layout: Layout, numbers: list[np.ndarray], categories: list[list[str]]) -> Profile:
    profile = Profile(layout)
    profile.update(ColumnBatch(len(numbers[0]), np.array(numbers), None, categories, inspected=16))
    return profile


def measure(shift: float) -> tuple[float, float, int, int]:
    """Return median and 95th percentile in ms, bytes of the result and number of alerts."""
    dice = np.random.default_rng(1)
    numbers, categories = columns(dice, ROWS_REFERENCE, 0.0)
    features = [number_feature_of(f"n{i:02d}", values) for i, values in enumerate(numbers)]
    texts = [
        CategoryFeature(name=f"c{i:02d}", values=tuple(v for v, _ in Counter(values).most_common()))
        for i, values in enumerate(categories)
    ]
    layout = layout_of([*features, *texts])
    reference = Reference.build("m", "1", profile_of(layout, numbers, categories))
    profile = profile_of(layout, *columns(dice, ROWS, shift))
    closed = ClosedWindow("m", "1", Window(HOUR_MS, HOUR_MS, HOUR_MS), profile, reference, 0, 0, 0, {"p": {"0": [0, 999]}})
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        judgement = judge_window(closed, b"", DEFAULT_RULE_SET)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times), statistics.quantiles(times, n=20)[-1], len(judgement.results[0][1]), len(judgement.alerts)


def main() -> None:
    print(f"judge_window, {N_NUMBERS} numbers + {N_CATEGORIES} categories, {ROWS} rows against {ROWS_REFERENCE}")
    for name, shift in (("quiet", 0.0), ("every number shifted by 1 σ", 1.0)):
        median, high, size, alerts = measure(shift)
        print(f"{name:28} {median:6.1f} ms median, {high:6.1f} ms p95, result {size} bytes, {alerts} alerts")


if __name__ == "__main__":
    main()
