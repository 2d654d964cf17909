"""Pending → firing → resolved, drawn as timelines: b breach, . ok, ? insufficient; F fires, R is resolved."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from monitor.decision.state import DecisionState
from monitor.errors import UnknownCodec
from monitor.findings import Finding, Measurement
from monitor.incidents import FLAPPING_WINDOWS, Transition, open_severities, step
from monitor.rules import Mute, Rule, Severity

WRITTEN_3 = (
    "039383bc5b2264726966742e707369222c22616c6c222c224073636f7265225d97000100a77761726e696e6700029101b75b2264726966742e707369"
    "222c22616c6c222c2278225d97020001a77761726e696e6703c09100bc5b226865616c74682e6d697373696e67222c22616c6c222c2278225d970200"
    "01a8637269746963616c00c09101810198a669642d782d31bc5b226865616c74682e6d697373696e67222c22616c6c222c2278225d01a86372697469"
    "63616c83bc5b2264726966742e707369222c22616c6c222c224073636f7265225da77761726e696e67b75b2264726966742e707369222c22616c6c22"
    "2c2278225da77761726e696e67bc5b226865616c74682e6d697373696e67222c22616c6c222c2278225da8637269746963616ca16f91a1720081b75b"
    "2264726966742e707369222c22616c6c222c2278225d9293cb3fb999999999999acb3fa999999999999a6493cb3fc999999999999ac007"
)

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
    for at in range(5, 3 + FLAPPING_WINDOWS):
        _, state = one(state, [finding(".")], at)
        assert state  # so long it is remembered that it has opened
    assert one(state, [finding(".")], 3 + FLAPPING_WINDOWS) == ([], b"")


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


def drawn(verdicts: str, rule: Rule, step_ms: int = 1) -> str:
    """F fires, R is resolved; f is a firing that flaps."""
    state, told = b"", ""
    for at, verdict in enumerate(verdicts):
        one_finding = replace(finding(verdict), rule=rule)
        transitions, state = one(state, [one_finding], (at + 1) * step_ms)
        told += (
            {"firing": "f" if transitions and transitions[0].is_flapping else "F", "resolved": "R"}[transitions[0].status]
            if transitions
            else " "
        )
    return told


@pytest.mark.parametrize(
    ("rule", "verdicts", "expected"),
    [
        (Rule(windows=2, of=3), "b.b..", "  F R"),  # n of m opens, as many quiet ones in a row close
        (Rule(windows=2, of=3), "b..b.", "     "),
        (Rule(windows=3, of=5), "bb..b", "    F"),
        (Rule(windows=3, of=5), "b?b?b", "    F"),
        (Rule(windows=2, of=3), "b.b", "  F"),
        (Rule(windows=2, of=3), "bb.", " F "),
        (Rule(windows=2, of=3), "b..b.b", "     F"),
        (Rule(close_after=3), "b..b...", "F     R"),  # hysteresis: opens at once, closes late
        (Rule(windows=3, close_after=1), "bbb.bbb", "  FR  F"),
        (Rule(cooldown_ms=4), "b.bbbb", "FR   F"),  # fires when the cool-down is over, if it is still bad
        (Rule(cooldown_ms=4), "b.b...b", "FR    F"),
        (Rule(cooldown_ms=3), "b.b..b", "FR   F"),
        (Rule(mutes=(Mute(from_ms=1, to_ms=4),)), "bbbbb.", "F    R"),
        (Rule(mutes=(Mute(from_ms=0, to_ms=3),)), "bbbbb.", "   F R"),  # fires when the mute is over, if it is still bad
        (Rule(mutes=(Mute(from_ms=0, to_ms=3),)), "bb....", "      "),
        (Rule(windows=2, mutes=(Mute(from_ms=0, to_ms=2),)), "bbb...", "  F R "),
        (Rule(mutes=(Mute(from_ms=1, to_ms=9),)), "b.b...", "FR    "),  # what was open before is resolved in it
    ],
)
def test_a_rule_says_when_it_opens_and_closes(rule: Rule, verdicts: str, expected: str) -> None:
    assert drawn(verdicts, rule) == expected


def test_what_opens_for_the_third_time_is_flapping_and_stays_open_until_it_is_quiet_for_long() -> None:
    assert drawn("b.b.b.b.b......b", Rule()) == "FRFRf         Rf"
    rare = "b" + "." * (FLAPPING_WINDOWS // 2 - 1)
    assert drawn(3 * rare + "b", Rule()) == 3 * ("FR" + " " * (len(rare) - 2)) + "F"


def of(check: str, verdict: str = "b", severity: str = "warning", **where: Any) -> Finding:
    measurement = Measurement(
        check, where.pop("feature", "x"), where.pop("value", 0.3), 1000, 5000, segment=where.pop("segment", "all")
    )
    return Finding(measurement, VERDICTS[verdict], 0.2, severity, rule=Rule(**where))  # type: ignore[arg-type]


def names(transition: Transition) -> list[tuple[str, str]]:
    return [(member.measurement.check, member.measurement.feature) for member in transition.members]


def test_findings_that_open_together_are_one_incident_about_the_one_nearest_to_the_source() -> None:
    found = [of("performance.accuracy", feature=""), of("drift.psi"), of("drift.psi", feature="@score"), of("schema.wrong_type")]
    [fired], state = one(b"", found, 1)
    assert (fired.status, fired.finding.measurement.check) == ("firing", "schema.wrong_type")
    assert names(fired) == [
        ("schema.wrong_type", "x"),
        ("drift.psi", "@score"),
        ("drift.psi", "x"),
        ("performance.accuracy", ""),
    ]
    [resolved], _ = one(state, [replace(each, verdict="ok") for each in found], 2)
    assert (resolved.status, resolved.incident_id, names(resolved)) == ("resolved", fired.incident_id, names(fired))


@pytest.mark.parametrize(
    ("found", "root"),
    [
        (["telemetry.gap", "schema.missing_feature", "drift.psi"], "telemetry.gap"),
        (["traffic.low", "health.missing"], "traffic.low"),
        (["health.missing", "drift.psi"], "health.missing"),
        (["health.out_of_range", "drift.psi"], "drift.psi"),  # a shift of good values does both
        (["health.constant", "drift.psi"], "health.constant"),
        (["drift.js", "performance.auc"], "drift.js"),
    ],
)
def test_the_root_is_the_finding_nearest_to_the_source(found: list[str], root: str) -> None:
    for order in (found, found[::-1]):
        [fired], _ = one(b"", [of(check) for check in order], 1)
        assert fired.finding.measurement.check == root


def test_a_notice_is_the_root_of_nothing_worse_and_the_incident_is_as_severe_as_its_worst_finding() -> None:
    [fired], _ = one(
        b"", [of("schema.unexpected_feature", severity="notice", feature=""), of("drift.psi", severity="critical")], 1
    )
    assert (fired.finding.measurement.check, fired.severity) == ("drift.psi", "critical")
    [fired], _ = one(b"", [of("health.missing"), of("drift.psi", severity="critical", feature="y")], 1)
    assert (fired.finding.measurement.check, fired.severity) == ("health.missing", "critical")


def test_of_equal_findings_the_root_is_the_one_with_the_largest_value() -> None:
    [fired], _ = one(b"", [of("drift.psi", feature=name, value=value) for name, value in (("a", 0.3), ("b", 0.9), ("c", 0.5))], 1)
    assert fired.finding.measurement.feature == "b"


def quiet(*found: Finding) -> list[Finding]:
    return [replace(each, verdict="ok") for each in found]


@pytest.mark.parametrize(
    ("later", "is_told"),
    [
        (of("drift.psi"), False),  # the same feature
        (of("drift.psi", feature="x#length"), False),
        (of("drift.psi", segment="DE"), False),
        (of("drift.psi", feature="@score"), False),  # an output, downstream
        (of("performance.accuracy", feature=""), False),
        (of("segments.drift", feature=""), False),
        (of("drift.psi", feature="y"), True),  # another feature
        (of("traffic.low", feature=""), True),  # upstream
    ],
)
def test_what_follows_from_an_open_incident_is_part_of_it(later: Finding, is_told: bool) -> None:
    first = of("health.missing")
    [fired], state = one(b"", [first, *quiet(later)], 1)
    transitions, state = one(state, [first, later], 2)
    assert [t.incident_id == fired.incident_id for t in transitions] == ([False] if is_told else [])
    transitions, state = one(state, [*quiet(first), later], 3)
    assert [t.status for t in transitions] == (["resolved"] if is_told else [])  # an incident ends with the last of its findings
    transitions, state = one(state, quiet(first, later), 4)
    assert [t.status for t in transitions] == ["resolved"]


def test_a_more_severe_finding_of_an_open_incident_fires_again_under_its_id() -> None:
    first, later = of("health.missing"), of("drift.psi", severity="critical", routes=("page",))
    [fired], state = one(b"", [first, *quiet(later)], 1)
    [worse], state = one(state, [first, later], 2)
    assert (worse.status, worse.incident_id, worse.severity, worse.escalations) == ("firing", fired.incident_id, "critical", 1)
    assert (worse.finding.measurement.check, worse.routes) == ("health.missing", ("page",))
    assert worse.cause is not None
    assert worse.cause.measurement.check == "drift.psi"
    assert one(state, [first, later], 3)[0] == []
    [resolved], _ = one(one(state, [first, later], 3)[1], quiet(first, later), 4)
    assert (resolved.severity, resolved.routes) == ("critical", ("page",))


def test_a_finding_that_becomes_more_severe_fires_its_incident_again_and_once_only() -> None:
    def graded(verdict: str, severity: Severity, *mutes: Mute) -> Finding:
        return replace(finding(verdict), severity=severity, rule=Rule(mutes=mutes))

    [fired], state = one(b"", [graded("b", "notice")], 0)
    [worse], state = one(state, [graded("b", "critical")], 1)
    assert (worse.status, worse.incident_id, worse.severity, worse.escalations) == ("firing", fired.incident_id, "critical", 1)
    assert worse.cause == graded("b", "critical")
    assert open_severities(DecisionState.load(state)) == {"critical"}
    for at, severity in ((2, "warning"), (3, "critical")):
        told, state = one(state, [graded("b", severity)], at)  # type: ignore[arg-type]
        assert told == []
    [resolved], _ = one(state, [graded(".", "notice")], 4)
    assert (resolved.severity, resolved.members[0].severity, resolved.is_flapping) == ("critical", "critical", False)
    _, state = one(b"", [graded("b", "notice")], 0)
    assert one(state, [graded("b", "critical", Mute(from_ms=0, to_ms=10))], 1)[0] == []


def test_a_storm_takes_in_further_features_with_the_same_finding() -> None:
    def found(n: int) -> list[Finding]:
        return [of("health.missing", "b" if i < n else ".", feature=f"f{i}") for i in range(8)]

    for n, is_told in ((4, True), (5, False)):
        _, state = one(b"", found(n), 1)
        transitions, _ = one(state, found(n + 2), 2)
        assert len(transitions) == is_told


def test_owner_is_of_the_root_and_routes_are_of_all() -> None:
    found = [of("drift.psi", owner="risk", routes=("chat", "mail")), of("health.missing", owner="data", routes=("chat", "page"))]
    [fired], _ = one(b"", found, 1)
    assert (fired.owner, fired.routes) == ("data", ("chat", "mail", "page"))


def test_what_version_2_wrote_goes_on() -> None:
    track = [2, 0, "id-x", 7, "warning"]
    written = b"\x02" + msgspec.msgpack.encode(
        {'["drift.psi","all","x"]': track, '["drift.js","all","x"]': [1, 0, "", 0, "notice"]}
    )
    state = DecisionState.load(written)
    assert open_severities(state) == {"warning"}
    transitions, after = one(written, [finding("b")], 8)
    assert transitions == []
    [resolved], _ = one(after, [finding(".")], 9)
    assert (resolved.incident_id, resolved.opened_ms, names(resolved)) == ("id-x", 7, [("drift.psi", "x")])


def test_version_3_is_read_as_it_was_written() -> None:
    """The bytes are of the first program that wrote them; they never change."""
    written = bytes.fromhex(WRITTEN_3)
    state = DecisionState.load(written)
    assert state.to_bytes() == written
    assert state.incidents[1].id == "id-x-1"
    assert [track.incident for track in state.tracks.values()] == [0, 1, 1]
    assert state.values == {'["drift.psi","all","x"]': [(0.1, 0.05, 100), (0.2, None, 7)]}


def test_an_incident_that_ends_with_a_window_takes_nothing_in_that_opens_with_it() -> None:
    first, later = of("health.missing"), of("drift.psi")
    [fired], state = one(b"", [first, *quiet(later)], 1)
    transitions, _ = one(state, [*quiet(first), later], 2)
    assert [(t.status, t.incident_id == fired.incident_id) for t in transitions] == [("resolved", True), ("firing", False)]
