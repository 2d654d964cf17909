"""The wire form of an alert: CloudEvents 1.0 in JSON, with an id that a repeated record shares."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec
import orjson

from monitor.decision.shape import design_effects
from monitor.features import ViewName
from monitor.findings import Decision, Evidence, Finding
from monitor.incidents import Member, Transition
from monitor.policy import DEFAULT_POLICY, RuleSet
from monitor.reasons import Reason
from monitor.results.identity import keyed
from monitor.windows import Window

MAX_MEMBERS = 50


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


class AlertLook(msgspec.Struct, kw_only=True):
    """A look into a window that is still open: at all events before a time."""

    upto: str
    """RFC 3339, UTC; exclusive."""
    upto_ms: int
    elapsed: float
    """Share of the window that was over."""
    rows: int
    """Rows so far."""
    recent_rows: int
    """The newest of them: value, why and severity are theirs, which is what the window will be like if it goes on like this."""


class AlertReference(msgspec.Struct, kw_only=True):
    """What the window was compared with; nulls without a reference."""

    id: str | None
    sha256: str | None


class AlertMember(msgspec.Struct, kw_only=True):
    """A finding of the incident, as the window has it."""

    check: str
    feature: str | None
    view: ViewName | None
    segment: str
    over: int
    """The mean of so many windows was judged; 1: the window itself."""
    severity: Literal["notice", "warning", "critical"]
    """The highest that it had in this incident."""
    is_open: bool
    """Whether the window's value is bad."""
    value: float | None
    """null where this window did not measure it."""
    threshold: float | None


class AlertData(msgspec.Struct, kw_only=True):
    """What fired, got worse, or was resolved: an incident, told by the finding that it fired with."""

    status: Literal["firing", "resolved"]
    severity: Literal["notice", "warning", "critical"]
    """The highest of its findings so far."""
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
    decision: Decision | None = None
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
    over: int = 1
    """The mean of so many windows was judged; 1: the window itself."""
    root: AlertMember | None = None
    """The most likely cause among all findings of the incident: the one nearest to the source of events. Absent, as all up to `policies`,
    where an earlier version of the program told it."""
    members: list[AlertMember] = []
    """Findings of the incident since it fired, the most likely cause first; at most 50."""
    n_members: int = 1
    n_features: int = 1
    """Features of the event that are, or were, in it."""
    escalations: int = 0
    """0 for the alert with which it fired; then it fires again, under another id, each time that a more severe finding joins it."""
    is_flapping: bool = False
    """One of its findings opened three times or more within 24 windows; it now takes longer to close."""
    owner: str | None = None
    """Of the root's rule."""
    routes: list[str] = []
    """Names of whom to tell, of the rules of all findings."""
    policy: str
    """sha256 of the rules in force."""
    policy_name: str = DEFAULT_POLICY
    """Of the policy whose rule fired; `default`: the rules of the configuration."""
    policies: dict[str, str] = {}
    """Policies in force over the default rules: name → sha256."""
    diagnosis: dict[str, Any] | None = None
    """null while causes are not told apart."""
    source_offsets: dict[str, dict[str, list[int]]]
    """topic → partition → [first, last]: the records that make the number reproducible."""
    early: bool | msgspec.UnsetType = msgspec.UNSET
    """true: told while the window is open; its close confirms it without another alert, or takes it back. Absent else."""
    look: AlertLook | msgspec.UnsetType = msgspec.UNSET
    """Of an early alert."""


class Alert(msgspec.Struct, kw_only=True):
    """CloudEvents 1.0, structured mode (schemas/alert.schema.json). Readers dedupe by `id`."""

    specversion: Literal["1.0"] = "1.0"
    type: str
    """ml.monitor.alert.firing.v1 or ml.monitor.alert.resolved.v1"""
    source: str
    """/monitor/{model}/{version}"""
    id: str
    """sha256 of model, version, segment, window, check, feature, revision and status; of what is resolved or taken back, of its incident too;
    of an early alert, of the time up to which it looked."""
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


class Look(NamedTuple):
    """A look into an open window."""

    upto_ms: int
    rows: int
    recent_rows: int


class WindowFacts(NamedTuple):
    """What an alert says of its window, whether from a profile or from a result record."""

    model: str
    version: str
    window: Window
    revision: int
    completeness: float
    late_dropped: int
    reference_sha256: str | None
    source_offsets: dict[str, dict[str, list[int]]]
    views: Mapping[str, tuple[str | None, ViewName | None]]
    """feature of the layout → its name in the event, and the view"""
    is_complete: bool
    """Whether it could measure everything that there is."""
    design_effects: Mapping[str, float]
    """Rows that count as one, by feature with a known φ."""
    look: Look | None = None
    """None of a window that is closed."""

    def source_view(self, feature: str) -> tuple[str | None, ViewName | None]:
        """Return the event's name of a measured feature and the view; (None, None) for the model as a whole."""
        return self.views.get(feature, (feature or None, None))


def facts_of(evidence: Evidence) -> WindowFacts:
    """Return the facts of a closed window, from the evidence of all its rows."""
    closed = evidence.closed
    known = closed.profile.n + closed.rows_other_layout + closed.lost_offsets
    return WindowFacts(
        closed.model,
        closed.version,
        closed.window,
        closed.revision,
        completeness=closed.profile.n / known if known else 1.0,
        late_dropped=closed.profile.stream.count("late"),
        reference_sha256=closed.reference.sha256 if closed.reference else None,
        source_offsets=closed.source_offsets,
        views={name: evidence.source_view(name) for name in evidence.features},
        is_complete=closed.reference is not None and closed.profile.n > 0,
        design_effects=design_effects(closed.reference, closed.window.size_ms),
    )


def alert_id(facts: WindowFacts, finding: Finding, status: str, incident_id: str = "") -> str:
    """Return the sha256 of what the alert is about; the same window and cause give the same id.

    incident_id: of the incident that is resolved or taken back; two may have fired about the same.
    """
    measurement, window = finding.measurement, facts.window
    about: list[object] = [
        facts.model, facts.version, measurement.segment, window.start_ms, window.size_ms,
        window.step_ms, measurement.check, measurement.feature, facts.revision, status,
    ]  # fmt: skip
    about += [measurement.over] if measurement.over > 1 else []
    about += [incident_id] if incident_id else []
    about += ["early", facts.look.upto_ms] if facts.look is not None else []
    return hashlib.sha256(orjson.dumps(about)).hexdigest()


def id_of(facts: WindowFacts, transition: Transition) -> str:
    """Return the id of a transition's alert."""
    is_about_incident = transition.status == "resolved" or transition.is_taken_back
    return alert_id(
        facts, transition.cause or transition.finding, transition.status, transition.incident_id if is_about_incident else ""
    )


def alert_record(
    facts: WindowFacts, transition: Transition, rules: RuleSet, why: Callable[[Finding], list[Reason]]
) -> tuple[bytes, bytes]:
    """Return (key, value) of an alert; the key keeps all alerts of one incident in order.

    why: what contributes to a finding's value.
    """
    finding = transition.finding
    measurement = finding.measurement
    event = Alert(
        type=f"ml.monitor.alert.{transition.status}.v1",
        source=f"/monitor/{facts.model}/{facts.version}",
        id=id_of(facts, transition),
        time=iso(facts.window.end_ms),
        subject=f"feature/{measurement.feature}" if measurement.feature else "model",
        data=_data(facts, transition, rules, why(finding)),
    )
    identity = (facts.model, facts.version, measurement.segment, measurement.check, measurement.feature)
    return keyed(identity, event)


def _data(facts: WindowFacts, transition: Transition, rules: RuleSet, why: list[Reason]) -> AlertData:
    finding, window = transition.finding, facts.window
    measurement, sha256 = finding.measurement, facts.reference_sha256
    feature, view = facts.source_view(measurement.feature)
    features = {facts.source_view(member.measurement.feature)[0] for member in transition.members} - {None}
    members = [_member(facts, member) for member in transition.members[:MAX_MEMBERS]]
    return AlertData(
        status=transition.status,
        severity=transition.severity,
        model=facts.model,
        version=facts.version,
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
        window=AlertWindow(
            start=iso(window.start_ms),
            end=iso(window.end_ms),
            start_ms=window.start_ms,
            end_ms=window.end_ms,
            kind=window.spec.kind,
            revision=facts.revision,
            completeness=facts.completeness,
            late_dropped=facts.late_dropped,
        ),
        reference=AlertReference(id=f"{facts.model}-{facts.version}" if sha256 else None, sha256=sha256),
        why=why,
        evidence=dict(measurement.evidence),
        decision=finding.decision,
        incident_id=transition.incident_id,
        opened_ms=transition.opened_ms,
        windows=transition.windows,
        supersedes=transition.supersedes or None,
        over=measurement.over,
        root=members[0],
        members=members,
        n_members=len(transition.members),
        n_features=len(features),
        escalations=transition.escalations,
        is_flapping=transition.is_flapping,
        owner=transition.owner or None,
        routes=list(transition.routes),
        policy=rules.sha256,
        policy_name=finding.rule.policy or DEFAULT_POLICY,
        policies=dict(rules.shas),
        source_offsets=facts.source_offsets,
        early=True if facts.look is not None else msgspec.UNSET,
        look=_look(facts.look, window) if facts.look is not None else msgspec.UNSET,
    )


def _look(look: Look, window: Window) -> AlertLook:
    return AlertLook(
        upto=iso(look.upto_ms),
        upto_ms=look.upto_ms,
        elapsed=(look.upto_ms - window.start_ms) / window.size_ms,
        rows=look.rows,
        recent_rows=look.recent_rows,
    )


def _member(facts: WindowFacts, member: Member) -> AlertMember:
    measurement, finding = member.measurement, member.finding
    feature, view = facts.source_view(measurement.feature)
    return AlertMember(
        check=measurement.check,
        feature=feature,
        view=view,
        segment=measurement.segment,
        over=measurement.over,
        severity=member.severity,
        is_open=finding is not None and finding.verdict == "breach",
        value=finding.measurement.value if finding is not None else None,
        threshold=finding.threshold if finding is not None else None,
    )
