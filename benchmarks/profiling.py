"""Where the CPU time of an event goes: py-spy looks at a worker that is at work, and stacks are sorted by what they are for."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from typing import Any

from benchmarks.environments import tool
from benchmarks.readers import Bench, Case
from benchmarks.traffic import Traffic

SECONDS, RATE = 8, 250

PARTS = {
    "start, imports": r"<module> \(.*importlib|_find_and_load",
    "closed windows: merging, judging, results": r"stages/merge|monitor/judgement/|findings\.py|monitor/decision/|monitor/results/|incidents\.py",
    "facts of the stream: ids, delays": r"stream_facts\.py",
    "cells and counts": r"(update|_count|_add_\w+|cells) \(monitor/(profiles|layout)\.py|monitor/(layout|cells|tally|sketches/\w+)\.py",
    "columns": r"(columns|values) \(monitor/formats|(columns|said) \(monitor/table_reader|feature_reader\.py",
    "decode": r"monitor/(formats/native|event_reader|table_reader|table_rows)\.py",
    "checkpoints: rows as bytes, changelog, local store": r"(checkpoint|_snapshot|_finish_write|snapshot|_send|outbox) \(monitor/",
    "lateness, panes, admission": r"monitor/(stages|runtime/driver)",
    "fetch: aiokafka, sockets": r"aiokafka/|_read_ready|sslproto",
    "Faust's way of a batch": r"faust/|mode/",
    "metrics, probes": r"monitor/runtime/(http|telemetry)|prometheus_client|http/server",
}
"""Part → stacks with such a frame are of it; the first that fits."""
OTHER = "event loop and other"
IDLE = re.compile(
    r"(_worker|select|wait|Follower\.run|Follower\._confirm|Watchdog\.run|TopicWatch\.run|_end_by_force|accept|readinto) \([^;]*$"
)
"""Stacks that end in such a function wait; py-spy cannot always tell."""


def part_of(stack: str) -> str:
    """Return what a stack is for.

    >>> part_of("run (asyncio/runners.py:1);feed (monitor/runtime/driver.py:1);decode (monitor/formats/native.py:114)")
    'decode'
    """
    return next((part for part, pattern in PARTS.items() if re.search(pattern, stack)), OTHER)


def measure(bench: Bench, n: int, rounds: int) -> dict[str, Any]:
    """Return shares of samples at work, and by them CPU µs per event of a run beside it: sampling slows the worker."""
    spy, spies, found = tool("py-spy", "py-spy==0.4.3"), list[subprocess.Popen[bytes]](), Counter[str]()
    leaves: dict[str, Counter[str]] = {}
    out = bench.folder / "stacks.txt"

    def begun(pid: int) -> None:
        command = [
            spy,
            "record",
            "-f",
            "raw",
            "--full-filenames",
            "-r",
            str(RATE),
            "-d",
            str(SECONDS),
            "-o",
            out,
            "--pid",
            str(pid),
        ]
        spies.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    traffic, costs = Traffic(n), []
    for _ in range(rounds):
        costs.append(bench.worker(Case(traffic)).cpu_us_per_event)
        bench.worker(Case(traffic), begun)
        spies[-1].wait(60)
        for line in out.read_text().splitlines():
            stack, samples = line.rsplit(" ", 1)
            if IDLE.search(stack):
                continue
            stack = re.sub(r"\([^()]*/(?=(?:monitor|aiokafka|faust|mode|asyncio)/)", "(", stack)
            part = part_of(stack)
            found[part] += int(samples)
            leaves.setdefault(part, Counter())[re.sub(r":\d+\)$", ")", stack.rsplit(";", 1)[-1])] += int(samples)
    total, cost = found.total(), min(costs)
    rows = {
        part: {"cpu_us_per_event": round(cost * samples / total, 2), "share": round(samples / total, 3)}
        for part, samples in found.most_common()
    }
    most = {part: {leaf: round(k / total, 3) for leaf, k in counts.most_common(4)} for part, counts in leaves.items()}
    return {"rounds": rounds, "samples": total, "rows": rows, "functions": most}
