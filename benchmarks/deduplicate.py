"""What it costs to know duplicates by their id: `python -m benchmarks.deduplicate [ids] [events]`.

Memory and disk per remembered id, of ids that are all different; and events per second of stage 1, checkpoints included, with and without
it in turns in one run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rocksdict import Options, Rdict

from benchmarks import events
from monitor.formats.native import NativeFormat
from monitor.hash_key import HashKey
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference, References
from monitor.runtime.memory import resident_bytes
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.ingest.seen_ids import SeenIds
from monitor.stages.settings import ModelSettings, Settings, SourceSettings
from monitor.windows import WindowSpec

FETCH = 500
PER_CHECKPOINT = 4_000
ROUNDS = 5
MINUTE_MS = 60_000
KEY = HashKey("a key of the benchmark")


def remembered(n: int) -> None:
    """Remember n ids, one a millisecond, of which none is forgotten; write what a worker writes every 2 s at 2,000 events a second."""
    seen, written = SeenIds(n), 0
    hashes = [KEY.hashes(f"m|{i}" for i in range(start, min(n, start + FETCH))) for start in range(0, n, FETCH)]
    always = np.ones(FETCH, bool)
    before = resident_bytes()
    with tempfile.TemporaryDirectory() as folder:
        database = Rdict(folder, Options(raw_mode=True))
        spent = 0.0
        for i, some in enumerate(hashes):
            at = np.arange(i * FETCH, i * FETCH + len(some))
            begun = time.process_time()
            seen.take(some, np.stack((at, at)), always[: len(some)])
            rows = [row for bucket in seen.buckets if bucket.is_dirty for row in bucket.new_rows(n)] if i % 8 == 7 else []
            spent += time.process_time() - begun
            for key, _, _, payload in rows:
                database[key] = payload
                written += len(key) + len(payload)
        rows = [row for bucket in seen.buckets if bucket.is_dirty for row in bucket.new_rows(n)]
        for key, _, _, payload in rows:
            database[key] = payload
        held = resident_bytes() - before
        store = {bytes(key): bytes(value) for key, value in database.items()}
        database.flush()
        database.compact_range(None, None)
        on_disk = sum(path.stat().st_size for path in Path(folder).glob("*.sst"))
        database.close()
    exact = sum(run.nbytes for bucket in seen.buckets for run in bucket.runs)
    print(f"{n:,} ids in {len(seen.buckets)} buckets, {len(store):,} rows of at most {max(map(len, store.values())):,} bytes")
    print(f"memory  {exact / n:6.2f} bytes per id held in arrays, {held / n:.2f} resident with the store's own")
    print(f"disk    {on_disk / n:6.2f} bytes per id in RocksDB, {sum(len(k) + len(v) for k, v in store.items()) / n:.2f} as rows")
    print(f"written {written / n:6.2f} bytes per id to the store and the changelog each, a checkpoint every {8 * FETCH:,} ids")
    print(f"time    {1e6 * spent / n:6.2f} µs of CPU per id, hashing left out")
    hashing(n)


def hashing(n: int) -> None:
    ids = [f"m|00000000-0000-4000-8000-{i:012d}" for i in range(min(n, 200_000))]
    begun = time.process_time()
    for start in range(0, len(ids), FETCH):
        KEY.hashes(ids[start : start + FETCH])
    print(f"hashing {1e6 * (time.process_time() - begun) / len(ids):6.2f} µs of CPU per id of 36 characters")


def throughput(n: int) -> None:
    """Print events per second of stage 1 with and without, the best of some rounds in turns."""
    records = [StoredRecord(i, events.START_MS + i, value) for i, value in enumerate(events.events(n, events.Mix()))]
    layout = events.layout()
    wire = NativeFormat()
    profile = Profile(layout)
    decoded = wire.decode(records[:1_000])
    profile.update(wire.columns(layout, decoded.payloads, decoded.offsets))
    references = References()
    references.add(Reference.build("credit-0", "7", profile))
    best = {False: float("inf"), True: float("inf")}
    for _ in range(ROUNDS):
        for is_on in (False, True):
            best[is_on] = min(best[is_on], one_round(records, references, 72 * MINUTE_MS if is_on else 0))
    off, on = (n / best[is_on] for is_on in (False, True))
    print(f"stage 1 {off:10,.0f} events/s without, {on:,.0f} with: ratio {on / off:.3f}")


def one_round(records: list[StoredRecord], references: References, remember_ids_ms: int) -> float:
    model = ModelSettings((WindowSpec(60 * MINUTE_MS, 60 * MINUTE_MS),))
    settings = Settings("m", {}, replace(model, remember_ids_ms=remember_ids_ms), {"p": SourceSettings("p")})
    stage = IngestPartition(settings, "p", 0, partitions=1, epoch=1, wire=NativeFormat(), references=references)
    stage.skip_to(0)
    begun = time.process_time()
    for start in range(0, len(records), FETCH):
        stage.feed(records[start : start + FETCH], records[start].timestamp)
        if start % PER_CHECKPOINT == 0 and (checkpoint := stage.checkpoint()) is not None:
            stage.committed(checkpoint)
    return time.process_time() - begun


def main(n_ids: int = 5_000_000, n_events: int = 100_000) -> None:
    """Print what it costs."""
    remembered(n_ids)
    throughput(n_events)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
