"""The mutation score of what has to be exact: `python -m tests.mutation [--mutants N] [--seed N]`.

mutmut works on a copy under .cache; of all mutants a random sample is run, which its seed decides. The last line has the score: the
share of mutants that some test of the fast selection (pyproject, tool.mutmut) fails for, those that hang counted as found.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".cache" / "mutation"
CODEC_OF_PROFILES = re.compile(r"profiles\.x.*(bytes|_pack|_unpack|wire|add_block|_read)")
KILLED, SURVIVED, UNTESTED, TIMEOUT = (1, 3), (0,), (5, 33), (24, 36, 37, 152, 255)
"""mutmut's exit codes: of a test run that failed or was broken off, that passed, without tests, that took too long."""


def prepare() -> None:
    """Copy the project, less what is not needed."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for name in ("monitor", "tests", "schemas"):
        shutil.copytree(ROOT / name, FOLDER / name, ignore=shutil.ignore_patterns("__pycache__", "integration"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, FOLDER / name)


def mutmut(*names: str) -> None:
    subprocess.run([sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names], cwd=FOLDER, check=False)


def results() -> dict[str, int | None]:
    """Return the exit code of every mutant; None where it was not run."""
    found: dict[str, int | None] = {}
    for path in sorted((FOLDER / "mutants").rglob("*.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return {name: code for name, code in found.items() if "profiles." not in name or CODEC_OF_PROFILES.search(name)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=400, help="how many are drawn; 0 means all (default: 400)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    prepare()
    mutmut("monitor.windows.x_duration_text__mutmut_1")  # makes them all
    names = sorted(results())
    drawn = random.Random(arguments.seed).sample(names, min(arguments.mutants or len(names), len(names)))
    mutmut(*drawn)
    codes = results()
    by_fate: Counter[str] = Counter()
    for name in sorted(drawn):
        code = codes[name]
        fate = next((f for f, of in FATES.items() if code in of), f"code {code}")
        by_fate[fate] += 1
        if fate in ("survived", "without tests"):
            print(f"{fate}: {name}")
    score = (by_fate["killed"] + by_fate["timeout"]) / len(drawn)
    told = ", ".join(f"{n} {fate}" for fate, n in by_fate.most_common())
    print(f"mutation: {len(drawn)} of {len(names)} mutants, seed {arguments.seed}: {told}; score {score:.1%}")
    sys.exit(score < 0.8)


FATES = {"killed": KILLED, "survived": SURVIVED, "without tests": UNTESTED, "timeout": TIMEOUT}


if __name__ == "__main__":
    main()
