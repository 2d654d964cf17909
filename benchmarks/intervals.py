"""How often the 95 % intervals of a window's performance hold the true value: `python -m benchmarks.intervals [windows]`.

Windows are drawn from large populations, whose own values are the truth: two classes (well and badly calibrated, frequent and rare),
four classes, numbers with light and heavy tails.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from monitor.features import NumberFeature
from monitor.performance import OutcomeCells, PerformanceSpec, Rows, realised
from monitor.performance.spec import score_edges
from monitor.sketches.moments import scale_of

POPULATION = 400_000
SIZES = (200, 500, 1_000, 5_000)
HELD = ("accuracy", "auc", "f1", "brier")
"""Held to 92–97 % from 200 labels on; the mean of several classes' areas, whose interval is a bound, to 92 % at least."""


def _number(name: str, values: Any) -> NumberFeature:
    edges = tuple(np.unique(np.quantile(values, np.linspace(0, 1, 129), method="inverted_cdf")).tolist())
    centre, exponent = scale_of(float(values.mean()), float(values.std()))
    return NumberFeature(
        name=name, edges=edges, reported=(), minimum=edges[0], maximum=edges[-1], centre=centre, exponent=exponent
    )


def populations(seed: int) -> dict[str, tuple[PerformanceSpec, Any, Any, Any]]:
    """Return name → specification, predictions, scores, labels of a population."""
    draw = np.random.default_rng(seed)
    n, found = POPULATION, {}
    for name, truth, scores in (
        ("binary", (p := draw.beta(2, 2, n)), p),
        ("binary, overconfident", (p := draw.beta(2, 2, n)), p**2 / (p**2 + (1 - p) ** 2)),
        ("binary, rare", (p := draw.beta(1, 6, n)), p),
    ):
        edges = (score_edges(_number("@score", scores), 1_024, is_probability=True),)
        spec = PerformanceSpec(
            "binary", classes=("0", "1"), positive=1, score_names=("@score",), are_probabilities=True, edges=edges
        )
        threshold = 0.5 if "rare" not in name else 0.25
        found[name] = spec, (scores > threshold).astype(int), scores[:, np.newaxis], (draw.random(n) < truth).astype(int)
    shares = draw.dirichlet([2, 3, 4, 1], n)
    label = (draw.random(n)[:, np.newaxis] > np.cumsum(shares, axis=1)).sum(axis=1).clip(0, 3)
    names = tuple(f"@score[{i}]" for i in range(4))
    edges4 = tuple(score_edges(_number(name, shares[:, i]), 256, is_probability=True) for i, name in enumerate(names))
    spec = PerformanceSpec("multiclass", classes=tuple("0123"), score_names=names, are_probabilities=True, edges=edges4)
    found["four classes"] = spec, shares.argmax(axis=1), shares, label
    for name, noise in (("numbers", draw.normal(0, 1, n)), ("numbers, heavy tails", draw.standard_t(5, n))):
        predicted = draw.normal(30, 3, n)
        feature = _number("@prediction", predicted)
        spec = PerformanceSpec(
            "regression", predicted_edges=np.array(feature.edges), centre=feature.centre, exponent=feature.exponent
        )
        found[name] = spec, predicted, np.zeros((n, 0)), predicted + noise
    return found


def _realised(spec: PerformanceSpec, predicted: Any, scores: Any, labels: Any) -> Any:
    n = len(predicted)
    rows = Rows(predicted, scores, (np.arange(n), np.zeros(n, np.int64)))
    cells = OutcomeCells(spec)
    cells.add_made(rows)
    cells.add_labelled(rows, labels, np.zeros(n, np.int64))
    return realised(cells).values


def coverage(n: int, windows: int, seed: int = 0, names: tuple[str, ...] = ("binary",)) -> dict[str, dict[str, float]]:
    """Return population → metric → share of the windows of n rows whose interval holds the population's value."""
    draw = np.random.default_rng([seed, n])
    found = {}
    for name, (spec, *columns) in populations(seed).items():
        if name not in names:
            continue
        truth = {metric: one.value for metric, one in _realised(spec, *columns).items()}
        inside = dict.fromkeys(truth, 0)
        for _ in range(windows):
            at = draw.integers(0, POPULATION, n)
            for metric, (_, low, high) in _realised(spec, *(column[at] for column in columns)).items():
                inside[metric] += low is not None and high is not None and low <= truth[metric] <= high
        found[name] = {metric: count / windows for metric, count in inside.items()}
    return found


def main() -> int:
    windows = int(sys.argv[1]) if len(sys.argv) > 1 else 3_000
    outside = []
    for n in SIZES[: 2 if windows > 1_000 else None]:
        for name, shares in coverage(n, windows, names=tuple(populations(0))).items():
            print(
                f"n={n:5} {name:22} " + "  ".join(f"{metric} {100 * share:.1f}" for metric, share in shares.items()), flush=True
            )
            outside += [
                f"{metric} of {name}, n={n}: {100 * share:.1f} %"
                for metric, share in shares.items()
                if metric in HELD and not 0.92 <= share <= (1.0 if (metric, name) == ("auc", "four classes") else 0.97)
            ]
    print("all of", ", ".join(HELD), "within 92–97 %" if not outside else f"but {'; '.join(outside)}")
    return bool(outside)


if __name__ == "__main__":
    raise SystemExit(main())
