"""The events, layout and configuration that the codec fixtures were made of: arithmetic only, so that they never change."""

from __future__ import annotations

import orjson

from monitor.config.settings import Config
from monitor.features import CategoryFeature, NumberFeature
from monitor.layout import Layout
from monitor.ports import StoredRecord
from monitor.sketches.bounded import key_hash

HOUR_MS = 3_600_000
START_MS = 1_735_689_600_000
N_EVENTS = 240
CUT = 150
"""Events before it are in the state rows of the fixtures; the rest come after a restart with newer code."""

LAYOUT = Layout(
    (
        CategoryFeature(name="city", values=("ams", "ber", "cdg"), other=tuple(sorted(map(key_hash, ("dub", "edi"))))),
        CategoryFeature(name="flag", values=("true", "false"), value_type="boolean"),
        NumberFeature(
            name="x", edges=(-1.0, 0.0, 1.0, 2.0), reported=(0.0, 1.0), minimum=-1.0, maximum=2.0, centre=0.5, exponent=-36
        ),
    )
)

CONFIG = Config.model_validate({"app": "m", "models": {"credit": {"windows": [{"size": "1h"}], "grace": "1m"}}})


def features(i: int) -> dict[str, object]:
    """Return event i's features: values of the dictionary, others, more than 64 that are new, nulls, wrong types and absent ones."""
    cities = ("ams", f"novel-{i}", f"fresh-{i}", "cdg", "dub", "ber", f"new-{i}", f"new-{i % 9}")
    found: dict[str, object] = {"city": cities[i % 8], "flag": i % 3 == 0, "x": (i * 37 % 101) / 20 - 1.5}
    if i % 11 == 0:
        found["x"] = None
    if i % 13 == 0:
        found["flag"] = "yes"
    if i % 17 == 0:
        del found["city"]
    if i % 64 == 0:
        found["zip"] = 1
    return found


def records() -> list[StoredRecord]:
    """Return the events as one partition's records, 60 in each hour."""
    made = []
    for i in range(N_EVENTS):
        time = START_MS + i * HOUR_MS // 60
        body = {"model": "credit", "version": "7", "time": time, "features": features(i)}
        made.append(StoredRecord(i, time, orjson.dumps(body)))
    return made
