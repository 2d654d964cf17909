"""Every window of several specifications equals a numpy computation from raw rows."""

from __future__ import annotations

import json

import numpy as np
import orjson

from monitor.bootstrap import build_pipeline
from monitor.columns import ColumnBatch
from monitor.config.settings import Config
from monitor.features import CategoryFeature
from monitor.layout import layout_of
from monitor.ports import StoredRecord
from monitor.profiles import Profile
from monitor.reference import Reference
from monitor.replay import Replay, ReplayOutcome
from tests.shapes import number_feature_of

HOUR = 3_600_000
DAY = 24 * HOUR
START = 1_735_689_600_000
WINDOWS = [{"size": "1h"}, {"size": "24h", "step": "1h"}, {"size": "7d"}]


def config(windows: list[dict[str, str]] = WINDOWS, **model: object) -> Config:
    return Config.model_validate({"models": {"m": {"windows": windows, "grace": "10m"} | model}})


def reference(x: np.ndarray, c: list[str]) -> Reference:
    layout = layout_of([number_feature_of("x", x), CategoryFeature(name="c", values=("a", "b"))])
    profile = Profile(layout)
    profile.update(ColumnBatch(len(x), x[None, :], None, [c]))
    return Reference.build("m", "1", profile)


def events(n: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """n rows over 15 days, up to 10 minutes out of order."""
    dice = np.random.default_rng(seed)
    times = np.sort(START + dice.integers(0, 15 * DAY, n))
    times = times - dice.integers(0, 10 * 60_000, n)
    return times, dice.normal(size=n), dice.choice(["a", "b"], n).tolist()


def replay(settings: Config, references: list[Reference], records: list[tuple[int, StoredRecord]]) -> ReplayOutcome:
    pipeline = build_pipeline(settings, references)
    engine = Replay(
        pipeline.settings, "predictions", wire=pipeline.formats["predictions"], judge=pipeline.judge, references=references
    )
    return engine.run(records, end_of_input=True)


def records_of(times: np.ndarray, x: np.ndarray, c: list[str]) -> list[tuple[int, StoredRecord]]:
    made = []
    for i, (t, value, colour) in enumerate(zip(times.tolist(), x.tolist(), c, strict=True)):
        body = orjson.dumps({"model": "m", "time": t, "features": {"x": value, "c": colour}})
        made.append((i % 3, StoredRecord(i // 3, t + 60_000, body)))
    return made


def test_tumbling_hopping_and_weekly_windows_equal_numpy() -> None:
    times, x, c = events(9_000)
    ref_x = np.random.default_rng(1).normal(size=4_000)
    ref = reference(ref_x, ["a", "b"] * 2_000)
    outcome = replay(config(), [ref], records_of(times, x, c))
    assert (outcome.counted, outcome.late, outcome.rejected) == (9_000, 0, {})
    colours = np.array(c)
    edges = np.unique(np.quantile(ref_x, np.arange(1, 10) / 10, method="inverted_cdf"))
    seen = set()
    for _, value in outcome.results:
        record = json.loads(value)
        w = record["window"]
        seen.add((w["size_ms"], w["start_ms"]))
        inside = (times >= w["start_ms"]) & (times < w["end_ms"])
        assert record["n"] == inside.sum()
        if not record["n"]:
            continue
        f = record["features"]["x"]
        cells = np.bincount(np.searchsorted(edges, x[inside], side="left"), minlength=len(edges) + 1)
        assert f["cells"]["counts"] == cells.tolist()
        assert (f["min"], f["max"]) == (x[inside].min(), x[inside].max())
        assert np.isclose(f["mean"], x[inside].mean(), rtol=1e-9, atol=1e-10)
        assert np.isclose(f["std"], x[inside].std(), rtol=1e-9, atol=1e-10)
        counts = dict(zip(record["features"]["c"]["cells"]["values"], record["features"]["c"]["cells"]["counts"], strict=True))
        assert (counts["a"], counts["b"]) == ((colours[inside] == "a").sum(), (colours[inside] == "b").sum())
    expected = {(HOUR, int(t // HOUR * HOUR)) for t in times}
    expected |= {(7 * DAY, int(t // (7 * DAY) * (7 * DAY))) for t in times}
    expected |= {(DAY, int(t // HOUR * HOUR) - back * HOUR) for t in times for back in range(24)}
    assert expected <= seen


def test_open_windows_stay_open_without_an_end_of_input() -> None:
    times, x, c = events(1_000)
    pipeline = build_pipeline(config([{"size": "7d"}]))
    engine = Replay(pipeline.settings, "predictions", wire=pipeline.formats["predictions"], judge=pipeline.judge)
    outcome = engine.run(records_of(times, x, c))
    assert outcome.open_panes > 0
    assert {json.loads(v)["window"]["end_ms"] <= times.max() for _, v in outcome.results} == {True}


def test_more_windows_change_nothing_in_each() -> None:
    times, x, c = events(2_000)
    alone = replay(config([{"size": "1h"}]), [], records_of(times, x, c)).results
    together = replay(config(), [], records_of(times, x, c)).results
    hourly = {k: json.loads(v)["n"] for k, v in together if k.endswith(b"|3600000|3600000")}
    busy = {k: json.loads(v)["n"] for k, v in alone}
    assert {k: n for k, n in busy.items() if n} == {k: n for k, n in hourly.items() if n}


def test_a_reference_published_later_applies_from_its_event_time_and_windows_never_mix_two() -> None:
    times, x, c = events(3_000)
    first = reference(np.random.default_rng(1).normal(size=2_000), ["a", "b"] * 1_000)
    second = reference(np.random.default_rng(2).normal(size=2_000), ["a", "b"] * 1_000)
    second = second.effective_from(START + 3 * DAY)
    outcome = replay(config([{"size": "24h"}]), [first, second], records_of(times, x, c))
    used = {json.loads(v)["window"]["start_ms"]: json.loads(v)["reference"] for _, v in outcome.results}
    assert {used[t] for t in used if t < START + 3 * DAY} == {first.sha256}
    assert {used[t] for t in used if t >= START + 3 * DAY} == {second.sha256}
