"""What stage 2's next checkpoint changes: the rows that it writes, and those that are needed no longer."""

from __future__ import annotations

from collections.abc import Iterable

from monitor.stages.merge.arrivals import Arrivals, Arrived
from monitor.stages.merge.early_rows import Early
from monitor.stages.merge.final_rows import Final
from monitor.stages.merge.performance_rows import ArrivedOutcome, Reported
from monitor.stages.merge.rows import AnyRow
from monitor.stages.rows import CLOSED, OPEN


class Changes:
    """Rows made or changed since the last checkpoint, and keys of rows that what it writes stands for."""

    def __init__(self) -> None:
        self._arrived: dict[bytes, Arrived | ArrivedOutcome] = {}
        self._rows: dict[bytes, AnyRow] = {}
        self._outdated: list[bytes] = []
        self._snapshot: list[tuple[AnyRow, int, int]] = []

    def __bool__(self) -> bool:
        """Whether there are rows to be written."""
        return bool(self._rows or self._arrived)

    @property
    def has_final(self) -> bool:
        """Whether a final window, a look into an open one, or a report of performance, that was not sent is among them."""
        return any(isinstance(row.value, Final | Early | Reported) and row.state == CLOSED for row in self._rows.values())

    def put(self, row: AnyRow) -> None:
        """Write a row as it is at the next checkpoint."""
        self._rows[row.key] = row

    def arrive(self, arrived: Arrived | ArrivedOutcome) -> None:
        """Write a block of a partial."""
        self._arrived[arrived.key] = arrived

    def give_up(self, rows: Iterable[AnyRow]) -> None:
        """What these rows hold is not needed from this offset on: they are deleted if they were written, and else never are."""
        for row in rows:
            self._outdated += row.keys
            self._rows.pop(row.key, None)

    def give_up_arrived(self, arrived: Arrived | ArrivedOutcome) -> None:
        """A block is part of a pane: it is deleted if it was written, and else never is."""
        if self._arrived.pop(arrived.key, None) is None:
            self._outdated.append(arrived.key)

    def give_up_arrivals(self, arrivals: Arrivals) -> None:
        """Give up all that has come of a place."""
        for chunks in arrivals.values():
            for arrived in chunks.values():
                self.give_up_arrived(arrived)

    def outdate(self, keys: Iterable[bytes]) -> None:
        """Delete rows, by stored key without epoch, once what stands for them is durable."""
        self._outdated += keys

    def pop_outdated(self) -> list[bytes]:
        """Return the keys to be deleted one checkpoint later than what stands for them is written; they are told once."""
        outdated, self._outdated = self._outdated, []
        return outdated

    def pop_rows(self) -> list[tuple[bytes, int, int, bytes]]:
        """Return the rows (key, state, hi, payload) that the checkpoint writes; from here on, changes are the next one's."""
        rows = [(a.key, OPEN, a.at, a.data) for a in self._arrived.values()]
        for row in self._rows.values():
            rows += row.pieces()
        self._snapshot = [(row, row.state, row.hi) for row in self._rows.values()]
        self._arrived, self._rows = {}, {}
        return rows

    def committed(self) -> None:
        """What `pop_rows` returned is durable."""
        for row, state, hi in self._snapshot:
            row.durable = (state, hi)
        self._snapshot = []
