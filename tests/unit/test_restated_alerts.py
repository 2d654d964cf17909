"""What late rows do to alerts: through the whole of `replay`, with a rule on a window's rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from monitor.bootstrap import build_pipeline
from monitor.config.settings import Config
from monitor.ports import StoredRecord
from monitor.replay import Replay, ReplayOutcome
from monitor.stages.settings import Revising

MINUTE = 60_000
SCHEMAS = Path(__file__).parents[2] / "schemas"


def outcome_of(minutes: Sequence[float], *, windows: int = 1, below: float = 2.0, late: str = "revise") -> ReplayOutcome:
    """Replay an event at each of these minutes, in windows of ten, alarmed below so many rows; at the end all windows but the last are closed."""
    config = Config.model_validate(
        {
            "sources": [{"topic": "p", "clock": "event"}],
            "defaults": {"windows": [{"size": "10m"}], "grace": 0, "late": late, "revise_for": "1h"},
            "rules": {"traffic.low": {"below": below, "windows": windows}},
        }
    )
    pipeline = build_pipeline(config)
    rows = [orjson.dumps({"model": "m", "time": round(minute * MINUTE), "features": {}}) for minute in minutes]
    replay = Replay(pipeline.settings, "p", wire=pipeline.formats["p"], judge=pipeline.judge, future_guard=False)
    return replay.run([(0, StoredRecord(i, 1 << 61, value)) for i, value in enumerate(rows)])


def alerts(outcome: ReplayOutcome) -> list[dict[str, Any]]:
    return [alert for alert in (json.loads(value) for _, value in outcome.alerts) if alert["data"]["check"] == "traffic.low"]


def told(outcome: ReplayOutcome) -> list[tuple[str, int, int]]:
    """(status, minute at which the window ends, revision) in the order in which they were published."""
    return [
        (a["data"]["status"], a["data"]["window"]["end_ms"] // MINUTE, a["data"]["window"]["revision"]) for a in alerts(outcome)
    ]


def open_incidents(found: Sequence[dict[str, Any]]) -> set[str]:
    """What a reader holds for open who takes every record in order."""
    opened: set[str] = set()
    for alert in found:
        incident = alert["data"]["incident_id"]
        opened = opened | {incident} if alert["data"]["status"] == "firing" else opened - {incident}
    return opened


def test_an_alert_that_late_rows_undo_is_resolved_and_names_what_it_takes_back() -> None:
    outcome = outcome_of([1, 12, 13, 2, 21, 22, 31])
    assert told(outcome) == [("firing", 10, 0), ("resolved", 10, 1)]
    fired, resolved = alerts(outcome)
    assert resolved["data"]["incident_id"] == fired["data"]["incident_id"] == fired["id"]
    assert resolved["data"]["supersedes"] == fired["id"]
    assert resolved["id"] not in (fired["id"], None)
    assert resolved["data"]["evidence"]["reason"] == "taken back by a revision of the window"
    assert fired["data"]["supersedes"] is None
    assert outcome.alert_severities["warning"] == 1


def test_an_alert_that_still_holds_is_restated_with_its_new_numbers_in_the_same_incident() -> None:
    outcome = outcome_of([1, 12, 13, 14, 2, 21, 22, 23, 31], below=3.0)
    fired, restated = alerts(outcome)[:2]
    assert told(outcome)[:2] == [("firing", 10, 0), ("firing", 10, 1)]
    assert (fired["data"]["n"], restated["data"]["n"]) == (1, 2)
    assert restated["data"]["supersedes"] == fired["id"] != restated["id"]
    assert restated["data"]["incident_id"] == fired["id"]
    assert outcome.alert_severities["warning"] == 1  # it has fired once


def test_where_later_windows_were_low_too_their_incident_is_told_in_place_of_the_one_that_is_taken_back() -> None:
    """The windows that end at 20 and 30 are low, that at 40 is not; then the first one gets its second row."""
    outcome = outcome_of([1, 2, 11, 21, 31, 32, 41, 12, 42, 51])
    found = alerts(outcome)
    assert told(outcome) == [("firing", 20, 0), ("resolved", 40, 0), ("resolved", 20, 1), ("firing", 30, 1), ("resolved", 40, 1)]
    first, later = found[0]["id"], found[3]["data"]["incident_id"]
    assert [a["data"]["incident_id"] for a in found] == [first, first, first, later, later]
    assert open_incidents(found) == set()


def test_an_alert_that_still_holds_but_is_over_by_now_is_not_told_again() -> None:
    """The window that ends at 20 was empty, has one row late, and is low with it too; the next one has resolved that."""
    outcome = outcome_of([1, 2, 21, 22, 31, 11, 32, 41, 42, 51])
    assert told(outcome) == [("firing", 20, 0), ("resolved", 30, 0)]
    revisions = [r["revision"] for r in (json.loads(v) for _, v in outcome.results) if r["window"]["end_ms"] == 20 * MINUTE]
    assert revisions == [0, 1]


def test_a_breach_that_late_rows_end_does_not_count_for_the_hysteresis_of_later_windows() -> None:
    """Two low windows in a row fire. The first one is not low any more with its late row: what fired with the second is taken back."""
    outcome = outcome_of([1, 11, 21, 22, 2, 31, 32, 41], windows=2)
    assert told(outcome) == [("firing", 20, 0), ("resolved", 20, 1)]


@hypothesis_settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 99), st.sampled_from([0, 0, 0, 15, 25, 45])), min_size=12, max_size=30),
    st.sampled_from([1, 2]),
)
def test_what_is_open_in_the_end_is_what_rows_on_time_leave_open(rows: list[tuple[int, int]], windows: int) -> None:
    """Minutes and delays, all within an hour: windows and incidents are in the end those of events that came in time."""
    ending = [150, 170, 190]
    on_time = outcome_of([0, *sorted(minute for minute, _ in rows), *ending], windows=windows)
    late = outcome_of([0, *(minute for minute, _ in sorted(rows, key=sum)), *ending], windows=windows)
    assert late.late == 0
    incidents = []
    for outcome in (on_time, late):
        found = alerts(outcome)
        opened = open_incidents(found)
        incidents.append({a["data"]["opened_ms"] for a in found if a["data"]["incident_id"] in opened})
    assert incidents[0] == incidents[1]
    newest = [{r["window"]["end_ms"]: r["n"] for r in (json.loads(v) for _, v in o.results)} for o in (on_time, late)]
    assert newest[0] == newest[1]


def test_every_id_is_told_once_and_every_record_fits_its_schema() -> None:
    outcome = outcome_of([1, 2, 11, 21, 31, 32, 41, 12, 42, 51])
    ids = [json.loads(value)["id"] for _, value in (*outcome.alerts, *outcome.results)]
    assert len(set(ids)) == len(ids)
    for name, records in (("alert", outcome.alerts), ("result", outcome.results)):
        schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
        for _, value in records:
            jsonschema.validate(json.loads(value), schema)


def test_a_revision_names_the_result_that_it_replaces() -> None:
    outcome = outcome_of([1, 12, 13, 2, 21, 3, 31, 41])
    results = [r for r in (json.loads(value) for _, value in outcome.results) if r["window"]["start_ms"] == 0]
    assert [(r["revision"], r["n"]) for r in results] == [(0, 1), (1, 2), (2, 3)]
    assert [r["supersedes"] for r in results] == [None, results[0]["id"], results[1]["id"]]
    assert (outcome.counted, outcome.revised, outcome.late, outcome.revisions) == (6, 2, 0, 2)
    assert outcome.produced == 8


def test_revised_rows_are_no_late_ones_for_the_health_of_the_stream() -> None:
    minutes = [1, 12, 13, 2, 21, 3, 31, 41]
    late = {
        mode: sum(json.loads(v)["stream"]["late"] for _, v in outcome_of(minutes, late=mode).results)
        for mode in ("drop", "revise")
    }
    assert late == {"drop": 2, "revise": 0}


def test_a_model_that_drops_late_rows_publishes_what_it_did() -> None:
    minutes = [1, 12, 13, 2, 21, 3, 31, 41]
    drop = outcome_of(minutes, late="drop")
    assert all(json.loads(value)["revision"] == 0 for _, value in drop.results)
    on_time = outcome_of([m for m in minutes if m not in (2, 3)], late="drop")
    assert len(drop.results) == len(on_time.results)
    assert (drop.counted, drop.revised, drop.late) == (6, 0, 2)


@pytest.mark.parametrize(("given", "every"), [({}, 10), ({"revise_every": "20m"}, 20)])
def test_late_rows_are_gathered_for_a_pane_unless_configured_otherwise(given: dict[str, str], every: int) -> None:
    model = {"windows": [{"size": "10m"}], "late": "revise", "revise_for": "1h"} | given
    settings = build_pipeline(Config.model_validate({"defaults": model})).settings
    assert settings.defaults.revising == Revising(60 * MINUTE, every * MINUTE)
