"""Every number of a feature has a meaning in docs/numbers.md."""

from pathlib import Path

import pytest

from monitor.distances import CHECKS, DISTANCES

TEXT = (Path(__file__).parents[2] / "docs/numbers.md").read_text()


@pytest.mark.parametrize("name", [distance.name for distance in DISTANCES])
def test_a_distance_has_a_formula(name: str) -> None:
    assert f"| `distances.{name}` |" in TEXT


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda distance: distance.name)
def test_bounds_symmetry_and_cells_are_those_of_the_registry(distance) -> None:
    _, _, bounds, symmetric, cells, _ = (part.strip() for part in row(distance.name))
    assert bounds == {(0.0, 1.0): "0 … 1", (0.0, float("inf")): "≥ 0"}.get(distance.bounds, "–")
    assert symmetric == ("yes" if distance.is_symmetric else "no")
    assert cells == distance.cells


def row(name: str) -> list[str]:
    [line] = [line for line in TEXT.splitlines() if line.startswith(f"| `distances.{name}` |")]
    return line.replace("\\|", "").strip("|").split("|")


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_has_a_law(check: str) -> None:
    assert f"`{check}`" in TEXT
