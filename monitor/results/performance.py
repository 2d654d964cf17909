"""The wire form of how a model did in a window, as far as its labels were known at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from monitor.decision.state import track_key
from monitor.findings import Finding
from monitor.policy import RuleSet
from monitor.results.identity import ResultWindow, keyed, record_id, result_window
from monitor.results.operation import Conflict, OperationResult
from monitor.segments import ALL
from monitor.windows import Window


class EstimateResult(msgspec.Struct, kw_only=True):
    """A value and its 95 % confidence interval; nulls where no interval is known."""

    value: float
    low: float | None
    high: float | None


class EstimatedResult(msgspec.Struct, kw_only=True):
    """What the model's own scores make one expect of all its predictions, labelled or not."""

    method: str
    """`cbpe` or `dle`; empty where nothing is estimated."""
    n: int
    values: dict[str, EstimateResult]
    unknown: str | None
    """Why nothing is estimated, or why it is not shown."""


class LagResult(msgspec.Struct, kw_only=True):
    """How long labels took after their predictions, milliseconds: by then half, 90 % and 99 % of those known had come."""

    p50_ms: int
    p90_ms: int
    p99_ms: int
    curve: dict[str, float] = {}
    """Share of them that had come after 1m, 10m, 1h, 6h, 1d, 3d, 7d, 30d; empty where it was not kept."""


class SelectionBiasResult(msgspec.Struct, kw_only=True):
    """Whether predictions with a label differ from those without."""

    by: str
    """`score` or `prediction`."""
    difference: float
    """Total variation of the shares of the two, 0 to 1."""
    p_value: float


class ConfusionResult(msgspec.Struct, kw_only=True):
    """Labelled predictions by class."""

    classes: list[str]
    """The last one is every class that the reference does not have."""
    counts: list[list[int]]
    """By label (outer) and prediction (inner), in the order of `classes`."""


class PerformanceFacts(msgspec.Struct, kw_only=True):
    """What is known of one segment of a window, before anybody judges it."""

    segment: str
    task: str
    """binary, multiclass, regression, or unknown."""
    n: int
    """Predictions made, under the reference that they are compared with."""
    labelled: int
    """Of them, with a usable label."""
    coverage: float
    """labelled / n; 0 without predictions."""
    n_other_reference: int
    """Predictions of the window that were counted under another reference; of segment `all`."""
    unusable_labels: int
    """Labels that are none of the task's."""
    lag: LagResult | None
    values: dict[str, EstimateResult]
    """By metric, of the labelled predictions."""
    estimated: EstimatedResult
    reference_values: dict[str, float]
    """The reference's own values, of its own labels."""
    n_reference: int = 0
    """Rows of the reference that these are of; 0 where it was not kept."""
    ece_by_chance: float | None = None
    """What the `ece` of calibrated scores exceeds once in 1000 windows of as many rows."""
    confusion: ConfusionResult | None
    selection_bias: SelectionBiasResult | None
    unknown: str | None
    """Why nothing, or not everything, is known."""


class PerformanceFinding(msgspec.Struct, kw_only=True):
    """A value that a rule calls bad."""

    check: str
    segment: str
    verdict: Literal["breach"] = "breach"
    severity: Literal["notice", "warning", "critical"]
    value: float
    direction: Literal["above", "below"]
    threshold: float
    """Of a rule about a drop or a rise: what it comes to, given the reference's value."""
    n: int
    over: int
    """The mean of so many windows was judged; 1: the window itself."""
    incident_id: str | None
    evidence: dict[str, Any]


class PerformanceResult(PerformanceFacts, kw_only=True):
    """One record per window, segment and report (schemas/performance.schema.json), on the topic of results."""

    type: Literal["performance"] = "performance"
    """By which it is told from the result of the window's events, which has no `type`."""
    id: str
    """sha256 of model, version, segment, window, `performance` and revision."""
    model: str
    version: str
    window: ResultWindow
    revision: int
    """0 when it is published first; one more each time that it is published again. The highest one counts."""
    supersedes: str | None
    """Id of the record that this one replaces."""
    as_of_ms: int
    """Event time at which this was known: labels that became known later are not in it."""
    is_final: bool
    """Whether it was made at the last configured age: it is reported no more. A window about which nothing became known since the report
    before has none."""
    reference: str | None
    """sha256 of the reference."""
    operation: OperationResult | None
    """How the service did in the window; of segment `all`, null where the window's own result was not made by this program."""
    conflict: Conflict | None
    """Some of it is better than in the reference and some worse; of segment `all`."""
    findings: list[PerformanceFinding]
    insufficient: list[str]
    """Checks that had too few labels, or no interval, to say anything."""
    policy: str
    """sha256 of the rules in force."""
    policies: dict[str, str]


def facts_of(record: PerformanceResult) -> PerformanceFacts:
    """Return what a record says of its segment, without what was judged of it."""
    return PerformanceFacts(**{name: getattr(record, name) for name in PerformanceFacts.__struct_fields__})


class About(msgspec.Struct):
    """Which report of which window."""

    model: str
    version: str
    window: Window
    revision: int
    as_of_ms: int
    is_final: bool
    reference: str | None
    operation: OperationResult | None
    conflict: Conflict | None


def performance_record(
    about: About, facts: PerformanceFacts, findings: Sequence[Finding], incidents: Mapping[str, str], rules: RuleSet
) -> tuple[bytes, bytes]:
    """Return (key, value); no wall-clock time inside. findings: of the segment. incidents: open ones, by track key."""
    window, is_whole = about.window, facts.segment == ALL
    identity = (about.model, about.version, facts.segment, window.start_ms, window.size_ms, window.step_ms, "performance")
    record = PerformanceResult(
        id=record_id(*identity, about.revision),
        model=about.model,
        version=about.version,
        window=result_window(window),
        revision=about.revision,
        supersedes=record_id(*identity, about.revision - 1) if about.revision else None,
        as_of_ms=about.as_of_ms,
        is_final=about.is_final,
        reference=about.reference,
        operation=about.operation if is_whole else None,
        conflict=about.conflict if is_whole else None,
        findings=[_finding(finding, incidents) for finding in findings if finding.verdict == "breach"],
        insufficient=sorted({f.measurement.check for f in findings if f.verdict == "insufficient"}),
        policy=rules.sha256,
        policies=dict(rules.shas),
        **{name: getattr(facts, name) for name in facts.__struct_fields__},
    )
    return keyed(identity, record)


def _finding(finding: Finding, incidents: Mapping[str, str]) -> PerformanceFinding:
    measurement = finding.measurement
    return PerformanceFinding(
        check=measurement.check,
        segment=measurement.segment,
        severity=finding.severity,
        value=measurement.value,
        direction="below" if finding.is_below else "above",
        threshold=finding.threshold,
        n=measurement.n,
        over=measurement.over,
        incident_id=incidents.get(track_key(measurement)),
        evidence=dict(measurement.evidence),
    )
