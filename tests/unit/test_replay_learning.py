"""A replay without a reference learns one, applies it from its time on, and agrees with a live run of the same events."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import orjson
import pytest

from monitor.bootstrap import build_pipeline
from monitor.config.settings import Config
from monitor.pipeline import Pipeline
from monitor.ports import Message, PartitionStage, StoredRecord
from monitor.reference import Reference
from monitor.replay import Replay, ReplayOutcome

HOUR = 3_600_000
START = 1_735_689_600_000
N_HOURS = 30
NOW = START + N_HOURS * HOUR
DRIFT_AT = 20
CONFIG = Config.model_validate(
    {
        "partials_partitions": 1,
        "sources": [{"topic": "predictions", "clock": "event"}],
        "models": {"m": {"windows": [{"size": "1h"}, {"size": "4h", "step": "1h"}], "learning": {"rows": 2_000, "windows": 6}}},
    }
)

Records = list[tuple[int, StoredRecord]]


def events() -> Records:
    """400 rows an hour in two partitions, in order of time; x moves by 1.5 standard deviations at hour 20."""
    dice = np.random.default_rng(7)
    found: Records = []
    offsets = [0, 0]
    for t in np.sort(dice.integers(0, N_HOURS * HOUR, 400 * N_HOURS)).tolist():
        partition = int(dice.integers(0, 2))
        x = dice.normal() + (1.5 if t >= DRIFT_AT * HOUR else 0.0)
        features = {"x": x, "colour": str(dice.choice(["red", "green"])), "flag": bool(dice.random() < 0.2)}
        body = {"model": "m", "time": START + t, "features": features, "score": float(dice.random())}
        found.append((partition, StoredRecord(offsets[partition], START + t, orjson.dumps(body))))
        offsets[partition] += 1
    return found


EVENTS = events()


def replay(references: list[Reference], records: Records = EVENTS) -> ReplayOutcome:
    pipeline = build_pipeline(CONFIG, references)
    wire = pipeline.formats["predictions"]
    replayed = Replay(
        pipeline.settings, "predictions", wire=wire, judge=pipeline.judge, look=pipeline.look, references=references
    )
    return replayed.run(records)


@pytest.fixture(scope="module")
def outcome() -> ReplayOutcome:
    return replay([])


def read(results: list[tuple[bytes, bytes]]) -> dict[bytes, dict[str, object]]:
    """Results without the offsets, which depend on how partitions were fetched."""
    return {key: json.loads(value) | {"source_offsets": None} for key, value in results}


def test_the_reference_is_that_of_the_first_hours_and_applies_after_them(outcome: ReplayOutcome) -> None:
    ((_, value),) = outcome.references
    reference = Reference.from_bytes(value)
    assert (reference.record.provisional, reference.record.windows) == (True, 6)
    rows = [json.loads(r.value or b"") for _, r in EVENTS if r.timestamp < START + 6 * HOUR]
    assert reference.record.rows == len(rows)
    x = np.array([row["features"]["x"] for row in rows])
    summary = reference.profile.summary("x")
    assert (summary.minimum, summary.maximum) == (x.min(), x.max())
    assert summary.mean == pytest.approx(x.mean(), abs=1e-9)
    assert reference.profile.summary("colour").values[:2].sum() == len(rows)
    assert {f.name for f in reference.layout.features} == {"x", "colour", "flag", "@score"}
    assert reference.effective_from_ms == START + 6 * HOUR + 120_000 + 60_000
    for result in (one for one in read(outcome.results).values() if "type" not in one):
        window = result["window"]
        assert isinstance(window, dict)
        is_known = window["end_ms"] >= START + 8 * HOUR  # the first pane under it begins with hour 7
        assert (result["reference"] == reference.sha256) == is_known
        assert (result["reference"] is None) == (not is_known)


def test_drift_is_found_against_it_and_nothing_before(outcome: ReplayOutcome) -> None:
    fired = [json.loads(value)["data"] for _, value in outcome.alerts]
    drift = {(d["window"]["end_ms"] - START) // HOUR: d["feature"] for d in fired if d["check"] == "drift.distribution"}
    assert set(drift.values()) == {"x"}
    assert min(drift) == DRIFT_AT + 1


def test_the_same_reference_given_beforehand_changes_nothing(outcome: ReplayOutcome) -> None:
    again = replay([Reference.from_bytes(value) for _, value in outcome.references])
    assert again.results == outcome.results
    assert again.alerts == outcome.alerts
    assert again.references == outcome.references


def test_a_live_run_in_which_the_reference_travels_agrees(outcome: ReplayOutcome) -> None:
    """Partitions are read record by record in order of time; what is published is read at once."""
    pipeline = build_pipeline(CONFIG)
    live = Live(pipeline)
    for start in range(0, len(EVENTS), 25):
        live.feed(EVENTS[start : start + 25])
    assert live.published["references"] == outcome.references
    assert read(live.published["results"]) == read(outcome.results)
    assert [json.loads(v)["id"] for _, v in live.published["alerts"]] == [json.loads(v)["id"] for _, v in outcome.alerts]


class Live:
    """Two ingest partitions and a merge, ticked after every few records."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.ingests = [pipeline.ingest("predictions", p, partitions=2) for p in range(2)]
        self.merge = pipeline.merge(0, topology={"predictions": 2})
        for stage in (*self.ingests, self.merge):
            stage.skip_to(0)
        self.offset = 0
        self.published: dict[str, list[tuple[bytes, bytes]]] = {"results": [], "alerts": [], "references": []}

    def feed(self, records: Records) -> None:
        for partition, stage in enumerate(self.ingests):
            stage.feed([record for p, record in records if p == partition], NOW)
            tick(stage, self._take_partial)
        tick(self.merge, self._take)

    def _take_partial(self, message: Message) -> None:
        self.merge.feed([StoredRecord(self.offset, 0, message.value)], NOW)
        self.offset += 1

    def _take(self, message: Message) -> None:
        assert message.key is not None and message.value is not None
        self.published[message.topic.split(".")[1]].append((message.key, message.value))
        if message.topic == "monitor.references":
            self.pipeline.references.add(Reference.from_bytes(message.value))


def tick(stage: PartitionStage, take: Callable[[Message], None]) -> None:
    checkpoint = stage.checkpoint()
    if checkpoint is not None:
        stage.committed(checkpoint)
    box = stage.outbox(NOW)
    for message in (*box.first, *box.then):
        take(message)
    if box:
        stage.emitted(box, NOW)


def test_events_that_can_be_read_only_once_are_refused() -> None:
    with pytest.raises(TypeError, match="only once"):
        replay([], iter(EVENTS))  # type: ignore[arg-type]
