"""References and closed windows from plain columns, for tests. A column is a list of numbers or of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monitor.columns import ColumnBatch, NoValue, Special
from monitor.features import CategoryFeature
from monitor.findings import ClosedWindow
from monitor.layout import Layout, layout_of
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.segments import Segmentation
from monitor.windows import Window
from tests.shapes import number_feature_of

Columns = Mapping[str, Sequence[Any]]
HOUR_MS = 3_600_000
MISSING = None
ABSENT = NoValue.ABSENT
WRONG_TYPE = NoValue.WRONG_TYPE
CODES = {None: Special.MISSING, ABSENT: Special.ABSENT, WRONG_TYPE: Special.WRONG_TYPE}


def is_number(column: Sequence[Any]) -> bool:
    return any(isinstance(value, float) for value in column)


def layout_from(columns: Columns, max_categories: int = 200, segmentations: Sequence[Segmentation] = ()) -> Layout:
    """Return the layout that these columns get; texts beyond `max_categories` are known as `other`."""
    from monitor.sketches.bounded import key_hash

    features = []
    for name, column in columns.items():
        if is_number(column):
            features.append(number_feature_of(name, np.array([v for v in column if isinstance(v, float)])))
            continue
        counts = Counter(value for value in column if isinstance(value, str))
        ranked = sorted(counts, key=lambda value: (-counts[value], value))
        other = tuple(sorted(map(key_hash, ranked[max_categories:])))
        features.append(CategoryFeature(name=name, values=tuple(ranked[:max_categories]), other=other))
    return layout_of(features, segmentations=segmentations)


def profile_of(layout: Layout, columns: Columns, unexpected: dict[str, int] | None = None, inspected: int = 0) -> Profile:
    """Return the profile of the columns' rows; a feature left out is absent in every row."""
    profile = Profile(layout)
    n = len(next(iter(columns.values()))) if columns else 0
    if not n:
        return profile
    numbers = np.zeros((len(layout.numbers), n))
    specials = np.zeros(numbers.shape, np.uint8)
    for row, (_, feature) in enumerate(layout.numbers):
        for i, value in enumerate(columns.get(feature.name, [ABSENT] * n)):
            if value is None or isinstance(value, NoValue):
                specials[row, i] = CODES[value]
            else:
                numbers[row, i] = value
    categories = [list(columns.get(feature.name, [ABSENT] * n)) for _, feature in layout.categories]
    profile.update(ColumnBatch(n, numbers, specials, categories, inspected, unexpected))
    return profile


def reference_of(columns: Columns, max_categories: int = 200, segmentations: Sequence[Segmentation] = ()) -> Reference:
    layout = layout_from(columns, max_categories, segmentations)
    return Reference.build("credit", "7", profile_of(layout, columns))


def closed(reference: Reference | None, columns: Columns, at: int = 0, **changes: Any) -> ClosedWindow:
    """Return the `at`-th hourly window with these rows. `unexpected` and `inspected` go to its profile."""
    layout = reference.layout if reference else Layout()
    profile = profile_of(layout, columns, changes.pop("unexpected", None), changes.pop("inspected", 0))
    window = Window(end_ms=(at + 1) * HOUR_MS, size_ms=HOUR_MS, step_ms=HOUR_MS)
    made = ClosedWindow("credit", "7", window, profile, reference, 0, 0, 0, {"predictions": {"0": [0, 99]}})
    return made._replace(**changes)
