"""What is measured end to end on Apache Kafka, by section: rows that take turns, so that a slow minute of the machine meets all of them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from benchmarks import profiling
from benchmarks.environments import java_classes, python_with
from benchmarks.readers import PEERS, Bench, Case, Usage
from benchmarks.traffic import Traffic, segmentations

Row = Callable[[], Usage]
OURS = "this worker"
CLIENT = ["confluent-kafka==2.16.1", "orjson"]


def in_turn(rows: dict[str, Row], rounds: int) -> dict[str, Any]:
    """Run every row `rounds` times in turn; return medians, and the median of the ratios to the first row of the same round.

    Every other round goes from the last row to the first, so that a machine that becomes slower all the while favours neither.
    rate_ratio: events a second of the first row / this one's. cpu_ratio: CPU per event of this row / the first one's; cpu_ratios: the least
    and the greatest of the rounds.
    """
    runs: dict[str, list[Usage]] = {name: [] for name in rows}
    loads, left_out = [], {}
    for i in range(rounds):
        for name in reversed(rows) if i % 2 else rows:
            if name in left_out:
                continue
            try:
                runs[name].append(rows[name]())
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                print(f"  {name}: {error}", file=sys.stderr)
                left_out[name] = str(error).strip().splitlines()[-1][-200:]
                continue
            loads.append(os.getloadavg()[0])
            print(f"  {name}: {runs[name][-1]}", file=sys.stderr)
    name = next(iter(runs))
    if name in left_out:
        raise RuntimeError(f"{name}: {left_out[name]}")
    first = runs[name]
    found = {}
    for name, done in runs.items():
        if name in left_out:
            continue
        rates = [one.events_per_second / run.events_per_second for one, run in zip(first, done, strict=True)]
        costs = [run.cpu_us_per_event / one.cpu_us_per_event for one, run in zip(first, done, strict=True)]
        found[name] = {
            "events_per_second": round(statistics.median(run.events_per_second for run in done)),
            "cpu_us_per_event": round(statistics.median(run.cpu_us_per_event for run in done), 2),
            "rate_ratio": round(statistics.median(rates), 3),
            "cpu_ratio": round(statistics.median(costs), 3),
            "cpu_ratios": [round(min(costs), 3), round(max(costs), 3)],
        }
    return {"rounds": rounds, "load": round(statistics.mean(loads), 1), "rows": found, "left_out": left_out}


def parsing(bench: Bench, n: int, rounds: int) -> dict[str, Any]:
    """The whole worker beside consumers that do less than it does."""
    traffic = Traffic(n)
    rows: dict[str, Row] = {OURS: lambda: bench.worker(Case(traffic))}
    rows["this worker without its compiled part"] = partial(bench.worker, Case(traffic, is_native=False))
    rows["librdkafka + `orjson.loads`"] = lambda: bench.run(sys.executable, "consumer.py", traffic, "loads")
    rows["librdkafka, consume only"] = lambda: bench.run(sys.executable, "consumer.py", traffic, "consume")
    for name, job in (("consume only", "consume"), ("consume + decode", "decode"), ("consume + decode + columns", "columns")):
        rows[f"this worker's {name}"] = partial(bench.run, sys.executable, "own_decode.py", traffic, job, "20")
    return in_turn(rows, rounds)


def slow(bench: Bench, n: int, rounds: int) -> dict[str, Any]:
    """1 % of the events are of the kinds that the fast path cannot take, and ten models take turns."""
    mixed, odd = Traffic(n, models=10, slow=0.01), Traffic(n, slow=0.01)
    rows: dict[str, Row] = {
        "ten models, 1 % malformed, of a wrong type, or with an unknown feature": partial(bench.worker, Case(mixed))
    }
    rows["librdkafka + `orjson.loads` of the same"] = partial(bench.run, sys.executable, "consumer.py", mixed, "loads")
    rows["one model, 1 % of these kinds"] = partial(bench.worker, Case(odd))
    rows["one model, all well-formed"] = partial(bench.worker, Case(Traffic(n)))
    return in_turn(rows, rounds)


def windows(bench: Bench, n: int, rounds: int) -> dict[str, Any]:
    """Windows are merges of panes: their number is a matter of closing only."""
    traffic = Traffic(n, hours=2)
    few, many = ("1h",), ("1h", "24h/1h", "7d", "2h", "4h", "12h")
    rows: dict[str, Row] = {
        f"{k} window{'s'[: k > 1]}": partial(bench.worker, Case(traffic, of)) for k, of in ((1, few), (3, many[:3]), (6, many))
    }
    return in_turn(rows, rounds)


def models(bench: Bench, n: int, rounds: int) -> dict[str, Any]:
    """Models in turn on the same partitions; no window closes meanwhile. A thousand write a checkpoint every ten seconds or more, so runs are longer."""
    cases = {k: Case(Traffic(n, models=k, hours=1)) for k in (1, 10, 100, 1_000)}
    rows: dict[str, Row] = {f"{k:,} model{'s'[: k > 1]}": partial(bench.worker, case) for k, case in cases.items()}
    return in_turn(rows, rounds)


def segments(bench: Bench, n: int, rounds: int) -> dict[str, Any]:
    """Rows split by three categories crossed."""
    traffic = Traffic(n, hours=2)
    cases = {k: Case(traffic, split=segmentations(traffic, k)) for k in (0, 10, 50)}
    rows: dict[str, Row] = {f"{k} segments": partial(bench.worker, case) for k, case in cases.items()}
    return in_turn(rows, rounds)


def features(bench: Bench, n: int, rounds: int) -> dict[str, Any]:
    """Wider events; as many fewer of them."""
    cases = {k: Case(Traffic(n * 40 // max(20, k), features=k, hours=2)) for k in (10, 20, 50, 100, 200)}
    rows: dict[str, Row] = {f"{k} features": partial(bench.worker, case) for k, case in cases.items()}
    found = in_turn(rows, rounds)
    for (k, case), row in zip(cases.items(), found["rows"].values(), strict=True):
        row["event_bytes"] = round(bench.event_bytes[case.traffic.topic])
        row["cpu_us_per_feature"] = round(row["cpu_us_per_event"] / k, 3)
    return found


def workers(bench: Bench, n: int, rounds: int) -> dict[str, Any]:
    """Two processes of one group, with the broker on the same two cores."""
    cases = {k: Case(Traffic(n, hours=2), workers=k) for k in (1, 2)}
    rows: dict[str, Row] = {f"{k} worker{'s'[: k > 1]}": partial(bench.worker, case) for k, case in cases.items()}
    return in_turn(rows, rounds)


def peers(bench: Bench, n: int, rounds: int) -> dict[str, Any]:
    """Python tools that take events one by one, or by the frame; slow ones read fewer of them."""
    traffic = Traffic(n)
    rows: dict[str, Row] = {OURS: lambda: bench.worker(Case(traffic))}
    rows["Faust 0.15.3, stock: counts in a windowed table"] = partial(
        bench.run, sys.executable, "faust_table.py", traffic, n=40_000
    )
    tools = (
        ("Quix Streams 3.28.1: counts in a window", "quixstreams", ["quixstreams==3.28.1"], "quix_windows.py", (), 240_000),
        ("whylogs 1.6.4, by row", "whylogs", ["whylogs==1.6.4", "pandas<2.3", "numpy<2", *CLIENT], "consumer.py", ("whylogs_rows",), 10_000),
        ("whylogs 1.6.4, frames of 10,000", "whylogs", ["whylogs==1.6.4", "pandas<2.3", "numpy<2", *CLIENT], "consumer.py", ("whylogs_frame",), 200_000),
        ("river 0.26.1, ADWIN of the numbers", "river", ["river==0.26.1", *CLIENT], "consumer.py", ("river_adwin",), 60_000),
        ("river 0.26.1, histogram of the numbers", "river", ["river==0.26.1", *CLIENT], "consumer.py", ("river_histogram",), 30_000),
    )  # fmt: skip
    left_out = {}
    for name, module, packages, script, job, few in tools:
        try:
            rows[name] = partial(bench.run, python_with(module, packages), script, traffic, *job, n=min(n, few))
        except (OSError, subprocess.CalledProcessError) as error:
            left_out[name] = str(error)
    found = in_turn(rows, rounds)
    return found | {"left_out": left_out | found["left_out"]}


def streams(bench: Bench, n: int, rounds: int) -> dict[str, Any]:
    """Kafka Streams with the same histograms in the same windows, on keyed events, so that nothing is repartitioned."""
    traffic = Traffic(n)
    rows: dict[str, Row] = {OURS: lambda: bench.worker(Case(traffic))}
    try:
        path = java_classes(PEERS / "kafka_streams")
    except (OSError, subprocess.SubprocessError) as error:
        return in_turn(rows, rounds) | {"left_out": {"Kafka Streams 4.1.0": str(error)}}
    for name, job in (("aggregate of the DSL", "dsl"), ("own processor, profiles on the heap", "processor")):
        command = [
            "java", "-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", path, "peers.Histograms",
            bench.cluster.bootstrap, bench.topic(traffic), str(n), job, str(bench.folder / f"streams-{job}"),
        ]  # fmt: skip
        rows[f"Kafka Streams 4.1.0, {name}"] = partial(bench.measured, command)
    return in_turn(rows, rounds)


class Measured(NamedTuple):
    """What measures a section, of how many events, and in how many rounds: in more where a few hundredths matter."""

    measure: Callable[[Bench, int, int], dict[str, Any]]
    n: int
    rounds: int = 3


ON_KAFKA: Mapping[str, Measured] = {
    "parsing": Measured(parsing, 3_000_000),
    "slow": Measured(slow, 2_000_000),
    "peers": Measured(peers, 3_000_000),
    "streams": Measured(streams, 4_000_000),
    "windows": Measured(windows, 5_000_000, rounds=8),
    "models": Measured(models, 6_000_000),
    "segments": Measured(segments, 2_000_000),
    "features": Measured(features, 1_000_000),
    "workers": Measured(workers, 4_000_000, rounds=8),
    "profile": Measured(profiling.measure, 4_000_000, rounds=1),
}
