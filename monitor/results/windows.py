"""The wire form of a final window: a summary per feature, its distances, and what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from monitor.decision.shape import design_effects
from monitor.decision.state import track_key
from monitor.features import CategoryFeature, FeatureKind, ViewName, kind_of, source_of
from monitor.findings import Compared, Decision, Evidence, Finding, Measurement
from monitor.outside import Frequent
from monitor.policy import RuleSet
from monitor.results.identity import ResultWindow, keyed, record_id, result_window
from monitor.results.measured import Measured, measured_result
from monitor.results.stream import StreamResult, stream_result
from monitor.segments import ALL
from monitor.told_early import EarlyResult, early_results

MAX_CELLS = 32


class Cells(msgspec.Struct, kw_only=True):
    """How the rows with a value are spread: `edges` for a number; `values`, `other` and `never_seen` for a category."""

    counts: list[int]
    edges: list[float] | msgspec.UnsetType = msgspec.UNSET
    """The decile edges of the reference: count i is of (edges[i−1], edges[i]], the first open to the left, the last to the right."""
    values: list[str] | msgspec.UnsetType = msgspec.UNSET
    """The reference's most frequent values; count i is of values[i]."""
    other: int | msgspec.UnsetType = msgspec.UNSET
    """Rows with any other value that the reference has."""
    never_seen: int | msgspec.UnsetType = msgspec.UNSET
    """Rows with a value that the reference does not have."""


class HeavyHitter(msgspec.Struct, kw_only=True):
    """A never-seen value that came often: in at least `count` and at most `count + error` rows."""

    value: str | msgspec.UnsetType = msgspec.UNSET
    """Its first 64 characters, where the feature is configured to keep values."""
    hash: str | msgspec.UnsetType = msgspec.UNSET
    """16 hexadecimal digits, where it is not: of a keyed hash, if a key is configured."""
    count: int
    error: int


class FeatureResult(msgspec.Struct, kw_only=True):
    """One feature in a window. Counts are of rows."""

    kind: Literal["number", "category"]
    feature: str
    """Its name in the event."""
    feature_kind: FeatureKind
    """What it is there; this is one of its views where that is more than a number or a category."""
    view: ViewName | None
    """What is counted of it: the length of a text, for one; null: the value itself."""
    n: int
    """Rows with a value; finite ones for a number."""
    n_ref: int
    """The same in the reference."""
    missing: int
    """null or absent"""
    missing_ratio: float | None
    """of all rows; null without rows"""
    absent: int
    nan: int
    infinite: int
    wrong_type: int
    never_seen: int
    mean: float | None
    std: float | None
    """Population standard deviation."""
    min: float | None
    max: float | None
    below_min: int | None
    """Below the reference's minimum; null for a category."""
    above_max: int | None
    """Above the reference's maximum; null for a category."""
    distinct: int | None
    """Different values of a category: cells in use, and an estimate of those outside the dictionary (relative standard error of that
    part: 1.6 %). null for a number, and where a part of the window was counted by a version that did not count them."""
    heavy_hitters: list[HeavyHitter]
    """At most 10 never-seen values of a category, most frequent first; any other one came in at most `error` rows."""
    cells: Cells
    distances: dict[str, float]
    """By name; empty when the window or the reference has no value; without w1_sigma when the reference has only one."""
    chi2_dof: int | None
    """Degrees of freedom of chi2; null when the window or the reference has no value."""


class FindingResult(msgspec.Struct, kw_only=True):
    """A value that a rule calls bad."""

    check: str
    feature: str | None
    """null: the model as a whole."""
    view: ViewName | None
    """What is counted of the feature, null: its value itself; the key in `features` is then feature#view."""
    segment: str
    verdict: Literal["breach"] = "breach"
    severity: Literal["notice", "warning", "critical"]
    value: float
    direction: Literal["above", "below"]
    """On which side of the threshold it is bad."""
    threshold: float
    critical_value: float | None
    p_value: float | None
    n: int
    n_ref: int
    over: int
    """The mean of so many windows was judged; 1: the window itself."""
    incident_id: str | None
    """Of the open incident that it is a part of; null while it is pending: its run is not complete, it is muted, or it cools down."""
    evidence: dict[str, Any]
    decision: Decision | None = None
    """Why chance does not explain it, within the budget of false alarms; null where a rule's threshold alone decides."""


class Result(msgspec.Struct, kw_only=True):
    """One record per final window, segment and revision (schemas/result.schema.json)."""

    id: str
    """sha256 of model, version, segment, window and revision."""
    model: str
    version: str
    window: ResultWindow
    segment: str
    """`all`, or a segment's name."""
    revision: int
    """0 when the window became final; one more each time that late rows were added (`late: revise`). The highest one counts."""
    supersedes: str | None
    """Id of the record that this one replaces; null for revision 0."""
    n: int
    """Rows of the segment that were compared."""
    n_ref: int
    """Rows of the reference that they were compared with: of the same segment, or of all where it has none of that; 0 without one."""
    rows_other_layout: int
    """Rows of the window that came under another reference's layout; not compared."""
    lost_offsets: int
    """Source offsets that retention took before they were read; > 0: the window is incomplete."""
    reference: str | None
    """sha256 of the reference; null without one."""
    reference_panes: int | None
    """Panes of earlier traffic whose counts stand in for the reference's own, with `reference: trailing(…)`; null for its own."""
    policy: str
    """sha256 of the rules in force."""
    policies: dict[str, str]
    """Policies in force over the default rules: name → sha256."""
    inspected: int
    """Rows whose names were compared with the reference's."""
    unexpected: dict[str, int]
    """Names that the reference does not have, by inspected rows."""
    features: dict[str, FeatureResult]
    measurements: dict[str, Measured]
    """By check, of every check that was asked, whether or not a rule is for it: what `monitor backtest` judges anew. Empty for a segment
    that no rule is for."""
    design_effects: dict[str, float] = {}
    """Rows that count as one where rows are alike, by feature of which the reference tells; of segment `all`."""
    findings: list[FindingResult]
    insufficient: list[str]
    """Checks that had too few rows to say anything, of one feature at least."""
    source_offsets: dict[str, dict[str, list[int]]]
    """topic → partition → [first, last] offset of what the window counts, late and future rows included"""
    stream: StreamResult | None
    """null for a segment: these facts are of all rows"""
    early: list[EarlyResult] | msgspec.UnsetType = msgspec.UNSET
    """What was told of the window while it was open; of segment `all` and revision 0. Absent where nothing was."""


def result_record(
    evidence: Evidence,
    measured: Sequence[Measurement],
    findings: Sequence[Finding],
    incidents: Mapping[str, str],
    rules: RuleSet,
) -> tuple[bytes, bytes]:
    """Return (key, value) of the result of a segment of a window; no wall-clock time inside. incidents: open ones, by track key."""
    closed, window = evidence.closed, evidence.closed.window
    mine = [finding for finding in findings if finding.measurement.segment == evidence.segment]
    identity = (closed.model, closed.version, evidence.segment, window.start_ms, window.size_ms, window.step_ms)
    record = Result(
        id=record_id(*identity, closed.revision),
        supersedes=record_id(*identity, closed.revision - 1) if closed.revision else None,
        model=closed.model,
        version=closed.version,
        window=result_window(window),
        segment=evidence.segment,
        revision=closed.revision,
        n=evidence.n,
        n_ref=evidence.n_ref,
        rows_other_layout=closed.rows_other_layout,
        lost_offsets=closed.lost_offsets,
        reference=closed.reference.sha256 if closed.reference else None,
        reference_panes=closed.reference.panes if closed.reference else None,
        policy=rules.sha256,
        policies=dict(rules.shas),
        inspected=closed.profile.inspected,
        unexpected=closed.profile.unexpected,
        features={
            name: _feature(compared, evidence.distances.get(name, {}), evidence.n) for name, compared in evidence.features.items()
        },
        measurements=measured_result(one for one in measured if one.segment == evidence.segment),
        design_effects=design_effects(closed.reference, window.size_ms) if evidence.segment == ALL else {},
        findings=[_finding(finding, evidence, incidents) for finding in mine if finding.verdict == "breach"],
        insufficient=sorted({f.measurement.check for f in mine if f.verdict == "insufficient"}),
        source_offsets=closed.source_offsets,
        stream=stream_result(closed.profile.stream, closed.partition_rows) if evidence.segment == ALL else None,
        early=early_results(closed.early) if closed.early and evidence.segment == ALL else msgspec.UNSET,
    )
    return keyed(identity, record)


def _feature(compared: Compared, distances: Mapping[str, float], rows: int) -> FeatureResult:
    summary, is_number = compared.window, compared.feature_kind == "number"
    return FeatureResult(
        kind=compared.feature_kind,
        feature=source_of(compared.feature),
        feature_kind=kind_of(compared.feature),
        view=compared.feature.view,
        n=summary.n,
        n_ref=compared.reference.n,
        missing=summary.missing,
        missing_ratio=summary.missing / rows if rows else None,
        absent=summary.absent,
        nan=summary.nan,
        infinite=summary.infinite,
        wrong_type=summary.wrong_type,
        never_seen=summary.never_seen,
        mean=summary.mean,
        std=summary.std,
        min=summary.minimum,
        max=summary.maximum,
        below_min=compared.below_min if is_number else None,
        above_max=compared.above_max if is_number else None,
        distinct=summary.distinct,
        heavy_hitters=[_heavy_hitter(one) for one in summary.frequent],
        cells=_cells(compared),
        distances=dict(distances),
        chi2_dof=compared.filled - 1 if distances else None,
    )


def _heavy_hitter(frequent: Frequent) -> HeavyHitter:
    if frequent.text is not None:
        return HeavyHitter(value=frequent.text, count=frequent.rows, error=frequent.error)
    return HeavyHitter(hash=frequent.hash_text, count=frequent.rows, error=frequent.error)


def _cells(compared: Compared) -> Cells:
    """Return at most `MAX_CELLS` cells."""
    feature, values = compared.feature, compared.window.values.tolist()
    if not isinstance(feature, CategoryFeature):
        return Cells(edges=list(feature.reported), counts=compared.cells[1].tolist())
    shown = min(len(feature.values), MAX_CELLS - 2)
    return Cells(
        values=list(feature.values[:shown]),
        counts=values[:shown],
        other=sum(values[shown:]),
        never_seen=compared.window.never_seen,
    )


def _finding(finding: Finding, evidence: Evidence, incidents: Mapping[str, str]) -> FindingResult:
    measurement = finding.measurement
    feature, view = evidence.source_view(measurement.feature)
    return FindingResult(
        check=measurement.check,
        feature=feature,
        view=view,
        segment=measurement.segment,
        severity=finding.severity,
        value=measurement.value,
        direction="below" if finding.is_below else "above",
        threshold=finding.threshold,
        critical_value=measurement.critical_value,
        p_value=measurement.p_value,
        n=measurement.n,
        n_ref=measurement.n_ref,
        over=measurement.over,
        incident_id=incidents.get(track_key(measurement)),
        evidence=dict(measurement.evidence),
        decision=finding.decision,
    )
