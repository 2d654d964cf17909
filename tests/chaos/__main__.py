"""`python -m tests.chaos [SCENARIO…] [--full] [--seed N] [--json FILE]`; all scenarios without one."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.chaos.experiment import WORKER, run, with_command
from tests.chaos.scenarios import SCENARIOS
from tests.kafka import KafkaCluster


class Elsewhere(NamedTuple):
    """A scenario that is a command of its own, which fails when it finds anything: arguments of Python, short and full."""

    about: str
    short: tuple[str, ...]
    full: tuple[str, ...]


def _tests(about: str, *chosen: str) -> Elsewhere:
    command = ("-m", "pytest", "-q", *chosen)
    return Elsewhere(about, command, command)


def _state(name: str, about: str) -> Elsewhere:
    return _tests(about, "-k", name, "tests/integration/test_state.py")


_SEEDS = ("-m", "tests.simulation", "--processes", "2", "--seeds")
ELSEWHERE = {
    "R9": Elsewhere("simulation of 1,000 / 100,000 seeds", (*_SEEDS, "1000"), (*_SEEDS, "100000")),
    "R10": _state("TestDamage", "damage to the local stores and to their changelogs"),
    "R11": _state("TestVersions", "state of earlier and of later versions"),
    "R12": _state("TestFullDisk", "a full disk"),
    "R14": _state("TestRefusal", "output topics that refuse"),
    "I7": _tests(
        "labels late, early, twice, conflicting and lost, through kills and lost disks",
        "tests/integration/test_join.py",
        "tests/integration/test_performance.py",
    ),
}
"""What runs without the ledger of this package."""


def main() -> None:
    """Run scenarios; the last line says which, and what was found. Exit code 1 when there was anything."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join((*SCENARIOS, *ELSEWHERE)))
    parser.add_argument("--full", action="store_true", help="the full figures")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the traffic and the faults")
    parser.add_argument("--json", type=Path, help="file that the figures are written to, after each scenario")
    parser.add_argument("--defect", help="of tests/defects.py, planted in every worker: something must be found")
    parser.add_argument("--list", action="store_true", help="say what there is")
    arguments = parser.parse_args()
    if arguments.list:
        for name, scenario in {**SCENARIOS, **ELSEWHERE}.items():
            print(f"{name:14}{scenario.about}")
        return
    names = []
    for asked in arguments.scenarios or (*SCENARIOS, *ELSEWHERE):
        found = [name for name in (*SCENARIOS, *ELSEWHERE) if name == asked or name.startswith(f"{asked}-")]
        if not found:
            parser.error(f"no such scenario: {asked}; they are {', '.join((*SCENARIOS, *ELSEWHERE))}")
        names += found
    command = (sys.executable, "-m", "tests.defects", arguments.defect) if arguments.defect else WORKER
    figures: list[dict[str, Any]] = []
    for name in names:
        runs = _run_elsewhere if name in ELSEWHERE else _run
        figures.append(runs(name, arguments.full, arguments.seed, command))
        if arguments.json:
            _keep(arguments.json, figures[-1])
    anomalies = {f["scenario"]: f["anomalies"] for f in figures if f["anomalies"]}
    n = sum(sum(words.values()) for words in anomalies.values())
    size = "full" if arguments.full else "short"
    told = "; ".join(f"{name}: " + ", ".join(f"{k} {word}" for word, k in words.items()) for name, words in anomalies.items())
    print(f"{', '.join(names)} ({size}, seed {arguments.seed}): {n} anomalies{f' ({told})' if told else ''}")
    sys.exit(bool(n))


def _keep(path: Path, figures: dict[str, Any]) -> None:
    """Put a run's figures into the file, in place of an earlier run of the same scenario and size."""
    kept = json.loads(path.read_text()) if path.exists() else []
    others = [each for each in kept if (each["scenario"], each["full"]) != (figures["scenario"], figures["full"])]
    order = [*SCENARIOS, *ELSEWHERE]
    others.append(figures)
    others.sort(key=lambda each: (each["full"], order.index(each["scenario"])))
    path.write_text(json.dumps(others, indent=2) + "\n")


def _run(name: str, full: bool, seed: int, command: tuple[str, ...]) -> dict[str, Any]:
    scenario = SCENARIOS[name]
    print(f"--- {name}: {scenario.about}; python -m tests.chaos {name}{' --full' * full} --seed {seed}", flush=True)
    setting = with_command(scenario.setting, command)
    with KafkaCluster(scenario.nodes, scenario.properties) as kafka:
        report = run(kafka, f"c{name.lower()}", setting, lambda experiment: scenario.disturb(experiment, full), seed)
    print(report, flush=True)
    return {
        "scenario": name, "about": scenario.about, "full": full, "seed": seed, **report.figures, "anomalies": dict(report.words),
    }  # fmt: skip


def _run_elsewhere(name: str, full: bool, seed: int, command: tuple[str, ...]) -> dict[str, Any]:
    """Run a command; `seed` and the workers' `command` are not for it."""
    scenario = ELSEWHERE[name]
    started = time.monotonic()
    arguments = [sys.executable, *(scenario.full if full else scenario.short)]
    print(f"--- {name}: {scenario.about}; {' '.join(arguments[1:])}", flush=True)
    environment = os.environ | {"MONITOR_REQUIRE_BROKER": "1"} | ({"FULL": "1"} if full else {})
    code = subprocess.run(arguments, check=False, env=environment).returncode
    seconds = round(time.monotonic() - started)
    return {
        "scenario": name, "about": scenario.about, "full": full, "seconds": seconds, "anomalies": {"FAILED": 1} if code else {},
    }  # fmt: skip


if __name__ == "__main__":
    main()
