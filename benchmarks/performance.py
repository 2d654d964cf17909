"""The tables of docs/performance.md and the figures of README.md, from docs/performance.json. `python -m benchmarks.performance` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "performance.json"
PAGE = ROOT / "docs" / "performance.md"
README = ROOT / "README.md"
START, END = "<!-- speed -->\n", "<!-- /speed -->\n"

Section = Mapping[str, Any]


def write_page() -> None:
    """Put what the figures say between the marks of the page and of the README."""
    figures = json.loads(FIGURES.read_text())
    for path, text in ((PAGE, tables(figures)), (README, summary(figures))):
        before, rest = path.read_text().split(START)
        path.write_text(before + START + text + END + rest.split(END)[1])


def tables(figures: Mapping[str, Section]) -> str:
    """Return all tables, each under what it is about."""
    missing = "Not measured in the committed run; `make bench` does.\n"
    found = [f"**{title}**\n\n{make(figures[name]) if name in figures else missing}" for name, (title, make) in TABLES.items()]
    return "\n".join([*found, f"**What the missed goals leave**\n\n{missed(figures)}"])


def missed(figures: Mapping[str, Section]) -> str:
    """Return of each program that is to be beaten, and is not by so much, what an event could cost; and what its reading alone does.

    Shares of today's CPU time per event, each from one run.
    """
    lines = [_line(["", "goal ×", "CPU per event: today ×", "it could be × today's"]), _line(["---"] * 4)]
    for section, goal in GOALS.items():
        for label, row in list(figures.get(section, {}).get("rows", {}).items())[1:]:
            if row["cpu_ratio"] < goal:
                lines.append(_line([label, str(goal), times(row["cpu_ratio"]), times(row["cpu_ratio"] / goal)]))
    alone = figures.get("parsing", {}).get("rows", {})
    for label in READING:
        if label in alone:
            lines.append(_line([f"{label}, nothing else", "–", "–", times(alone[label]["cpu_ratio"])]))
    return "\n".join(lines) + "\n"


def summary(figures: Mapping[str, Section]) -> str:
    """Return the lines of the README."""
    lines = [
        "| beside one worker process, end to end | its events/s: ours are × | its CPU per event is × ours |",
        "|---|---|---|",
    ]
    for name in ("parsing", "peers", "streams"):
        rows = list(figures.get(name, {}).get("rows", {}).items())
        lines += [f"| {label} | {times(row['rate_ratio'])} | {times(row['cpu_ratio'])} |" for label, row in rows[1:]]
    lines += ["", "| and | |", "|---|---|"]
    lines += [
        f"| {about} | {write(figures[section]['rows'][row][key])} |"
        for about, (section, row, key, write) in SINGLE.items()
        if row in figures.get(section, {}).get("rows", {})
    ]
    return "\n".join(lines) + "\n"


def times(ratio: float) -> str:
    """Return a ratio with three digits or so.

    >>> times(0.5312), times(17.432), times(213.4)
    ('0.53', '17.4', '213')
    """
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def columns(*names: tuple[str, str, Callable[[Any], str]]) -> Callable[[Section], str]:
    """Return what makes a table: a heading, the key of each row's value, and how it is written."""

    def make(section: Section) -> str:
        lines = [_line(["", *(heading for heading, _, _ in names)]), _line(["---"] * (len(names) + 1))]
        lines += [
            _line([label, *(write(row[key]) if key in row else "–" for _, key, write in names)])
            for label, row in section["rows"].items()
        ]
        lines += [
            _line([f"{label}: left out, {reason}", *("–" for _ in names)])
            for label, reason in section.get("left_out", {}).items()
        ]
        rounds = f"{section['rounds']} rounds; " if "rounds" in section else ""
        return "\n".join(lines) + f"\n\n{rounds}load of the machine {section.get('load', 'not noted')}\n"

    return make


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def between(ratios: Sequence[float]) -> str:
    """Return the least and the greatest ratio.

    >>> between([0.912, 1.164])
    '0.91–1.16'
    """
    return "–".join(times(ratio) for ratio in ratios)


def count(value: float) -> str:
    """Return a whole number."""
    return f"{round(value):,}"


GOALS = {"peers": 5, "streams": 1}
"""Section → how many times as fast this worker is to be as each of its programs."""
SINGLE: Mapping[str, tuple[str, str, str, Callable[[float], str]]] = {
    "CPU time to close a window of 50 features, all of them shifted: every distance, the decision, records": (
        "close", "this worker, every number shifted by 1 σ", "cpu_ms", lambda value: f"{times(value)} ms",
    ),
    "from the record that ends a window of 100 features × 50 segments to its alert on the topic, 99th percentile": (
        "latency", "an alert", "p99_ms", lambda value: f"{value / 1000:.2f} s",
    ),
    "memory of a worker with 100 models × 200 features, the most": (
        "memory", "100 models × 200 features", "resident_most_mib", lambda value: f"{count(value)} MiB",
    ),
}  # fmt: skip
"""What the README says besides → section, row, key and how it is written."""
READING = ("this worker's consume only", "this worker's consume + decode")

RATE = ("events/s", "events_per_second", count)
COST = ("CPU µs per event", "cpu_us_per_event", times)
COMPARED = columns(RATE, COST, ("our events/s are ×", "rate_ratio", times), ("its CPU per event is × ours", "cpu_ratio", times))
GROWTH = (("CPU per event × first row", "cpu_ratio", times), ("rounds from–to", "cpu_ratios", between))
CURVE = columns(RATE, COST, *GROWTH)
WIDE = columns(
    ("bytes per event", "event_bytes", count), RATE, COST, ("CPU µs per feature", "cpu_us_per_feature", times), *GROWTH,
)  # fmt: skip
UPDATE = columns(("cells", "cells", count), ("CPU µs per row", "cpu_us_per_row", times), ("× first row", "cpu_ratio", times))
CLOSE = columns(("CPU ms", "cpu_ms", times), ("longest 5 %, ms", "p95_ms", times), ("× ours, shifted", "cpu_ratio", times))
LATENCY = columns(
    ("records", "n", count), ("median ms", "median_ms", count), ("p99 ms", "p99_ms", count), ("longest ms", "max_ms", count)
)
STORED = columns(
    ("rows", "rows", count), ("bytes", "bytes", count), ("bytes per row", "bytes_per_row", count),
    ("cells", "cells", count), ("bytes per cell", "bytes_per_cell", times),
)  # fmt: skip
MEMORY = columns(
    ("events", "events_counted", count), ("windows", "windows", count), ("limit, MiB", "limit_mib", count),
    ("resident, the most, MiB", "resident_most_mib", count), ("in the end, MiB", "resident_last_mib", count),
)  # fmt: skip
PROFILE = columns(("CPU µs per event", "cpu_us_per_event", times), ("share", "share", lambda share: f"{100 * share:.0f} %"))

TABLES: Mapping[str, tuple[str, Callable[[Section], str]]] = {
    "parsing": ("One worker end to end, beside consumers that do less", COMPARED),
    "peers": ("Beside Python tools", COMPARED),
    "streams": ("Beside Kafka Streams", COMPARED),
    "close": ("Closing a window of 50 features", CLOSE),
    "latency": (
        "From the record that moves the watermark past a window's end to what is published, 100 features × 50 segments",
        LATENCY,
    ),
    "slow": ("Models in turn, and 1 % of events that the fast path cannot take", COMPARED),
    "windows": ("Windows", CURVE),
    "models": ("Models in turn", CURVE),
    "segments": ("Segments", CURVE),
    "features": ("Features", WIDE),
    "workers": ("Workers", CURVE),
    "reference": ("Rows of the reference, and what an update of a profile costs", UPDATE),
    "state": ("State of one pane, as a checkpoint writes it", STORED),
    "memory": (
        "Memory of one worker that opens, closes and forgets windows all the time, from a backlog, for three minutes",
        MEMORY,
    ),
    "profile": ("Where the CPU time of an event goes", PROFILE),
}
"""Section → title, and what makes its table."""


if __name__ == "__main__":
    write_page()
