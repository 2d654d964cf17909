"""What must come of a log: plain loops over its records, one at a time, which share no code with the monitor.

Only the definitions are the same: a window is half-open and aligned to the epoch; an event is late when its pane, the greatest common
divisor of all sizes and steps, had ended, grace included, by the largest time that stood before it in its partition; a time after its
record's timestamp by more than five minutes is refused.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.chaos.plan import CHECKS, COLOURS, MISSING, TRAFFIC, Plan

MAX_FUTURE_MS = 300_000
YEAR_1900_MS, YEAR_10000_MS = -2_208_988_800_000, 253_402_300_800_000
FLAPPING_OPENINGS, FLAPPING_WINDOWS, FLAPPING_QUIET = 3, 24, 6
"""What opens so often within so many windows stays open until it was quiet for so many."""
MIN_ROWS = 30
"""Fewer say nothing of a share."""


class LogRecord(NamedTuple):
    """A record as it stands on the source topic."""

    partition: int
    offset: int
    timestamp_ms: int
    value: bytes


class WindowKey(NamedTuple):
    """A window of a model."""

    model: str
    start_ms: int
    size_ms: int
    step_ms: int

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.size_ms


@dataclass
class Rows:
    """What a window has."""

    n: int = 0
    missing: int = 0
    sum_x: float = 0.0
    colours: Counter[str] = field(default_factory=Counter)


class AlertKey(NamedTuple):
    """Which alert it is."""

    model: str
    check: str
    start_ms: int
    end_ms: int
    kind: str
    status: str


class AlertFacts(NamedTuple):
    """What it says."""

    value: float
    n: int
    windows: int
    opened_ms: int


@dataclass
class Expected:
    """What must have come of a log. Counts are by partition (and model)."""

    plan: Plan
    windows: dict[WindowKey, Rows] = field(default_factory=dict)
    counted: Counter[tuple[int, str]] = field(default_factory=Counter)
    late: Counter[tuple[int, str]] = field(default_factory=Counter)
    rejected: Counter[int] = field(default_factory=Counter)
    ticks: Counter[int] = field(default_factory=Counter)
    records: Counter[int] = field(default_factory=Counter)
    ends: dict[int, int] = field(default_factory=dict)
    letters: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def alerts(self) -> dict[AlertKey, AlertFacts]:
        """Return every alert up to the last window with rows of its kind and model."""
        by_kind: dict[tuple[str, int, int], dict[int, Rows]] = defaultdict(dict)
        for key, rows in self.windows.items():
            by_kind[key.model, key.size_ms, key.step_ms][key.start_ms] = rows
        found: dict[AlertKey, AlertFacts] = {}
        for (model, size, step), windows in by_kind.items():
            kind = "tumbling" if size == step else "hopping"
            check = next(check for check in CHECKS if model in self.plan.models_of(check))
            breaches = quiet = opened = 0
            is_open, openings = False, list[int]()
            for start in range(min(windows), max(windows) + 1, step):
                openings = [one for one in openings if start - one < FLAPPING_WINDOWS * step]
                value, n, verdict = self._judge(check, windows.get(start, Rows()))
                if verdict is None:
                    continue
                breaches, quiet = (breaches + 1, 0) if verdict else (0, quiet + 1)
                status, run = ("resolved", quiet) if is_open else ("firing", breaches)
                needed = self.plan.in_a_row if check == MISSING else 1
                if is_open and len(openings) >= FLAPPING_OPENINGS:
                    needed = max(needed, FLAPPING_QUIET)
                if run < needed or verdict == is_open:
                    continue
                is_open = not is_open
                if is_open:
                    opened, openings = start + size, [*openings, start]
                found[AlertKey(model, check, start, start + size, kind, status)] = AlertFacts(value, n, run, opened)
        return found

    def _judge(self, check: str, rows: Rows) -> tuple[float, int, bool | None]:
        """Return value, rows and whether it is a breach; None: too few rows. Chance explains none of the shares at these thresholds."""
        if check == TRAFFIC:
            return float(rows.n), rows.n, rows.n > self.plan.rows_above
        bad = rows.missing if check == MISSING else sum(n for colour, n in rows.colours.items() if colour not in COLOURS)
        threshold = self.plan.missing_above if check == MISSING else self.plan.never_seen_above
        if rows.n < MIN_ROWS:
            return 0.0, rows.n, None
        return bad / rows.n, rows.n, bad / rows.n > threshold


def expect(log: Iterable[LogRecord], plan: Plan) -> Expected:
    """Return what must come of a log, each partition's records in order of offset."""
    expected = Expected(plan)
    pane = math.gcd(*(length for window in plan.windows for length in window))
    newest: dict[int, int] = {}
    for record in log:
        partition = record.partition
        expected.records[partition] += 1
        expected.ends[partition] = record.offset + 1
        parsed = _parse(record)
        if parsed is None:
            expected.rejected[partition] += 1
            expected.letters[partition, record.offset] = record.value
            continue
        if "tick" in parsed:
            expected.ticks[partition] += 1
            newest[partition] = max(newest.get(partition, parsed["tick"]), parsed["tick"])
            continue
        model, time_ms = parsed["model"], parsed["time"]
        before = newest.get(partition)
        pane_end = time_ms // pane * pane + pane
        newest[partition] = max(min(time_ms, record.timestamp_ms), time_ms if before is None else before)
        if before is not None and pane_end <= before - plan.grace_of(model):
            expected.late[partition, model] += 1
            continue
        expected.counted[partition, model] += 1
        _count(expected, model, time_ms, parsed["features"])
    return expected


def _parse(record: LogRecord) -> dict[str, Any] | None:
    """Return an event or a control record, None for what is to be rejected."""
    try:
        parsed = json.loads(record.value)
    except ValueError:
        return None
    if not isinstance(parsed, dict):
        return None
    if "tick" in parsed:
        return parsed
    time_ms = parsed.get("time")
    if not (isinstance(parsed.get("model"), str) and isinstance(time_ms, int) and isinstance(parsed.get("features"), dict)):
        return None
    is_possible = YEAR_1900_MS <= time_ms < YEAR_10000_MS and time_ms <= record.timestamp_ms + MAX_FUTURE_MS
    return parsed if is_possible else None


def _count(expected: Expected, model: str, time_ms: int, features: dict[str, Any]) -> None:
    for key in _windows(expected.plan, model, time_ms):
        rows = expected.windows.setdefault(key, Rows())
        rows.n += 1
        if features["x"] is None:
            rows.missing += 1
        else:
            rows.sum_x += features["x"]
        rows.colours[features["colour"]] += 1


def _windows(plan: Plan, model: str, time_ms: int) -> Iterator[WindowKey]:
    for size, step in plan.windows:
        start = time_ms // step * step
        while start + size > time_ms:
            yield WindowKey(model, start, size, step)
            start -= step
