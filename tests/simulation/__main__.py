"""`python -m tests.simulation --seed N` runs one seed and tells what was wrong; `--seeds N --processes P` runs many.

The last line of many says how many were run and what was found; a seed that is told can be run again, record by record.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain

from tests.simulation.world import run, simulate

CHUNK = 50


def anomalies_of_chunk(first: int, n: int, *, is_looked: bool = False) -> list[tuple[int, list[str]]]:
    """Return the seeds of a chunk that have anomalies, and these."""
    return [(seed, found) for seed in range(first, first + n) if (found := _run(seed, is_looked=is_looked))]


def _run(seed: int, *, is_looked: bool) -> list[str]:
    try:
        return run(seed, is_looked=is_looked)
    except Exception as error:  # noqa: BLE001  (a crash is an anomaly of its seed)
        return [f"CRASHED {error!r}"]


def many(first: int, n: int, processes: int, *, is_looked: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield the seeds with anomalies among `n` from `first` on."""
    chunks = [(start, min(CHUNK, first + n - start)) for start in range(first, first + n, CHUNK)]
    if processes == 1:
        yield from chain.from_iterable(anomalies_of_chunk(*chunk, is_looked=is_looked) for chunk in chunks)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from chain.from_iterable(pool.map(partial(anomalies_of_chunk, is_looked=is_looked), *zip(*chunks, strict=True)))


def one(seed: int, *, is_looked: bool = False) -> bool:
    """Print what became of a seed; whether it was as it must be."""
    world = simulate(seed, is_looked=is_looked)
    found = world.anomalies()
    print(f"seed {seed}: {'live' if world.scenario.is_live else 'event time'}, partitions {world.scenario.partitions}")
    print(f"faults {dict(sorted(world.happened.items()))}")
    for anomaly in found:
        print(anomaly)
    print(f"{len(found)} anomalies, trace {world.trace()}")
    return not found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many (default: 1000)")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--early", action="store_true", help="with a model whose windows are looked at while they are open")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        sys.exit(not one(arguments.seed, is_looked=arguments.early))
    words: Counter[str] = Counter()
    failing = 0
    for seed, found in many(arguments.first, arguments.seeds, arguments.processes, is_looked=arguments.early):
        print(f"seed {seed}: {found[0]}" + (f" and {len(found) - 1} more" if len(found) > 1 else ""), flush=True)
        words.update(anomaly.split()[0] for anomaly in found)
        failing += 1
    told = ", ".join(f"{n} {word}" for word, n in words.most_common()) or "0 anomalies"
    print(f"simulation: {arguments.seeds} seeds from {arguments.first}, {failing} failing: {told}")
    sys.exit(bool(failing))


if __name__ == "__main__":
    main()
