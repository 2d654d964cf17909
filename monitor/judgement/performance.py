"""How a model did in a window → findings, incidents and alerts, as far as its labels are known; and the same again when more are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from monitor.alerts import WindowFacts
from monitor.findings import Measurement
from monitor.judgement.windows import Before, judge_measurements
from monitor.performance import Estimate, Estimated, Needed, OutcomeCells, Realised, estimated, measurements, realised
from monitor.performance.lags import CURVE_MS
from monitor.performance.measure import ANY
from monitor.performance.realised import Lag, SelectionBias
from monitor.policy import RuleSet
from monitor.reference import Reference, ReferencePerformance
from monitor.results.operation import Direction, conflict_of, load_operation
from monitor.results.performance import (
    About,
    ConfusionResult,
    EstimatedResult,
    EstimateResult,
    LagResult,
    PerformanceFacts,
    SelectionBiasResult,
    performance_record,
)
from monitor.segments import ALL
from monitor.windows import Window, duration_text


class WindowCells(NamedTuple):
    """Outcomes of a window under one reference. n_other_reference: predictions that were counted under others."""

    reference: Reference
    cells: OutcomeCells
    n_other_reference: int


class ClosedOutcomes(NamedTuple):
    """What is known of the outcomes of a window of one model version.

    as_of_ms: what was known then. is_final: the window is reported no more. sums: None where it is judged anew with the figures that it
    had, which are then in `figures`. operation: see operation.operation_of. said, latest: of a revision, see findings.ClosedWindow.
    """

    model: str
    version: str
    window: Window
    as_of_ms: int
    is_final: bool
    sums: WindowCells | None
    figures: bytes = b""
    operation: bytes = b""
    revision: int = 0
    said: bytes = b""
    latest: bytes = b""


class PerformanceJudgement(NamedTuple):
    """What it leads to: records to publish, as (key, value), the decision state after it, and what it takes to judge it anew."""

    results: tuple[tuple[bytes, bytes], ...]
    alerts: tuple[tuple[bytes, bytes], ...]
    after: bytes
    figures: bytes
    alert_severities: tuple[str, ...] = ()
    """Of the alerts that fire, in order."""
    said: bytes = b""
    """Which alerts are in force with this window, for its next revision."""
    is_news: bool = False
    """Whether they are others than those of the revision before."""


class _Measured(msgspec.Struct, array_like=True):
    """A measurement, as it is kept."""

    check: str
    value: float
    n: int
    n_ref: int
    min_n: int
    lower_is_worse: bool
    evidence: dict[str, Any]
    segment: str
    critical_value: float | None
    interval: tuple[float, float] | None
    reference_value: float | None


class _Figures(msgspec.Struct, array_like=True):
    """All that a judgement is made from, beside the state before it. changes: by metric, of all rows."""

    reference: str
    segments: list[PerformanceFacts]
    measured: list[_Measured]
    changes: dict[str, Direction]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Figures).decode


def judge_performance(closed: ClosedOutcomes, before: bytes, rules: RuleSet, needed: Needed = ANY) -> PerformanceJudgement:
    """Measure a window's performance, decide what of it is bad, and follow the incidents that this opens and closes.

    before: decision state after the window before it. needed: labels that a rule takes. A function of its arguments: two owners publish the same bytes.
    """
    figures = _decode(closed.figures) if closed.sums is None else _measure(closed.sums, rules, needed)
    whole = next(facts for facts in figures.segments if facts.segment == ALL)
    facts = WindowFacts(
        closed.model,
        closed.version,
        closed.window,
        closed.revision,
        completeness=whole.coverage,
        late_dropped=0,
        reference_sha256=figures.reference,
        source_offsets={},
        views={},
        is_complete=whole.labelled > 0,
        design_effects={},
    )
    measured = [Measurement(feature="", **msgspec.structs.asdict(one)) for one in figures.measured]
    decided = judge_measurements(facts, measured, Before(before, closed.said, closed.latest), rules, why=lambda _: [])
    operation = load_operation(closed.operation)
    about = About(
        closed.model,
        closed.version,
        closed.window,
        closed.revision,
        closed.as_of_ms,
        closed.is_final,
        figures.reference,
        operation,
        conflict_of(operation, figures.changes),
    )
    return PerformanceJudgement(
        results=tuple(
            performance_record(
                about,
                of_segment,
                [finding for finding in decided.findings if finding.measurement.segment == of_segment.segment],
                decided.incidents,
                rules,
            )
            for of_segment in figures.segments
        ),
        alerts=decided.alerts,
        after=decided.after,
        figures=closed.figures if closed.sums is None else _encode(figures),
        alert_severities=tuple(t.severity for t in decided.told if t.status == "firing" and not t.supersedes),
        said=decided.said,
        is_news=decided.is_news,
    )


def _measure(sums: WindowCells, rules: RuleSet, needed: Needed) -> _Figures:
    """Say what the cells hold, of all rows and of each segment that has any."""
    reference, cells = sums.reference.performance, sums.cells
    figures = _Figures(sums.reference.sha256, [], [], {})
    for segment in sorted({0, *cells.segments()}):
        name = cells.spec.segments[segment]
        found, expected = realised(cells, segment), estimated(cells, segment)
        figures.segments.append(_facts(sums, name, found, expected))
        if name == ALL or rules.minds(name):
            measured = measurements(found, expected, reference, name, needed)
            _add_measured(figures, measured)
            if name == ALL:
                figures.changes = _changes(measured)
    return figures


def figures_of(reference: str, segments: Sequence[PerformanceFacts], rules: RuleSet, needed: Needed = ANY) -> bytes:
    """Return the figures of a window from what was published of its segments, for `ClosedOutcomes.figures`. reference: its sha256."""
    figures = _Figures(reference, list(segments), [], {})
    for facts in segments:
        if facts.segment == ALL or rules.minds(facts.segment):
            known = ReferencePerformance(n=facts.n_reference, values=facts.reference_values)
            _add_measured(figures, measurements(_realised(facts), _estimated(facts), known, facts.segment, needed))
    return _encode(figures)


def _add_measured(figures: _Figures, measured: Sequence[Measurement]) -> None:
    figures.measured += [_Measured(*(getattr(one, name) for name in _Measured.__struct_fields__)) for one in measured]


def _realised(facts: PerformanceFacts) -> Realised:
    bias = facts.selection_bias
    return Realised(
        _known(facts.values),
        facts.n,
        facts.labelled,
        selection_bias=None if bias is None else SelectionBias(bias.by, bias.difference, bias.p_value),
        ece_by_chance=facts.ece_by_chance,
    )


def _estimated(facts: PerformanceFacts) -> Estimated:
    return Estimated(_known(facts.estimated.values), facts.estimated.method, facts.estimated.n, facts.estimated.unknown)


def _known(values: Mapping[str, EstimateResult]) -> dict[str, Estimate]:
    return {name: Estimate(one.value, one.low, one.high) for name, one in values.items()}


def _changes(measured: list[Measurement]) -> dict[str, Direction]:
    """Return metric → whether it is better or worse than the reference's own: where its interval leaves that out."""
    found: dict[str, Direction] = {}
    for one in measured:
        name, own = one.check.partition(".")[2], one.reference_value
        if own is None or one.interval is None or not math.isfinite(one.interval[1] - one.interval[0]) or one.n < one.min_n:
            found[name] = "unknown"
        elif one.interval[0] <= own <= one.interval[1]:
            found[name] = "same"
        else:
            found[name] = "better" if (one.interval[0] > own) == one.lower_is_worse else "worse"
    return found


def _facts(sums: WindowCells, segment: str, found: Realised, expected: Estimated) -> PerformanceFacts:
    n_ref, own = sums.reference.performance.of_segment(segment)
    return PerformanceFacts(
        segment=segment,
        task=sums.cells.spec.task,
        n=found.n_made,
        labelled=found.n_labelled,
        coverage=found.coverage,
        n_other_reference=sums.n_other_reference if segment == ALL else 0,
        unusable_labels=found.n_unusable,
        lag=_lag(found.lag) if found.lag is not None else None,
        values=_estimates(found.values),
        estimated=EstimatedResult(
            method=expected.method, n=expected.n, values=_estimates(expected.values), unknown=expected.unknown
        ),
        reference_values=dict(own),
        n_reference=n_ref,
        ece_by_chance=found.ece_by_chance,
        confusion=ConfusionResult(classes=list(found.classes), counts=[list(row) for row in found.confusion])
        if found.classes
        else None,
        selection_bias=SelectionBiasResult(**found.selection_bias._asdict()) if found.selection_bias is not None else None,
        unknown=found.unknown,
    )


def _lag(lag: Lag) -> LagResult:
    curve = {duration_text(ms): share for ms, share in zip(CURVE_MS, lag.curve, strict=True)}
    return LagResult(p50_ms=lag.p50_ms, p90_ms=lag.p90_ms, p99_ms=lag.p99_ms, curve=curve)


def _estimates(values: dict[str, Estimate]) -> dict[str, EstimateResult]:
    return {name: EstimateResult(value=one.value, low=one.low, high=one.high) for name, one in sorted(values.items())}
