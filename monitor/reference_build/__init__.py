"""A reference from a file: kinds, edges and dictionaries in a first pass, counts in a second, windows in a third; memory bounded, no raw rows kept."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitor.calibration import Calibration
from monitor.columns import ColumnBatch, NoValue, Special, specials_of
from monitor.errors import InputError
from monitor.events import DEFAULT_VERSION
from monitor.files import ColumnOptions, Columns, Table, open_table, times_ms
from monitor.files.rows import NO_VALUES
from monitor.files.tables import near, role
from monitor.layout import Feature, Layout, ValueType, canonical, layout_of
from monitor.profiles import Profile
from monitor.reference import PREDICTION, SCORE, Reference
from monitor.reference_build.gather import Categories, FeatureOptions, LeftOut, Numbers, floats
from monitor.reference_build.numbers import number_feature
from monitor.reference_build.performance import Found, Performance, counts_of, kind_of, performance_of
from monitor.reference_build.windows import WindowCounts
from monitor.windows import NEVER_MS

__all__ = ["FeatureOptions", "build_reference", "number_feature"]

MAX_LABELS = 1_000
_JANUARY_1971_MS = 31_536_000_000


def build_reference(  # noqa: PLR0913 - what a user gives on one command line
    path: Path,
    model: str,
    version: str,
    columns: ColumnOptions,
    feature_options: Mapping[str, FeatureOptions] | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    window_ms: int | None = None,
    positive_class: str | None = None,
) -> Reference:
    """Return the reference of a file's rows; the same bytes for any order of the rows.

    Texts and booleans are categories. Numbers are numeric features, except where all of them are whole, at most 20 different ones
    occur and each on at least 10 rows on average: flags, classes and codes are categories of numbers. `kind` overrules both.
    Left out, with a warning in the record: columns without a value, identifiers (gather.py says what they are), times, nested values;
    without one: what `pii: drop` names. Where a file says which model and version a row is of, only rows of these are taken.

    window_ms: length of the model's windows; where the file has times, its rows are cut into such (a third pass) to see how far windows
    scatter. positive_class: of two, where labels are classes. progress: called with the rows of every batch of every pass.
    Memory: one batch, the largest numeric column or `spool.SORT_BYTES`, up to `gather.MAX_TEXT` characters per category, and
    `windows.MAX_BYTES`; 8 bytes per number on disk (TMPDIR) while it runs.
    Raises InputError, with a sentence that says what to do.
    """
    options = dict(feature_options or {})
    dropped = tuple(name for name, o in options.items() if o.pii == "drop")
    wanted: dict[str, ValueType] = {name: "number" for name, o in options.items() if o.kind == "number"}
    table = open_table(path, columns, wanted)
    build = _Build(table, options, dropped, model, version, progress or (lambda _: None))
    with tempfile.TemporaryDirectory(prefix="monitor-") as folder:
        layout = build.first_pass(Path(folder), columns)
    performance = performance_of(build.found(layout), positive_class)
    profile = build.second_pass(layout, performance)
    build.warn_of_non_finite(profile)
    calibration = build.third_pass(profile, columns, window_ms)
    return Reference.build(
        model,
        version,
        profile,
        labels=dict(sorted(build.labels.items())),
        time_range_ms=build.time_range_ms,
        warnings=sorted(build.warnings),
        calibration=calibration,
        performance=performance.result(),
    )


@dataclass
class _Build:
    table: Table
    options: Mapping[str, FeatureOptions]
    dropped: tuple[str, ...]
    model: str
    version: str
    progress: Callable[[int], None]
    warnings: list[str] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    label_kind: str | None = None
    time_range_ms: tuple[int, int] | None = None

    def _batches(self) -> Iterator[Columns]:
        """Yield the rows of this model and version."""
        others: set[str] = set()
        n = 0
        for batch in self.table.batches():
            mine = np.ones(batch.n, bool)
            for name, own, default in (("model", self.model, None), ("version", self.version, DEFAULT_VERSION)):
                if role(name) in batch.arrays:
                    found = [default if v is None else canonical(v) for v in batch.arrays[role(name)].to_pylist()]
                    mine &= np.array([text == own for text in found], bool)
                    if len(others) < 10:
                        others.update(f"{name} {text}" for text in set(found) if text != own)
            n += int(mine.sum())
            self.progress(batch.n)
            if mine.any():
                yield batch.where(mine)
        if not n:
            also = f"; it has {', '.join(sorted(others))}" if others else ""
            raise InputError(f"{self.table.path}: the file has no rows of model {self.model} version {self.version}{also}")

    def first_pass(self, folder: Path, columns: ColumnOptions) -> Layout:
        """Return the layout; labels and times are taken in on the way."""
        plan = self._plan(folder)
        for batch in self._batches():
            for name, gathered in plan.items():
                gathered.add(batch.arrays[name])
            if role("label") in batch.arrays:
                self._take_labels(batch.arrays[role("label")])
            if role("time") in batch.arrays:
                self._take_times(batch, columns)
        if len(self.labels) > MAX_LABELS:
            self.labels.clear()
            self._warn("label", f"more than {MAX_LABELS:,} different labels, their counts are left out")
        if self.time_range_ms and self.time_range_ms[1] < _JANUARY_1971_MS:
            self._warn("time", "all times lie in 1970 or before; --time-unit says what they count")
        features: list[Feature] = []
        for name, gathered in plan.items():
            try:
                features.append(gathered.feature(name, self._options_of(name), self.warnings))
            except LeftOut as why:
                self._warn(name, f"{why}, left out")
        if not features:
            raise InputError("\n".join([f"{self.table.path}: no column is left to be a feature", *sorted(self.warnings)]))
        return layout_of(features)

    def _plan(self, folder: Path) -> dict[str, Categories | Numbers]:
        self.warnings += self.table.left_out
        for name in self.options:
            if name not in self.table.names and name not in self.table.features:
                hint = near(name, dict.fromkeys(self.table.names))
                self.warnings.append(f"the configuration has a feature {name} that the file does not have{hint}")
        plan: dict[str, Categories | Numbers] = {}
        for number, (name, column) in enumerate(self.table.features.items()):
            kind = self.table.kinds[name]
            if column in self.dropped or name in self.dropped:
                continue
            if kind == NO_VALUES:
                self._warn(name, "no values, left out")
                continue
            asked = "number" if name == SCORE else self._options_of(name).kind
            if asked == "number" and kind != "number":
                raise InputError(
                    f"{self.table.path}: column {column!r} holds {kind} values; it must hold numbers to be {_use(name)}"
                )
            if kind == "number" and asked != "category":
                plan[name] = Numbers(folder / str(number), may_be_codes=asked is None)
            else:
                plan[name] = Categories(_VALUE_TYPES[kind])
        return plan

    def _options_of(self, name: str) -> FeatureOptions:
        return self.options.get(name) or self.options.get(self.table.features[name]) or FeatureOptions()

    def _take_labels(self, column: Any) -> None:
        self.label_kind = kind_of(column) or self.label_kind
        if len(self.labels) <= MAX_LABELS:
            self.labels.update(counts_of(column))

    def found(self, layout: Layout) -> Found:
        """Return what the first pass found about labels and outputs."""
        names = self.table.features
        return Found(layout, PREDICTION in names, SCORE in names, self.labels, self.label_kind)

    def _times(self, batch: Columns, columns: ColumnOptions) -> Any:
        try:
            return times_ms(batch.arrays[role("time")], columns.time_unit)
        except InputError as error:
            raise InputError(f"{self.table.path}: column {self.table.roles['time']!r}: {error}") from error

    def _take_times(self, batch: Columns, columns: ColumnOptions) -> None:
        found = pc.min_max(self._times(batch, columns)).as_py()
        if found["min"] is not None:
            low, high = self.time_range_ms or (found["min"], found["max"])
            self.time_range_ms = min(low, found["min"]), max(high, found["max"])

    def second_pass(self, layout: Layout, performance: Performance) -> Profile:
        """Return the counts of all rows; outputs and labels are summed up on the way."""
        profile = Profile(layout)
        for batch in self._batches():
            profile.update(_column_batch(batch, layout))
            performance.add(batch)
        return profile

    def third_pass(self, profile: Profile, columns: ColumnOptions, window_ms: int | None) -> Calibration:
        """Return how the file's windows scatter, where it has times."""
        if self.time_range_ms is None or window_ms is None:
            return Calibration(
                unknown="no time column" if "time" not in self.table.roles else "no time, or no length of a window"
            )
        windows = WindowCounts(profile, window_ms)
        for batch in self._batches():
            times = self._times(batch, columns).fill_null(NEVER_MS).to_numpy(zero_copy_only=False)
            windows.add(_column_batch(batch, profile.layout), times)
        calibration, warnings = windows.calibration()
        self.warnings += warnings
        return calibration

    def warn_of_non_finite(self, profile: Profile) -> None:
        """Say where a producer of JSON could not send what the file holds."""
        for _, feature in profile.layout.numbers:
            summary = profile.summary(feature.name)
            if summary.nan or summary.infinite:
                counts = f"{summary.nan:,} NaN and {summary.infinite:,} infinite values"
                self._warn(feature.name, f"{counts}; JSON has neither, null events in their place count as missing")

    def _warn(self, name: str, what: str) -> None:
        self.warnings.append(f"column {self.table.column(name)}: {what}")


_VALUE_TYPES: dict[str, ValueType] = {"string": "string", "number": "number", "boolean": "boolean"}


def _use(name: str) -> str:
    return {SCORE: "the score", PREDICTION: "a numeric prediction"}.get(name, "`kind: number`")


def _column_batch(batch: Columns, layout: Layout) -> ColumnBatch:
    """Turn rows into what a profile counts: null is missing, NaN is NaN; absent and wrong-typed as the file's reader says."""
    numbers = np.empty((len(layout.numbers), batch.n))
    codes = np.zeros(numbers.shape, np.uint8)
    for row, (_, feature) in enumerate(layout.numbers):
        column = batch.arrays[feature.name]
        numbers[row] = floats(column)
        if column.null_count:
            codes[row] = np.where(np.asarray(column.is_null()), Special.MISSING, Special.VALUE)
        if feature.name in batch.specials:
            odd = batch.specials[feature.name]
            codes[row] = np.where(odd, odd, codes[row])
    specials = specials_of(numbers)
    if specials is not None:
        specials = np.where(codes, codes, specials)
    categories = [_category_values(batch, feature.name) for _, feature in layout.categories]
    return ColumnBatch(batch.n, numbers, specials, categories)


def _category_values(batch: Columns, name: str) -> list[object]:
    """Return values as the wire has them; NaN is missing, infinity is of a wrong type."""
    column = batch.arrays[name]
    values: list[object] = column.to_pylist()
    if pa.types.is_floating(column.type):
        values = [v if v is None or np.isfinite(v) else NoValue.WRONG_TYPE if np.isinf(v) else None for v in column.to_pylist()]
    if name in batch.specials:
        codes = batch.specials[name]
        for i in np.flatnonzero(codes).tolist():
            values[i] = NoValue.ABSENT if codes[i] == Special.ABSENT else NoValue.WRONG_TYPE
    return values
