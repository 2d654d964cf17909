"""The predictions, labels and configuration that the fixture of outcomes was made of: arithmetic only, so that they never change."""

from __future__ import annotations

import orjson

from monitor.config.settings import Config
from monitor.features import CategoryFeature, NumberFeature
from monitor.layout import Layout
from monitor.policy import Policy, Rule
from monitor.ports import StoredRecord
from monitor.reference import PREDICTION, SCORE
from monitor.segments import Key, Segmentation

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
START_MS = 1_735_689_600_000
N_HOURS = 32
PER_HOUR = 30
CUT_HOUR = 19
"""What was read by then is in the fixture's state; the rest comes after a restart with newer code."""
BROKEN_HOURS = range(11, 18)
"""x is null, and the model is wrong."""

LAYOUT = Layout(
    (
        CategoryFeature(name=PREDICTION, values=("0", "1")),
        NumberFeature(
            name=SCORE, edges=tuple(i / 16 for i in range(17)), reported=(0.0, 0.5, 1.0), minimum=0.0, maximum=1.0, centre=0.5, exponent=-40
        ),
        NumberFeature(
            name="x", edges=(-1.0, 0.0, 1.0, 2.0), reported=(0.0, 1.0), minimum=-1.0, maximum=2.0, centre=0.5, exponent=-36
        ),
    ),
    (Segmentation((Key(name="tags.team"),), (("red",), ("blue",))),),
)  # fmt: skip

CONFIG = Config.model_validate(
    {
        "app": "m",
        "sources": [{"topic": "predictions"}, {"topic": "labels", "format": "native-label"}],
        "models": {
            "credit": {
                "windows": [{"size": "1h"}, {"size": "24h"}],
                "grace": "1m",
                "labels": {"retention": "6h", "report_at": ["0s", "2h", "6h"], "min_labels": 10},
            }
        },
        "rules": {"health.missing": {"above": 0.05, "severity": "warning"}},
        "outcomes_partitions": 2,
        "partials_partitions": 1,
    }
)
POLICY = Policy(
    name="own", rules=(("performance.accuracy", Rule(below=0.7, segments=("*",), severity="critical", policy="own")),)
)


def prediction(i: int) -> bytes:
    """Return prediction i: some have no score, a class that the reference does not have, no team or no id."""
    time = START_MS + i * HOUR_MS // PER_HOUR
    is_broken = i // PER_HOUR in BROKEN_HOURS
    score = (i * 37 % 101) / 100
    body: dict[str, object] = {
        "model": "credit", "version": "7", "time": time, "id": f"id-{i}", "prediction": str(int(score > 0.5)), "score": score,
        "features": {"x": None if is_broken else (i * 37 % 101) / 40 - 1.0},
        "tags": {"team": ("red", "blue", "green")[i % 3]},
    }  # fmt: skip
    if i % 13 == 0:
        body["score"] = None
    if i % 29 == 0:
        body["prediction"] = "maybe"
    if i % 31 == 0:
        del body["tags"]
    if i % 37 == 0:
        del body["id"]
    return orjson.dumps(body)


def labels_of(i: int) -> list[tuple[int, object]]:
    """Return when labels of prediction i become known, and what they say: most one, some none, doubled ones, others and early ones."""
    time = START_MS + i * HOUR_MS // PER_HOUR
    if i % 6 == 5:
        return []
    is_right = i // PER_HOUR not in BROKEN_HOURS and i % 10 != 0
    told = int(((i * 37 % 101) / 100 > 0.5) == is_right)
    first = time + (i * 61 % 240 - 5) * MINUTE_MS
    found: list[tuple[int, object]] = [(first, told)]
    if i % 17 == 0:
        found.append((first + 30 * MINUTE_MS, told))
    if i % 19 == 0:
        found.append((first + 70 * MINUTE_MS, 1 - told))
    if i % 23 == 0:
        found.append((first + 90 * MINUTE_MS, "never"))
    return found


def records() -> dict[str, list[StoredRecord]]:
    """Return the logs of both sources, of one partition each, by time; the timestamp is the event's own."""
    n = N_HOURS * PER_HOUR
    known = [(at, f"id-{i}", value) for i in range(n) for at, value in labels_of(i)]
    known += [(START_MS + i * HOUR_MS // PER_HOUR, f"nobody-{i}", 1) for i in range(0, n, 41)]
    ordered = sorted(known, key=lambda one: one[:2])
    labels = [
        StoredRecord(i, at, orjson.dumps({"model": "credit", "id": key, "label": value, "time": at}))
        for i, (at, key, value) in enumerate(ordered)
    ]
    predictions = [StoredRecord(i, START_MS + i * HOUR_MS // PER_HOUR, prediction(i)) for i in range(n)]
    return {"predictions": predictions, "labels": labels}


def batches() -> list[tuple[int, str, list[StoredRecord]]]:
    """Return (hour, topic, records) of both logs, an hour at a time."""
    found = []
    for topic, log in records().items():
        for hour in range(-1, N_HOURS + 6):
            first = START_MS + hour * HOUR_MS
            found.append((hour, topic, [record for record in log if first <= record.timestamp < first + HOUR_MS]))
    return [one for one in sorted(found, key=lambda one: (one[0], one[1])) if one[2]]
