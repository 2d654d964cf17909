"""Incidents of the program's own decisions: late rows end them, and a restart at any point neither repeats nor forgets one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np

from monitor.bootstrap import build_pipeline
from monitor.config.settings import Config
from monitor.formats.native import NativeFormat
from monitor.pipeline import Pipeline
from monitor.ports import LOG_APPEND_TIME, Message, StoredRecord
from monitor.reference import References
from monitor.replay import Replay
from tests.simulation import SOURCE, Place, Topic, finish, places_of, run
from tests.unit.decision.observed import HOUR_MS, reference, rows

N = 200
"""Rows of an hour."""
QUIET = (N, 0.0, 0.0)
HOURS: Sequence[tuple[int, float, float]] = (
    QUIET, QUIET, (N, 0.35, 0.0), (N, 3.0, 0.0), QUIET, QUIET, (N, 0.8, 0.0), QUIET, QUIET, (N, 0.0, 0.5), QUIET, (20, 0.0, 0.0), QUIET, QUIET,
)  # fmt: skip
"""Rows, shift in standard deviations, share of nulls: a drift that grows, one that late rows undo, nulls, an hour that is nearly empty."""
LATE_OF, LATE_AT, N_LATE = 6, 7, 2_000
"""Of which hour rows are late, behind those of which they come, how many."""


class Told(NamedTuple):
    """An alert, as whoever is told reads it."""

    status: str
    hour: int
    revision: int
    check: str
    severity: str


@cache
def pipeline() -> Pipeline:
    config = Config.model_validate(
        {
            "sources": [{"topic": SOURCE, "clock": "event"}],
            "defaults": {
                "windows": [{"size": "1h"}],
                "grace": 0,
                "late": "revise",
                "revise_for": "6h",
                "learning": {"enabled": False},
            },
            "rules": {"traffic.low": {"below": 40, "windows": 1}},
            "partials_partitions": 1,
        }
    )
    return build_pipeline(config, [reference()])


@cache
def references() -> References:
    known = References()
    known.add(reference())
    return known


@cache
def events() -> tuple[StoredRecord, ...]:
    """Events by hour, in order but for those that are late; and a tick behind the last."""
    dice = np.random.default_rng(5)
    found: list[StoredRecord] = []

    def put(hour: int, n: int, shift: float, nulls: float) -> None:
        x, colours = rows(dice, n, shift)
        missing = dice.random(n) < nulls
        for i in range(n):
            features = {"x": None if missing[i] else float(x[i]), "colour": colours[i]}
            time_ms = hour * HOUR_MS + i * (HOUR_MS // (n + 1))
            body = {"model": "m", "version": "1", "id": f"{len(found)}", "time": time_ms, "features": features}
            found.append(StoredRecord(len(found), time_ms, msgspec.json.encode(body), timestamp_type=LOG_APPEND_TIME))

    for hour, (n, shift, nulls) in enumerate(HOURS):
        put(hour, n, shift, nulls)
        if hour == LATE_AT:
            put(LATE_OF, N_LATE, 0.0, 0.0)
    tick = msgspec.json.encode({"tick": (len(HOURS) + 8) * HOUR_MS})
    return (*found, StoredRecord(len(found), 0, tick, timestamp_type=LOG_APPEND_TIME))


@cache
def calm() -> tuple[tuple[bytes, bytes], ...]:
    """Return the alerts of a run in which nothing fails, in order."""
    replay = Replay(pipeline().settings, SOURCE, wire=NativeFormat(), judge=pipeline().judge, references=[reference()])
    return tuple(replay.run([(0, record) for record in events()]).alerts)


def told(alerts: Sequence[tuple[bytes, bytes]]) -> list[Told]:
    bodies = [msgspec.json.decode(value)["data"] for _, value in alerts]
    return [
        Told(a["status"], a["window"]["end_ms"] // HOUR_MS - 1, a["window"]["revision"], a["check"], a["severity"])
        for a in bodies
    ]


def in_order(published: Sequence[Message]) -> list[tuple[bytes, bytes]]:
    """Return the alerts as a reader takes them who passes over every id that is known: at least once becomes once."""
    alerts = [(message.key or b"", message.value or b"") for message in published if message.topic.endswith(".alerts")]
    ids = [msgspec.json.decode(value)["id"] for _, value in alerts]
    return [alert for i, alert in enumerate(alerts) if ids[i] not in ids[:i]]


@cache
def read() -> tuple[StoredRecord, ...]:
    """Return what the source's partition tells the merge of the windows."""
    (source, _), partials, _ = places_of(pipeline().settings, NativeFormat(), pipeline().judge, [log()], references)
    finish(source, random.Random(1))
    return tuple(partials.records)


def log() -> Topic:
    return Topic(list(events()))


def merge() -> tuple[Place, list[Message]]:
    """Return the place that decides, with all of its input before it, and what it will publish."""
    (_, place), partials, published = places_of(pipeline().settings, NativeFormat(), pipeline().judge, [Topic()], references)
    partials.records.extend(read())
    return place, published


def test_what_happens_is_told_once_and_late_rows_that_undo_a_window_resolve_its_alert() -> None:
    """The drift of hour 2 grows into a critical one of the same incident; that of hour 6 is taken back by a revision."""
    assert told(calm()) == [
        Told("firing", 2, 0, "drift.distribution", "warning"),
        Told("firing", 3, 0, "drift.distribution", "critical"),
        Told("resolved", 4, 0, "drift.distribution", "critical"),
        Told("firing", 6, 0, "drift.distribution", "critical"),
        Told("resolved", 6, 1, "drift.distribution", "critical"),
        Told("firing", 9, 0, "health.missing", "warning"),
        Told("resolved", 10, 0, "health.missing", "warning"),
        Told("firing", 11, 0, "traffic.low", "warning"),
        Told("resolved", 12, 0, "traffic.low", "warning"),
        Told("firing", 14, 0, "traffic.low", "warning"),
    ]
    bodies = [msgspec.json.decode(value) for _, value in calm()]
    incidents = [body["data"]["incident_id"] for body in bodies]
    assert incidents[0] == incidents[1] == incidents[2] == bodies[0]["id"]
    assert len(set(incidents)) == 5
    undone, resolution = bodies[3], bodies[4]["data"]
    assert resolution["supersedes"] == resolution["incident_id"] == undone["id"]
    assert resolution["n"] == N + N_LATE


def restarted(crash_at: int, *, meta_first: bool = False) -> tuple[int, list[tuple[bytes, bytes]]]:
    """End the owner of the decisions after so many steps; return how many alerts were out by then, and those that are in the end."""
    place, published = merge()
    steps = place.steps(place.owner(), random.Random(3), meta_first=meta_first)
    for _ in range(crash_at):
        next(steps)
    before = len(in_order(published))
    finish(place, random.Random(crash_at))
    return before, in_order(published)


@cache
def n_steps() -> int:
    """Return after how many steps the last alert is out when nothing fails."""
    place, published = merge()
    steps = place.steps(place.owner(), random.Random(3))
    return next(i for i, _ in enumerate(steps, 1) if len(in_order(published)) == len(calm()))


def test_a_restart_at_any_step_of_deciding_neither_repeats_nor_forgets_an_incident() -> None:
    found = {crash_at: restarted(crash_at) for crash_at in range(n_steps())}
    assert {before for before, _ in found.values()} == set(range(len(calm())))
    assert {crash_at: told(alerts) for crash_at, (_, alerts) in found.items() if alerts != list(calm())} == {}


def test_state_that_runs_ahead_of_its_rows_is_found() -> None:
    assert any(restarted(crash_at, meta_first=True)[1] != list(calm()) for crash_at in range(n_steps()))


def test_nor_do_restarts_and_old_owners_that_wake_up_anywhere() -> None:
    n_repeated = 0
    for seed in range(4):
        places, _, published = places_of(pipeline().settings, NativeFormat(), pipeline().judge, [log()], references)
        dice = random.Random(seed)
        finish(places[0], dice)
        run(places, dice, 600)
        assert in_order(published) == list(calm()), seed
        n_repeated += sum(message.topic.endswith(".alerts") for message in published) - len(calm())
    assert n_repeated > 0
