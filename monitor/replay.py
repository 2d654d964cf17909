"""The same stages on files of events and labels, with no broker: what a live run would have published.

The result and alert records are those of a live run of the same records, byte for byte (`source_offsets` aside), as long as no clock of
a silent partition had to move in that run. Without partitions and record timestamps, what depends on these differs (`stream`). A
reference that is learnt on the way applies from its event time on, as it does live where no partition is more than the lead ahead of the
slowest one when the last window that it is learnt from ends; in a backfill, which is faster than its references travel, later windows may
still have none. Reports of performance are those of a live run where no record comes later than grace after its time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

from monitor.formats import Format
from monitor.hash_key import NO_KEY, HashKey
from monitor.ports import Message, PartitionStage, StoredRecord
from monitor.reference import Reference, References
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.join.memory_pending import MemoryPending
from monitor.stages.join.partition import JoinPartition
from monitor.stages.merge.early_looks import Look
from monitor.stages.merge.final_windows import Judge
from monitor.stages.merge.partition import MergePartition
from monitor.stages.merge.performance_windows import JudgePerformance
from monitor.stages.settings import Labelling, Settings, SourceSettings
from monitor.windows import NEVER_MS

BATCH_ROWS = 5_000
_LATER_MS = 1 << 61


@dataclass
class ReplayOutcome:
    """What a replay published, as (key, value), and what became of every record.

    references: those that were learnt. reports: of performance, among the results. joined: what became of predictions and labels, see
    stages.joining.COUNT_NAMES and, of what cannot be joined, stages.outcome_rows.
    counted + revised + duplicate + late + rejected + dropped + ticks + labels = produced. open_rows: rows in windows that did not close.
    """

    results: list[tuple[bytes, bytes]] = field(default_factory=list)
    alerts: list[tuple[bytes, bytes]] = field(default_factory=list)
    references: list[tuple[bytes, bytes]] = field(default_factory=list)
    dead_letters: list[Message] = field(default_factory=list)
    produced: int = 0
    counted: int = 0
    late: int = 0
    revised: int = 0
    duplicate: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    ticks: int = 0
    labels: int = 0
    open_panes: int = 0
    revisions: int = 0
    reports: int = 0
    joined: dict[str, int] = field(default_factory=dict)
    alert_severities: Counter[str] = field(default_factory=Counter)


Events = Iterable[tuple[int, StoredRecord]]
"""(partition, record) pairs, offsets rising by partition; iterable twice."""


class Labels(NamedTuple):
    """A source of labels. topic: one of the application's, or any name. has_timestamps: whether record timestamps mean something."""

    records: Events
    wire: Format
    judge: JudgePerformance
    topic: str = "labels"
    has_timestamps: bool = True


class _Source:
    """One topic: its stages by partition, and what waits to be fed to them."""

    def __init__(self, topic: str, records: Events, make: Callable[[str, int], IngestPartition]) -> None:
        self._topic = topic
        self._records = iter(records)
        self._make = make
        self._waiting: dict[int, list[StoredRecord]] = {}
        self.partitions: dict[int, IngestPartition] = {}
        self.is_read = False

    @property
    def clock_ms(self) -> int:
        """How far its slowest partition is; of those that have begun."""
        return min((stage.clock_ms for stage in self.partitions.values()), default=NEVER_MS)

    def read(self) -> Iterator[tuple[IngestPartition, list[StoredRecord]]]:
        """Read some records; yield stages with what is enough to be fed, and with all there is once there are no more."""
        n = 0
        for partition, record in islice(self._records, BATCH_ROWS):
            n += 1
            waiting = self._waiting.setdefault(partition, [])
            waiting.append(record)
            if len(waiting) >= BATCH_ROWS:
                yield self.stage(partition), self._waiting.pop(partition)
        if n < BATCH_ROWS:
            self.is_read = True
            for partition in sorted(self._waiting):
                yield self.stage(partition), self._waiting[partition]
            self._waiting = {}

    def stage(self, partition: int) -> IngestPartition:
        """Return the stage of a partition, a new one where there is none."""
        if partition not in self.partitions:
            self.partitions[partition] = self._make(self._topic, partition)
        return self.partitions[partition]

    def silent(self) -> Iterator[IngestPartition]:
        """Yield new stages of partitions below the highest that had no record, and of the only one where none had any."""
        for partition in set(range(self.n)) - set(self.partitions):
            yield self._make(self._topic, partition)

    @property
    def n(self) -> int:
        """Partitions."""
        return max(self.partitions, default=0) + 1


class Replay:
    """Feeds records of any number of partitions to the stages, in memory.

    settings: of the application; `topic` is one of its sources. judge: see pipeline.judge_window. look: see pipeline.look.
    hash_key: see reference.References. future_guard: whether record timestamps mean something; without them event time alone moves the
    clock. labels: what became known.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        *,
        wire: Format,
        judge: Judge,
        look: Look | None = None,
        references: Sequence[Reference] = (),
        hash_key: HashKey = NO_KEY,
        future_guard: bool = True,
        labels: Labels | None = None,
    ) -> None:
        self._wires = {topic: wire}
        unguarded = [] if future_guard else [topic]
        settings = replace(settings, partials_partitions=1, outcomes_partitions=0, retire_after_ms=0)
        if labels is not None:
            self._wires[labels.topic] = labels.wire
            unguarded += [] if labels.has_timestamps else [labels.topic]
            settings = _with_labels(settings, labels.topic)
        sources = {name: replace(settings.sources[name], max_future_ms=None) for name in unguarded}
        self._settings = replace(settings, sources={**settings.sources, **sources})
        self._topic = topic
        self._judge = judge
        self._labels = labels
        self._look = look
        self._references = References(hash_key)
        for reference in references:
            self._references.add(reference)
        self._begin(())

    def _begin(self, events: Events) -> None:
        given = {self._topic: events} | ({self._labels.topic: self._labels.records} if self._labels else {})
        self._sources = {topic: _Source(topic, records, self._stage) for topic, records in given.items()}
        self._partials: list[StoredRecord] = []
        self._told: list[StoredRecord] = []
        self._outcome = ReplayOutcome()

    def run(self, events: Events, *, end_of_input: bool = False) -> ReplayOutcome:
        """Replay (partition, record) pairs, offsets rising by partition; `end_of_input` closes the windows that are still open.

        Where a reference is learnt, the events are read once more, with that reference known from the start: it applies from its
        event time on, and what comes before is not changed by it. So the events must be iterable twice; raises TypeError if not.
        """
        if isinstance(events, Iterator) or (self._labels and isinstance(self._labels.records, Iterator)):
            raise TypeError("an iterator of events can be read only once; give a list, or an object that makes iterators")
        outcome = self._run_once(events, end_of_input=end_of_input)
        for _, value in outcome.references:
            self._references.add(Reference.from_bytes(value))
        return self._run_once(events, end_of_input=end_of_input) if outcome.references else outcome

    def _run_once(self, events: Events, *, end_of_input: bool) -> ReplayOutcome:
        self._begin(events)
        while reading := [source for source in self._sources.values() if not source.is_read]:
            for stage, records in min(reading, key=lambda source: source.clock_ms).read():
                stage.feed(records, _LATER_MS)
                self._outcome.produced += len(records)
                self._tick(stage)
        for source in self._sources.values():
            for silent in source.silent():
                silent.skip_to(0)
                silent.advance(0, at_end=True)
                self._tick(silent)
        if end_of_input:
            for stage in [stage for source in self._sources.values() for stage in source.partitions.values()]:
                stage.finish_input()
                self._tick(stage, with_watermark=False)
        if self._labels is not None:
            self._join(end_of_input)
        return self._merge(end_of_input)

    def _stage(self, topic: str, partition: int) -> IngestPartition:
        return IngestPartition(
            self._settings,
            topic,
            partition,
            partitions=0,
            epoch=1,
            wire=self._wires[topic],
            references=self._references,
        )

    def _tick(self, stage: PartitionStage, *, with_watermark: bool = True) -> None:
        """Do what the driver does after a batch; nothing can fail in between, so one checkpoint makes all of it durable."""
        checkpoint = stage.checkpoint()
        if checkpoint is not None:
            self._outcome.dead_letters += checkpoint.dead_letters
            self._told += [StoredRecord(len(self._told) + i, 0, m.value) for i, m in enumerate(checkpoint.outcomes)]
            stage.committed(checkpoint)
        while outbox := stage.outbox(0):
            for message in (*outbox.first, *(outbox.then if with_watermark else ())):
                if message.topic == self._settings.topic("partials"):
                    self._partials.append(StoredRecord(len(self._partials), 0, message.value, message.key))
                else:
                    assert message.key is not None and message.value is not None
                    kind = message.topic.removeprefix(self._settings.topic(""))
                    getattr(self._outcome, kind).append((message.key, message.value))
            stage.emitted(outbox, 0)

    def _join(self, end_of_input: bool) -> None:
        """Join what ingest told, in the order in which it was told."""
        topology = {topic: source.n for topic, source in self._sources.items()}
        pending = MemoryPending()
        join = JoinPartition(self._settings, 0, topology=topology, epoch=1, references=self._references, pending=pending)
        join.skip_to(0)
        for start in range(0, len(self._told), 10):
            join.feed(self._told[start : start + 10], _LATER_MS)
            self._tick(join)
        if end_of_input:
            join.finish_input()
            self._tick(join, with_watermark=False)
        pending.is_last = True
        join.feed([StoredRecord(len(self._told), 0, None)], _LATER_MS)
        self._tick(join, with_watermark=not end_of_input)
        for key, n in join.counters().items():
            if key[0] == "outcomes":
                self._outcome.joined[key[2]] = self._outcome.joined.get(key[2], 0) + n

    def _merge(self, end_of_input: bool) -> ReplayOutcome:
        merge = MergePartition(
            self._settings,
            0,
            topology={self._topic: self._sources[self._topic].n},
            epoch=1,
            judge=self._judge,
            look=self._look,
            judge_performance=self._labels.judge if self._labels is not None else None,
            references=self._references,
        )
        for start in range(0, len(self._partials), 100):
            merge.feed(self._partials[start : start + 100], _LATER_MS)
            self._tick(merge)
        if end_of_input:
            merge.finish_input()
            self._tick(merge)
        self._count(merge)
        return self._outcome

    def _count(self, merge: MergePartition) -> None:
        outcome = self._outcome
        for source in self._sources.values():
            for stage in source.partitions.values():
                self._count_ingest(stage)
        for key, n in merge.counters().items():
            if key[0] == "events":
                outcome.late += n
                outcome.counted -= n
            elif key[0] == "revisions":
                outcome.revisions += n
            elif key[0] == "alerts":
                outcome.alert_severities[key[2]] += n
        outcome.reports = sum(key.endswith(b"|performance") for key, _ in outcome.results)

    def _count_ingest(self, stage: IngestPartition) -> None:
        outcome = self._outcome
        for key, n in stage.counters().items():
            if key[0] == "events":
                setattr(outcome, key[2], getattr(outcome, key[2]) + n)
            elif key[0] == "rejections":
                outcome.rejected[key[1]] = outcome.rejected.get(key[1], 0) + n
            elif key[0] in ("dropped", "ticks", "labels"):
                setattr(outcome, key[0], getattr(outcome, key[0]) + n)
            elif key[0] == "unjoined":
                outcome.joined[key[2]] = outcome.joined.get(key[2], 0) + n
        outcome.open_panes += int(stage.gauges()["open_rows",])


def _with_labels(settings: Settings, topic: str) -> Settings:
    """Return settings of an application that joins labels of a topic: as configured, with the defaults where it had no such source."""
    models = {name: replace(model, labelling=model.labelling or Labelling()) for name, model in settings.models.items()}
    return replace(
        settings,
        models=models,
        defaults=replace(settings.defaults, labelling=settings.defaults.labelling or Labelling()),
        sources={topic: SourceSettings(topic)} | dict(settings.sources),
        outcomes_partitions=1,
    )
