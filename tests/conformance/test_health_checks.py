"""Every data-health check fires where it must, and is silent where it must be, through `monitor reference build` and `monitor replay`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from monitor.bootstrap import build_pipeline
from monitor.checks import HEALTH_TABLE
from monitor.cli import app
from monitor.config.settings import Config
from monitor.errors import OffsetGap
from monitor.policy import CHECKS, DEFAULT_RULES
from monitor.ports import StoredRecord
from monitor.reference import Reference
from monitor.replay import Replay
from tests.health_vectors import CONFIG, MODEL, VECTORS, VERSION, Logged, Vector, reference_rows

IDS = [check.id for check in HEALTH_TABLE]
Told = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def monitor(*arguments: object) -> None:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    (folder / "train.ndjson").write_text("".join(json.dumps(row) + "\n" for row in reference_rows()))
    path = folder / "reference.json"
    monitor(
        "reference", "build", folder / "train.ndjson", "--model", MODEL, "--model-version", VERSION, "--time-column", "time",
        "-o", path, "--config", write_config(folder, {}),
    )  # fmt: skip
    return path


def write_config(folder: Path, rules: dict[str, Any]) -> Path:
    path = folder / "monitor.yaml"
    path.write_text(json.dumps(CONFIG | {"rules": rules}))  # JSON is YAML
    return path


def line(record: Logged) -> bytes:
    place = {
        "partition": record.partition,
        "record_timestamp": record.timestamp_ms,
        "record_timestamp_type": record.timestamp_type,
    }
    return json.dumps(json.loads(record.value) | place).encode() + b"\n"


def replayed(records: list[Logged], rules: dict[str, Any], reference: Path, folder: Path) -> Told:
    """What `monitor replay` of a file says: result and alert records."""
    (folder / "events.ndjson").write_bytes(b"".join(map(line, records)))
    monitor(
        "replay", "--reference", reference, "--events", folder / "events.ndjson", "--config", write_config(folder, rules),
        "--results", folder / "results.ndjson", "--alerts", folder / "alerts.ndjson",
    )  # fmt: skip
    return read(folder / "results.ndjson"), read(folder / "alerts.ndjson")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


class LossyReplay(Replay):
    """Takes a gap for a loss to retention, as the driver does when the log begins behind it."""

    def _stage(self, topic: str, partition: int) -> Any:
        stage = super()._stage(topic, partition)
        feed = stage.feed

        def feed_over_gaps(records: Any, now_ms: int) -> None:
            try:
                feed(records, now_ms)
            except OffsetGap as gap:
                before = [record for record in records if record.offset < gap.expected]
                if before:
                    feed(before, now_ms)
                stage.skip_to(gap.got, lost=True)
                feed_over_gaps(records[len(before) :], now_ms)

        stage.feed = feed_over_gaps
        return stage


def replayed_with_losses(records: list[Logged], rules: dict[str, Any], reference: Path) -> Told:
    """The same engine on records in memory: a file has no offsets to lose."""
    pipeline = build_pipeline(
        Config.model_validate(CONFIG | {"rules": rules}), [known := Reference.from_bytes(reference.read_bytes())]
    )
    engine = LossyReplay(
        pipeline.settings, "predictions", wire=pipeline.formats["predictions"], judge=pipeline.judge, references=[known]
    )
    stored = [
        (r.partition, StoredRecord(r.offset or 0, r.timestamp_ms, r.value, timestamp_type=r.timestamp_type)) for r in records
    ]
    outcome = engine.run(stored)
    return [json.loads(value) for _, value in outcome.results], [json.loads(value) for _, value in outcome.alerts]


def run(records: list[Logged], vector: Vector, reference: Path, folder: Path) -> Told:
    if records[0].offset is not None:
        return replayed_with_losses(records, vector.rules, reference)
    return replayed(records, vector.rules, reference, folder)


def told(alerts: list[dict[str, Any]]) -> set[tuple[str, str]]:
    fired = [alert["data"] for alert in alerts if alert["data"]["status"] == "firing"]
    return {(member["check"], member["feature"] or "") for data in fired for member in data["members"]}


def found(results: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(finding["check"], finding["feature"] or "") for result in results for finding in result["findings"]}


def test_the_table_has_each_id_once_and_a_case_for_each() -> None:
    assert len(IDS) == len(set(IDS))
    assert set(VECTORS) == set(IDS)


def test_for_each_check_it_is_decided_whether_somebody_is_told_by_default() -> None:
    assert set(IDS) <= set(CHECKS)
    assert {check for check, vector in VECTORS.items() if vector.rules} == set(IDS) - set(DEFAULT_RULES)


@pytest.mark.parametrize("check", IDS)
def test_it_fires(check: str, reference: Path, tmp_path: Path) -> None:
    vector = VECTORS[check]
    results, alerts = run(vector.firing, vector, reference, tmp_path)
    assert (check, vector.feature) in found(results)
    assert (check, vector.feature) in told(alerts)
    finding = next(f for r in results for f in r["findings"] if f["check"] == check)
    limit = max(finding["threshold"], finding["critical_value"] or finding["threshold"])
    assert finding["value"] < finding["threshold"] if finding["direction"] == "below" else finding["value"] > limit


@pytest.mark.parametrize("check", IDS)
def test_it_is_quiet(check: str, reference: Path, tmp_path: Path) -> None:
    vector = VECTORS[check]
    results, alerts = run(vector.quiet, vector, reference, tmp_path)
    assert sum(result["n"] for result in results) > 500
    assert (check, vector.feature) not in found(results) | told(alerts)
    assert all(check not in result["insufficient"] for result in results)


def test_an_ordinary_hour_raises_nothing_even_where_every_check_has_a_rule(reference: Path, tmp_path: Path) -> None:
    rules = {check: threshold for vector in VECTORS.values() for check, threshold in vector.rules.items()}
    results, alerts = replayed(VECTORS["health.top_share"].quiet, rules, reference, tmp_path)
    assert [result["n"] for result in results] == [600]
    assert (found(results), alerts) == (set(), [])
