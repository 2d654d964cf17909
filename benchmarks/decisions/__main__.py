"""`python -m benchmarks.decisions`: false alarms and power of the default rules, beside other tools, with fresh seeds on each run.

Every row of the table is a section; `--only` measures some of them anew and keeps the others' figures of the same file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.decisions import early, peers, power, quiet
from benchmarks.decisions.power import HEAVY, LIGHT, MODERATE, SHAPES, Power
from benchmarks.decisions.quiet import Quiet
from benchmarks.decisions.streams import Drift
from benchmarks.decisions.table import table

Section = Callable[[np.random.Generator, dict[str, Path]], dict[str, Any]]


def sections(quick: bool, seconds: float = math.inf) -> dict[str, Section]:
    """Return what is measured, by name; quick: a few of each, which shows that it works and no more. seconds: of CPU for quiet days."""

    def days(of: Quiet) -> Section:
        wanted = of._replace(days=2) if quick else of
        return lambda dice, pythons: quiet.measure(wanted, dice, pythons, time.process_time() + seconds)

    def trials(of: Power) -> Section:
        return lambda dice, pythons: power.measure(of._replace(trials=12) if quick else of, dice, pythons)

    found = {f"iid-{n}": days(Quiet("iid", n, 400)) for n in (100, 300, 1_000)}
    found["missing-1000"] = days(Quiet("iid", 1_000, 100, missing=0.01))
    for mode in ("clustered", "daily"):
        found |= {f"{mode}-{n}": days(Quiet(mode, n, 100)) for n in (100, 300, 1_000)}
    found["small"] = lambda dice, _: power.small(60, 5 if quick else 100, dice)
    cases = (
        Power("0.2 σ", 1_000, Drift("shift", 0.2), 400, 3, SHAPES),
        Power("0.2 σ", 100, Drift("shift", 0.2), 300, 24, SHAPES),
        Power("0.1 σ", 1_000, Drift("shift", 0.1), 400, 24, SHAPES),
        Power("scale ×1.2", 1_000, Drift("scale", 1.2), 300, 6, SHAPES),
        Power("10 % of mass moved", 1_000, Drift("moved", 0.1), 300, 6, sizes=MODERATE),
        Power("1 % of rows 20 σ out, light tails", 1_000, Drift("outliers", 0.01), 400, 3, LIGHT),
        Power("1 % of rows 20 σ out, heavy tails", 1_000, Drift("outliers", 0.01), 400, 3, HEAVY),
        Power("2 % missing, none before", 1_000, Drift("missing", 0.02), 200, 3, SHAPES, MODERATE),
        Power("2 % more missing, 1 % before", 1_000, Drift("missing", 0.02), 200, 6, SHAPES, MODERATE, missing=0.01),
        Power("1 % never seen", 1_000, Drift("unseen", 0.01), 200, 3, sizes=MODERATE),
    )
    found |= {f"{case.name}, n={case.n}": trials(case) for case in cases}
    found["immaterial"] = lambda dice, _: power.immaterial(20_000 if quick else 100_000, 1 if quick else 10, dice)
    return found | early.sections(quick, seconds)


def main() -> None:
    """Measure, write figures and table, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decisions", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat a run; printed by each")
    parser.add_argument("--quick", action="store_true", help="few days and trials, no other tools")
    parser.add_argument("--only", default="", help="sections, or beginnings of their names, comma-separated")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="CPU time after which no more quiet days of a section begin"
    )
    parser.add_argument("--alone", action="store_true", help="no other tools")
    parser.add_argument("--add", action="store_true", help="add quiet days to those of the file")
    parser.add_argument("--out", type=Path, default=Path(".cache/decisions.json"), help="where the figures are kept")
    options = parser.parse_args()
    seed = int(np.random.SeedSequence().entropy) % 2**32 if options.seed is None else options.seed  # type: ignore[arg-type]
    print(f"seed {seed}", file=sys.stderr)
    is_alone = options.only and all(name.startswith("early") for name in options.only.split(","))
    pythons = {} if options.quick or options.alone or is_alone else peers.install()
    figures: dict[str, Any] = (
        json.loads(options.out.read_text()) if (options.only or options.add) and options.out.exists() else {}
    )
    wanted, known = options.only.split(","), sections(options.quick, options.seconds)
    for i, (name, measure) in enumerate(known.items()):
        if name in wanted or any(name.startswith(start) for start in wanted if start not in known):
            began = time.process_time()
            found = measure(np.random.default_rng([seed, i]), pythons)
            known_of = figures.get(name, {}) if options.add else {}
            if known_of and found["kind"] == "quiet":
                found = quiet.added(known_of, found)
            if known_of and found["kind"] == "early-quiet":
                found = early.added(known_of, found)
            figures[name] = found | {"seeds": [*known_of.get("seeds", []), seed]}
            print(f"{name}: {time.process_time() - began:.0f} s {json.dumps(figures[name])}", file=sys.stderr)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(figures, indent=1))
    print(table(figures))


if __name__ == "__main__":
    main()
