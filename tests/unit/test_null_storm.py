"""One cause is one incident: an upstream join fails, and 200 features go null at once. From events through both stages."""

from __future__ import annotations

import json
import os
from functools import lru_cache

import numpy as np
import orjson
import pytest

from monitor.bootstrap import build_pipeline
from monitor.columns import ColumnBatch
from monitor.config.settings import Config
from monitor.features import CategoryFeature, Feature
from monitor.layout import layout_of
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.replay import Replay
from tests.shapes import number_feature_of

N_NUMBERS, N_CATEGORIES = 160, 40
HOUR_MS = 3_600_000
START_MS = 1_735_689_600_000
STORM = 1
"""The window in which it begins; it lasts for two."""
N_SEEDS = int(os.environ.get("NULL_STORM_SEEDS", "4"))
"""`make bench-storm` asks for 100."""
CONFIG = Config.model_validate({"models": {"m": {"windows": [{"size": "1h"}], "grace": "0s"}}})


@lru_cache(maxsize=1)
def reference() -> Reference:
    dice = np.random.default_rng(99)
    numbers = dice.normal(size=(N_NUMBERS, 5_000))
    categories = dice.choice(["a", "b", "c"], (N_CATEGORIES, 5_000), p=[0.6, 0.3, 0.1])
    features: list[Feature] = [number_feature_of(f"n{i:03}", numbers[i]) for i in range(N_NUMBERS)]
    features += [CategoryFeature(name=f"c{i:03}", values=("a", "b", "c")) for i in range(N_CATEGORIES)]
    profile = Profile(layout_of(features))
    profile.update(ColumnBatch(5_000, numbers, None, [row.tolist() for row in categories]))
    return Reference.build("m", "1", profile)


def events(seed: int) -> list[tuple[int, StoredRecord]]:
    """Four windows of 100 to 200 rows; in two of them a share of the rows, 30 % at least, has null in every feature."""
    dice = np.random.default_rng(seed)
    n, share = int(dice.integers(100, 200)), dice.uniform(0.3, 1.0)
    records = []
    for at in range(4):
        numbers = dice.normal(size=(n, N_NUMBERS)).tolist()
        categories = dice.choice(["a", "b", "c"], (n, N_CATEGORIES), p=[0.6, 0.3, 0.1]).tolist()
        is_null = (dice.random(n) < share) & (STORM <= at < STORM + 2)
        for i in range(n):
            given = {f"n{j:03}": value for j, value in enumerate(numbers[i])} | {
                f"c{j:03}": value for j, value in enumerate(categories[i])
            }
            body = {
                "model": "m",
                "version": "1",
                "time": START_MS + at * HOUR_MS + i,
                "features": dict.fromkeys(given) if is_null[i] else given,
            }
            records.append((0, StoredRecord(len(records), START_MS + at * HOUR_MS + i, orjson.dumps(body))))
    return records


def told(seed: int) -> list[tuple[int, str, str, str]]:
    """Return window, status, check and named root of every alert with a finding of the storm.

    At 0.001 per measurement, one in six quiet windows of 200 features has a value out of its range; whatever feature was alarmed before
    the storm keeps that incident, and its nulls are a part of it.
    """
    pipeline = build_pipeline(CONFIG, [reference()])
    engine = Replay(
        pipeline.settings, "predictions", wire=pipeline.formats["predictions"], judge=pipeline.judge, references=[reference()]
    )
    alerts = [json.loads(value)["data"] for _, value in engine.run(events(seed), end_of_input=True).alerts]
    return [
        ((a["window"]["start_ms"] - START_MS) // HOUR_MS, a["status"], a["check"], a["root"]["check"])
        for a in alerts
        if any(member["check"] == "health.missing" for member in a["members"]) and a["n_features"] > 100
    ] + [
        ((a["window"]["start_ms"] - START_MS) // HOUR_MS, "also firing", a["check"], a["root"]["check"])
        for a in alerts
        if a["status"] == "firing"
        and a["n_features"] <= 100
        and a["window"]["start_ms"] >= START_MS + STORM * HOUR_MS
        and a["window"]["start_ms"] < START_MS + (STORM + 2) * HOUR_MS
    ]


def test_a_null_storm_on_200_features_is_one_incident_with_its_root_named() -> None:
    wanted = [
        (STORM, "firing", "health.missing", "health.missing"),
        (STORM + 2, "resolved", "health.missing", "health.missing"),
    ]
    wrong = {seed: found for seed in range(N_SEEDS) if (found := told(seed)) != wanted}
    print(f"{N_SEEDS - len(wrong)} of {N_SEEDS} storms are one incident with its root named")
    assert len(wrong) <= 0.05 * N_SEEDS, wrong


def test_the_members_beyond_fifty_are_counted() -> None:
    pipeline = build_pipeline(CONFIG, [reference()])
    engine = Replay(
        pipeline.settings, "predictions", wire=pipeline.formats["predictions"], judge=pipeline.judge, references=[reference()]
    )
    [first, _] = [json.loads(value)["data"] for _, value in engine.run(events(1), end_of_input=True).alerts]
    assert (len(first["members"]), first["n_members"] >= 200, first["n_features"]) == (50, True, 200)
    assert first["root"] == first["members"][0]
    assert pytest.approx(first["root"]["value"], abs=1e-12) == max(
        m["value"] for m in first["members"] if m["check"] == "health.missing"
    )
