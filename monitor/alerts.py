"""The wire form of an alert: CloudEvents 1.0 in JSON, with an id that a repeated record shares."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal

import msgspec
import orjson

from monitor.features import OTHER, NumberFeature, ViewName
from monitor.findings import ClosedWindow, Compared, Decision, Evidence, Finding
from monitor.incidents import Transition
from monitor.segments import ALL
from monitor.sides import Sides

MAX_REASONS = 5
NEVER_SEEN = "never seen"


class AlertWindow(msgspec.Struct, kw_only=True):
    """The window that an alert is about."""

    start: str
    """RFC 3339, UTC; inclusive."""
    end: str
    """RFC 3339, UTC; exclusive."""
    start_ms: int
    end_ms: int
    kind: str
    """tumbling or hopping"""
    revision: int
    completeness: float
    """Rows that were judged, among those known of: not those under another layout, nor offsets that retention took."""
    late_dropped: int
    """Rows that came too late while this window was current: at its partition's clock, not at the row's own time."""


class AlertReference(msgspec.Struct, kw_only=True):
    """What the window was compared with; nulls without a reference."""

    id: str | None
    sha256: str | None


class Reason(msgspec.Struct, kw_only=True):
    """What contributes to the value: a cell's share in the reference and in the window, and its part of a distance.

    Of `health.never_seen`: a value that the reference does not have, `#` and its hash where values are not kept, and its share.
    """

    bin: str
    ref: float
    cur: float
    contribution: float
    """They add up to the distance (drift.js, drift.hellinger: to its square; drift.psi_corrected and drift.distribution: to psi, of this
    window alone); of `health.never_seen` to at most its value."""


class AlertData(msgspec.Struct, kw_only=True):
    """What fired, or was resolved."""

    status: Literal["firing", "resolved"]
    severity: Literal["notice", "warning", "critical"]
    model: str
    version: str
    segment: str
    """`all`, or a segment's name."""
    check: str
    feature: str | None
    """null: the model as a whole."""
    view: ViewName | None
    """What is counted of the feature (the length of a text, for one); null: its value itself."""
    value: float
    threshold: float
    """The rule's."""
    critical_value: float | None
    """What chance alone explains at this n and n_ref, except once in 1000 windows; the larger of both counts."""
    p_value: float | None
    n: int
    n_ref: int
    window: AlertWindow
    reference: AlertReference
    why: list[Reason]
    """Of drift and `health.never_seen`; the largest contributions first."""
    evidence: dict[str, Any]
    """What else the check saw, by name."""
    decision: Decision | None
    """Why it was raised, or is over, within the budget of false alarms; null where a rule's threshold alone decides."""
    incident_id: str
    """Id of the alert with which this incident fired; its own when firing."""
    opened_ms: int
    """End of the window with which it fired, epoch milliseconds."""
    windows: int
    """Breaches in a row when it fires, quiet windows when it is resolved; 0 where an alert that fired is taken back."""
    supersedes: str | None
    """Id of the alert of the window's revision before that this one replaces: with restated numbers, or because it does not hold (its
    `evidence.reason` says so). null: it replaces none."""
    policy: str
    """sha256 of the rules in force."""
    diagnosis: dict[str, Any] | None = None
    """null while causes are not told apart."""
    source_offsets: dict[str, dict[str, list[int]]]
    """topic → partition → [first, last]: the records that make the number reproducible."""


class Alert(msgspec.Struct, kw_only=True):
    """CloudEvents 1.0, structured mode (schemas/alert.schema.json). Readers dedupe by `id`."""

    specversion: Literal["1.0"] = "1.0"
    type: str
    """ml.monitor.alert.firing.v1 or ml.monitor.alert.resolved.v1"""
    source: str
    """/monitor/{model}/{version}"""
    id: str
    """sha256 of model, version, segment, window, check, feature, revision and status; and of the incident, where an alert is taken back."""
    time: str
    """The window's end."""
    subject: str
    """feature/{name}, feature/{name}#{view}, or model"""
    datacontenttype: Literal["application/json"] = "application/json"
    data: AlertData


def iso(time_ms: int) -> str:
    """Return an RFC 3339 time in UTC, milliseconds only where there are any. Range: years 1 to 9999, clipped.

    >>> iso(1735689600000), iso(-1)
    ('2025-01-01T00:00:00Z', '1969-12-31T23:59:59.999Z')
    """
    seconds, rest = divmod(min(max(time_ms, _FIRST_MS), _LAST_MS), 1000)
    text = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z"


_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""0001-01-01 and the last millisecond of 9999: a long window around an accepted event may reach beyond."""


def alert_id(closed: ClosedWindow, finding: Finding, status: str, taken_back: str = "") -> str:
    """Return the sha256 of what the alert is about; the same window and cause give the same id.

    taken_back: the incident of an alert that does not hold any more.
    """
    measurement = finding.measurement
    about = (
        closed.model, closed.version, measurement.segment, closed.window.start_ms, closed.window.size_ms,
        closed.window.step_ms, measurement.check, measurement.feature, closed.revision, status,
        *((taken_back,) if taken_back else ()),
    )  # fmt: skip
    return hashlib.sha256(orjson.dumps(about)).hexdigest()


def alert_record(evidences: Mapping[str, Evidence], transition: Transition, policy_sha256: str) -> tuple[bytes, bytes]:
    """Return (key, value) of an alert, from the evidence of every segment; the key keeps firing and resolved of one incident in order."""
    finding, measurement = transition.finding, transition.finding.measurement
    evidence = evidences.get(measurement.segment, evidences[ALL])  # a segment that is gone is resolved by a window without it
    closed = evidence.closed
    event = Alert(
        type=f"ml.monitor.alert.{transition.status}.v1",
        source=f"/monitor/{closed.model}/{closed.version}",
        id=alert_id(closed, finding, transition.status, transition.incident_id if transition.is_taken_back else ""),
        time=iso(closed.window.end_ms),
        subject=f"feature/{measurement.feature}" if measurement.feature else "model",
        data=_data(evidence, transition, policy_sha256),
    )
    identity = (closed.model, closed.version, measurement.segment, measurement.check, measurement.feature)
    return "|".join(identity).encode(), orjson.dumps(msgspec.to_builtins(event), option=orjson.OPT_SORT_KEYS)


def _data(evidence: Evidence, transition: Transition, policy_sha256: str) -> AlertData:
    closed, finding = evidence.closed, transition.finding
    measurement, reference = finding.measurement, evidence.closed.reference
    feature, view = evidence.source_view(measurement.feature)
    return AlertData(
        status=transition.status,
        severity=finding.severity,
        model=closed.model,
        version=closed.version,
        segment=measurement.segment,
        check=measurement.check,
        feature=feature,
        view=view,
        value=measurement.value,
        threshold=finding.threshold,
        critical_value=measurement.critical_value,
        p_value=measurement.p_value,
        n=measurement.n,
        n_ref=measurement.n_ref,
        window=_window(evidence),
        reference=AlertReference(
            id=f"{reference.model}-{reference.version}" if reference else None,
            sha256=reference.sha256 if reference else None,
        ),
        why=reasons(evidence, finding),
        evidence=dict(measurement.evidence),
        decision=finding.decision,
        incident_id=transition.incident_id,
        opened_ms=transition.opened_ms,
        windows=transition.windows,
        supersedes=transition.supersedes or None,
        policy=policy_sha256,
        source_offsets=closed.source_offsets,
    )


def _window(evidence: Evidence) -> AlertWindow:
    closed, window = evidence.closed, evidence.closed.window
    known = closed.profile.n + closed.rows_other_layout + closed.lost_offsets
    return AlertWindow(
        start=iso(window.start_ms),
        end=iso(window.end_ms),
        start_ms=window.start_ms,
        end_ms=window.end_ms,
        kind=window.spec.kind,
        revision=closed.revision,
        completeness=closed.profile.n / known if known else 1.0,
        late_dropped=closed.profile.stream.count("late"),
    )


def reasons(evidence: Evidence, finding: Finding) -> list[Reason]:
    """Return the cells that contribute most to a drift, never-seen values as one; of `health.never_seen` these values. Most first."""
    compared = evidence.features.get(finding.measurement.feature)
    if compared is not None and finding.measurement.check == "health.never_seen":
        return _new_values(compared)
    check = "drift.psi" if finding.measurement.check == "drift.distribution" else finding.measurement.check
    distance = next((d for d in evidence.registry if d.check == check), None)
    if compared is None or distance is None or distance.contributions is None or not compared.window.n:
        return []
    reference, window = compared.cells
    n, m = int(window.sum()), int(reference.sum())
    found: dict[str, list[float]] = {}
    parts = distance.contributions(Sides(reference, window)).tolist()
    for name, ref, cur, part in zip(cell_names(compared), reference.tolist(), window.tolist(), parts, strict=True):
        sums = found.setdefault(name, [0, 0, 0.0])
        sums[:] = sums[0] + ref, sums[1] + cur, sums[2] + part
    top = sorted(found, key=lambda name: (-found[name][2], name))[:MAX_REASONS]
    return [
        Reason(bin=name, ref=found[name][0] / m, cur=found[name][1] / n, contribution=found[name][2])
        for name in top
        if found[name][2] > 0
    ]


def _new_values(compared: Compared) -> list[Reason]:
    """Return the values that surely came most."""
    shares = [
        (one.text if one.text is not None else f"#{one.hash_text}", one.rows / compared.window.n)
        for one in compared.window.frequent
    ]
    return [Reason(bin=name, ref=0.0, cur=share, contribution=share) for name, share in shares[:MAX_REASONS]]


def cell_names(compared: Compared) -> Sequence[str]:
    """Return a name per reported cell: intervals, values, `other`, `never seen`."""
    feature, k = compared.feature, len(compared.cells[0])
    if isinstance(feature, NumberFeature):
        edges = ["-inf", *(f"{edge:.12g}" for edge in feature.reported)]
        return [f"({low}, {high}]" for low, high in pairwise(edges)] + [f"({edges[-1]}, inf)"]
    has_other = compared.reference.values[-1] or compared.window.values[-1]
    names = [*feature.values, f"({OTHER})"] if has_other else list(feature.values)
    return names + [f"({NEVER_SEEN})"] * (k - len(names))
