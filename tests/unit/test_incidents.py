"""Pending → firing → resolved, drawn as timelines: b breach, . ok, ? insufficient; F fires, R is resolved."""

import pytest

from monitor.decision_state import DecisionState
from monitor.errors import UnknownCodec
from monitor.findings import Finding, Measurement
from monitor.incidents import FLAPPING_WINDOWS, Transition, open_severities, step
from monitor.rules import Rule

VERDICTS = {"b": "breach", ".": "ok", "?": "insufficient"}


def finding(verdict: str, windows: int = 1, feature: str = "x") -> Finding:
    measurement = Measurement("drift.psi", feature, 0.3, 1000, 5000)
    return Finding(measurement, VERDICTS[verdict], 0.2, "warning", rule=Rule(windows=windows))  # type: ignore[arg-type]


def one(before: bytes, found: list[Finding], at: int, *, is_complete: bool = True) -> tuple[list[Transition], bytes]:
    state = DecisionState.load(before)
    return step(state, found, lambda f: f"id-{f.measurement.feature}-{at}", at, is_complete=is_complete), state.to_bytes()


def timeline(verdicts: str, windows: int) -> str:
    state, drawn = b"", ""
    for at, verdict in enumerate(verdicts):
        transitions, state = one(state, [finding(verdict, windows)], at)
        drawn += {"firing": "F", "resolved": "R"}[transitions[0].status] if transitions else " "
    return drawn


@pytest.mark.parametrize(
    ("windows", "verdicts", "drawn"),
    [
        (1, "..b..", "  FR "),
        (1, "bbb.b", "F  RF"),
        (2, "b.b.b", "     "),
        (2, ".bb..", "  F R"),
        (2, "bb.b..", " F   R"),
        (3, "bbbb....", "  F   R "),
        (1, "b?.", "F R"),
        (2, "b?b", "  F"),  # too few rows in between neither count nor break the run
        (2, "bb.?.", " F  R"),
        (1, "???", "   "),
        (2, "bb.b.b..", " F     R"),
        (3, "bb.bbb", "     F"),
    ],
)
def test_k_breaches_in_a_row_fire_and_k_quiet_windows_resolve(windows: int, verdicts: str, drawn: str) -> None:
    assert timeline(verdicts, windows) == drawn


def test_resolved_names_the_incident_and_its_beginning() -> None:
    [fired], state = one(b"", [finding("b")], 3)
    [resolved], state = one(state, [finding(".")], 4)
    assert (fired.incident_id, fired.opened_ms, fired.windows) == ("id-x-3", 3, 1)
    assert (resolved.incident_id, resolved.opened_ms, resolved.windows) == ("id-x-3", 3, 1)
    for at in range(5, 4 + FLAPPING_WINDOWS):
        _, state = one(state, [finding(".")], at)
        assert state  # so long it is remembered that it has opened
    assert one(state, [finding(".")], 4 + FLAPPING_WINDOWS) == ([], b"")


def test_a_second_incident_has_an_id_of_its_own() -> None:
    _, state = one(b"", [finding("b")], 0)
    _, state = one(state, [finding(".")], 1)
    [again], _ = one(state, [finding("b")], 2)
    assert again.incident_id == "id-x-2"


def test_what_opens_later_on_another_feature_is_an_incident_of_its_own() -> None:
    _, state = one(b"", [finding("b"), finding(".", feature="y")], 0)
    transitions, state = one(state, [finding("b"), finding("b", feature="y")], 1)
    assert [(t.status, t.finding.measurement.feature) for t in transitions] == [("firing", "y")]
    transitions, _ = one(state, [finding("."), finding("b", feature="y")], 2)
    assert [(t.status, t.finding.measurement.feature) for t in transitions] == [("resolved", "x")]


def test_an_incident_that_is_no_longer_measured_is_resolved() -> None:
    _, state = one(b"", [finding("b")], 0)
    [gone], state = one(state, [], 1)
    assert (gone.status, gone.incident_id, gone.finding.severity) == ("resolved", "id-x-0", "warning")
    assert gone.finding.measurement.evidence == {"reason": "no longer measured"}
    assert state == b""


def test_a_window_that_could_not_measure_resolves_nothing() -> None:
    _, state = one(b"", [finding("b")], 0)
    transitions, state = one(state, [], 1, is_complete=False)
    assert (transitions, open_severities(DecisionState.load(state))) == ([], {"warning"})


def test_a_pending_run_that_is_no_longer_measured_is_forgotten_silently() -> None:
    _, state = one(b"", [finding("b", windows=2)], 0)
    assert one(state, [], 1) == ([], b"")


def test_nothing_open_is_nothing_stored() -> None:
    assert one(b"", [finding("."), finding("?", feature="y")], 0) == ([], b"")


def test_equal_histories_give_equal_bytes_in_any_order_of_findings() -> None:
    found = [finding("b", feature=name) for name in "abc"]
    assert one(b"", found, 0)[1] == one(b"", found[::-1], 0)[1]


def test_the_state_is_compact() -> None:
    found = [finding("b", feature=f"feature_{i}") for i in range(100)]
    state = DecisionState.load(b"")
    step(state, found, lambda f: "f" * 64, 1_735_689_600_000, is_complete=True)
    assert len(state.to_bytes()) < 100 * 128


def test_a_state_of_an_unknown_version_is_refused() -> None:
    with pytest.raises(UnknownCodec, match="decision state has codec version 9"):
        one(b"\x09\x80", [], 0)


def test_the_severities_of_open_incidents_are_known() -> None:
    _, state = one(b"", [finding("b", windows=2), finding("b", feature="y")], 0)
    assert open_severities(DecisionState.load(state)) == {"warning"}
    _, state = one(state, [finding("b", windows=2), finding(".", feature="y")], 1)
    assert open_severities(DecisionState.load(state)) == {"warning"}
    _, state = one(state, [finding(".")], 2)
    assert open_severities(DecisionState.load(state)) == open_severities(DecisionState.load(b"")) == frozenset()
