"""docs/performance.md and README.md show the figures of docs/performance.json, and no others. `python -m benchmarks.performance` writes them."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.__main__ import SECTIONS
from benchmarks.performance import END, FIGURES, PAGE, README, START, TABLES, missed, summary, tables

WITH_UNIT = re.compile(r"\d[\d.,]*\s*(?:µs|ms|×|events/s|events a second|k/s)|[×≥≤<>]\s*\d")
GOALS = re.compile(r"\(goal [^)]*\)")


def figures() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(FIGURES.read_text())
    return found


def test_the_tables_of_the_page_are_those_of_the_committed_run() -> None:
    text = PAGE.read_text()
    assert text[text.index(START) + len(START) : text.index(END)] == tables(figures())


def test_the_figures_of_the_readme_are_those_of_the_committed_run() -> None:
    text = README.read_text()
    assert text[text.index(START) + len(START) : text.index(END)] == summary(figures())


def test_every_section_has_a_table() -> None:
    assert set(figures()) <= set(TABLES) == set(SECTIONS)


def test_no_figure_stands_outside_the_tables() -> None:
    before, rest = PAGE.read_text().split(START)
    prose = GOALS.sub("", before + rest.split(END)[1])
    assert WITH_UNIT.findall(prose) == []


@pytest.mark.parametrize("text", ["4.2 µs", "12 ms", "3 ×", "100,000 events/s", "× 1.4"])
def test_a_figure_in_prose_would_be_seen(text: str) -> None:
    assert WITH_UNIT.search(f"It takes {text} here.")


def test_of_goals_those_are_told_that_are_missed_and_how_much_would_meet_them() -> None:
    peers = {"this worker": 1.0, "slow": 7.5, "fast": 2.0}
    reading = {"this worker": 1.0, "this worker's consume + decode": 0.6}
    rows = {
        name: {"rows": {label: {"cpu_ratio": ratio} for label, ratio in of.items()}}
        for name, of in (("peers", peers), ("parsing", reading))
    }
    assert missed(rows).splitlines()[2:] == [
        "| fast | 5 | 2.00 | 0.40 |",
        "| this worker's consume + decode, nothing else | – | – | 0.60 |",
    ]
