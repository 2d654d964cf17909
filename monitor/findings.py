"""A closed window, and what is measured and said of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from monitor.columns import Int
from monitor.layout import CategoryFeature, Feature, Layout, NumberFeature
from monitor.profiles import FeatureSummary, Profile
from monitor.reference import Reference
from monitor.windows import Window


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


class Evidence(NamedTuple):
    """A window with every feature compared; checks read this and nothing else."""

    closed: ClosedWindow
    features: Mapping[str, Compared]
    distances: Mapping[str, Mapping[str, float]]
    """feature → distance → value; without entry when either side is empty."""


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
    verdict: str
    """`ok`, `breach`, or `insufficient` (not enough data to say)."""
    threshold: float
    severity: str


def reported_cells(layout: Layout, position: int, values: Int) -> Int:
    """Return counts of a feature's reported cells from those of its value cells; shape (k,)."""
    groups = _groups(layout, position)
    return np.bincount(groups, weights=values, minlength=int(groups[-1]) + 1).astype(np.int64)


@lru_cache(maxsize=4_096)
def _groups(layout: Layout, position: int) -> Int:
    return layout.features[position].reported_groups()


def compare(closed: ClosedWindow) -> dict[str, Compared]:
    """Return every feature of the reference next to the window's; empty without a reference."""
    if closed.reference is None:
        return {}
    layout = closed.profile.layout
    compared = {}
    for position, feature in enumerate(layout.features):
        window = closed.profile.summary(feature.name)
        reference = closed.reference.profile.summary(feature.name)
        if isinstance(feature, NumberFeature):
            cells = (
                reported_cells(layout, position, reference.values),
                reported_cells(layout, position, window.values),
            )
        else:
            cells = _category_cells(closed, feature, reference, window)
        compared[feature.name] = Compared(feature, window, reference, cells)
    return compared


def _category_cells(
    closed: ClosedWindow, feature: CategoryFeature, reference: FeatureSummary, window: FeatureSummary
) -> tuple[Int, Int]:
    """Return the union of the reference's and the window's values: dictionary, `other` if used, each never-seen value."""
    row = next(i for i, (_, f) in enumerate(closed.profile.layout.categories) if f.name == feature.name)
    unseen = list(closed.profile.unseen[row].values())
    beyond = window.never_seen - sum(unseen)
    unseen += [beyond] if beyond else []
    keep = slice(None) if feature.other or window.values[-1] else slice(-1)
    nothing = np.zeros(len(unseen), np.int64)
    return (
        np.concatenate((reference.values[keep], nothing)),
        np.concatenate((window.values[keep], np.array(unseen, np.int64))),
    )
