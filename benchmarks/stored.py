"""Bytes of state: what stage 1 writes of one pane at a checkpoint, keys and values, from events to rows as a worker has them."""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks.traffic import HOUR_MS, START_MS, Traffic, events, profile_of, segmentations
from monitor.formats.native import NativeFormat
from monitor.ports import StoredRecord
from monitor.reference import Reference, References
from monitor.stages.ingest.partition import IngestPartition
from monitor.stages.settings import ModelSettings, Settings, SourceSettings
from monitor.windows import WindowSpec

FETCH = 2_000


class Case(NamedTuple):
    """A pane: events in it, features of each, rows that its profile has by segment (0: it is not split)."""

    n: int
    features: int = 20
    segments: int = 0

    @property
    def label(self) -> str:
        """What stands in the table."""
        split = f" × {self.segments} segments" if self.segments else ""
        return f"{self.features} features{split}, {self.n:,} events"


CASES = (Case(100), Case(10_000), Case(100_000), Case(10_000, 200), Case(10_000, 20, 50), Case(10_000, 100, 50))


def measure() -> dict[str, Any]:
    """Return rows, bytes and cells by case."""
    return {"rows": {case.label: of_pane(case) for case in CASES}}


def of_pane(case: Case) -> dict[str, float]:
    """Count events in a pane, and return what a checkpoint writes of it."""
    traffic = Traffic(case.n, features=case.features, hours=1)
    profile, _ = profile_of(traffic, segmentations(traffic, case.segments))
    references, window = References(), WindowSpec(HOUR_MS, HOUR_MS)
    references.add(Reference.build("credit-0000", "7", profile))
    settings = Settings("m", {}, ModelSettings((window,)), {"events": SourceSettings("events", clock="event")})
    stage = IngestPartition(settings, "events", 0, partitions=1, epoch=1, wire=NativeFormat(), references=references)
    stage.skip_to(0)
    records = [StoredRecord(i, START_MS + int(i * traffic.step_ms) + 20, value) for i, (_, value) in enumerate(events(traffic))]
    for first in range(0, case.n, FETCH):
        stage.feed(records[first : first + FETCH], START_MS + HOUR_MS)
    checkpoint = stage.checkpoint()
    assert checkpoint is not None
    rows = [len(key) + len(value or b"") for key, value in checkpoint.rows if key.startswith(b"pane")]
    n_cells = profile.layout.n_cells * len(profile.rows)
    n_bytes = sum(rows)
    return {
        "rows": len(rows), "bytes": n_bytes, "bytes_per_row": round(n_bytes / len(rows)),
        "cells": n_cells, "bytes_per_cell": round(n_bytes / n_cells, 3),
    }  # fmt: skip
