"""From an event to an alert, on one page.

    records ─ decode ─▶ columns ─ profile per pane ─▶ partial ─▶ sealed pane ─▶ final window ─ judge ─▶ result, alerts
    `formats`            `stages.ingest`, per source partition     `stages.merge`, per model    here

Both stages are pure state machines over one partition's log; the runtime (Faust), the replay and the tests drive the same objects.
Nothing here reads a clock, a broker or a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from monitor.alerts import facts_of, reasons
from monitor.checks import CHECKS, WHOLE_CHECKS
from monitor.decision.distributions import Distributions
from monitor.distances import DISTANCES, Distance, with_eps
from monitor.findings import ClosedWindow, Evidence, Judgement, compare, measure, reference_segment
from monitor.formats import Format
from monitor.judgement import Before, judge_measurements
from monitor.policy import Policies, RuleSet
from monitor.ports import PartitionStage
from monitor.reference import References
from monitor.results import result_record
from monitor.segments import ALL
from monitor.stages.ingest import IngestPartition
from monitor.stages.merge import MergePartition
from monitor.stages.settings import Settings
from monitor.stages.waiting import Waiting

Rows = Iterable[tuple[bytes, bytes]]


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

    def ingest(
        self,
        topic: str,
        partition: int,
        *,
        partitions: int,
        epoch: int = 1,
        rows: Rows = (),
        topic_id: str | None = None,
        now_ms: int = 0,
    ) -> PartitionStage:
        """Stage 1 of one source partition: events → partial profiles and a watermark."""
        return IngestPartition(
            self.settings,
            topic,
            partition,
            partitions=partitions,
            epoch=epoch,
            wire=self.formats[topic],
            references=self.references,
            rows=rows,
            topic_id=topic_id,
            now_ms=now_ms,
            waiting=self.waiting,
        )

    def merge(
        self,
        partition: int,
        *,
        topology: Mapping[str, int],
        epoch: int = 1,
        rows: Rows = (),
        topic_id: str | None = None,
        now_ms: int = 0,
    ) -> MergePartition:
        """Stage 2 of one partition of `partials`: partial profiles → final windows, results, alerts.

        topology: partitions of every source of predictions.
        """
        return MergePartition(
            self.settings,
            partition,
            topology=topology,
            epoch=epoch,
            judge=self.judge,
            references=self.references,
            rows=rows,
            topic_id=topic_id,
            now_ms=now_ms,
        )

    def judge(self, closed: ClosedWindow, before: bytes, history: Sequence[bytes] = ()) -> Judgement:
        """Say what a final window means, given the decision state before it and what is kept of the windows before it."""
        return judge_window(closed, before, self.policies.at(closed.window.start_ms), history)


def judge_window(closed: ClosedWindow, before: bytes, rules: RuleSet, history: Sequence[bytes] = ()) -> Judgement:
    """Measure a window, decide which measurements are bad, and follow the incidents that they open and close.

    history: `Judgement.tallies` of the windows before it, newest first. A function of its arguments: two owners publish the same bytes.
    """
    registry = with_eps(rules.psi_eps)
    evidence = {name: gather(closed, i, registry) for i, name in enumerate(closed.profile.layout.segments)}
    measured = [
        measurement._replace(segment=name)
        for name, of_segment in evidence.items()
        if name == ALL or rules.minds(name)
        for check in (CHECKS + WHOLE_CHECKS if name == ALL else CHECKS)
        for measurement in check(of_segment)
    ]
    distributions = Distributions(closed, rules)
    measured += distributions.measured(evidence, history)
    decided = judge_measurements(
        facts_of(evidence[ALL]),
        measured,
        Before(before, closed.said, closed.latest),
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
    )


def gather(closed: ClosedWindow, segment: int = 0, registry: tuple[Distance, ...] = DISTANCES) -> Evidence:
    """Put every feature of a segment of a window next to its reference, with all distances."""
    features = compare(closed, segment)
    profile, reference = closed.profile, closed.reference
    name, n = profile.layout.segments[segment], int(profile.rows[segment])
    n_ref = int(reference.profile.rows[reference_segment(closed, segment)]) if reference else 0
    return Evidence(closed, name, n, n_ref, features, measure(features, registry), registry)
