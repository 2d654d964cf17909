"""docs/guarantees.md names tests that exist, and the figures of the run that is committed. `python -m tests.docs.test_guarantees` writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
START, END = "<!-- figures -->\n", "<!-- /figures -->\n"


def table() -> str:
    """Return the figures of docs/chaos.json as a table."""
    lines = [
        "| scenario | events | windows | alerts | repeated records, same bytes | faults | anomalies |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in json.loads((ROOT / "docs" / "chaos.json").read_text()):
        name = f"{run['scenario']}{', full' if run['full'] else ''}: {run['about']}"
        cells = ["–"] * 5
        if "events" in run:
            faults = ", ".join(f"{n} {fault}" for fault, n in sorted(run["faults"].items())) or "–"
            repeated = run["repeated_results"] + run["repeated_alerts"]
            cells = [f"{run['events']:,}", f"{run['windows']:,}", f"{run['alerts']:,}", f"{repeated:,}", faults]
        lines.append(f"| {name} | {' | '.join(cells)} | {sum(run['anomalies'].values())} |")
    return "\n".join(lines) + "\n"


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > 40
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]
    assert missing == []


def test_the_figures_are_those_of_the_committed_run() -> None:
    text = PAGE.read_text()
    assert text[text.index(START) + len(START) : text.index(END)] == table()


if __name__ == "__main__":
    before, rest = PAGE.read_text().split(START)
    PAGE.write_text(before + START + table() + END + rest.split(END)[1])
