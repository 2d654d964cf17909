"""What another policy would have told: the measurements of published results, judged anew by the code that judges them live.

Reports of performance are judged in the order of their ages, later ones of a window after earlier ones, so that what was restated live
is restated here too.

Judged by the policies that were in force, results give the alerts that were published, but for what a result does not keep: `why` and
`evidence`. They have to begin where the model version's state began; results that start later lack what was open or counted before.
Tests over several windows are those that were made live, of the windows that the live rules had left in. Looks into open windows are not
taken again: by the rules that were in force closes confirm what was told early, by others they are judged alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec

from monitor.alerts import Alert, WindowFacts
from monitor.decision.distributions import MEASURED_FOR_RULES
from monitor.errors import InputError
from monitor.findings import Measurement
from monitor.judgement.performance import ClosedOutcomes, figures_of, judge_performance
from monitor.judgement.windows import Before, judge_measurements
from monitor.performance import Needed
from monitor.performance.measure import ANY
from monitor.policy import Policies
from monitor.results.performance import PerformanceResult, facts_of
from monitor.results.windows import Result, measurements_of
from monitor.segments import ALL
from monitor.stages.merge.final_rows import MAX_EMPTY_WINDOWS
from monitor.stages.merge.performance_chain import Case, reported, restate
from monitor.stages.merge.performance_rows import Reported
from monitor.told_early import told_of_results
from monitor.windows import Window, WindowSpec


class JudgedWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One window of one model version, from the results of its segments."""

    facts: WindowFacts
    measurements: list[Measurement]
    unmeasured: tuple[tuple[str, str], ...]
    """(check, segment) that no live rule was for, so that they were not measured: they cannot be judged. Check "": all of them."""
    policy: str
    """sha256 of the rules that were in force."""
    early: bytes = b""
    """What was told of it while it was open."""


class KnownIncident(NamedTuple):
    """Something that is known to have been wrong: of any version, and of any feature, where none is named."""

    model: str
    from_ms: int
    to_ms: int
    version: str | None = None
    feature: str | None = None
    name: str = ""

    def is_told_by(self, alert: Alert) -> bool:
        """Whether an alert's window has events of its time, and the alert is about it."""
        data = alert.data
        return (
            data.model == self.model
            and self.version in (None, data.version)
            and data.window.start_ms < self.to_ms
            and self.from_ms < data.window.end_ms
            and (self.feature is None or self.feature in {data.feature, *(member.feature for member in data.members)})
        )


@dataclass(slots=True)
class Backtest:
    """What policies would have told of windows."""

    alerts: list[Alert] = field(default_factory=list)
    """Firing and resolved, in the order of windows."""
    windows: int = 0
    changed: int = 0
    """Windows whose rules in force are others than live."""
    unmeasured: set[str] = field(default_factory=set)
    """Segments that a rule is for and the results have no measurements of, or not of its check."""

    @property
    def fired(self) -> list[Alert]:
        """The alerts with which incidents opened; what a revision only restates opened before."""
        return [
            one for one in self.alerts if one.data.status == "firing" and not one.data.escalations and one.data.supersedes is None
        ]

    def and_of(self, other: Backtest) -> Backtest:
        """Return what both tell."""
        counts = self.windows + other.windows, self.changed + other.changed
        return Backtest([*self.alerts, *other.alerts], *counts, self.unmeasured | other.unmeasured)


def read_results(lines: Iterable[bytes]) -> list[JudgedWindow]:
    """Return the windows of result records, in the order in which they were judged; the newest revision of each. Raises InputError.

    Reports of performance are left out: `read_reports` returns them.
    """
    by_window: dict[tuple[str, str, Window], dict[str, Result]] = {}
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            if b'"performance"' in line and _decode_kind(line).type == "performance":
                continue
            result = _decode(line)
        except msgspec.DecodeError as error:
            raise InputError(f"line {i + 1} is no result record of this version: {error}") from error
        w = result.window
        of_window = by_window.setdefault((result.model, result.version, Window(w.end_ms, w.size_ms, w.step_ms)), {})
        known = of_window.get(result.segment)
        if known is None or result.revision >= known.revision:
            of_window[result.segment] = result
    found = [_window(key, of_window) for key, of_window in by_window.items() if ALL in of_window]
    return sorted(found, key=lambda w: (w.facts.window, w.facts.model, w.facts.version))


class Report(NamedTuple):
    """What was known of a model version's performance in a window at some time: the records of its segments, all rows first."""

    records: list[PerformanceResult]

    @property
    def whole(self) -> PerformanceResult:
        """The record of all rows."""
        return self.records[0]

    @property
    def window(self) -> Window:
        """Its window."""
        w = self.whole.window
        return Window(w.end_ms, w.size_ms, w.step_ms)


def read_reports(lines: Iterable[bytes]) -> list[Report]:
    """Return the reports of performance among result records, as they were made: by age, then by window. Raises InputError.

    What was published again of the same labels, because windows before it were restated, is no report: to judge finds it again.
    """
    found: dict[tuple[int, Window, str, str], dict[str, PerformanceResult]] = {}
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            if b'"performance"' not in line or _decode_kind(line).type != "performance":
                continue
            record = _decode_performance(line)
        except msgspec.DecodeError as error:
            raise InputError(f"line {i + 1} is no report of performance of this version: {error}") from error
        w = record.window
        key = (record.as_of_ms, Window(w.end_ms, w.size_ms, w.step_ms), record.model, record.version)
        of_report = found.setdefault(key, {})
        known = of_report.get(record.segment)
        if known is None or record.revision < known.revision:
            of_report[record.segment] = record
    whole = [(key, by_segment) for key, by_segment in sorted(found.items(), key=lambda item: item[0]) if ALL in by_segment]
    return [Report([by_segment.pop(ALL), *by_segment.values()]) for _, by_segment in whole]


class _Kind(msgspec.Struct):
    type: str = ""


_decode_kind = msgspec.json.Decoder(_Kind).decode
_decode = msgspec.json.Decoder(Result).decode
_decode_performance = msgspec.json.Decoder(PerformanceResult).decode
_decode_alert = msgspec.json.Decoder(Alert).decode


def _window(key: tuple[str, str, Window], of_window: dict[str, Result]) -> JudgedWindow:
    model, version, window = key
    whole = of_window[ALL]
    known = whole.n + whole.rows_other_layout + whole.lost_offsets
    facts = WindowFacts(
        model,
        version,
        window,
        whole.revision,
        completeness=whole.n / known if known else 1.0,
        late_dropped=whole.stream.late if whole.stream is not None else 0,
        reference_sha256=whole.reference,
        source_offsets=whole.source_offsets,
        views={name: (feature.feature, feature.view) for name, feature in whole.features.items()},
        is_complete=whole.reference is not None and whole.n > 0,
        design_effects=whole.design_effects,
    )
    return JudgedWindow(
        facts=facts,
        measurements=[one for name, result in of_window.items() for one in measurements_of(result.measurements, name)],
        unmeasured=tuple(at for name, result in of_window.items() for at in _unmeasured(name, result)),
        policy=whole.policy,
        early=told_of_results(whole.early) if whole.early is not msgspec.UNSET else b"",
    )


def _unmeasured(segment: str, result: Result) -> Iterator[tuple[str, str]]:
    if not result.measurements:
        yield "", segment
    elif result.reference is not None:
        yield from ((check, segment) for check in MEASURED_FOR_RULES if check not in result.measurements)


def backtest(windows: Sequence[JudgedWindow], policies: Policies) -> Backtest:
    """Judge windows by policies, each by those that apply at its start."""
    outcome = Backtest()
    states: dict[tuple[str, WindowSpec], _States] = {}
    for at_once in _by_end(windows):
        facts = at_once[0].facts
        of_model = states.setdefault((facts.model, facts.window.spec), _States())
        for window in at_once:
            facts, rules = window.facts, policies.at(window.facts.window.start_ms)
            early = window.early if rules.sha256 == window.policy else b""
            before = Before(of_model.before(facts.version), early=early)
            decided = judge_measurements(facts, window.measurements, before, rules, why=lambda _: [])
            of_model.after(facts.version, decided.after)
            outcome.alerts += [_decode_alert(value) for _, value in decided.alerts]
            outcome.windows += 1
            outcome.changed += rules.sha256 != window.policy
            outcome.unmeasured |= {
                name for check, name in window.unmeasured if (rules.minds_with(check, name) if check else rules.minds(name))
            }
        of_model.end_window()
    return outcome


def backtest_reports(reports: Sequence[Report], policies: Policies, needed: Callable[[str], Needed] = lambda _: ANY) -> Backtest:
    """Judge reports of performance as stage 2 does, each by the policies that apply at its window's start, and what follows it anew.

    reports: of one model version all, in the order of `read_reports`. needed: model → what it takes to judge.
    """
    outcome = Backtest()
    chains: dict[tuple[str, str, WindowSpec], _Reports] = {}
    for (model, version, _, spec), together in _at_once(reports).items():
        chain = chains.setdefault((model, version, spec), _Reports(model, version, outcome, policies, needed(model)))
        chain.take(together)
    return outcome


@dataclass(slots=True)
class _Reports:
    """Reports of one model version and kind of window, as they are judged."""

    model: str
    version: str
    outcome: Backtest
    policies: Policies
    needed: Needed
    chain: dict[Window, Reported] = field(default_factory=dict)

    def take(self, together: Mapping[Window, Report]) -> None:
        """Take in what was reported at one age."""
        restate(dict(self.chain), together.keys(), lambda case: self._judged(case, together.get(case.window)))

    def _judged(self, case: Case, report: Report | None) -> Reported:
        """report: None where only the state before the window is another one."""
        rules, old = self.policies.at(case.window.start_ms), case.old
        figures, as_of_ms, revision = old.figures, old.as_of_ms, old.revision + 1
        if report is not None:
            whole = report.whole
            figures = figures_of(whole.reference or "", [facts_of(record) for record in report.records], rules, self.needed)
            as_of_ms = whole.as_of_ms
            if not old.is_published:
                revision = whole.revision  # compaction may have taken earlier ones
            self.outcome.windows += not old.is_published
            self.outcome.changed += rules.sha256 != whole.policy
        closed = ClosedOutcomes(
            self.model, self.version, case.window, as_of_ms, False, None, figures,
            revision=revision, said=old.said, latest=case.latest,
        )  # fmt: skip
        judgement = judge_performance(closed, case.before, rules)
        made = self.chain[case.window] = reported(closed, case, judgement)
        if made.revision > old.revision:
            self.outcome.alerts += [_decode_alert(value) for _, value in judgement.alerts]
        return made


def _at_once(reports: Sequence[Report]) -> dict[tuple[str, str, int, WindowSpec], dict[Window, Report]]:
    """Return the reports that were made together, by model, version, age and kind of window; in order."""
    found: dict[tuple[str, str, int, WindowSpec], dict[Window, Report]] = {}
    for report in reports:
        whole = report.whole
        found.setdefault((whole.model, whole.version, whole.as_of_ms, report.window.spec), {})[report.window] = report
    return found


def _by_end(windows: Sequence[JudgedWindow]) -> Iterator[list[JudgedWindow]]:
    """Yield the windows of all versions of a model with the same bounds."""
    together: list[JudgedWindow] = []
    for window in windows:
        if together and (together[0].facts.window, together[0].facts.model) != (window.facts.window, window.facts.model):
            yield together
            together = []
        together.append(window)
    if together:
        yield together


@dataclass(slots=True)
class _States:
    """Decision states by version, kept as stage 2 keeps them: through a number of windows that have nothing of a version."""

    _after: dict[str, bytes] = field(default_factory=dict)
    _unseen: dict[str, int] = field(default_factory=dict)
    _judged: set[str] = field(default_factory=set)

    def before(self, version: str) -> bytes:
        return self._after.get(version, b"")

    def after(self, version: str, state: bytes) -> None:
        self._after[version] = state
        self._judged.add(version)

    def end_window(self) -> None:
        for version in list(self._after):
            self._unseen[version] = 0 if version in self._judged else self._unseen.get(version, 0) + 1
            if self._unseen[version] > MAX_EMPTY_WINDOWS:
                del self._after[version]
        self._judged.clear()


class Difference(NamedTuple):
    """One alert, and which of two policies tells it. alert: as the new one tells it, if it does."""

    change: Literal["added", "removed", "changed", "kept"]
    alert: Alert


def differences(old: Backtest, new: Backtest) -> list[Difference]:
    """Return all alerts of both by window; `changed`: of the same id, with another severity or other members."""
    before, after = ({alert.id: alert for alert in each.alerts} for each in (old, new))
    found = [Difference("removed", alert) for id_, alert in before.items() if id_ not in after]
    for id_, alert in after.items():
        if id_ not in before:
            found.append(Difference("added", alert))
        else:
            found.append(Difference("kept" if _content(alert) == _content(before[id_]) else "changed", alert))
    return sorted(found, key=lambda one: (one.alert.data.window.end_ms, one.alert.data.model, one.alert.id))


def _content(alert: Alert) -> object:
    members = [(one.check, one.feature, one.segment, one.over, one.severity) for one in alert.data.members]
    return alert.data.severity, alert.data.check, alert.data.feature, alert.data.routes, sorted(members, key=str)


class Score(NamedTuple):
    """Alerts beside known incidents."""

    fired: int
    right: int
    """Fired alerts that a known incident explains."""
    known: int
    found: int
    """Known incidents that an alert tells of."""
    missed: list[KnownIncident]
    delays_ms: list[int]
    """Of the found ones: from their beginning to the end of the first window that told."""

    @property
    def precision(self) -> float | None:
        """Share of the fired alerts that are right; None where none fired."""
        return self.right / self.fired if self.fired else None

    @property
    def recall(self) -> float | None:
        """Share of the known incidents that were found; None where none is known."""
        return self.found / self.known if self.known else None


def score(outcome: Backtest, known: Sequence[KnownIncident]) -> Score:
    """Compare what fired with what is known to have been wrong. An alert that only got worse is not counted again."""
    fired = outcome.fired
    telling = {i: [a for a in outcome.alerts if a.data.status == "firing" and one.is_told_by(a)] for i, one in enumerate(known)}
    return Score(
        fired=len(fired),
        right=sum(any(one.is_told_by(alert) for one in known) for alert in fired),
        known=len(known),
        found=sum(map(bool, telling.values())),
        missed=[one for i, one in enumerate(known) if not telling[i]],
        delays_ms=[min(a.data.window.end_ms for a in told) - known[i].from_ms for i, told in telling.items() if told],
    )
