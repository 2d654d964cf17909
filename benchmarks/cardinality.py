"""What a category of nothing but new values costs, and a sample of ids: `python -m benchmarks.cardinality [values]`.

One feature, every row a value that no row had before, folded as a worker folds: 1,000 rows at a time. Ids: 36 bytes, all different.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from monitor.columns import ColumnBatch
from monitor.features import CategoryFeature
from monitor.hash_key import HashKey
from monitor.layout import layout_of
from monitor.profiles import Profile
from monitor.runtime.memory import resident_bytes
from monitor.sketches.id_sample import IdSample

FOLD = 1_000
KEY = HashKey("a key of the benchmark")


def main(n: int = 10_000_000) -> None:
    feature = CategoryFeature(name="c", values=("a", "b"), other=tuple(range(1, 10_001)), hash_key=KEY.id)
    profile = Profile(layout_of([feature], KEY))
    profile.update(batch(0, FOLD))  # whatever is made once is not what a value costs
    before, most, spent = resident_bytes(), 0, 0.0
    for start in range(FOLD, n, FOLD):
        columns = batch(start, min(FOLD, n - start))
        begun = time.process_time()
        profile.update(columns)
        spent += time.process_time() - begun
        if start % (100 * FOLD) == 0:
            most = max(most, resident_bytes() - before)
    summary = profile.summary("c")
    assert summary.distinct is not None
    print(f"{n:,} different values, hashed with a key")
    print(f"{1e6 * spent / (n - FOLD):.2f} µs of CPU per value")
    print(f"{most / 1e6:.1f} MB of memory added, {len(profile.to_bytes()):,} bytes packed")
    print(f"{summary.distinct:,} estimated, {100 * (summary.distinct / n - 1):+.2f} %")


def id_sample(n: int) -> None:
    ids = [f"00000000-0000-4000-8000-{i:012d}".encode() for i in range(n)]
    sample, spent = IdSample(), 0.0
    for start in range(0, n, FOLD):
        some = ids[start : start + FOLD]
        begun = time.process_time()
        sample.add(some)
        spent += time.process_time() - begun
    print(f"{1e6 * spent / n:.2f} µs of CPU per id of {n:,}")


def batch(start: int, n: int) -> ColumnBatch:
    return ColumnBatch(n, np.empty((0, n)), None, [[f"customer-{i:010d}" for i in range(start, start + n)]])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
    id_sample(1_000_000)
