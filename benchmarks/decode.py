"""What one event costs a worker between the fetch and the counts, next to plain `orjson.loads` of the same bytes in the same run.

    python -m benchmarks.decode [events]

One model: the features are read with the envelope. Ten models in one partition: they are read when folded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from benchmarks import events
from benchmarks.events import Mix
from monitor.formats.native import NativeFormat
from monitor.ports import StoredRecord
from monitor.profiles import Profile

FETCH = 500
FOLD = 1_000
ROUNDS = 7
DELAY_MS = 20
PARTS = ("decode", "columns", "update", "stream", "loads")

CASES = {
    "one model": Mix(),
    "ten models": Mix(models=10),
    "1 % of values null": Mix(null=0.01),
    "1 % of a wrong type": Mix(wrong_type=0.01),
    "1 % malformed": Mix(malformed=0.01),
    "all of a wrong type": Mix(wrong_type=1.0),
    "all fields": Mix(all_fields=True),
}


def main(n: int = 20_000) -> None:
    """Print µs per event, the best of some rounds of each part."""
    layout = events.layout()
    print(
        f"{'':<20}{'decode':>8}{'columns':>9}{'update':>8}{'stream':>8}{'sum':>7}{'orjson.loads':>14}{'ratio':>7}   µs per event"
    )
    for name, mix in CASES.items():
        records = [StoredRecord(i, events.START_MS + i, value) for i, value in enumerate(events.events(n, mix))]
        format_ = NativeFormat()
        best = dict.fromkeys(PARTS, float("inf"))
        for _ in range(ROUNDS):
            for part, seconds in one_round(format_, records, layout).items():
                best[part] = min(best[part], seconds / n * 1e6)
        total = sum(best.values()) - best["loads"]
        figures = f"{best['decode']:>8.2f}{best['columns']:>9.2f}{best['update']:>8.2f}{best['stream']:>8.2f}{total:>7.2f}"
        print(f"{name:<20}{figures}{best['loads']:>14.2f}{total / best['loads']:>7.2f}")


def one_round(format_: NativeFormat, records: list[StoredRecord], layout: Any) -> dict[str, float]:
    """Return seconds by part; rows are folded at `FOLD` per model, as a worker does."""
    spent = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        found = call()
        spent[part] += time.perf_counter() - start
        return found

    profile, times = Profile(layout), np.arange(len(records)) + events.START_MS
    waiting: dict[tuple[str, str], list[tuple[int, object]]] = {}
    for first in range(0, len(records), FETCH):
        fetch = records[first : first + FETCH]
        timed("loads", lambda fetch=fetch: parse(fetch))
        batch = timed("decode", lambda fetch=fetch: format_.decode(fetch))
        for key, offset, payload in zip(batch.key_index.tolist(), batch.offsets.tolist(), batch.payloads, strict=True):
            waiting.setdefault(batch.keys[key], []).append((offset, payload))
        for rows in waiting.values():
            if len(rows) >= FOLD or (first + FETCH >= len(records) and rows):
                offsets, payloads = np.array([o for o, _ in rows], np.int64), [p for _, p in rows]
                columns = timed("columns", lambda p=payloads, o=offsets: format_.columns(layout, p, o))
                timed("update", lambda c=columns: profile.update(c))
                marks = (times[offsets], times[offsets] + DELAY_MS, np.maximum.accumulate(times[offsets]))
                timed("stream", lambda c=columns, m=marks: profile.stream.add_rows(c.envelope, *m))
                rows.clear()
    return spent


def parse(fetch: list[StoredRecord]) -> None:
    """Parse what can be parsed, as a bare consumer would."""
    parsed = []
    for record in fetch:
        try:
            parsed.append(orjson.loads(record.value or b""))
        except orjson.JSONDecodeError:
            continue


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
