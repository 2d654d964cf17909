"""What a profile's update costs with references of 10 thousand to 10 million rows: a layout is as large whatever it was made from."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np

from benchmarks.traffic import COLOURS, Traffic
from monitor.columns import ColumnBatch
from monitor.features import CategoryFeature
from monitor.layout import Layout, layout_of
from monitor.profiles import Profile
from tests.shapes import number_feature_of

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
BATCH, ROUNDS = 1_000, 200


def layout_from(rows: int) -> Layout:
    """Return the layout of 20 features that a reference of so many rows has; its numbers are all cut as the first."""
    traffic = Traffic(0)
    first = number_feature_of("x", np.random.default_rng(3).normal(size=rows))
    numbers = [msgspec.structs.replace(first, name=name) for name in traffic.numbers]
    return layout_of([*numbers, *(CategoryFeature(name=name, values=tuple(COLOURS)) for name in traffic.categories)])


def measure() -> dict[str, Any]:
    """Return cells and CPU µs per row of folding 1,000 rows, fastest of rounds in turn."""
    dice, traffic = np.random.default_rng(4), Traffic(0)
    profiles = {rows: Profile(layout_from(rows)) for rows in SIZES}
    batch = ColumnBatch(
        BATCH,
        dice.normal(size=(len(traffic.numbers), BATCH)),
        None,
        [dice.choice(COLOURS, BATCH).tolist() for _ in traffic.categories],
    )
    best = dict.fromkeys(SIZES, float("inf"))
    for _ in range(ROUNDS):
        for rows, profile in profiles.items():
            start = time.process_time()
            profile.update(batch)
            best[rows] = min(best[rows], time.process_time() - start)
    first = best[SIZES[0]]
    found = {
        f"{rows:,} rows": {
            "cells": profiles[rows].layout.n_cells,
            "cpu_us_per_row": round(1e6 * seconds / BATCH, 3),
            "cpu_ratio": round(seconds / first, 3),
        }
        for rows, seconds in best.items()
    }
    return {"rounds": ROUNDS, "rows": found}
