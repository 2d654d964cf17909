"""What an event costs a worker while a reference is still to be learnt, and what a discovery weighs.

python -m benchmarks.learn [events]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from benchmarks import events
from benchmarks.events import Mix
from monitor.formats.native import NativeFormat
from monitor.learning.discovery import Discovery
from monitor.learning.references import Learnt, learn
from monitor.ports import StoredRecord

FOLD = 1_000
ROUNDS = 5


def main(n: int = 20_000) -> None:
    """Print µs per event of decoding, reading and counting; ms and bytes of what follows. The best of some rounds."""
    records = [StoredRecord(i, events.START_MS + i, value) for i, value in enumerate(events.events(n, Mix()))]
    wire = NativeFormat()
    decode = _best(lambda: [wire.decode(records[i : i + FOLD]).payloads for i in range(0, n, FOLD)]) / n
    folds = [wire.decode(records[i : i + FOLD]).payloads for i in range(0, n, FOLD)]
    read = _best(lambda: [wire.rows(fold) for fold in folds]) / n
    rows = [wire.rows(fold) for fold in folds]
    count = _best(lambda: [discovery_of([fold]) for fold in rows]) / n
    found = discovery_of(rows)
    data = found.to_bytes()
    merge = _best(lambda: Discovery.from_bytes(data).merge(found))
    learnt = _best(lambda: learn(found, "m", "1", Learnt(24, 0, 1)))
    k = len(found.features)
    print(f"per event of {k} features: decode {decode * 1e6:.2f} µs, rows {read * 1e6:.2f} µs, count {count * 1e6:.2f} µs")
    print(
        f"discovery of {n:,} rows: {len(data) / k:.0f} bytes a feature; read and merge {merge * 1e3:.1f} ms; learn {learnt * 1e3:.0f} ms"
    )


def discovery_of(folds: list[list[dict[str, object]]]) -> Discovery:
    found = Discovery()
    for fold in folds:
        found.update(fold)
    return found


def _best(call: Callable[[], object]) -> float:
    """Return the shortest of some runs, seconds."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
