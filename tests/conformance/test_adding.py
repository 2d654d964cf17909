"""Adding a distance is one function and one entry in the registry: everything else follows by itself."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = '''
import numpy as np

from monitor.sides import Sides, summed


def lorentzian(sides: Sides):
    """Return Σ ln(1 + |Q−P|)."""
    return summed(np.log1p(np.abs(sides.differences)))
'''
FALSE = GOOD.replace("sides.differences)", "sides.differences) * sides.shares[0]")
"""Not symmetric, though the entry says so."""
ENTRY = '    Distance("lorentzian", lorentzian.lorentzian, BOTH, REPORTED, (0.0, INF), True, UP),\n'
IMPORT = "from monitor.distances import lorentzian\n"
JUDGED = """
import json
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET
from tests.closed_windows import closed, reference_of

reference = reference_of({"x": [i / 7 for i in range(500)], "c": ["a", "b"] * 250})
[(_, value)] = judge_window(closed(reference, {"x": [1.5] * 200, "c": ["a"] * 200}), b"", DEFAULT_RULE_SET).results
print(*[feature["distances"]["lorentzian"] for _, feature in sorted(json.loads(value)["features"].items())])
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the program and of the tests that a distance has to pass."""
    shutil.copytree(ROOT / "monitor", tmp_path / "monitor", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "closed_windows.py", "shapes.py", "conformance/__init__.py", "conformance/test_distances.py"):
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests" / name)
    return tmp_path


def add(tree: Path, source: str) -> None:
    """Write one file, and one entry with its import."""
    (tree / "monitor/distances/lorentzian.py").write_text(source)
    registry = tree / "monitor/distances/__init__.py"
    before, entries, after = registry.read_text().partition("DISTANCES: tuple[Distance, ...] = (\n")
    registry.write_text(
        before.replace("from monitor.chance.laws", IMPORT + "from monitor.chance.laws", 1) + entries + ENTRY + after
    )


def python(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True, check=False)


def conformance(tree: Path) -> tuple[int, str]:
    done = python(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/conformance", "-k", "lorentzian", "-rf")
    return done.returncode, done.stdout


def test_a_new_distance_is_under_every_conformance_test_and_in_every_result(tree: Path) -> None:
    add(tree, GOOD)
    code, output = conformance(tree)
    assert code == 0, output
    n_passed = int(output.split(" passed")[0].split()[-1])
    assert n_passed >= 10
    judged = python(tree, "-c", JUDGED)
    assert [float(value) > 0 for value in judged.stdout.split()] == [True, True], judged.stderr


def test_a_new_distance_with_a_false_claim_fails(tree: Path) -> None:
    add(tree, FALSE)
    code, output = conformance(tree)
    assert code == 1
    assert "test_symmetry_is_as_declared" in output
