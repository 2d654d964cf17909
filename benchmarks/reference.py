"""Rows per second and peak memory of a reference from a Parquet file of 20 columns. `python -m benchmarks.reference --rows 10000000`."""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

START_MS, HOUR_MS = 1_735_689_600_000, 3_600_000
ROWS_PER_HOUR = 10_000
CHUNK_ROWS = 200_000


class Built(NamedTuple):
    """What one build took and gave."""

    seconds: float
    rows: int
    peak_bytes: int
    packed_bytes: int
    windows: int


def chunks(rows: int) -> Iterator[pa.Table]:
    """Yield the file's rows: time, label, prediction, score, ten numbers and six categories."""
    dice = np.random.default_rng(1)
    towns = pa.array([f"town {i}" for i in range(1_000)])
    for start in range(0, rows, CHUNK_ROWS):
        n = min(CHUNK_ROWS, rows - start)
        score = dice.beta(2, 5, n)
        columns: dict[str, object] = {
            "time": START_MS + (start + np.arange(n)) * HOUR_MS // ROWS_PER_HOUR,
            "label": dice.random(n) < score,
            "prediction": score > 0.5,
            "score": score,
        }
        for i in range(5):
            columns[f"real_{i}"] = dice.normal(size=n) if i % 2 else dice.lognormal(size=n)
            columns[f"whole_{i}"] = pa.array(dice.poisson(40 + i, n), mask=dice.random(n) < 0.05)
        for i, k in enumerate((3, 5, 10, 100, 1_000, 1_000)):
            columns[f"category_{i}"] = towns.take(pa.array(np.minimum(dice.zipf(1.3, n) - 1, k - 1)))
        yield pa.table(columns)


def write(path: Path, rows: int) -> None:
    writer = None
    for chunk in chunks(rows):
        writer = writer or parquet.ParquetWriter(path, chunk.schema)
        writer.write_table(chunk)
    assert writer is not None
    writer.close()


def build(path: str) -> Built:
    """Build in this process, which has done nothing else."""
    from monitor.files import ColumnOptions
    from monitor.reference_build import build_reference

    options = ColumnOptions(time="time", label="label", prediction="prediction", score="score")
    start = time.perf_counter()
    made = build_reference(Path(path), "m", "1", options, window_ms=HOUR_MS)
    seconds = time.perf_counter() - start
    (peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return Built(seconds, made.record.rows, int(peak) << 10, len(made.to_packed()), made.calibration.windows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write(path, rows)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            built = pool.apply(build, (str(path),))
        print(f"{built.rows:,} rows of 20 columns, {path.stat().st_size / 1e6:,.0f} MB of Parquet, {built.windows:,} windows")
        print(f"{built.seconds:,.1f} s, {built.rows / built.seconds:,.0f} rows/s, peak {built.peak_bytes / (1 << 20):,.0f} MiB")
        print(f"{built.packed_bytes:,} bytes on the topic")


if __name__ == "__main__":
    main()
