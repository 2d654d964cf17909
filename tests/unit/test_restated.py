"""Alerts of a window that is judged again, where incidents have several findings."""

from __future__ import annotations

from typing import NamedTuple

from monitor.decision.state import DecisionState, track_key
from monitor.findings import Finding
from monitor.incidents import Transition, step
from monitor.restated import fired_before, load_said, restated, said_of
from tests.unit.test_incidents import names, of, quiet


class Judged(NamedTuple):
    told: list[Transition]
    after: bytes
    said: bytes


def judge(
    found: list[Finding], at: int, before: bytes = b"", *, revision: int = 0, said: bytes = b"", latest: bytes = b""
) -> Judged:
    """Do what monitor.judgement.windows does, with readable ids."""

    def id_of(finding: Finding, status: str) -> str:
        return f"{finding.measurement.check}-{finding.measurement.feature}-{at}-{revision}-{status}"

    earlier, state = load_said(said), DecisionState.load(before)
    opened = fired_before(earlier)
    transitions = step(state, found, lambda f: opened.get(track_key(f.measurement)) or id_of(f, "firing"), at, is_complete=True)
    told = restated(earlier, transitions, found, state, latest)
    now = said_of(transitions, told, earlier, lambda t: id_of(t.cause or t.finding, t.status))
    return Judged(told, state.to_bytes(), now)


MISSING, DRIFT, WORSE = of("health.missing"), of("drift.psi"), of("drift.psi", severity="critical")


def test_an_incident_with_another_root_after_a_revision_is_told_in_place_of_the_one_that_is_taken_back() -> None:
    first = judge([MISSING, DRIFT], 1)
    again = judge([*quiet(MISSING), DRIFT], 1, revision=1, said=first.said, latest=first.after)
    [fired, back] = again.told
    assert (fired.status, fired.incident_id, fired.is_taken_back) == ("firing", "drift.psi-x-1-1-firing", False)
    assert (back.status, back.incident_id, back.supersedes, back.is_taken_back) == (
        "resolved", first.told[0].incident_id, "health.missing-x-1-0-firing", True,
    )  # fmt: skip
    assert back.finding.measurement.evidence["reason"] == "taken back by a revision of the window"


def test_a_revision_with_more_findings_restates_the_incident_under_its_id() -> None:
    first = judge([MISSING, *quiet(DRIFT)], 1)
    again = judge([MISSING, DRIFT], 1, revision=1, said=first.said, latest=first.after)
    [fired] = again.told
    assert (fired.incident_id, fired.supersedes) == (first.told[0].incident_id, "health.missing-x-1-0-firing")
    assert names(fired) == [("health.missing", "x"), ("drift.psi", "x")]


def test_an_escalation_that_does_not_hold_is_told_again_as_it_is() -> None:
    opened = judge([MISSING, *quiet(WORSE)], 1)
    worse = judge([MISSING, WORSE], 2, opened.after)
    assert [(t.status, t.severity, t.escalations) for t in worse.told] == [("firing", "critical", 1)]
    [back] = judge([MISSING, *quiet(WORSE)], 2, opened.after, revision=1, said=worse.said, latest=worse.after).told
    assert (back.status, back.incident_id, back.severity, back.escalations) == (
        "firing",
        opened.told[0].incident_id,
        "warning",
        0,
    )
    assert (back.supersedes, back.is_taken_back) == ("drift.psi-x-2-0-firing", True)


def test_an_escalation_lends_its_id_to_no_other_incident() -> None:
    """In the revision the first incident is over before the window, and what had made it worse opens one of its own."""
    opened = judge([MISSING, *quiet(WORSE)], 1)
    worse = judge([MISSING, WORSE], 2, opened.after)
    [fired] = [t for t in judge([*quiet(MISSING), WORSE], 2, revision=1, said=worse.said).told if not t.is_taken_back]
    assert fired.incident_id == "drift.psi-x-2-1-firing" != opened.told[0].incident_id


def test_a_resolution_that_does_not_hold_is_taken_back_by_what_goes_on() -> None:
    opened = judge([MISSING, DRIFT], 1)
    resolved = judge(quiet(MISSING, DRIFT), 2, opened.after)
    [back] = judge([*quiet(MISSING), DRIFT], 2, opened.after, revision=1, said=resolved.said, latest=resolved.after).told
    assert (back.status, back.incident_id, back.is_taken_back) == ("firing", opened.told[0].incident_id, True)
    assert names(back) == [("health.missing", "x"), ("drift.psi", "x")]


def test_without_an_earlier_revision_everything_is_told() -> None:
    first = judge([MISSING], 1)
    assert [(t.supersedes, t.is_taken_back) for t in first.told] == [("", False)]
    assert [one.about for one in load_said(first.said)] == [
        ('["health.missing","all","x"]', "firing", "health.missing-x-1-0-firing")
    ]
    assert judge(quiet(MISSING), 1).said == b""
