"""A firing and a quiet case of every data-health check, as records that a broker with two partitions would hold.

The topic's timestamps are the producers' own (timestamp type 0), so that a real broker gives back the ones that stand here. A tick on
either partition ends each case: its windows close without silence.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

HOUR_MS = 3_600_000
START_MS = 1_735_689_600_000
PARTITIONS = 2
MODEL, VERSION = "credit", "7"
ROWS = 600
"""Rows of an ordinary hour."""

CONFIG: dict[str, Any] = {
    "sources": [{"topic": "predictions", "clock": "event"}],
    "models": {MODEL: {"windows": [{"size": "1h"}], "grace": "1m"}},
}

Event = dict[str, Any]


class Logged(NamedTuple):
    """A record as it lies in a topic. offset: only where one was lost before it."""

    value: bytes
    partition: int
    timestamp_ms: int
    timestamp_type: int = 0
    offset: int | None = None


class Vector(NamedTuple):
    """What must be told, and what must not. rules: of the configuration, for a check that is silent until somebody writes one."""

    feature: str
    firing: list[Logged]
    quiet: list[Logged]
    rules: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - never changed


def drawn(dice: random.Random) -> Event:
    """The features of one row, of the reference's rows too: two in a hundred amounts are missing, two in five spend nothing."""
    return {
        "amount": None if dice.random() < 0.02 else round(min(max(dice.gauss(50, 10), 10), 90), 3),
        "spend": 0.0 if dice.random() < 0.4 else round(dice.lognormvariate(1, 0.5), 3),
        "is_new": dice.random() < 0.5,
        "country": dice.choices(["DE", "FR", "US"], [5, 3, 2])[0],
    }


def reference_rows(n: int = 10 * ROWS) -> list[Event]:
    """Ten ordinary hours, a day before."""
    dice = random.Random(1)
    return [{"time": START_MS - 24 * HOUR_MS + i * 10 * HOUR_MS // n, **drawn(dice)} for i in range(n)]


def hour(
    change: Callable[[int, Event], None] | None = None, n: int = ROWS, spread: Callable[[int], int] | None = None, hours: int = 1
) -> list[Logged]:
    """An hour of n events in order, each changed as given.

    change: may set `_delay`, record timestamp − what was its event time before the change, or `_drop`. spread: the partition of row i.
    """
    dice, logged = random.Random(2), []
    for i in range(n):
        time = START_MS + i * HOUR_MS // n
        event: Event = {
            "id": f"r-{i}", "model": MODEL, "version": VERSION, "time": time, "features": drawn(dice), "prediction": "paid",
            "schema": "s-1", "producer": f"host-{i % 3}", "sample_rate": 0.5, "status": "ok",
        }  # fmt: skip
        if change is not None:
            change(i, event)
        delay = event.pop("_delay", 40 + i % 20)
        if not event.pop("_drop", False):
            logged.append(Logged(json.dumps(event).encode(), spread(i) if spread else i % PARTITIONS, time + delay))
    return logged + ticks(hours)


def ticks(hours: int) -> list[Logged]:
    """The end: event time has reached so many hours and the grace."""
    end = START_MS + hours * HOUR_MS + 60_000
    return [Logged(json.dumps({"tick": end}).encode(), partition, end) for partition in range(PARTITIONS)]


def feature(name: str, value: Any, share: float) -> Callable[[int, Event], None]:
    """Give a share of the rows, evenly spread, another value; a function gets the value that it replaces."""

    def change(i: int, event: Event) -> None:
        if is_among(i, share):
            before = event["features"][name]
            event["features"][name] = value(before) if callable(value) else value

    return change


def field(name: str, value: Any, share: float = 1.0, rows: range = range(10**9)) -> Callable[[int, Event], None]:
    """Give a field of the envelope another value; a function gets the value that it replaces."""

    def change(i: int, event: Event) -> None:
        if i in rows and is_among(i, share):
            event[name] = value(event.get(name)) if callable(value) else value

    return change


def is_among(i: int, share: float) -> bool:
    """Whether row i is one of an even share of all.

    >>> [i for i in range(10) if is_among(i, 0.3)]
    [3, 6, 9]
    """
    return int((i + 1) * share) > int(i * share)


def without(name: str, share: float) -> Callable[[int, Event], None]:
    """Leave a feature out of a share of the rows."""

    def change(i: int, event: Event) -> None:
        if is_among(i, share):
            del event["features"][name]

    return change


def extra(name: str) -> Callable[[int, Event], None]:
    """Add a feature that nobody expects."""

    def change(i: int, event: Event) -> None:
        event["features"][name] = 1.0

    return change


def skewed(delay_ms: int) -> Callable[[int, Event], None]:
    """The clock of host-1 is behind: its events seem older."""

    def change(i: int, event: Event) -> None:
        if event["producer"] == "host-1":
            event["_delay"] = 50 + delay_ms

    return change


def lost(n: int) -> list[Logged]:
    """An hour of which n offsets of either partition were gone before its second half."""
    next_offset, kept = dict.fromkeys(range(PARTITIONS), 0), []
    for i, record in enumerate(records := hour()):
        if i in (len(records) // 2, len(records) // 2 + 1):
            next_offset[record.partition] += n
        kept.append(record._replace(offset=next_offset[record.partition]))
        next_offset[record.partition] += 1
    return kept


def stopped(at: int) -> Callable[[int, Event], None]:
    """No row from row `at` on."""

    def change(i: int, event: Event) -> None:
        event["_drop"] = i >= at

    return change


def gone(producer: str, at: int) -> Callable[[int, Event], None]:
    """A producer is silent from row `at` on."""

    def change(i: int, event: Event) -> None:
        event["_drop"] = event["producer"] == producer and i >= at

    return change


def back(ms: int, share: float) -> Callable[[int, Event], None]:
    """Event times before those of the rows around, in the second half of the hour."""
    return field("time", lambda time: time - ms, share, range(ROWS // 2, ROWS))


def rule(check: str, **threshold: float) -> dict[str, dict[str, Any]]:
    return {check: threshold}


QUIET = hour()
FREQUENT = feature("country", "DE", 0.7)

FEATURE_VECTORS: dict[str, Vector] = {
    "health.missing": Vector("amount", hour(feature("amount", None, 0.15)), QUIET),
    "health.incomplete": Vector("amount", hour(feature("amount", None, 0.08)), QUIET, rule("health.incomplete", above=0.0)),
    "health.never_seen": Vector("country", hour(feature("country", "XX", 0.05)), hour(feature("country", "US", 0.05))),
    "health.out_of_range": Vector("amount", hour(feature("amount", 1e6, 0.05)), hour(feature("amount", 89.9, 0.05))),
    "health.below_min": Vector(
        "amount", hour(feature("amount", 1.5, 0.05)), hour(feature("amount", 1e6, 0.05)), rule("health.below_min", above=0.01)
    ),
    "health.above_max": Vector(
        "amount", hour(feature("amount", 91.0, 0.05)), hour(feature("amount", 1.5, 0.05)), rule("health.above_max", above=0.01)
    ),
    "health.nan": Vector("amount", hour(feature("amount", "NaN", 0.05)), hour(feature("amount", "Infinity", 0.05))),
    "health.infinite": Vector("amount", hour(feature("amount", "-Infinity", 0.05)), hour(feature("amount", "NaN", 0.05))),
    "health.constant": Vector("amount", hour(feature("amount", 50.0, 1.0)), hour(feature("amount", 50.0, 0.99))),
    "health.top_share": Vector("country", hour(FREQUENT), QUIET, rule("health.top_share", above=0.2)),
    "health.zeros": Vector("spend", hour(feature("spend", 0.0, 0.7)), QUIET, rule("health.zeros", above=0.2)),
    "health.negative": Vector(
        "spend", hour(feature("spend", -0.5, 0.05)), hour(feature("spend", 0.0, 0.05)), rule("health.negative", above=0.01)
    ),
    "health.boolean_share": Vector("is_new", hour(feature("is_new", True, 0.7)), QUIET, rule("health.boolean_share", above=0.2)),
    "health.mean": Vector("amount", hour(feature("amount", lambda x: x and x + 8, 1.0)), QUIET, rule("health.mean", above=0.5)),
    "health.std": Vector(
        "amount", hour(feature("amount", lambda x: x and 50 + 2 * (x - 50), 1.0)), QUIET, rule("health.std", above=0.5)
    ),
    "health.sum": Vector(
        "amount", hour(feature("amount", lambda x: x and 2 * x, 1.0)), QUIET, rule("health.sum", above=40_000.0)
    ),
    "schema.wrong_type": Vector("amount", hour(feature("amount", "much", 0.05)), hour(feature("amount", "NaN", 0.05))),
    "schema.missing_feature": Vector("amount", hour(without("amount", 1.0)), hour(feature("amount", None, 1.0))),
    "schema.unexpected_feature": Vector("", hour(extra("age")), QUIET),
}

STREAM_VECTORS: dict[str, Vector] = {
    "schema.id_changed": Vector("", hour(field("schema", "s-2", rows=range(400, ROWS))), QUIET),
    "schema.envelope": Vector("", hour(field("id", 7, 0.05)), hour(field("id", None, 0.05))),
    "traffic.low": Vector("", hour(hours=2), hour()),
    "traffic.high": Vector("", hour(n=1_500), QUIET, rule("traffic.high", above=1_000.0)),
    "traffic.rate_low": Vector("", hour(n=200), QUIET, rule("traffic.rate_low", below=0.5)),
    "traffic.rate_high": Vector("", hour(n=1_500), QUIET, rule("traffic.rate_high", above=2.0)),
    "traffic.stop": Vector("", hour(stopped(300)), QUIET, rule("traffic.stop", above=0.2)),
    "telemetry.gap": Vector("", lost(5), lost(0)),
    "stream.late": Vector("", hour(back(3 * HOUR_MS, 0.1)), hour(back(30_000, 0.1))),
    "stream.future": Vector(
        "", hour(field("time", lambda t: t + 600_000, 0.05)), hour(field("time", lambda t: t + 240_000, 0.05, range(500)))
    ),
    "stream.out_of_order": Vector("", hour(back(30_000, 0.8)), hour(back(30_000, 0.2)), rule("stream.out_of_order", above=0.2)),
    "stream.duplicate_id": Vector(
        "", hour(field("id", lambda text: f"r-{int(text[2:]) // 2}")), hour(field("id", "r-1", rows=range(3)))
    ),
    "stream.sample_rate": Vector("", hour(field("sample_rate", 0.1, rows=range(400, ROWS))), QUIET),
    "stream.clock_skew": Vector("", hour(skewed(300_000)), hour(skewed(2_000))),
    "stream.key_skew": Vector("", hour(spread=lambda i: int(i % 10 == 0)), QUIET, rule("stream.key_skew", above=1.5)),
    "stream.producer_gone": Vector("", hour(gone("host-2", 300)), QUIET, rule("stream.producer_gone", above=0.3)),
    "stream.error_status": Vector("", hour(field("status", "timeout", 0.15)), hour(field("status", "timeout", 0.01))),
}
"""Those that only a stream has: they are run on a real broker too."""

VECTORS: dict[str, Vector] = FEATURE_VECTORS | STREAM_VECTORS
