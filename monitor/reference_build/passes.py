"""The passes over a reference's file: what its columns hold, the layout that follows, counts of all rows, and of windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import structs

from monitor.cells import NOTHING_SAID, FeatureOptions
from monitor.chance.bounds import most_missing
from monitor.chance.calibration import Calibration
from monitor.columns import Special
from monitor.errors import InputError
from monitor.events import DEFAULT_VERSION
from monitor.features import CategoryFeature, Feature, FeatureKind, TimestampUnit, ValueType, canonical, source_of
from monitor.files import ColumnOptions, Columns, Table, times_ms
from monitor.files.rows import LIST, NO_VALUES, TIMESTAMP
from monitor.files.tables import near, role
from monitor.hash_key import NO_KEY, HashKey
from monitor.layout import Layout, layout_of
from monitor.profiles import Profile
from monitor.reference import CONFIDENCE, LATENCY, PREDICTION, SCORE, class_of
from monitor.reference_build.gather import Categories, Gathered, Given, Numbers
from monitor.reference_build.groups import filled
from monitor.reference_build.kinds import Inferred, LeftOut, check_kind
from monitor.reference_build.performance import Found, Performance, counts_of, kind_of
from monitor.reference_build.rows import column_batch
from monitor.reference_build.segments import SegmentCounts
from monitor.reference_build.windows import WindowCounts
from monitor.views import views_of
from monitor.windows import NEVER_MS

MAX_LABELS = 1_000
_JANUARY_1971_MS = 31_536_000_000
_PLAIN: tuple[FeatureKind, ...] = ("integer", "real", "boolean", "category")


@dataclass(frozen=True, slots=True)
class InferredFeature:
    """What a reference would take a feature for, and why. minimum, maximum: of a number; unit: of a timestamp's numbers.

    options: what the user said of it.
    """

    kind: FeatureKind
    why: str
    max_missing_ratio: float
    minimum: float | None = None
    maximum: float | None = None
    unit: TimestampUnit | None = None
    options: FeatureOptions = NOTHING_SAID


@dataclass
class Build:
    """One file on its way to a reference. Call `gather`, `layout`, `count`, `calibration`, in this order; `gather` alone tells the kinds.

    options: by feature. model, version: None takes the rows of all. progress: called with the rows of every batch of every pass.
    """

    table: Table
    columns: ColumnOptions
    options: Mapping[str, FeatureOptions]
    model: str | None
    version: str | None
    progress: Callable[[int], None]
    hash_key: HashKey = NO_KEY
    segments: SegmentCounts = field(default_factory=lambda: SegmentCounts(()))
    warnings: list[str] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    label_kind: str | None = None
    time_range_ms: tuple[int, int] | None = None
    rows: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    gathered: dict[str, Gathered] = field(default_factory=dict)

    def batches(self) -> Iterator[Columns]:
        """Yield the rows of this model and version."""
        others: set[str] = set()
        n = 0
        for batch in self.table.batches():
            mine = np.ones(batch.n, bool)
            for name, own, default in (("model", self.model, None), ("version", self.version, DEFAULT_VERSION)):
                if own is not None and role(name) in batch.arrays:
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

    def gather(self, folder: Path) -> None:
        """Read all rows once: what columns hold, labels, times."""
        self._plan(folder)
        for batch in self.batches():
            self.rows += batch.n
            for name, gathered in self.gathered.items():
                gathered.add(batch.arrays[name])
                self.missing[name] += _n_missing(batch, name)
            if role("label") in batch.arrays:
                self._take_labels(batch.arrays[role("label")])
            if role("time") in batch.arrays:
                self._take_times(batch)
            self.segments.add(batch)
        if len(self.labels) > MAX_LABELS:
            self.labels.clear()
            self._warn("label", f"more than {MAX_LABELS:,} different labels, their counts are left out")
        if self.time_range_ms and self.time_range_ms[1] < _JANUARY_1971_MS:
            self._warn("time", "all times lie in 1970 or before; --time-unit says what they count")

    def _plan(self, folder: Path) -> None:
        self.warnings += self.table.left_out
        for name in self.options:
            if name not in self.table.names and name not in self.table.features:
                hint = near(name, dict.fromkeys(self.table.names))
                self.warnings.append(f"the configuration has a feature {name} that the file does not have{hint}")
        dropped = {name for name, options in self.options.items() if options.pii == "drop"}
        for number, (name, column) in enumerate(self.table.features.items()):
            if column in dropped or name in dropped:
                continue
            if self.table.kinds[name] == NO_VALUES:
                self._warn(name, "no values, left out")
            else:
                self._plan_column(name, folder / str(number))

    def _plan_column(self, name: str, spool: Path) -> None:
        found, asked = self.table.kinds[name], self._options_of(name).kind
        place = f"{self.table.path}: column {self.table.column(name)!r}"
        has_time = "time" in self.table.roles
        if _is_number(name):
            if found != "number":
                raise InputError(f"{place} holds {found} values; it must hold numbers to be {_use(name)}")
            self.gathered[name] = Numbers(spool, "real", "an output")
            return
        if asked is not None:
            check_kind(place, asked, found)
        if asked == "timestamp" and not has_time:
            raise InputError(f"{place}: a timestamp is counted by its age, which needs the events' times: --time-column")
        if found == TIMESTAMP and not has_time:
            self._warn(name, "a timestamp is counted by its age, which needs the events' times (--time-column), left out")
        elif found == TIMESTAMP:
            self.gathered[name] = Given("timestamp", "timestamps")
        elif found == LIST:
            self.gathered[name] = Given("list", "lists")
        elif asked in ("identifier", "text") or (asked == "timestamp" and found == "string"):
            self.gathered[name] = Given(asked, "as configured")
        elif found == "number" and asked != "category":
            self.gathered[name] = Numbers(spool, asked)
        else:
            is_text = found == "string" and asked is None
            self.gathered[name] = Categories(_VALUE_TYPES[found], is_text=is_text, has_time=has_time)

    def _options_of(self, name: str) -> FeatureOptions:
        return self.options.get(name) or self.options.get(self.table.features[name]) or NOTHING_SAID

    def _take_labels(self, column: Any) -> None:
        self.label_kind = kind_of(column) or self.label_kind
        if len(self.labels) <= MAX_LABELS:
            self.labels.update(counts_of(column))

    def found(self, layout: Layout) -> Found:
        """Return what the first pass found about labels and outputs."""
        names = self.table.features
        return Found(layout, PREDICTION in names, SCORE in names, self.labels, self.label_kind)

    def _times(self, batch: Columns) -> Any:
        try:
            return times_ms(batch.arrays[role("time")], self.columns.time_unit)
        except InputError as error:
            raise InputError(f"{self.table.path}: column {self.table.roles['time']!r}: {error}") from error

    def _take_times(self, batch: Columns) -> None:
        found = pc.min_max(self._times(batch)).as_py()
        if found["min"] is not None:
            low, high = self.time_range_ms or (found["min"], found["max"])
            self.time_range_ms = min(low, found["min"]), max(high, found["max"])

    def _inferred(self) -> Iterator[tuple[str, Gathered, Inferred]]:
        """Yield what columns are; say of the others why they are nothing."""
        for name, gathered in self.gathered.items():
            try:
                inferred = gathered.inferred(self._options_of(name))
            except LeftOut as why:
                self._warn(name, f"{why}, left out")
            else:
                self._check_options(name, inferred.kind)
                yield name, gathered, inferred

    def _check_options(self, name: str, kind: FeatureKind) -> None:
        options = self._options_of(name)
        if options.pii == "hash" and kind not in ("category", "identifier", "text"):
            raise InputError(
                f"{self.table.path}: column {self.table.column(name)!r}: `pii: hash` is for texts and categories, "
                f"and this is of kind {kind}; `pii: drop` leaves it out"
            )
        if (options.minimum is not None or options.maximum is not None) and kind not in ("integer", "real"):
            self._warn(name, f"minimum and maximum are of numbers, and this is of kind {kind}")

    def inferred_features(self) -> dict[str, InferredFeature]:
        """Return the kind and the bounds of every feature."""
        found = {}
        for name, gathered, (kind, why) in self._inferred():
            low = high = None
            options = self._options_of(name)
            if isinstance(gathered, Numbers) and kind in ("integer", "real"):
                low, high = gathered.range(options)
            bound, unit = self._max_missing_ratio(name), self._unit(name, gathered, kind)
            found[name] = InferredFeature(kind, why, bound, low, high, unit, options)
        return found

    def layout(self, folder: Path, max_segments: int) -> Layout:
        """Return the layout of the gathered columns; reads the rows again for features of richer kinds."""
        features: list[Feature] = []
        views: list[Feature] = []
        for name, gathered, (kind, _) in self._inferred():
            try:
                if kind in _PLAIN:
                    group = [gathered.feature(name, self._options_of(name), self.hash_key, self.warnings)]
                else:
                    value_type = _VALUE_TYPES.get(self.table.kinds[name], "string")
                    group = views_of(name, kind, value_type=value_type, unit=self._unit(name, gathered, kind))
            except LeftOut as why:
                self._warn(name, f"{why}, left out")
                continue
            group[0] = structs.replace(group[0], max_missing_ratio=self._max_missing_ratio(name))
            (features if kind in _PLAIN else views).extend(group)
        if views:
            made, empty = filled(views, self.batches, folder, self.columns.time_unit)
            features += made
            self.warnings += [f"feature {name}: no values, left out" for name in empty]
        self._check_names(features)
        features = [structs.replace(f, hash_key=self.hash_key.id) if isinstance(f, CategoryFeature) else f for f in features]
        layout = layout_of(features, self.hash_key)
        return layout_of(features, self.hash_key, self.segments.segmentations(layout, max_segments, self.warnings))

    def _check_names(self, features: list[Feature]) -> None:
        if not features:
            raise InputError("\n".join([f"{self.table.path}: no column is left to be a feature", *sorted(self.warnings)]))
        names = Counter(feature.name for feature in features)
        problems = [
            f"{self.table.path}: column {f.name!r} has the name of a view of {source_of(f)!r}; rename it or --exclude it"
            for f in features
            if f.view is not None and names[f.name] > 1
        ]
        if problems:
            raise InputError("\n".join(problems))

    def _max_missing_ratio(self, name: str) -> float:
        given = self._options_of(name).max_missing_ratio
        return most_missing(self.missing[name], self.rows) if given is None else given

    def _unit(self, name: str, gathered: Gathered, kind: FeatureKind) -> TimestampUnit | None:
        if kind != "timestamp" or not isinstance(gathered, Numbers):
            return None
        return self._options_of(name).unit or gathered.unit(f"{self.table.path}: column {self.table.column(name)!r}")

    def count(self, layout: Layout, performance: Performance) -> Profile:
        """Return the counts of all rows; outputs and labels are summed up on the way."""
        profile = Profile(layout)
        for batch in self.batches():
            columns = column_batch(batch, layout, self.columns.time_unit)
            profile.update(columns)
            performance.add(batch, columns)
        for outside in profile.outside:
            outside.forget_order()
        return profile

    def calibration(self, profile: Profile, window_ms: int | None) -> Calibration:
        """Return how the file's windows scatter, where it has times; reads the rows again."""
        if self.time_range_ms is None or window_ms is None:
            return Calibration(
                unknown="no time column" if "time" not in self.table.roles else "no time, or no length of a window"
            )
        windows = WindowCounts(profile, window_ms)
        for batch in self.batches():
            times = self._times(batch).fill_null(NEVER_MS).to_numpy(zero_copy_only=False)
            windows.add(column_batch(batch, profile.layout, self.columns.time_unit), times)
        calibration, warnings = windows.calibration()
        self.warnings += warnings
        return calibration

    def warn_of_values(self, profile: Profile) -> None:
        """Say where a producer of JSON could not send what the file holds, and where values are not what they were said to be."""
        for _, feature in profile.layout.numbers:
            summary = profile.summary(feature.name)
            if summary.nan or summary.infinite:
                counts = f"{summary.nan:,} NaN and {summary.infinite:,} infinite values"
                self._warn(feature.name, f"{counts}; JSON has neither, null events in their place count as missing")
            if feature.is_integral and summary.never_seen:
                self._warn(feature.name, f"{summary.never_seen:,} values are not whole, although it is configured as an integer")

    def _warn(self, name: str, what: str) -> None:
        self.warnings.append(f"column {self.table.column(name)}: {what}")


_VALUE_TYPES: dict[str, ValueType] = {"string": "string", "number": "number", "boolean": "boolean"}


def _is_number(name: str) -> bool:
    """Whether an output is a number whatever the user says."""
    return name in (SCORE, LATENCY, CONFIDENCE) or class_of(name) is not None


def _use(name: str) -> str:
    return {SCORE: "the score", LATENCY: "the latency", PREDICTION: "a numeric prediction"}.get(name, "a score")


def _n_missing(batch: Columns, name: str) -> int:
    """Return how many rows have no value: null, absent, or NaN, which JSON does not have."""
    column: Any = batch.arrays[name]
    n: int = column.null_count
    if pa.types.is_floating(column.type):
        n += pc.sum(pc.is_nan(column)).as_py() or 0
    if name in batch.specials:
        n -= int((batch.specials[name] == Special.WRONG_TYPE).sum())
    return n
