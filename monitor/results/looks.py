"""The wire form of a look into an open window: what it saw that chance hardly explains, so that other rules can judge it.

What a look holds the rows so far against is state of the window, and gone when it closes. So its p values are published, and what the
newest rows were like, of whatever some budget could have believed; where nothing is, as nearly always, there is no record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from monitor.decision.early import Tested, Unlikely, shown_p
from monitor.features import ViewName
from monitor.findings import Measurement
from monitor.policy import RuleSet
from monitor.results.identity import ResultWindow, keyed, record_id, result_window
from monitor.results.measured import Measured, measured_result, measurements_of
from monitor.windows import Window


class Seen(NamedTuple):
    """What a look saw of a window that is open. upto_ms: of all events before it. n: rows so far; recent_n: the newest of them.

    completeness, late_dropped, reference, source_offsets, design_effects: see LookResult. views: feature of the layout → its name in the
    event, and the view. unlikely: of the rows so far. measured: the same in the newest rows.
    """

    model: str
    version: str
    window: Window
    upto_ms: int
    n: int
    recent_n: int
    completeness: float
    late_dropped: int
    reference: str | None
    source_offsets: dict[str, dict[str, list[int]]]
    design_effects: Mapping[str, float]
    views: Mapping[str, tuple[str | None, ViewName | None]]
    tested: Tested
    unlikely: Sequence[Unlikely]
    measured: Sequence[Measurement]


class LookFeature(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A feature that was looked at."""

    kind: Literal["number", "category"]
    feature: str | None = None
    """Its name in the event, where that is another one."""
    view: ViewName | None = None
    """What is counted of it; null: the value itself."""
    is_secondary: bool = False
    """Missing values and wrong types are counted of another of its views."""


class UnlikelyResult(msgspec.Struct, kw_only=True):
    """What one check found of all rows so far: lists of the same length, one entry per feature."""

    features: list[str]
    """Keys in `features`."""
    p_value: list[float]
    """Holds however often the window is looked at."""
    phi: list[float]
    """So many rows count as one."""
    known: list[bool]
    """Whether the reference tells so; else it is taken for granted."""


class LookResult(msgspec.Struct, kw_only=True):
    """One record per look into an open window that saw something (schemas/look.schema.json), on the topic of results."""

    type: Literal["look"] = "look"
    """By which it is told from the result of a closed window, which has no `type`."""
    id: str
    """sha256 of model, version, window and `upto_ms`."""
    model: str
    version: str
    window: ResultWindow
    """The open window."""
    upto_ms: int
    """All events before it were looked at."""
    n: int
    """Rows so far."""
    recent_n: int
    """The newest of them, which `measurements` are of."""
    completeness: float
    """Rows that were looked at, among those known of."""
    late_dropped: int
    """Rows that came too late while the window was current."""
    reference: str | None
    """sha256 of the reference."""
    policy: str
    """sha256 of the rules in force."""
    policies: dict[str, str]
    segments: list[str]
    """Those that a rule is for."""
    features: dict[str, LookFeature]
    shown_p: float
    """Whatever has a p up to this is in `unlikely`."""
    unlikely: dict[str, dict[str, UnlikelyResult]]
    """By segment and check."""
    measurements: dict[str, dict[str, Measured]]
    """By segment and check: what the newest rows show of the same."""
    design_effects: dict[str, float]
    """Rows that count as one, by feature of which the reference tells."""
    source_offsets: dict[str, dict[str, list[int]]]
    """topic → partition → [first, last] offset of the rows so far"""


def look_record(seen: Seen, rules: RuleSet) -> tuple[bytes, bytes]:
    """Return (key, value); no wall-clock time inside. rules: for windows of its kind."""
    window = seen.window
    identity = (seen.model, seen.version, window.start_ms, window.size_ms, window.step_ms, "look", seen.upto_ms)
    segments = dict.fromkeys(one.segment for one in seen.unlikely)
    record = LookResult(
        id=record_id(*identity),
        model=seen.model,
        version=seen.version,
        window=result_window(window),
        upto_ms=seen.upto_ms,
        n=seen.n,
        recent_n=seen.recent_n,
        completeness=seen.completeness,
        late_dropped=seen.late_dropped,
        reference=seen.reference,
        policy=rules.sha256,
        policies=dict(rules.shas),
        segments=list(seen.tested.segments),
        features={name: _feature(name, seen.views[name], *kind) for name, kind in seen.tested.features.items()},
        shown_p=shown_p(rules, window.spec),
        unlikely={name: _unlikely([one for one in seen.unlikely if one.segment == name]) for name in segments},
        measurements={name: measured_result(one for one in seen.measured if one.segment == name) for name in segments},
        design_effects=dict(seen.design_effects),
        source_offsets=seen.source_offsets,
    )
    return keyed(identity, record)


def _feature(name: str, source_view: tuple[str | None, ViewName | None], is_number: bool, is_secondary: bool) -> LookFeature:
    feature, view = source_view
    return LookFeature(
        kind="number" if is_number else "category",
        feature=None if feature == name else feature,
        view=view,
        is_secondary=is_secondary,
    )


def _unlikely(found: Sequence[Unlikely]) -> dict[str, UnlikelyResult]:
    by_check: dict[str, list[Unlikely]] = {}
    for one in found:
        by_check.setdefault(one.check, []).append(one)
    return {
        check: UnlikelyResult(
            features=[one.feature for one in of],
            p_value=[one.p_value for one in of],
            phi=[one.phi for one in of],
            known=[one.is_known for one in of],
        )
        for check, of in by_check.items()
    }


def seen_of(record: LookResult) -> Seen:
    """Return what a record tells, but for the evidence that no decision needs."""
    window = record.window.window
    features = {name: (one.kind == "number", one.is_secondary) for name, one in record.features.items()}
    return Seen(
        record.model,
        record.version,
        window,
        record.upto_ms,
        record.n,
        record.recent_n,
        record.completeness,
        record.late_dropped,
        record.reference,
        record.source_offsets,
        record.design_effects,
        {name: (one.feature or name, one.view) for name, one in record.features.items()},
        Tested(record.model, window.spec, tuple(record.segments), features),
        [
            Unlikely(segment, check, *of)
            for segment, checks in record.unlikely.items()
            for check, one in checks.items()
            for of in zip(one.features, one.p_value, one.phi, one.known, strict=True)
        ],
        [one for segment, measured in record.measurements.items() for one in measurements_of(measured, segment)],
    )
