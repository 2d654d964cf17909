"""From an event to an alert, on one page.

    records ─ decode ─▶ columns ─ profile per pane ─▶ partial ─▶ sealed pane ─▶ final window ─ judge ─▶ result, alerts
    `formats`            `stages.ingest`, per source partition     `stages.merge`, per model    here

Labels meet their predictions by id: ingest tells `outcomes` of both, `stages.join` tells merge what became known of each pane.
All stages are pure state machines over one partition's log; the runtime (Faust), the replay and the tests drive the same objects.
Nothing here reads a clock, a broker or a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, Unpack

from msgspec.structs import replace

from monitor.alerts import facts_of
from monitor.checks import CHECKS, WHOLE_CHECKS
from monitor.decision.distributions import Distributions
from monitor.decision.early import OpenWindow
from monitor.distances import with_eps
from monitor.findings import ClosedWindow, Judgement, gather
from monitor.formats import Format
from monitor.judgement import looks
from monitor.judgement.performance import ClosedOutcomes, PerformanceJudgement, judge_performance
from monitor.judgement.windows import Before, judge_measurements
from monitor.policy import Policies, RuleSet
from monitor.ports import PartitionStage, Pending
from monitor.reasons import reasons
from monitor.reference import References
from monitor.results.operation import operation_of
from monitor.results.windows import result_record
from monitor.segments import ALL
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.ingest.waiting import Waiting
from monitor.stages.join.partition import JoinPartition
from monitor.stages.merge.partition import MergePartition
from monitor.stages.settings import Settings


class Owner(TypedDict, total=False):
    """Who owns a partition: generation of the group, 1 if left out; what the changelog holds; the topic's id; the time."""

    epoch: int
    rows: Iterable[tuple[bytes, bytes]]
    topic_id: str | None
    now_ms: int


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages of one application, composed; owns no state.

    formats: of each source topic. references, policies: filled by whoever reads their topics or files. waiting: of all source partitions.
    """

    settings: Settings
    formats: Mapping[str, Format]
    policies: Policies = field(default_factory=Policies)
    references: References = field(default_factory=References)
    waiting: Waiting = field(default_factory=Waiting)

    def ingest(self, topic: str, partition: int, *, partitions: int, **owner: Unpack[Owner]) -> PartitionStage:
        """Stage 1 of one source partition: events → partial profiles and a watermark; what the join is to know of them."""
        owner.setdefault("epoch", 1)
        wire, known = self.formats[topic], self.references
        return IngestPartition(
            self.settings, topic, partition, partitions=partitions, wire=wire, references=known, waiting=self.waiting, **owner
        )

    def merge(self, partition: int, *, topology: Mapping[str, int], **owner: Unpack[Owner]) -> MergePartition:
        """Stage 2 of one partition of `partials`: partial profiles and outcomes → final windows, results, alerts.

        topology: partitions of every source of predictions.
        """
        owner.setdefault("epoch", 1)
        return MergePartition(
            self.settings,
            partition,
            topology=topology,
            judge=self.judge,
            judge_performance=self.judge_performance,
            look=self.look,
            references=self.references,
            **owner,
        )

    def join(self, partition: int, *, topology: Mapping[str, int], pending: Pending, **owner: Unpack[Owner]) -> JoinPartition:
        """The join of one partition of `outcomes`: predictions and labels → what became known of each pane.

        topology: partitions of every source, of labels too. pending: where entries of ids are kept.
        """
        owner.setdefault("epoch", 1)
        return JoinPartition(self.settings, partition, topology=topology, references=self.references, pending=pending, **owner)

    def judge(self, closed: ClosedWindow, before: bytes, history: Sequence[bytes] = ()) -> Judgement:
        """Say what a final window means, given the decision state before it and what is kept of the windows before it."""
        return judge_window(closed, before, self.policies.at(closed.window.start_ms), history)

    def judge_performance(self, closed: ClosedOutcomes, before: bytes) -> PerformanceJudgement:
        """Say how the model did in a window as far as its labels are known, given the decision state before it."""
        needed = self.settings.model(closed.model).needed
        return judge_performance(closed, before, self.policies.at(closed.window.start_ms), needed)

    def look(self, window: OpenWindow, newest: Callable[[int], ClosedWindow], before: looks.Before) -> looks.Looked:
        """Say what there is to tell of a window while it is open. newest: returns its newest rows, at least so many."""
        return looks.look_window(window, newest, before, self.policies.at(window.closed.window.start_ms))


def judge_window(closed: ClosedWindow, before: bytes, rules: RuleSet, history: Sequence[bytes] = ()) -> Judgement:
    """Measure a window, decide which measurements are bad, and follow the incidents that they open and close.

    history: `Judgement.tallies` of the windows before it, newest first. A function of its arguments: two owners publish the same bytes.
    """
    registry = with_eps(rules.psi_eps)
    evidence = {name: gather(closed, i, registry) for i, name in enumerate(closed.profile.layout.segments)}
    measured = [
        measurement if name == ALL else replace(measurement, segment=name)
        for name, of_segment in evidence.items()
        if name == ALL or rules.minds(name)
        for check in (CHECKS + WHOLE_CHECKS if name == ALL else CHECKS)
        for measurement in check(of_segment)
    ]
    distributions = Distributions(closed, rules)
    measured += distributions.measured(evidence, history)
    facts = facts_of(evidence[ALL])
    decided = judge_measurements(
        facts,
        measured,
        Before(before, closed.said, closed.latest, closed.early),
        rules,
        why=lambda finding: reasons(evidence.get(finding.measurement.segment, evidence[ALL]), finding),
    )
    return Judgement(
        results=tuple(
            result_record(of_segment, measured, decided.findings, decided.incidents, rules) for of_segment in evidence.values()
        ),
        alerts=decided.alerts,
        after=decided.after,
        alert_severities=tuple(t.severity for t in decided.told if t.status == "firing" and not t.supersedes),
        is_alarmed=decided.is_alarmed,
        said=decided.said,
        is_news=decided.is_news,
        tallies=distributions.kept(decided.alone),
        operation=operation_of(closed, facts.design_effects) if closed.profile.n else b"",
    )
