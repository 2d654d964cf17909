"""What another policy would have told: the measurements of published results, judged anew by the code that judges them live.

Reports of performance are judged in the order of their ages, later ones of a window after earlier ones, so that what was restated live
is restated here too.

Judged by the policies that were in force, results give the alerts that were published, but for what a result does not keep: `why` and
`evidence`. They have to begin where the model version's state began; results that start later lack what was open or counted before.
Tests over several windows are those that were made live, of the windows that the live rules had left in. Looks into open windows are
judged anew from what they published, in their place between the closes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from monitor.alerts import Alert
from monitor.backtest.records import JudgedLook, JudgedWindow, Report
from monitor.decision.early import SHOWN, shown_p
from monitor.judgement.looks import Before as BeforeLook
from monitor.judgement.looks import judge_look
from monitor.judgement.performance import ClosedOutcomes, figures_of, judge_performance
from monitor.judgement.windows import Before, judge_measurements
from monitor.performance import Needed
from monitor.performance.measure import ANY
from monitor.policy import Policies, RuleSet
from monitor.results.performance import facts_of
from monitor.stages.merge.final_rows import MAX_EMPTY_WINDOWS
from monitor.stages.merge.performance_chain import Case, reported, restate
from monitor.stages.merge.performance_rows import Reported
from monitor.windows import EARLY_ABOVE_MS, Window, WindowSpec, early_specs


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
    hidden: int = 0
    """Windows that looks may have seen more of than they published: the rules' budget believes what the live ones need not have."""

    @property
    def fired(self) -> list[Alert]:
        """The alerts with which incidents opened; what a revision only restates opened before."""
        return [
            one for one in self.alerts if one.data.status == "firing" and not one.data.escalations and one.data.supersedes is None
        ]

    def and_of(self, other: Backtest) -> Backtest:
        """Return what both tell."""
        alerts, unmeasured = [*self.alerts, *other.alerts], self.unmeasured | other.unmeasured
        return Backtest(
            alerts, self.windows + other.windows, self.changed + other.changed, unmeasured, self.hidden + other.hidden
        )


_decode_alert = msgspec.json.Decoder(Alert).decode


def backtest(windows: Sequence[JudgedWindow], policies: Policies, looks: Sequence[JudgedLook] = ()) -> Backtest:
    """Judge windows, and the looks into each before its close, by the policies that apply at its start.

    windows, looks: in the order of `read_results` and `read_looks`. A window that no look of is there of was told what its result says.
    """
    outcome = Backtest()
    states: dict[tuple[str, WindowSpec], _States] = {}
    for (end, model), (closes, of_window) in _by_end(windows, looks).items():
        of_model, rules = states.setdefault((model, end.spec), _States()), policies.at(end.start_ms)
        told = _looked(of_window, of_model, rules, outcome)
        for window in closes:
            facts, was_live = window.facts, rules.sha256 == window.policy
            early = told.get(facts.version, window.early if was_live else b"")
            before = Before(of_model.before(facts.version), early=early)
            decided = judge_measurements(facts, window.measurements, before, rules, why=lambda _: [])
            of_model.after(facts.version, decided.after)
            outcome.alerts += [_decode_alert(value) for _, value in decided.alerts]
            outcome.windows += 1
            outcome.changed += not was_live
            outcome.hidden += not was_live and _may_hide(rules, end.spec)
            outcome.unmeasured |= {
                name for check, name in window.unmeasured if (rules.minds_with(check, name) if check else rules.minds(name))
            }
        if closes:
            of_model.end_window()
    return outcome


def _looked(looks: Sequence[JudgedLook], of_model: _States, rules: RuleSet, outcome: Backtest) -> dict[str, bytes]:
    """Judge the looks into a window; return what was told by version, of those that were looked at."""
    told: dict[str, bytes] = {}
    for seen, _ in looks:
        version = seen.version
        before = BeforeLook(of_model.before(version), told=told.get(version, b""))
        looked = judge_look(seen, before, rules.of(seen.window.spec), why=lambda _: [])
        outcome.alerts += [_decode_alert(value) for _, value in looked.alerts]
        told[version] = looked.told or before.told
    return told


def _may_hide(rules: RuleSet, spec: WindowSpec) -> bool:
    """Whether rules believe what looks need not have published of windows that are looked at."""
    return bool(early_specs((spec,), EARLY_ABOVE_MS)) and shown_p(rules.of(spec), spec) > SHOWN


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


def _by_end(
    windows: Sequence[JudgedWindow], looks: Sequence[JudgedLook]
) -> dict[tuple[Window, str], tuple[list[JudgedWindow], list[JudgedLook]]]:
    """Return by (window, model) what is known of all versions: closes, and looks into it; by end."""
    found: dict[tuple[Window, str], tuple[list[JudgedWindow], list[JudgedLook]]] = {}
    for close in windows:
        found.setdefault((close.facts.window, close.facts.model), ([], []))[0].append(close)
    for look in looks:
        found.setdefault((look.seen.window, look.seen.model), ([], []))[1].append(look)
    return dict(sorted(found.items(), key=lambda item: item[0]))


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
