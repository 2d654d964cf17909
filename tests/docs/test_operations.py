"""docs/operations.md names every condition, exit code, metric of life and watchdog time that the program has."""

from __future__ import annotations

import re
from pathlib import Path

from monitor.config.settings import Watchdog
from monitor.runtime.exits import KILLED, REASONS
from monitor.runtime.readiness import CONDITIONS
from monitor.runtime.telemetry import METRICS

PAGE = (Path(__file__).parents[2] / "docs/operations.md").read_text()


def test_the_table_of_conditions_is_the_programs() -> None:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in CONDITIONS.items()]
    assert PAGE.split("<!-- conditions -->\n")[1].split("<!-- /conditions -->")[0].splitlines() == rows


def test_every_exit_code_has_its_row() -> None:
    found = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, flags=re.M))
    assert found == {str(code): word for code, word in REASONS.items()}
    assert f"| a signal | `{KILLED}` |" in PAGE


def test_every_metric_that_is_named_exists() -> None:
    names = {metric.name for metric in METRICS}
    assert {name for name in re.findall(r"`(monitor_\w+)", PAGE)} <= names


def test_the_watchdogs_times_are_the_defaults() -> None:
    (line,) = re.findall(r"^watchdog: (.+)$", PAGE, flags=re.M)
    assert line == "{progress: 2m, recovery: 10m, loop: 30s}"
    assert (Watchdog().progress, Watchdog().recovery, Watchdog().loop) == (120_000, 600_000, 30_000)
