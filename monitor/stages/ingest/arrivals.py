"""Rows of a partition on their way to panes: those of many fetches are sorted by pane at once.

A fetch of a thousand models holds a few rows of each; to find their panes by the fetch would cost as much as reading them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from monitor.columns import Bool, DecodedBatch, Int, PayloadRows, Payloads
from monitor.stages.ingest.admission import Admitted


class Arrived(NamedTuple):
    """Admitted rows of a batch, in offset order, that do not repeat others; what is of a row has shape (n,).

    rows: their positions among the accepted ones of the batch. key_index: into the batch's keys. starts: of their panes. cuts: where late
    rows are counted, when they are cut off; NEVER for the others. late: in no pane. marks: offset, event time, record timestamp and the
    clock, shape (4, n). before: the clock before the row. due_ms: the clock at which the first of their panes is to be closed.
    """

    batch: DecodedBatch
    admitted: Admitted
    rows: Int
    key_index: Int
    starts: Int
    cuts: Int
    late: Bool
    marks: Int
    before: Int
    due_ms: int

    @property
    def payloads(self) -> PayloadRows:
        """What a format reads columns from, by row."""
        of_batch = self.batch.payloads
        return of_batch if len(self.rows) == len(of_batch) else of_batch.take(self.admitted.accepted[self.rows])

    def part(self, at: Int) -> Arrived:
        """Return some of the rows, by their places here, rising."""
        return self._replace(
            rows=self.rows[at],
            key_index=self.key_index[at],
            starts=self.starts[at],
            cuts=self.cuts[at],
            late=self.late[at],
            marks=self.marks[:, at],
            before=self.before[at],
        )


class Joined(NamedTuple):
    """Rows of some batches one behind the other; as in `Arrived`. keys: different models and versions, in order of appearance."""

    keys: list[tuple[str, str]]
    key_index: Int
    starts: Int
    cuts: Int
    late: Bool
    marks: Int
    before: Int
    payloads: PayloadRows


def joined(parts: Sequence[Arrived]) -> Joined:
    """Return the rows of batches of one partition, given in the order of its log."""
    if len(parts) == 1:
        (one,) = parts
        return Joined(one.batch.keys, one.key_index, one.starts, one.cuts, one.late, one.marks, one.before, one.payloads)
    places = {key: place for place, key in enumerate(dict.fromkeys(key for part in parts for key in part.batch.keys))}
    key_index = [np.array([places[key] for key in part.batch.keys], np.int64)[part.key_index] for part in parts]
    return Joined(
        list(places),
        np.concatenate(key_index),
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.cuts for part in parts]),
        np.concatenate([part.late for part in parts]),
        np.concatenate([part.marks for part in parts], axis=1),
        np.concatenate([part.before for part in parts]),
        Payloads(payload for part in parts for payload in part.payloads),
    )
