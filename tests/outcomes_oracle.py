"""What must be known of predictions at each cut, by plain loops over the source logs; shared with the monitor is only what a cell is.

It says which predictions are on time, which one is THE prediction of an id, and which label was known when. It is right where no source
partition is out of order by more than the grace, so that nothing comes when the clock of the join has passed it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from monitor.performance import OutcomeCells, PerformanceSpec, Rows
from monitor.ports import Record
from monitor.stages import partials

Delta = tuple[int, str, int, int, int]
"""Partition of the join, version, pane, cut and chunk."""
Logs = Mapping[tuple[str, int], Sequence[Record]]
"""Records by (`p` for predictions or `l` for labels, partition)."""
Said = tuple[object, int] | None
"""A label's value, and its time less the prediction's."""


class Event(NamedTuple):
    """rank: time, source, partition, offset."""

    rank: tuple[int, str, int, int]
    body: dict[str, Any]


class Oracle:
    """of: specification by version; its segments are all rows, and one for each of the values of the tag `t`."""

    def __init__(self, logs: Logs, of: Mapping[str, PerformanceSpec], *, pane_ms: int, grace_ms: int, retention_ms: int) -> None:
        self._of = of
        self._pane_ms = pane_ms
        self._retention_ms = retention_ms
        self.made: dict[str, list[Event]] = defaultdict(list)
        """Predictions that are in a pane, by id."""
        self.known: dict[str, list[Event]] = defaultdict(list)
        """Labels by id."""
        for (kind, partition), records in logs.items():
            clock = -(1 << 50)
            for record in records:
                body = json.loads(record.value or b"")
                if "tick" in body:
                    clock = max(clock, body["tick"])
                    continue
                event = Event((body["time"], kind, partition, record.offset), body)
                if kind == "l":
                    self.known[body["id"]].append(event)
                    continue
                clock = max(clock, min(body["time"], record.timestamp))
                if self.known_from(body["time"]) > clock - grace_ms and "id" in body:
                    self.made[body["id"]].append(event)
        self._panes: dict[tuple[str, int], list[tuple[Event, list[Event]]]] = defaultdict(list)
        for key, predictions in self.made.items():
            first = min(predictions)
            place = str(first.body["version"]), self.known_from(first.rank[0]) - pane_ms
            self._panes[place].append((first, sorted(self.known[key]) if key in self.known else []))

    def known_from(self, time_ms: int) -> int:
        return time_ms - time_ms % self._pane_ms + self._pane_ms

    def joined(self) -> set[str]:
        return self.made.keys() & self.known.keys()

    def cuts(self, version: str, start_ms: int) -> set[int]:
        """Return when what is known of a pane changes, within its retention."""
        end_ms = start_ms + self._pane_ms
        labels = (self.known_from(label.rank[0]) for _, labels in self._panes[version, start_ms] for label in labels)
        return {end_ms, *(cut for cut in labels if end_ms < cut <= end_ms + self._retention_ms)}

    def expect(self, version: str, start_ms: int, cut_ms: int) -> OutcomeCells:
        """Return what is known of a pane at a cut."""
        rows = [(first.body, self._said(first, labels, cut_ms)) for first, labels in self._panes[version, start_ms]]
        return self._cells(version, rows)

    def _said(self, first: Event, labels: Sequence[Event], cut_ms: int) -> Said:
        said: Said = None
        for event in labels:
            if self.known_from(event.rank[0]) <= cut_ms and (said is None or said[0] != event.body["label"]):
                said = event.body["label"], event.rank[0] - first.rank[0]
        return said

    def _cells(self, version: str, rows: Sequence[tuple[dict[str, Any], Said]]) -> OutcomeCells:
        spec = self._of[version]
        cells = OutcomeCells(spec)
        cells.add_made(_rows(spec, [body for body, _ in rows]))
        labelled = [(body, said) for body, said in rows if said is not None]
        if labelled:
            values, lags = [said[0] for _, said in labelled], np.array([said[1] for _, said in labelled])
            cells.add_labelled(_rows(spec, [body for body, _ in labelled]), spec.outcomes(values), lags)
        return cells

    # --- held against what was published

    def wrong(self, deltas: Mapping[Delta, bytes]) -> list[str]:
        """Return everything that is not as it must be, of each pane at each cut at which something changes, or was said to."""
        found = []
        by_pane: dict[tuple[str, int], list[tuple[int, OutcomeCells]]] = defaultdict(list)
        for (_, version, start, cut, _), data in deltas.items():
            by_pane[version, start].append((cut, OutcomeCells.from_bytes(self._of[version], data)))
        for version, start in sorted(by_pane.keys() | self._panes.keys()):
            last = start + self._pane_ms + self._retention_ms
            told = sorted(by_pane[version, start], key=lambda delta: delta[0])
            total = OutcomeCells(self._of[version])
            for cut in sorted(self.cuts(version, start) | {cut for cut, _ in told if cut <= last}):
                while told and told[0][0] <= cut:
                    total.add(told.pop(0)[1])
                wanted = self.expect(version, start, cut)
                if total.to_bytes() != wanted.to_bytes():
                    counts = [(cells.n_made(), cells.n_labelled()) for cells in (total, wanted)]
                    found.append(
                        f"WRONG version {version} pane {start} known at {cut}: made, labelled {counts[0]} for {counts[1]}"
                    )
        return found


def published(
    records: Iterable[bytes | None], source: str, grace_ms: int
) -> tuple[list[str], dict[Delta, bytes], dict[int, int]]:
    """Return what is wrong of the deltas in one partition of `partials`, these, and how far each partition of the join is."""
    found: list[str] = []
    deltas: dict[Delta, bytes] = {}
    closed: dict[int, int] = {}
    for value in records:
        item = partials.decode(value or b"")
        if isinstance(item, partials.Watermark) and item.source == source:
            closed[item.partition] = max(closed.get(item.partition, -(1 << 50)), item.closed.get(grace_ms, -(1 << 50)))
        elif isinstance(item, partials.OutcomePartial):
            place = (item.partition, item.version, item.start_ms, item.cut_ms, item.chunk)
            if place not in deltas and item.cut_ms <= closed.get(item.partition, -(1 << 50)):
                found.append(f"EARLY_CLOSE {place}")
            if deltas.setdefault(place, item.cells) != item.cells:
                found.append(f"CHANGED {place}")
    return found, deltas, closed


def _rows(spec: PerformanceSpec, bodies: Sequence[dict[str, Any]]) -> Rows:
    n, names = len(bodies), {name: i for i, name in enumerate(spec.segments)}
    at = [names.get(f"tags.t={body['tags']['t']}", names["tags.t=(other)"]) for body in bodies]
    pairs = np.concatenate((np.arange(n), np.arange(n))), np.concatenate((np.zeros(n, np.int64), np.array(at, np.int64)))
    scores = np.array([[np.nan if body["score"] is None else body["score"]] for body in bodies], np.float64)
    return Rows(spec.outcomes([body["prediction"] for body in bodies]), scores, pairs)
