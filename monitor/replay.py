"""The same stages on a file's events, with no broker: what a live run would have published.

The result and alert records are those of a live run of the same records, byte for byte (`source_offsets` aside), as long as no clock of
a silent partition had to move in that run. Without partitions and record timestamps, what depends on these differs (`stream`). A
reference that is learnt on the way applies from its event time on, as it does live where no partition is more than the lead ahead of the
slowest one when the last window that it is learnt from ends; in a backfill, which is faster than its references travel, later windows may
still have none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from monitor.formats import Format
from monitor.hash_key import NO_KEY, HashKey
from monitor.ports import Message, PartitionStage, StoredRecord
from monitor.reference import Reference, References
from monitor.stages.final_windows import Judge
from monitor.stages.ingest import IngestPartition
from monitor.stages.merge import MergePartition
from monitor.stages.settings import Settings

BATCH_ROWS = 5_000
_LATER_MS = 1 << 61


@dataclass
class ReplayOutcome:
    """What a replay published, as (key, value), and what became of every record.

    references: those that were learnt.
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
    alert_severities: Counter[str] = field(default_factory=Counter)


class Replay:
    """Feeds records of any number of partitions to the stages, in memory.

    settings: of the application; `topic` is one of its sources. judge: see pipeline.judge_window. hash_key: see reference.References.
    future_guard: whether record timestamps mean something; without them event time alone moves the clock.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        *,
        wire: Format,
        judge: Judge,
        references: Sequence[Reference] = (),
        hash_key: HashKey = NO_KEY,
        future_guard: bool = True,
    ) -> None:
        if not future_guard:
            source = replace(settings.sources[topic], max_future_ms=None)
            settings = replace(settings, sources={**settings.sources, topic: source})
        self._settings = replace(settings, partials_partitions=1, outcomes_partitions=0, retire_after_ms=0)
        self._topic = topic
        self._wire = wire
        self._judge = judge
        self._references = References(hash_key)
        for reference in references:
            self._references.add(reference)
        self._partitions: dict[int, IngestPartition] = {}
        self._waiting: dict[int, list[StoredRecord]] = {}
        self._partials: list[StoredRecord] = []
        self._outcome = ReplayOutcome()

    def run(self, events: Iterable[tuple[int, StoredRecord]], *, end_of_input: bool = False) -> ReplayOutcome:
        """Replay (partition, record) pairs, offsets rising by partition; `end_of_input` closes the windows that are still open.

        Where a reference is learnt, the events are read once more, with that reference known from the start: it applies from its
        event time on, and what comes before is not changed by it. So the events must be iterable twice; raises TypeError if not.
        """
        if isinstance(events, Iterator):
            raise TypeError("an iterator of events can be read only once; give a list, or an object that makes iterators")
        outcome = self._run_once(events, end_of_input=end_of_input)
        for _, value in outcome.references:
            self._references.add(Reference.from_bytes(value))
        return self._run_once(events, end_of_input=end_of_input) if outcome.references else outcome

    def _run_once(self, events: Iterable[tuple[int, StoredRecord]], *, end_of_input: bool) -> ReplayOutcome:
        self._partitions, self._waiting, self._partials, self._outcome = {}, {}, [], ReplayOutcome()
        for partition, record in events:
            waiting = self._waiting.setdefault(partition, [])
            waiting.append(record)
            if len(waiting) >= BATCH_ROWS:
                self._feed(partition)
        for partition in sorted(self._waiting):
            self._feed(partition)
        if end_of_input:
            for stage in self._partitions.values():
                stage.finish_input()
                self._tick(stage, with_watermark=False)
        return self._merge(end_of_input)

    def _feed(self, partition: int) -> None:
        records, self._waiting[partition] = self._waiting[partition], []
        if not records:
            return
        if partition not in self._partitions:
            self._partitions[partition] = self._stage(partition)
        stage = self._partitions[partition]
        stage.feed(records, _LATER_MS)
        self._outcome.produced += len(records)
        self._tick(stage)

    def _stage(self, partition: int) -> IngestPartition:
        return IngestPartition(
            self._settings,
            self._topic,
            partition,
            partitions=0,
            epoch=1,
            wire=self._wire,
            references=self._references,
        )

    def _tick(self, stage: PartitionStage, *, with_watermark: bool = True) -> None:
        """Do what the driver does after a batch; nothing can fail in between, so one checkpoint makes all of it durable."""
        checkpoint = stage.checkpoint()
        if checkpoint is not None:
            self._outcome.dead_letters += checkpoint.dead_letters
            stage.committed(checkpoint)
        outbox = stage.outbox(0)
        if not outbox:
            return
        for message in (*outbox.first, *(outbox.then if with_watermark else ())):
            if message.topic == self._settings.topic("partials"):
                self._partials.append(StoredRecord(len(self._partials), 0, message.value, message.key))
            else:
                assert message.key is not None and message.value is not None
                kind = message.topic.removeprefix(self._settings.topic(""))
                getattr(self._outcome, kind).append((message.key, message.value))
        stage.emitted(outbox, 0)

    def _merge(self, end_of_input: bool) -> ReplayOutcome:
        topology = {self._topic: max(self._partitions, default=0) + 1}
        for partition in set(range(topology[self._topic])) - set(self._partitions):
            silent = self._stage(partition)
            silent.skip_to(0)
            silent.advance(0, at_end=True)
            self._tick(silent)
        merge = MergePartition(self._settings, 0, topology=topology, epoch=1, judge=self._judge, references=self._references)
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
        for stage in self._partitions.values():
            for key, n in stage.counters().items():
                if key[0] == "events":
                    setattr(outcome, key[2], getattr(outcome, key[2]) + n)
                elif key[0] == "rejections":
                    outcome.rejected[key[1]] = outcome.rejected.get(key[1], 0) + n
                elif key[0] in ("dropped", "ticks", "labels"):
                    setattr(outcome, key[0], getattr(outcome, key[0]) + n)
            outcome.open_panes += int(stage.gauges()["open_rows",])
        for key, n in merge.counters().items():
            if key[0] == "events":
                outcome.late += n
                outcome.counted -= n
            elif key[0] == "revisions":
                outcome.revisions += n
            elif key[0] == "alerts":
                outcome.alert_severities[key[2]] += n
