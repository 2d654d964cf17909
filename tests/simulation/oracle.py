"""What must have been published, by plain loops over the logs; nothing of it is shared with the monitor but what a window is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from monitor.stages.ingest.seen_ids import BUCKETS
from monitor.stages.settings import ModelSettings
from monitor.windows import WindowSpec
from tests.simulation.broker import Log
from tests.simulation.scenario import ALERT_ROWS, EARLY_ROWS, LONG, MAX_FUTURE_MS, TAGS, Scenario

LONGEST_SILENCE = 24
"""Windows without rows that are still published, and those after which a version is forgotten."""

Pane = tuple[str, str, int]


class Counted(Counter[str]):
    """What came into a pane: rows, outsiders, tags, `rows PLACE`. furthest: by how much outsiders were late or ahead. spans: offsets by place."""

    def __init__(self) -> None:
        super().__init__()
        self.furthest: dict[str, int] = {}
        self.spans: dict[str, tuple[int, int]] = {}

    def take(self, place: str, offset: int, what: str, ms: int = 0) -> None:
        self[what] += 1
        self.spans[place] = (self.spans.get(place, (offset, offset))[0], offset)
        if what != "n":
            self.furthest[what] = max(ms, self.furthest.get(what, ms))
        else:
            self[f"rows {place}"] += 1


class Expected(NamedTuple):
    """results, alerts: key → facts. outcomes: how many records became what. refused: the values of those that were.

    restated: of windows with rows that late rows restate, key without the revision → facts of the last one, but for what other windows say.
    """

    results: dict[bytes, dict[str, object]]
    alerts: dict[bytes, dict[str, int]]
    outcomes: Counter[str]
    refused: list[bytes]
    restated: dict[str, dict[str, object]]
    early: dict[bytes, dict[str, int]]
    """Alerts of open windows, likewise."""
    looked: dict[bytes, dict[str, int]]
    """What is published of looks into them."""


def expect(scenario: Scenario, logs: Iterable[Log]) -> Expected:
    panes: dict[Pane, Counted] = defaultdict(Counted)
    outcomes: Counter[str] = Counter()
    refused: list[bytes] = []
    places = [f"{topic}|{partition}" for topic, n in scenario.partitions.items() for partition in range(n)]
    for place, log in zip(places, logs, strict=True):
        _count(scenario, place, log, panes, outcomes, refused)
    results: dict[bytes, dict[str, object]] = {}
    alerts: dict[bytes, dict[str, int]] = {}
    last: dict[bytes, dict[str, object]] = {}
    early: dict[bytes, dict[str, int]] = {}
    looked: dict[bytes, dict[str, int]] = {}
    for model in sorted({model for model, _, _ in panes}):
        mine = {(start, version): counts for (name, version, start), counts in panes.items() if name == model}
        is_restated = scenario.settings.model(model).revising is not None
        for spec in scenario.settings.model(model).specs:
            _windows(scenario, model, spec, mine, last if is_restated else results, {} if is_restated else alerts)
        if model == "long":
            _looks(scenario, mine, results, (early, looked))
    restated = {key.decode().rpartition("|")[0]: facts for key, facts in last.items() if facts["n"]}
    return Expected(results, alerts, outcomes, refused, restated, early, looked)


class _Ids:
    """The ids that were counted on one partition, each with the bucket of the clock that it came in."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, ...], int] = {}

    def is_repeat(self, own: ModelSettings, name: tuple[str, ...], clock: int, *, is_on_time: bool) -> bool:
        """Whether an id came before and is not forgotten; one that comes in time for the first time is remembered."""
        bucket = clock // (own.remember_ids_ms // BUCKETS)
        if name in self._buckets and self._buckets[name] >= bucket - BUCKETS:
            return True
        if is_on_time:
            self._buckets[name] = bucket
        return False


def _body(value: bytes | None) -> list[Any] | None:
    """Return a tick or an event, None for anything else."""
    try:
        body = msgspec.json.decode(value or b"")
    except msgspec.DecodeError:
        return None
    return body if isinstance(body, list) and len(body) in (2, 4, 5) else None


def _looks(
    scenario: Scenario,
    panes: Mapping[tuple[int, str], Counted],
    results: dict[bytes, dict[str, object]],
    said: tuple[dict[bytes, dict[str, int]], dict[bytes, dict[str, int]]],
) -> None:
    """Say when a window's rows have passed a multiple, at the end of each pane but its last; and tell the results of it.

    said: what is told, and what is published of each look.
    """
    early, looked = said
    size, grace_ms, pane_ms = LONG.specs[0].size_ms, LONG.grace_ms, LONG.pane_ms
    last_ms = (scenario.end_ms - grace_ms) // pane_ms * pane_ms
    levels: Counter[tuple[int, str]] = Counter()
    rows: Counter[tuple[int, str]] = Counter()
    for (start, version), counts in sorted(panes.items()):
        window, upto = start // size * size, start + pane_ms
        rows[window, version] += counts["n"]
        level = rows[window, version] // EARLY_ROWS
        if level > levels[window, version] and upto < window + size and upto <= last_ms:
            levels[window, version] = level
            early[_look_key(version, window, upto)] = {"n": rows[window, version], "level": level}
    for end in sorted({start + pane_ms for start, _ in panes}):
        window = (end - pane_ms) // size * size
        if end < window + size and end <= last_ms:
            for version, n in _so_far(panes, window, end).items():
                looked[_look_key(version, window, end)] = {"n": n}
    for key, facts in results.items():
        model, version, start_text, *_ = key.decode().split("|")
        if model == "long":
            facts["told"] = levels[int(start_text), version]


def _count(
    scenario: Scenario, place: str, log: Log, panes: dict[Pane, Counted], outcomes: Counter[str], refused: list[bytes]
) -> None:
    """Put every record of a log where it belongs."""
    clock: int | None = None
    known: set[tuple[str, str]] = set()
    ids = _Ids()
    for offset, record in enumerate(log.records):
        if record is None:
            continue
        body = _body(record.value)
        if body is None:
            outcomes["malformed_json"] += 1
            refused.append(record.value or b"")
            continue
        if len(body) == 2:
            outcomes["ticks"] += 1
            clock = body[1] if clock is None else max(clock, body[1])
            continue
        model, version, time, tag, *name = body
        own = scenario.settings.model(model)
        if time > record.timestamp + MAX_FUTURE_MS:
            outcomes["future_timestamp"] += 1
            refused.append(record.value or b"")
            if (model, version) in known and clock is not None:
                panes[model, version, clock // own.pane_ms * own.pane_ms].take(place, offset, "future", time - record.timestamp)
            continue
        known.add((model, version))
        moved = min(time, record.timestamp)
        clock = moved if clock is None else max(clock, moved)
        outcome = _outcome(own, time, clock, ids, (model, *name))
        outcomes[outcome] += 1
        if outcome == "late":
            panes[model, version, clock // own.pane_ms * own.pane_ms].take(place, offset, "late", clock - time)
        elif outcome != "duplicate":
            pane = panes[model, version, time // own.pane_ms * own.pane_ms]
            pane.take(place, offset, "n")
            pane[f"tag {tag}"] += 1


def _outcome(own: ModelSettings, time: int, clock: int, ids: _Ids, name: tuple[str, ...]) -> str:
    """Return what becomes of an event that is not ahead of its record."""
    overdue = clock - own.grace_ms - (time // own.pane_ms * own.pane_ms + own.pane_ms)
    if own.remember_ids_ms and ids.is_repeat(own, name, clock, is_on_time=overdue < 0):
        return "duplicate"
    if overdue < 0:
        return "counted"
    return "revised" if own.revising is not None and overdue < own.revising.for_ms else "late"


def _windows(
    scenario: Scenario,
    model: str,
    spec: WindowSpec,
    panes: Mapping[tuple[int, str], Counted],
    results: dict[bytes, dict[str, object]],
    alerts: dict[bytes, dict[str, int]],
) -> None:
    """Walk over the windows of a model in order of end: those with rows, and for a while those after them."""
    own = scenario.settings.model(model)
    touched = {end for start, _ in panes for end in (w.end_ms for w in spec.windows_of(start, start + 1))}
    ordinal: Counter[str] = Counter()
    fired: Counter[str] = Counter()
    unseen: Counter[str] = Counter()
    live: list[str] = []
    empty = 0
    for end in sorted({end + k * spec.step_ms for end in touched for k in range(LONGEST_SILENCE + 1)}):
        if not scenario.is_live and end > (scenario.end_ms - own.grace_ms) // own.pane_ms * own.pane_ms:
            break
        begin = end - spec.size_ms
        inside = {key: counts for key, counts in panes.items() if begin <= key[0] < end}
        empty = 0 if inside else empty + 1
        live = sorted({version for _, version in inside}) or live
        for version in [v for v in ordinal if v not in live]:
            unseen[version] += 1
            if unseen[version] > LONGEST_SILENCE:
                del ordinal[version], fired[version]
        for version in live:
            unseen[version] = 0
            mine = [counts for (_, v), counts in inside.items() if v == version]
            total: Counter[str] = sum(mine, Counter())
            ordinal[version] += 1
            key = f"{model}|{version}|{begin}|{spec.size_ms}|0".encode()
            segments = [total[f"tag {tag}"] for tag in TAGS] if scenario.has_segments else []
            results[key] = {"n": total["n"], "segments": segments, "window": ordinal[version], "lost": 0} | {
                name: total[name] for name in ("late", "future")
            }
            results[key] |= _details(mine, total)
            if total["n"] >= ALERT_ROWS:
                fired[version] += 1
                alerts[key] = {"n": total["n"], "alert": fired[version]}


def _details(panes: Sequence[Counted], total: Counter[str]) -> dict[str, object]:
    """Return how far outsiders were off, rows by source partition, and the first and last offset of each."""
    furthest: dict[str, list[int]] = defaultdict(list)
    rows: dict[str, dict[str, int]] = defaultdict(dict)
    offsets: dict[str, dict[str, list[int]]] = defaultdict(dict)
    for pane in panes:
        for what, ms in pane.furthest.items():
            furthest[what].append(ms)
        for place, (first, last) in pane.spans.items():
            topic, partition = place.split("|")
            span = offsets[topic].setdefault(partition, [first, last])
            span[:] = [min(span[0], first), max(span[1], last)]
            if total[f"rows {place}"]:
                rows[topic][partition] = total[f"rows {place}"]
    late, future = (max(furthest[what], default=None) for what in ("late", "future"))
    return {"lateness": late, "ahead": future, "rows": dict(rows), "offsets": dict(offsets), "other": 0}


def _look_key(version: str, window: int, upto: int) -> bytes:
    return f"long|{version}|{window}|{LONG.specs[0].size_ms}|early|{upto}".encode()


def _so_far(panes: Mapping[tuple[int, str], Counted], window: int, end: int) -> Counter[str]:
    """Return the rows of a window's panes before `end`, by version."""
    rows: Counter[str] = Counter()
    for (start, version), counts in panes.items():
        if window <= start < end:
            rows[version] += counts["n"]
    return rows
