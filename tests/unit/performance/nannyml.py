"""The rows and figures that `benchmarks/nannyml_fixture.py` keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FIXTURES = Path(__file__).parents[2] / "fixtures"
SCALE = 1_000_000


class Set(NamedTuple):
    """Rows of one data set; chunk 0 is the reference."""

    chunk: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    scores: np.ndarray
    """(n, k), k = 1: of class 1; 0 for numbers"""


def load_set(name: str) -> Set:
    with np.load(FIXTURES / "nannyml.npz") as stored:
        n = len(stored[f"{name}/chunk"])
        scores = stored[f"{name}/scores"] / SCALE if f"{name}/scores" in stored.files else np.zeros((n, 0))
        return Set(
            stored[f"{name}/chunk"],
            stored[f"{name}/label"].astype(np.int64),
            stored[f"{name}/prediction"].astype(np.int64),
            scores,
        )


def figures() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / "nannyml.json").read_text(encoding="utf-8"))["sets"]
    return found
