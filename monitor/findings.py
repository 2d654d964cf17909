"""A closed window, and what is measured and said of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from monitor.chance.counts import excess_p, extremes_p
from monitor.columns import Float, Int
from monitor.distances import DISTANCES, Distance
from monitor.features import CategoryFeature, Feature, NumberFeature, ViewName, source_of
from monitor.profiles import FeatureSummary, Profile
from monitor.reference import Reference
from monitor.rules import Rule, Severity
from monitor.segments import ALL
from monitor.sides import FineSides, Sides, Spread
from monitor.windows import Window


class ClosedWindow(NamedTuple):
    """A final window of one model version, with the reference that it is compared with."""

    model: str
    version: str
    window: Window
    profile: Profile
    """Of every segment."""
    reference: Reference | None
    revision: int
    rows_other_layout: int
    """Rows of the window that came under another reference's layout; not compared."""
    lost_offsets: int
    """Source offsets that retention took before they were read; > 0 means that the window is incomplete."""
    source_offsets: dict[str, dict[str, list[int]]]
    """topic → partition → [first, last] offset of what the window counts, late and future rows included"""
    partition_rows: Mapping[str, Mapping[str, int]] = MappingProxyType({})
    """topic → partition → rows, without those that have none"""
    said: bytes = b""
    """`Judgement.said` of the revision before this one; b"" of the first."""
    latest: bytes = b""
    """Of a revision: the decision state after the newest final window."""
    early: bytes = b""
    """What was told of the window while it was open, see `told_early`; b"" of nothing, and of a revision."""


class Judgement(NamedTuple):
    """What a closed window leads to: records to publish, as (key, value), and the decision state after it."""

    results: tuple[tuple[bytes, bytes], ...]
    alerts: tuple[tuple[bytes, bytes], ...]
    after: bytes
    """State for the next window of the same model version and specification; b"" is none."""
    alert_severities: tuple[str, ...]
    """Of the alerts that fire, in order."""
    is_alarmed: bool = False
    """Whether an incident that is a warning or worse is open after the window."""
    said: bytes = b""
    """Which alerts are in force with this window, for its next revision."""
    is_news: bool = False
    """Whether they are others than those of the revision before."""
    tallies: bytes = b""
    """What is kept of the window for those after it, see `decision.scales`; b"" where it has no rows."""
    operation: bytes = b""
    """How the service did, for the reports of the window's performance; see `operation`."""


class Compared(msgspec.Struct, frozen=True, gc=False):
    """One feature in a window and in its reference."""

    feature: Feature
    window: FeatureSummary
    reference: FeatureSummary
    cells: tuple[Int, Int]
    """(reference, window) counts of the reported cells, (k,) each."""
    edges: Float = np.zeros(0)
    """Of a number: where its value cells end, all but the last."""
    below_min: int = 0
    above_max: int = 0
    """Rows outside the reference's range; exact, both ends are cell borders. 0 for a category."""

    @property
    def feature_kind(self) -> Literal["number", "category"]:
        """What the feature is."""
        return "number" if isinstance(self.feature, NumberFeature) else "category"

    @property
    def filled(self) -> int:
        """How many of the reported cells hold a row of either side."""
        return int(np.count_nonzero(self.cells[0] + self.cells[1]))


class Evidence(NamedTuple):
    """One segment of a window with every feature compared; checks read this and nothing else."""

    closed: ClosedWindow
    segment: str
    """`all`, or a segment's name."""
    n: int
    """Its rows in the window."""
    n_ref: int
    """The rows that it is compared with: its own in the reference or, where the reference has none of it, all; 0 without a reference."""
    features: Mapping[str, Compared]
    distances: Mapping[str, Mapping[str, float]]
    """feature → distance → value; without entry when either side is empty."""
    registry: tuple[Distance, ...] = DISTANCES
    """The distances that were computed."""

    def source_view(self, feature: str) -> tuple[str | None, ViewName | None]:
        """Return the event's name of a measured feature and the view that was measured; (None, None) for the model as a whole."""
        compared = self.features.get(feature)
        return (feature or None, None) if compared is None else (source_of(compared.feature), compared.feature.view)


class CountTest(msgspec.Struct, frozen=True, gc=False):
    """An exact test of how many rows of a window are bad, next to those of the reference."""

    bad: int
    n: int
    bad_ref: int
    m: int
    kind: Literal["excess", "extremes"]
    """Fisher's test, one-sided; or the bound for values outside the reference's range."""
    parts: int = 1
    """`excess`: so many cells or sides were looked at (Bonferroni); `extremes`: sides."""

    def p_value(self, design_effect: float = 1.0) -> float:
        """Return p where so many rows count as one: of a cluster of rows that are alike, only one is evidence."""
        n, m = max(1, int(self.n / design_effect)), max(1, int(self.m / design_effect))
        bad = int(self.bad / design_effect)
        if self.kind == "extremes":
            return extremes_p(bad, n, m, self.parts)
        bad_ref = min(math.ceil(self.bad_ref / design_effect), m)
        return min(1.0, self.parts * excess_p(bad, n, bad_ref, m))


class ScaleTest(msgspec.Struct, frozen=True, gc=False):
    """How far a feature's rows of one or several windows in a row differ from the reference's, and how likely that is by chance."""

    scale: int
    """Windows that were merged; those without rows of the feature among them."""
    cells: tuple[Int, Int]
    """(reference, window) counts of the cells that X² is of, small ones pooled."""
    p_value: float
    """Of all its tests, by Cauchy's rule."""
    tests: Mapping[str, float]
    """p of each: chi_square; of a number also location (Wilcoxon's scores) and dispersion (Mood's)."""
    phi: Mapping[str, float]
    """Over-dispersion that each was judged with."""


class Measurement(msgspec.Struct, frozen=True, gc=False):
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
    segment: str = ALL
    over: int = 1
    """The mean of the values of so many windows."""
    counted: CountTest | None = None
    """What the decision recomputes p from, where rows are not independent."""
    scales: tuple[ScaleTest, ...] = ()
    """Of `drift.distribution`: those with enough rows."""
    is_provisional: bool = False
    """φ is not known."""
    interval: tuple[float, float] | None = None
    """Ends of the 95 % confidence interval of a value that is judged by it (performance): all of it must be bad; infinite if not known."""
    reference_value: float | None = None
    """The reference's own value, of which a rule's `drop` or `rise` is a share."""


class CheckInfo(NamedTuple):
    """One line of the table of checks, from which docs/checks.md is made."""

    id: str
    value: str
    """What is measured, with its unit."""
    chance: str
    """What chance alone explains: which law, exact or approximate; "" where no law applies."""
    min_n: int
    """Fewer rows than this are `insufficient`."""
    known_as: str = ""
    """What TFDV, Deequ, SageMaker or Evidently call it."""


class FixedRule(msgspec.Struct, frozen=True, kw_only=True):
    """What a bare threshold on psi says of the same window."""

    psi: float
    threshold: float
    fires: bool
    quiet_rate: float
    """How often it fires when nothing has changed, at this n, n_ref and number of cells: independent rows, χ² law of psi."""
    quiet_rate_phi: float
    """The same with the feature's φ."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Why an alarm was raised, or not, within the budget of false alarms."""

    effect: float
    """The measurement's value."""
    interval: tuple[float, float]
    """95 % confidence interval of the effect."""
    p_value: float
    p_limit: float
    """Up to which p the budget lets an alarm be raised, given all that was tested with it (Benjamini & Hochberg)."""
    hypotheses: int
    """So many were tested with it."""
    false_alarms: str
    """The budget, as configured."""
    n: int
    n_ref: int
    effect_floor: float
    """Smaller effects raise no alarm, however certain they are."""
    scale: int
    """Windows that were looked at as one."""
    tests: dict[str, float]
    """p of the tests behind `p_value`."""
    phi: dict[str, float]
    """Over-dispersion that was allowed for, by test; 1: independent rows."""
    provisional: bool
    """φ is not known: the reference was not cut into windows of this length. Then the effect must be that of a warning."""
    fixed_rule: FixedRule | None
    """Of `drift.distribution`."""


class Finding(msgspec.Struct, frozen=True, gc=False):
    """A measurement judged by a rule."""

    measurement: Measurement
    verdict: Literal["ok", "breach", "insufficient"]
    """`insufficient`: not enough data to say."""
    threshold: float
    severity: Severity
    is_below: bool = False
    """Bad is below the threshold, not above."""
    rule: Rule = Rule()
    """What follows: how many breaches open an incident, who is told, when nobody is."""
    decision: Decision | None = None
    """Where chance was judged within the budget of false alarms."""


def reference_segment(closed: ClosedWindow, segment: int) -> int:
    """Return the segment of the reference that a segment is compared with: the same one if the reference has rows of it, else all."""
    return segment if closed.reference is not None and closed.reference.profile.rows[segment] else 0


def compare(closed: ClosedWindow, segment: int = 0) -> dict[str, Compared]:
    """Return every feature of the reference next to a segment of the window; empty without a reference."""
    if closed.reference is None:
        return {}
    layout, other = closed.profile.layout, reference_segment(closed, segment)
    counts = closed.profile.counts_of(segment)
    numbers = zip(
        layout.reported_cells(closed.reference.profile.counts_of(other)),
        layout.reported_cells(counts),
        layout.out_of_range.rows(counts).tolist(),
        layout.edges,
        strict=True,
    )
    sides = zip(layout.features, closed.profile.summaries(segment), closed.reference.profile.summaries(other), strict=True)
    compared = {}
    for feature, window, reference in sides:
        if isinstance(feature, NumberFeature):
            *cells, outside, edges = next(numbers)
            compared[feature.name] = Compared(feature, window, reference, (cells[0], cells[1]), edges, *outside)
        else:
            both = _category_cells(closed, feature, (reference, other), (window, segment))
            compared[feature.name] = Compared(feature, window, reference, both)
    return compared


def gather(closed: ClosedWindow, segment: int = 0, registry: tuple[Distance, ...] = DISTANCES) -> Evidence:
    """Put every feature of a segment of a window next to its reference, with all distances."""
    features = compare(closed, segment)
    profile, reference = closed.profile, closed.reference
    name, n = profile.layout.segments[segment], int(profile.rows[segment])
    n_ref = int(reference.profile.rows[reference_segment(closed, segment)]) if reference else 0
    return Evidence(closed, name, n, n_ref, features, measure(features, registry), registry)


STACK = 64
"""So many numbers are measured at once: 2 MB of intermediate results."""


def measure(features: Mapping[str, Compared], registry: tuple[Distance, ...] = DISTANCES) -> dict[str, dict[str, float]]:
    """Return feature → distance → value, of features with a value on both sides; features with as many cells are measured together."""
    found: dict[str, dict[str, float]] = {name: {} for name, c in features.items() if c.window.n and c.reference.n}
    groups: dict[tuple[str, Literal["number", "category"], int], list[str]] = {}
    for i, name in enumerate(found):
        kind = features[name].feature_kind
        groups.setdefault(("reported", kind, len(features[name].cells[0])), []).append(name)
        if kind == "number":
            groups.setdefault(("fine", kind, i // STACK), []).append(name)
    for (cells, kind, _), names in groups.items():
        sides = (_reported if cells == "reported" else _fine)([features[name] for name in names])
        for distance in registry:
            if distance.cells == cells and kind in distance.kinds:
                for name, value in zip(names, distance.function(sides).tolist(), strict=True):
                    if not math.isnan(value):
                        found[name][distance.name] = value
    return found


def _reported(compared: Sequence[Compared]) -> Sides:
    return Sides(np.stack([c.cells[0] for c in compared]), np.stack([c.cells[1] for c in compared]))


def _fine(compared: Sequence[Compared]) -> FineSides:
    """Return the fine cells of numbers that both sides have values of, as many as the largest has: empty ones of no width are put behind."""
    k = max(len(one.window.values) for one in compared)
    counts, edges = np.zeros((2, len(compared), k), np.int64), np.full((len(compared), k - 1), np.inf)
    for i, one in enumerate(compared):
        own = len(one.window.values)
        counts[0, i, :own], counts[1, i, :own], edges[i, : own - 1] = one.reference.values, one.window.values, one.edges
    return FineSides(counts[0], counts[1], edges, _spread([c.reference for c in compared]), _spread([c.window for c in compared]))


def _spread(summaries: Sequence[FeatureSummary]) -> Spread:
    return Spread(*np.array([(s.minimum, s.maximum, s.mean, s.std) for s in summaries], np.float64).T)


def _category_cells(
    closed: ClosedWindow, feature: CategoryFeature, reference: tuple[FeatureSummary, int], window: tuple[FeatureSummary, int]
) -> tuple[Int, Int]:
    """Return the union of the reference's and the window's values: dictionary, `other` if used, each never-seen value.

    reference, window: (summary, segment). Never-seen values are told apart among all rows only; in a segment they share a cell.
    """
    assert closed.reference is not None
    layout = closed.profile.layout
    row = layout.rows[layout.index[feature.name]]
    unseen = never_seen_cells(
        *(
            ({} if window[1] else profile.outside[row].kept, summary.never_seen)
            for profile, (summary, _) in ((closed.reference.profile, reference), (closed.profile, window))
        )
    )
    keep = slice(None) if reference[0].values[-1] or window[0].values[-1] else slice(-1)
    return (
        np.concatenate((reference[0].values[keep], unseen[0])),
        np.concatenate((window[0].values[keep], unseen[1])),
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
