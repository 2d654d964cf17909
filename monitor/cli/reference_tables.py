"""References as people read them: tables and sentences for standard error."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich import box
from rich.table import Table

from monitor.chance.calibration import SCALES, Calibration
from monitor.cli.console import ERR, say
from monitor.features import Feature, NumberFeature, kind_of
from monitor.profiles import FeatureSummary
from monitor.reference import Reference, ReferencePerformance
from monitor.reference_diff import FeatureDiff, ReferenceDiff, Side
from monitor.segments import OTHER
from monitor.windows import duration_text

SHOWN_VALUES = 3
SHOWN_CLASSES = 8
SHOWN_SEGMENTS = 8
_NARROW: dict[str, Any] = {"box": box.SIMPLE_HEAD, "pad_edge": False, "padding": 0}
"""Nine columns fit a terminal of 80."""


def print_reference(made: Reference) -> None:
    """Write what a reference holds."""
    record = made.record
    table = Table(
        title=f"{made.model} {made.version}: {record.rows:,} rows{_range(record.time_range_ms)}", title_justify="left", **_NARROW
    )
    for name in ("feature", "kind", "rows", "missing", "mean", "std", "from", "to", "φ"):
        table.add_column(
            name, justify="left" if name in ("feature", "kind") else "right", no_wrap=name in ("feature", "kind", "rows")
        )
    for feature in made.layout.features:
        s = made.profile.summary(feature.name)
        facts = [f"{s.n:,}", f"{s.missing:,}", *_spread(feature, s), _phi(made.calibration, feature.name)]
        table.add_row(feature.name, kind_of(feature), *facts)
    ERR.print(table)
    say(_calibration(made.calibration))
    _print_performance(made.performance)
    if record.labels:
        say(_labels(record.labels))
    for line in _segments(made):
        say(line)
    for warning in record.warnings:
        say(f"warning: {warning}")


def _range(range_ms: tuple[int, int] | None) -> str:
    return "" if range_ms is None else f", {_time(range_ms[0])} to {_time(range_ms[1])}"


def _time(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"


def _spread(feature: Feature, s: FeatureSummary) -> list[str]:
    if isinstance(feature, NumberFeature):
        return [f"{v:.5g}" for v in (s.mean or 0.0, s.std or 0.0, feature.minimum, feature.maximum)]
    values = f"{len(feature.values)} values" + (f" + {len(feature.other)} other" if feature.other else "")
    return ["", "", "any value" if feature.is_open else values, ""]


def _phi(calibration: Calibration, name: str) -> str:
    """Return the largest φ of single windows; of the smallest scale that was measured, where that is not 1, with its size."""
    found = calibration.features.get(name)
    for scale in SCALES:
        law = found.at(scale) if found else None
        if law is not None:
            phi = max(law.phi, law.phi_location, law.phi_dispersion)
            return f"{phi:.3g}" + (f" ({scale} windows)" if scale > 1 else "")
    return "–"


def _calibration(found: Calibration) -> str:
    if found.unknown is not None:
        return f"φ is unknown: {found.unknown}"
    kept = "" if found.is_complete else "newest "
    return f"φ: how far its {found.windows:,} {kept}windows of {duration_text(found.size_ms or 0)} scatter, beside independent rows (1)"


def _print_performance(found: ReferencePerformance) -> None:
    if found.task is None:
        say(f"performance is unknown: {found.unknown}")
        return
    rows = f"{found.n:,} rows" + (f", {found.n_scored:,} with a score" if found.n_scored not in (0, found.n) else "")
    about = f" of {found.positive_class}" if found.positive_class is not None else ""
    values = ", ".join(f"{name} {value:.4g}" for name, value in found.values.items())
    say(f"performance ({found.task}{about}, {rows}): {values}")
    if found.unknown is not None:
        say(f"performance is known in part: {found.unknown}")
    say(_estimates(found))
    if 0 < len(found.classes) <= SHOWN_CLASSES:
        table = Table()
        table.add_column("label ╲ prediction")
        for name in found.classes:
            table.add_column(name, justify="right")
        for name, counts in zip(found.classes, found.confusion, strict=True):
            table.add_row(name, *(f"{n:,}" for n in counts))
        ERR.print(table)


def _estimates(found: ReferencePerformance) -> str:
    made = found.estimator
    if isinstance(made, msgspec.UnsetType):
        return "estimates without labels: none; they take scores in [0, 1], or numbers as predictions"
    if found.task == "regression":
        return "estimates without labels: mae and rmse, by predicted number (DLE)"
    n_calibrated = sum(bool(one.scores) for one in made.calibrations)
    return f"estimates without labels: from scores (CBPE), {n_calibrated} of {len(made.calibrations)} calibrated by isotonic regression"


def _labels(labels: dict[str, int]) -> str:
    most = sorted(labels, key=lambda label: (-labels[label], label))
    rest = sum(labels[label] for label in most[SHOWN_CLASSES:])
    return "labels: " + ", ".join(
        [f"{label} {labels[label]:,}" for label in most[:SHOWN_CLASSES]]
        + ([f"{len(most) - SHOWN_CLASSES} others {rest:,}"] if rest else [])
    )


def _segments(made: Reference) -> Iterator[str]:
    """Yield a line per segmentation: its segments by rows."""
    first = 1
    for segmentation in made.layout.segmentations:
        rows = made.profile.rows[first : first + len(segmentation.segments)].tolist()
        first += len(rows)
        named = [(" × ".join(values), n) for values, n in zip(segmentation.values, rows, strict=False)]
        shown = [f"{name} {n:,}" for name, n in named[:SHOWN_SEGMENTS]]
        rest = (
            [f"{len(named) - SHOWN_SEGMENTS} others {sum(n for _, n in named[SHOWN_SEGMENTS:]):,}"]
            if named[SHOWN_SEGMENTS:]
            else []
        )
        yield f"segments by {segmentation}: " + ", ".join([*shown, *rest, f"{OTHER} {rows[-1]:,}"])


def print_diff(found: ReferenceDiff, distances: tuple[str, ...]) -> None:
    """Write two references side by side; what moved most, by the first of the distances, comes first."""
    for label, side in (("A", found.a), ("B", found.b)):
        say(f"{label}: {side.model} {side.version} {side.sha256[:12]}, {side.rows:,} rows{_range(side.time_range_ms)}")
    table = Table(**_NARROW)
    for name in ("feature", "missing", "mean", "std", "from", "to", *distances, "values"):
        table.add_column(name, justify="left" if name in ("feature", "values") else "right", no_wrap=name == "feature")
    for name in sorted(found.features, key=lambda n: -found.features[n].distances.get(distances[0], -1.0)):
        table.add_row(name, *_diff_row(found.features[name], distances))
    ERR.print(table)
    for line in _diff_lines(found):
        say(line)


def _diff_row(f: FeatureDiff, distances: tuple[str, ...]) -> list[str]:
    pairs = [_pair(*pair) for pair in (f.mean, f.std, f.minimum, f.maximum)]
    known = [_distance(f, d) for d in distances]
    changed = [
        f"{sign}{', '.join(values[:SHOWN_VALUES])}" + (f" and {n - SHOWN_VALUES} more" if n > SHOWN_VALUES else "")
        for sign, values, n in (("+ ", f.values_added, f.n_values_added), ("− ", f.values_removed, f.n_values_removed))
        if n
    ]
    return [_pair(f.missing_ratio[0], f.missing_ratio[1], ".2%"), *pairs, *known, "; ".join(changed)]


def _distance(f: FeatureDiff, name: str) -> str:
    if name not in f.distances:
        return ""
    text = f"{f.distances[name]:.4f}"
    low, high = (f"{value:.4f}" for value in f.distances_between.get(name, (f.distances[name],) * 2))
    return text if low == high else f"≈ {text} ({low}–{high})"


def _pair(a: float | None, b: float | None, form: str = ".5g") -> str:
    texts = ["–" if value is None else format(value, form) for value in (a, b)]
    if a is None and b is None:
        return ""
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} → {texts[1]}"


def _diff_lines(found: ReferenceDiff) -> list[str]:
    lines = [f"only in {side}: {', '.join(names)}" for side, names in (("A", found.removed), ("B", found.added)) if names]
    lines += [f"{name}: {kinds[0]} in A, {kinds[1]} in B" for name, kinds in found.changed_kind.items()]
    cut = {name: f.uncertain_ratio for name, f in found.features.items() if f.uncertain_ratio}
    if cut:
        worst = max(cut, key=lambda name: cut[name])
        lines.append(
            f"≈: B's rows were counted on its own cells; at an edge of A up to {cut[worst]:.2%} of them ({worst}) may be "
            "on the wrong side; in brackets, with all of these on the one side and on the other"
        )
    lines += [line for line in (_values(found.a, found.b),) if line]
    return lines


def _values(a: Side, b: Side) -> str:
    names = [name for name in a.performance if name in b.performance]
    return "performance: " + ", ".join(f"{n} {_pair(a.performance[n], b.performance[n])}" for n in names) if names else ""
