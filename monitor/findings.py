"""A closed window, and what is measured and said of it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np

from monitor.columns import Int
from monitor.layout import CategoryFeature, Feature, NumberFeature, ViewName, source_of
from monitor.profiles import FeatureSummary, Profile
from monitor.reference import Reference
from monitor.windows import Window

Severity = Literal["notice", "warning", "critical"]


class ClosedWindow(NamedTuple):
    """A final window of one model version and segment, with the reference that it is compared with."""

    model: str
    version: str
    window: Window
    segment: str
    """`all`, or a segment's name."""
    profile: Profile
    reference: Reference | None
    revision: int
    rows_other_layout: int
    """Rows of the window that came under another reference's layout; not compared."""
    lost_offsets: int
    """Source offsets that retention took before they were read; > 0 means that the window is incomplete."""
    source_offsets: dict[str, dict[str, list[int]]]
    """topic → partition → [first, last]"""


class Judgement(NamedTuple):
    """What a closed window leads to: records to publish, as (key, value), and the decision state after it."""

    results: tuple[tuple[bytes, bytes], ...]
    alerts: tuple[tuple[bytes, bytes], ...]
    after: bytes
    """State for the next window of the same model version and specification; b"" is none."""
    alert_severities: tuple[str, ...]
    """Of the alerts that fire, in order."""


class Compared(NamedTuple):
    """One feature in a window and in its reference."""

    feature: Feature
    window: FeatureSummary
    reference: FeatureSummary
    cells: tuple[Int, Int]
    """(reference, window) counts of the cells that distances are computed on, (k,) each."""
    below_min: int
    above_max: int
    """Rows outside the reference's range; exact, both ends are cell borders. 0 for a category."""

    @property
    def feature_kind(self) -> Literal["number", "category"]:
        """What the feature is."""
        return "number" if isinstance(self.feature, NumberFeature) else "category"


class Evidence(NamedTuple):
    """A window with every feature compared; checks read this and nothing else."""

    closed: ClosedWindow
    features: Mapping[str, Compared]
    distances: Mapping[str, Mapping[str, float]]
    """feature → distance → value; without entry when either side is empty."""

    def source_view(self, feature: str) -> tuple[str | None, ViewName | None]:
        """Return the event's name of a measured feature and the view that was measured; (None, None) for the model as a whole."""
        compared = self.features.get(feature)
        return (feature or None, None) if compared is None else (source_of(compared.feature), compared.feature.view)


class Measurement(NamedTuple):
    """One number that a check found, before anybody says whether it is bad. Higher is worse unless `lower_is_worse`."""

    check: str
    feature: str
    """"" for the model as a whole."""
    value: float
    n: int
    n_ref: int
    critical_value: float | None = None
    """What chance alone exceeds with probability 0.001 at this n and n_ref."""
    p_value: float | None = None
    min_n: int = 0
    """Fewer rows than this are not enough to say anything."""
    lower_is_worse: bool = False
    evidence: Mapping[str, Any] = {}


class Finding(NamedTuple):
    """A measurement judged by a rule."""

    measurement: Measurement
    verdict: Literal["ok", "breach", "insufficient"]
    """`insufficient`: not enough data to say."""
    threshold: float
    severity: Severity
    is_below: bool = False
    """Bad is below the threshold, not above."""
    windows: int = 1
    """So many breaches in a row open an incident, so many quiet windows close it."""


def compare(closed: ClosedWindow) -> dict[str, Compared]:
    """Return every feature of the reference next to the window's; empty without a reference."""
    if closed.reference is None:
        return {}
    compared = {}
    for feature in closed.profile.layout.features:
        window, reference = closed.profile.summary(feature.name), closed.reference.profile.summary(feature.name)
        if isinstance(feature, NumberFeature):
            groups, below, above = _borders(feature)
            k = len(feature.reported) + 1
            cells = (_grouped(reference.values, groups, k), _grouped(window.values, groups, k))
            outside = (int(window.values[:below].sum()), int(window.values[above:].sum()))
        else:
            cells, outside = _category_cells(closed, feature, reference, window), (0, 0)
        compared[feature.name] = Compared(feature, window, reference, cells, *outside)
    return compared


@lru_cache(maxsize=4_096)
def _borders(feature: NumberFeature) -> tuple[Int, int, int]:
    """Return the reported cell of each value cell, how many cells lie below the minimum, and the first one above the maximum."""
    below = bisect_right(feature.edges, math.nextafter(feature.minimum, -math.inf))
    return feature.reported_groups(), below, bisect_left(feature.edges, feature.maximum) + 1


def _grouped(values: Int, groups: Int, k: int) -> Int:
    return np.bincount(groups, weights=values, minlength=k).astype(np.int64)


def _category_cells(
    closed: ClosedWindow, feature: CategoryFeature, reference: FeatureSummary, window: FeatureSummary
) -> tuple[Int, Int]:
    """Return the union of the reference's and the window's values: dictionary, `other` if used, each never-seen value."""
    assert closed.reference is not None
    row = next(i for i, (_, f) in enumerate(closed.profile.layout.categories) if f.name == feature.name)
    unseen = never_seen_cells(
        (closed.reference.profile.unseen[row], reference.never_seen), (closed.profile.unseen[row], window.never_seen)
    )
    keep = slice(None) if reference.values[-1] or window.values[-1] else slice(-1)
    return (
        np.concatenate((reference.values[keep], unseen[0])),
        np.concatenate((window.values[keep], unseen[1])),
    )


Kept = tuple[Mapping[int, int], int]
"""Never-seen values by hash, as far as they are kept, and all rows with one."""


def never_seen_cells(reference: Kept, window: Kept) -> tuple[Int, Int]:
    """Return counts of values outside the dictionary, a cell for each, both sides in the same order.

    Kept are the smallest hashes: what is beyond the largest kept hash of a side that overflowed shares a last cell.
    """
    overflowed = [max(kept, default=-1) for kept, rows in (reference, window) if sum(kept.values()) < rows]
    keys = sorted(key for key in {*reference[0], *window[0]} if not overflowed or key <= min(overflowed))
    sides = []
    for kept, rows in (reference, window):
        counts = [kept.get(key, 0) for key in keys]
        sides.append(np.array([*counts, rows - sum(counts)] if overflowed else counts, np.int64))
    return sides[0], sides[1]
