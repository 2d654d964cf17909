"""What the join costs: `python -m benchmarks.join [predictions] [events]`.

Predictions per second of one worker's join, each with its label, which comes while half of all predictions wait: entries of ids on a
real disk, checkpoints included. Bytes on the disk for each pending prediction, and memory. Then events per second of stage 1 with and
without telling outcomes, in turns in one run.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import events
from monitor.columns import Codes
from monitor.features import CategoryFeature
from monitor.formats.native import NativeFormat
from monitor.hash_key import NO_KEY
from monitor.layout import layout_of
from monitor.performance import PerformanceSpec
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import PREDICTION, SCORE, Reference, ReferencePerformance, References
from monitor.runtime.memory import resident_bytes
from monitor.runtime.pending import PendingStore
from monitor.runtime.store import StoreMemory
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.join.partition import JoinPartition
from monitor.stages.outcomes import Labels, Predictions, Range, encode
from monitor.stages.settings import Labelling, ModelSettings, Settings, SourceSettings
from monitor.windows import WindowSpec
from tests.shapes import number_feature_of

ROWS = 5_000
"""In a range; a checkpoint after ten of them, which at 50,000 predictions a second is twice as often as a worker makes one."""
FETCH, PER_CHECKPOINT, ROUNDS = 500, 4_000, 5
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
KEY = NO_KEY
MEMORY_BYTES = 128 << 20
"""A quarter of a worker's 512 MiB."""
MODEL, VERSION = "credit-0", "7"


def references(*, with_features: bool) -> References:
    """Return the reference of a binary classifier with a score; with the features of `events`, or none."""
    layout = events.layout()
    features = list(layout.features) if with_features else []
    features = [feature for feature in features if feature.name not in (PREDICTION, SCORE)]
    outputs = [
        CategoryFeature(name=PREDICTION, values=("default", "repaid")),
        number_feature_of(SCORE, np.linspace(0.0, 1.0, 2_001)),
    ]
    layout = layout_of([*features, *outputs])
    known = References(KEY)
    performance = ReferencePerformance(task="binary", classes=["default", "repaid"], positive_class="default")
    known.add(Reference.build(MODEL, VERSION, Profile(layout), performance=performance))
    return known


def settings(outcomes_partitions: int) -> Settings:
    model = ModelSettings((WindowSpec(HOUR_MS, HOUR_MS),), labelling=Labelling() if outcomes_partitions else None)
    sources = {topic: SourceSettings(topic, "event") for topic in ("p", "l")}
    return replace(Settings("m", {}, model, sources), outcomes_partitions=outcomes_partitions)


def ids_of(start: int) -> Codes:
    """Return the hashes of the ids of ROWS predictions."""
    return KEY.digests("m|", (b"00000000-0000-4000-8000-%012d" % i for i in range(start, start + ROWS)))


def ranges(n: int, spec: PerformanceSpec) -> Iterator[tuple[int, bytes]]:
    """Yield predictions, 100 a second of event time, and behind half of them the labels of the first ones; with how many they are."""
    dice = np.random.default_rng(1)
    step_ms = 10
    sent = {"p": 0, "l": 0}

    def told(source: str, rows: int, closed: int, predictions: list[Predictions], labels: list[Labels]) -> bytes:
        first = sent[source] - 1
        sent[source] += rows
        return encode(Range(source, 0, 1, first, sent[source] - 1, {120_000: closed}, False, 1, predictions, labels))

    for start in range(0, n + n // 2, ROWS):
        now = events.START_MS + start * step_ms
        if start < n:
            ids = ids_of(start)
            times = now + step_ms * np.arange(ROWS)
            predictions = []
            for pane in np.unique(times // HOUR_MS * HOUR_MS).tolist():
                mine = np.flatnonzero(times // HOUR_MS * HOUR_MS == pane)
                columns = (
                    ids[mine],
                    start + mine,
                    times[mine],
                    dice.integers(0, 2, len(mine)).astype("<i4"),
                    dice.random((len(mine), 1)),
                )
                packed = (column.astype(column.dtype.newbyteorder("<")).tobytes() for column in columns)
                predictions.append(Predictions(MODEL, VERSION, pane, spec.reference, *packed, b""))
            yield ROWS, told("p", ROWS, now // HOUR_MS * HOUR_MS, predictions, [])
        if start >= n // 2:
            times, offsets = now + np.arange(ROWS), np.arange(sent["l"], sent["l"] + ROWS)
            values = dice.choice(["default", "repaid"], ROWS).tolist()
            ids = ids_of(start - n // 2)[dice.permutation(ROWS)]  # not kept: memory is measured
            labels = [Labels(MODEL, ids.tobytes(), offsets.astype("<i8").tobytes(), times.astype("<i8").tobytes(), values)]
            yield 0, told("l", ROWS, now // HOUR_MS * HOUR_MS, [], labels)


def joined(n: int) -> None:
    """Join n predictions with a label each."""
    known = references(with_features=False)
    found = known.at(MODEL, VERSION, 0)
    assert found is not None
    spec = PerformanceSpec.of(found)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "0.db"
        pending = PendingStore(path, StoreMemory(MEMORY_BYTES))
        stage = JoinPartition(settings(1), 0, topology={"p": 1, "l": 1}, epoch=1, references=known, pending=pending)
        stage.skip_to(0)
        before, cpu, wall, made, unlabelled = resident_bytes(), 0.0, 0.0, 0, 0
        held: dict[int, int] = {}
        """predictions made → bytes more than before, each fifth of the way"""
        for offset, (rows, value) in enumerate(ranges(n, spec)):
            begun, begun_s = _cpu(), time.monotonic()
            stage.feed([StoredRecord(offset, 0, value)], 0)
            if offset % 10 == 9 and (checkpoint := stage.checkpoint()) is not None:
                stage.committed(checkpoint)
                if box := stage.outbox(offset):
                    stage.emitted(box, offset)
            cpu += _cpu() - begun
            wall += time.monotonic() - begun_s
            made += rows
            if rows and made % (n // 5) == 0:
                held[made] = resident_bytes() - before
            if made == n // 2 and not unlabelled:
                unlabelled = _on_disk(path)
        checkpoint = stage.checkpoint()
        if checkpoint is not None:
            stage.committed(checkpoint)
        held[-1], counters = resident_bytes() - before, stage.counters()
        assert counters["outcomes", MODEL, "joined"] == made == n, counters
        as_it_is = _on_disk(path)
        pending._database.flush()
        pending._database.compact_range(None, None)
        compacted = _on_disk(path)
        pending.close()
    print(
        f"join    {n / cpu:10,.0f} predictions/s, each with its label (CPU, RocksDB's threads too); {n / wall:,.0f} by the clock"
    )
    print(f"disk    {unlabelled / (n // 2):6.1f} bytes for each of {n // 2:,} without a label; {as_it_is / n:.1f} for each of {n:,} with one, "
          f"{compacted / n:.1f} compacted")  # fmt: skip
    grown = ", ".join(f"{size / 1e6:.0f}" for size in held.values())
    print(f"memory  {grown} MB more than before, each {n // 5:,} predictions and at the end; {MEMORY_BYTES / 1e6:.0f} MB are allowed for "
          "cache and buffers")  # fmt: skip


def _cpu() -> float:
    """Return the seconds that all threads of this process took."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _on_disk(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir() if file.suffix in (".sst", ".log"))


def throughput(n: int) -> None:
    """Print events per second of stage 1 with and without, the best of some rounds in turns."""
    records = [StoredRecord(i, events.START_MS + i, value) for i, value in enumerate(events.events(n, events.Mix()))]
    known = references(with_features=True)
    best = {0: float("inf"), 8: float("inf")}
    told = 0
    for _ in range(ROUNDS):
        for partitions in (0, 8):
            seconds, n_bytes = one_round(records, known, partitions)
            best[partitions] = min(best[partitions], seconds)
            told = max(told, n_bytes)
    off, on = (n / best[partitions] for partitions in (0, 8))
    print(
        f"stage 1 {off:10,.0f} events/s without, {on:,.0f} with: ratio {on / off:.3f}; {told / n:.0f} bytes an event to outcomes"
    )


def one_round(records: list[StoredRecord], known: References, partitions: int) -> tuple[float, int]:
    stage = IngestPartition(settings(partitions), "p", 0, partitions=1, epoch=1, wire=NativeFormat(), references=known)
    stage.skip_to(0)
    begun, told = time.process_time(), 0
    for start in range(0, len(records), FETCH):
        stage.feed(records[start : start + FETCH], records[start].timestamp)
        if start % PER_CHECKPOINT == 0 and (checkpoint := stage.checkpoint()) is not None:
            stage.committed(checkpoint)
            told += sum(len(message.value or b"") for message in checkpoint.outcomes)
    return time.process_time() - begun, told


def main(n_predictions: int = 2_000_000, n_events: int = 60_000) -> None:
    """Print what it costs."""
    joined(n_predictions)
    throughput(n_events)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
