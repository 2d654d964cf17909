"""A reference from a file, in bounded memory; no raw rows are kept. What its columns would be taken for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monitor.cells import NUMBERS, FeatureOptions
from monitor.features import AskedKind, ValueType
from monitor.files import ColumnOptions, open_table
from monitor.hash_key import NO_KEY, HashKey
from monitor.reference import Reference
from monitor.reference_build.numbers import number_feature
from monitor.reference_build.outcomes import with_segments
from monitor.reference_build.passes import Build, InferredFeature
from monitor.reference_build.performance import performance_of
from monitor.reference_build.segments import SegmentCounts, SegmentOptions

__all__ = [
    "FeatureOptions",
    "Inference",
    "InferredFeature",
    "SegmentOptions",
    "build_reference",
    "infer_features",
    "number_feature",
]


def build_reference(  # noqa: PLR0913 - what a user gives on one command line
    path: Path,
    model: str,
    version: str,
    columns: ColumnOptions,
    feature_options: Mapping[str, FeatureOptions] | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    hash_key: HashKey = NO_KEY,
    segments: Sequence[SegmentOptions] = (),
    max_segments: int = 50,
    window_ms: int | None = None,
    positive_class: str | None = None,
) -> Reference:
    """Return the reference of a file's rows; the same bytes for any order of the rows.

    docs/kinds.md says which kind a column is; `kind` overrules it. Left out, with a warning in the record: columns without a value,
    objects and bytes; without one: what `pii: drop` names. Where a file says which model and version a row is of, only rows of these
    are taken.

    progress: called with the rows of every batch of every pass: two, one more where features of richer kinds are among them, another
    where texts are, one for windows, and one for labels in segments. window_ms: length of the model's windows; where the file has times,
    its rows are cut into such to see how far windows scatter. positive_class: of two, where labels are classes. hash_key: of values
    beyond the dictionaries.
    Memory: one batch, the largest numeric column or `spool.SORT_BYTES`, up to `gather.MAX_TEXT` characters per category, 16 MiB per
    text, and `windows.MAX_BYTES`; 8 bytes per number on disk (TMPDIR) while it runs.
    Raises InputError, with a sentence that says what to do.
    """
    build = _opened(path, columns, feature_options, model, version, progress)
    build.hash_key, build.segments = hash_key, SegmentCounts(segments)
    with tempfile.TemporaryDirectory(prefix="monitor-") as folder:
        build.gather(Path(folder))
        layout = build.layout(Path(folder), max_segments)
    performance = performance_of(build.found(layout), positive_class)
    profile = build.count(layout, performance)
    build.warn_of_values(profile)
    calibration = build.calibration(profile, window_ms)
    made = Reference.build(
        model,
        version,
        profile,
        labels=dict(sorted(build.labels.items())),
        time_range_ms=build.time_range_ms,
        warnings=sorted(build.warnings),
        calibration=calibration,
        performance=performance.result(),
    )
    if made.performance.task is None or not layout.segmentations:
        return made
    return made.with_performance(with_segments(made, build.batches(), columns.time_unit))


@dataclass(frozen=True, slots=True)
class Inference:
    """What is inferred of a file. features: by name; warnings: on columns that are left out, and others."""

    rows: int
    features: dict[str, InferredFeature]
    warnings: list[str]


def infer_features(  # noqa: PLR0913 - likewise
    path: Path,
    columns: ColumnOptions,
    feature_options: Mapping[str, FeatureOptions] | None = None,
    model: str | None = None,
    version: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Inference:
    """Return what `build_reference` would take the columns for, in one pass; without model or version of the rows of all."""
    build = _opened(path, columns, feature_options, model, version, progress)
    with tempfile.TemporaryDirectory(prefix="monitor-") as folder:
        build.gather(Path(folder))
        features = dict(sorted(build.inferred_features().items()))
    return Inference(build.rows, features, sorted(build.warnings))


def _opened(  # noqa: PLR0913 - likewise
    path: Path,
    columns: ColumnOptions,
    feature_options: Mapping[str, FeatureOptions] | None,
    model: str | None,
    version: str | None,
    progress: Callable[[int], None] | None,
) -> Build:
    options = dict(feature_options or {})
    wanted = {name: _WANTED[o.kind] for name, o in options.items() if o.kind in _WANTED}
    return Build(open_table(path, columns, wanted), columns, options, model, version, progress or (lambda _: None))


_WANTED: dict[AskedKind | None, ValueType] = {
    **dict.fromkeys(NUMBERS, "number"),
    "boolean": "boolean",
    "text": "string",
}
"""What the values of a file are read as, where its format leaves a choice."""
