"""`python -m benchmarks`: speed on Apache Kafka beside other tools in the same run, growth, closing, latency; figures and table of docs/performance.md.

Every part of the table is a section; `--only` measures some of them anew and keeps the others' figures of the same file. Ratios within a
section count: its rows take turns. Absolute figures are the machine's, and its load is noted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from benchmarks import closing, latency, memory, stored, updating
from benchmarks.performance import FIGURES, tables, write_page
from benchmarks.readers import Bench
from benchmarks.sections import ON_KAFKA
from tests.kafka import KafkaCluster

ONCE: dict[str, Callable[[KafkaCluster, Path], dict[str, Any]]] = {"latency": latency.measure, "memory": memory.measure}
"""Sections that fill topics of their own."""
ALONE: dict[str, Callable[[], dict[str, Any]]] = {
    "reference": updating.measure,
    "state": stored.measure,
    "close": closing.measure,
}
"""Sections that need no broker."""
SECTIONS = (*ON_KAFKA, *ONCE, *ALONE)


def main() -> None:
    """Measure, write figures and page, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help=f"sections, comma-separated: {', '.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, help="how often each row is run, instead of as often as its section asks for")
    parser.add_argument("--share", type=float, default=1.0, help="of the events of each run; less is faster, and less exact")
    parser.add_argument("--json", type=Path, default=FIGURES, help="where the figures are kept")
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name] or list(SECTIONS)
    if unknown := set(wanted) - {*SECTIONS}:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")

    def keep(name: str, found: dict[str, Any]) -> None:
        figures = json.loads(options.json.read_text()) if options.json.exists() else {}
        figures[name] = {"load": round(os.getloadavg()[0], 1)} | found
        options.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
        print(f"{name}: {json.dumps(figures[name], ensure_ascii=False)}", file=sys.stderr)

    if {*wanted} - {*ALONE}:
        on_kafka(wanted, options, keep)
    for name, measure_alone in ALONE.items():
        if name in wanted:
            keep(name, measure_alone())
    if options.json == FIGURES:
        write_page()
    print(tables(json.loads(options.json.read_text())))


def on_kafka(wanted: Collection[str], options: argparse.Namespace, keep: Callable[[str, dict[str, Any]], None]) -> None:
    """Measure sections that need a broker, each with a topic of its own."""
    with KafkaCluster() as cluster, tempfile.TemporaryDirectory() as folder:
        bench = Bench(cluster, Path(folder))
        for name, (measure, n, rounds) in ON_KAFKA.items():
            if name in wanted:
                began = time.monotonic()
                keep(name, measure(bench, int(n * options.share), options.rounds or rounds))
                print(f"{name} took {time.monotonic() - began:.0f} s", file=sys.stderr)
        for name, measure_once in ONCE.items():
            if name in wanted:
                keep(name, measure_once(cluster, Path(folder)))


if __name__ == "__main__":
    main()
