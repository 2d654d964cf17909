"""Rows of many panes that were read with their fetch, while they were in the processor's cache.

As objects, an event of twenty features takes 2.2 kB and is far from the processor by the time that its pane has enough rows to be worth a
fold; as columns, which wait to be put in order then (rows.py), 210 bytes, so ten times as many may wait. Where the compiled part counts them
at once (counts.py), nothing waits but names of schemas, producers and statuses, and sample rates, where events have any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from monitor.columns import Int, Read
from monitor.layout import Layout
from monitor.stages.ingest.gathered.said import Crcs
from monitor.stages.ingest.outcome_rows import OutcomeRows
from monitor.stages.ingest.panes import Pane


class Gathered(Protocol):
    """Rows of panes whose layouts have one shape, in the order of the log.

    layout: of one of them. n_waiting, n_counted: rows that wait whole, and that have been counted.
    """

    layout: Layout
    n_waiting: int
    n_counted: int

    def add(self, read: Read, places: Int, marks: Int, before: Int, limits: Crcs) -> None:
        """Take rows in. places: of their panes, in the owner's list. marks: as in `Pane.wait`. before: the clock before each row.

        limits: of the panes' samples of ids (sketches/id_sample.py).
        """

    @property
    def held_bytes(self) -> int:
        """Memory that the rows take, about."""
        ...

    def fold(self, panes: Sequence[Pane], outcomes: OutcomeRows | None) -> list[Pane]:
        """Fold what was taken in, and return its panes; nothing more may come.

        panes: those that the rows' places lie among. outcomes: to be told of the rows, where there is a join.
        """
        ...
