"""Segments from a file to a result and an alert: what the configuration names, what the reference has, what the budget leaves out."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.bootstrap import build_pipeline, missing_segments
from monitor.config.settings import Config
from monitor.errors import InputError
from monitor.files import ColumnOptions, EventFile
from monitor.formats.native import NativeFormat
from monitor.reference import Reference
from monitor.reference_build import SegmentOptions, build_reference
from monitor.replay import Replay, ReplayOutcome
from monitor.segments import parse_key

START_MS, HOUR_MS = 1_735_689_600_000, 3_600_000
TIMED = ColumnOptions(time="time")
Event = dict[str, Any]


def events(n: int, seed: int, shift: float = 0.0, hours: int = 1) -> list[Event]:
    """Amounts; in the south they may be shifted."""
    dice = random.Random(seed)
    made = []
    for i in range(n):
        region = dice.choices(["north", "south", "east"], [70, 25, 5])[0]
        features = {
            "amount": round(dice.gauss(50, 10) + (shift if region == "south" else 0.0), 3),
            "age": dice.randrange(18, 90),
            "country": dice.choices(["DE", "FR"], [2, 1])[0],
        }
        time = START_MS + i * hours * HOUR_MS // n
        made.append({"model": "m", "version": "1", "time": time, "features": features, "tags": {"region": region}})
    return made


def write(path: Path, made: list[Event]) -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in made))
    return path


def options(*by: tuple[str, ...]) -> list[SegmentOptions]:
    return [SegmentOptions(tuple(parse_key(text) for text in keys)) for keys in by]


BY = (("country",), ("tags.region",), ("country", "tags.region"), ("age >= 60",))


def built(tmp_path: Path, made: list[Event], **limits: int) -> Reference:
    return build_reference(write(tmp_path / "train.ndjson", made), "m", "1", TIMED, segments=options(*BY), **limits)


def replay(tmp_path: Path, reference: Reference, made: list[Event], **rules: dict[str, Any]) -> ReplayOutcome:
    config = Config.model_validate({"models": {"m": {"windows": [{"size": "1h"}]}}, "rules": rules})
    pipeline = build_pipeline(config, [reference])
    rows = EventFile(write(tmp_path / "events.ndjson", made), TIMED, "m", "1", reference.layout)
    engine = Replay(
        pipeline.settings, "predictions", wire=NativeFormat(), judge=pipeline.judge, references=[reference], future_guard=False
    )
    return engine.run(rows, end_of_input=True)


def results(outcome: ReplayOutcome) -> dict[str, Any]:
    return {record["segment"]: record for record in (json.loads(value) for _, value in outcome.results)}


def of(made: list[Event], segment: str) -> list[Event]:
    """The events of a segment by its name, read by hand."""

    def has(event: Event, part: str) -> bool:
        if part == "age >= 60":
            return event["features"]["age"] >= 60
        if part == "not age >= 60":
            return event["features"]["age"] < 60
        key, _, value = part.partition("=")
        return (event["tags"]["region"] if key == "tags.region" else event["features"]["country"]) == value

    return [event for event in made if all(has(event, part) for part in segment.split(", "))]


def test_every_segment_has_the_rows_of_its_own_in_window_and_reference(tmp_path: Path) -> None:
    train, live = events(5_000, 1), events(2_000, 2)
    found = results(replay(tmp_path, built(tmp_path, train), live))
    named = [name for name in found if name != "all" and "(other)" not in name]
    assert set(named) >= {"country=DE", "tags.region=south", "country=FR, tags.region=north", "age >= 60", "not age >= 60"}
    for name in named:
        mine, record = of(live, name), found[name]
        assert (record["n"], record["n_ref"]) == (len(mine), len(of(train, name))), name
        amounts = [event["features"]["amount"] for event in mine]
        assert record["features"]["amount"]["mean"] == pytest.approx(np.mean(amounts), rel=1e-9)
        assert record["features"]["amount"]["std"] == pytest.approx(np.std(amounts), rel=1e-9)
        assert (record["features"]["amount"]["min"], record["features"]["amount"]["max"]) == (min(amounts), max(amounts))
        edges = record["features"]["amount"]["cells"]["edges"]
        counts = np.bincount(np.searchsorted(edges, amounts), minlength=len(edges) + 1)
        assert record["features"]["amount"]["cells"]["counts"] == counts.tolist()
    for prefix in ("country=", "tags.region="):
        own = [r["n"] for name, r in found.items() if name.startswith(prefix) and "," not in name]
        assert sum(own) == found["all"]["n"] == 2_000


def test_drift_of_one_segment_is_told_by_name_and_by_rules_for_segments(tmp_path: Path) -> None:
    reference = built(tmp_path, events(5_000, 1))
    rules = {"drift.psi": {"above": 0.2, "segments": ["tags.region=*"]}}
    outcome = replay(tmp_path, reference, events(3_000, 2, shift=9.0), **rules)
    alerts = [json.loads(value)["data"] for _, value in outcome.alerts]
    fired = {(one["check"], one["segment"], one["feature"]) for alert in alerts for one in alert["members"]}
    assert ("drift.psi", "tags.region=south", "amount") in fired
    assert not {one for one in fired if one[0] == "drift.psi" and one[1] != "tags.region=south"}
    worst = next(alert for alert in alerts if alert["check"] == "segments.drift")
    assert worst["evidence"]["worst"][0]["segment"].endswith("tags.region=south")
    quiet = replay(tmp_path, reference, events(3_000, 3), **rules)
    assert quiet.alerts == []


def test_new_values_are_told(tmp_path: Path) -> None:
    live = events(2_000, 2)
    for event in live[::5]:
        event["tags"]["region"] = "west"
    alerts = [json.loads(value)["data"] for _, value in replay(tmp_path, built(tmp_path, events(5_000, 1)), live).alerts]
    assert [(a["check"], a["evidence"]["by"]) for a in alerts] == [("segments.other", "tags.region")]


def test_ten_thousand_fake_segments_stay_within_the_budget_and_are_reported(tmp_path: Path) -> None:
    train = events(12_000, 1)
    for i, event in enumerate(train):
        event["tags"]["region"] = f"fake{i % 10_000}" if i >= 2_000 else "real"
    reference = built(tmp_path, train, max_segments=20)
    assert len(reference.layout.segments) <= 20
    named = {name for name in reference.layout.segments if name.startswith("tags.region")}
    assert named == {"tags.region=real", "tags.region=(other)"}
    (said,) = (text for text in reference.record.warnings if text.startswith("segments of tags.region:"))
    assert said.startswith("segments of tags.region: 1 of 10,001 values have rows of their own, the others share (other): 83.3%")
    live = events(3_000, 2)
    for i, event in enumerate(live):
        event["tags"]["region"] = f"other fake{i}"
    outcome = replay(tmp_path, reference, live)
    found = results(outcome)
    assert len(found) == len(reference.layout.segments)
    assert found["tags.region=(other)"]["n"] == 3_000
    (alert,) = (json.loads(value)["data"] for _, value in outcome.alerts)
    assert alert["check"] == "segments.other"


def test_both_outcomes_of_a_comparison_have_rows_though_one_is_rare(tmp_path: Path) -> None:
    train = events(1_000, 1)
    for event in train:
        event["features"]["age"] = 18 + event["features"]["age"] % 40
    reference = build_reference(write(tmp_path / "t.ndjson", train), "m", "1", TIMED, segments=options(("age >= 60",)))
    assert reference.layout.segments == ("all", "age >= 60", "not age >= 60", "age >= 60=(other)")


def test_a_budget_that_is_too_small_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the budget is 4; raise max_segments, or list fewer values"):
        built(tmp_path, events(500, 1), max_segments=4)


def test_a_reference_that_lacks_configured_segments_is_told(tmp_path: Path) -> None:
    reference = built(tmp_path, events(500, 1))

    def said(*segments: object) -> str | None:
        return missing_segments(Config.model_validate({"models": {"m": {"segments": list(segments)}}}), reference)

    assert said() is None
    assert said("country", ["country", "tags.region"]) is None
    text = said("country", ["tags.region", "age>=60"])
    assert text is not None
    assert "of m 1 has no segments by tags.region × age >= 60, though the configuration has" in text


@pytest.mark.parametrize("seed", range(3))
def test_segments_of_a_reference_are_the_same_for_any_order_of_rows(tmp_path: Path, seed: int) -> None:
    train = events(2_000, 1)
    shuffled = random.Random(seed).sample(train, len(train))
    assert built(tmp_path, shuffled).sha256 == built(tmp_path, train).sha256
