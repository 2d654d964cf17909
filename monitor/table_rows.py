"""Payloads of a batch of which most were read as a table, and the others one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np

from monitor.columns import Bool, DecodedBatch, Indices, Int, PayloadRows, Places, by_first_row, offsets_of, stamps_of
from monitor.event_reader import text_id
from monitor.ports import Record
from monitor.table_reader import Table

EVENT_BYTES = 300
"""What an event takes beside its record, once it is made."""
SAMPLED = 8
"""Of so many records the length of one is asked, for what they take together, about."""


class TableRows(PayloadRows):
    """Payloads of a batch that was read as a table.

    rows: of the table; −1 − k: payload k of those that are in none. event: makes one of a record that is in the table, for those who ask.
    """

    def __init__(self, table: Table, rows: Int, others: Sequence[Any], event: Callable[[bytes], Any]) -> None:
        self.table = table
        self._rows = rows
        self._others = others
        self._event = event

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        row = int(self._rows[at])
        if row < 0:
            return self._others[-1 - row]
        record = self.table.records[row]
        return self._event(record), record

    def take(self, at: Int) -> TableRows:
        """Return those of some rows."""
        return TableRows(self.table, self._rows[at], self._others, self._event)

    def ids(self) -> list[str | None]:
        """Return the id of each, None where it has none that is a text."""
        ids = self.table.ids()
        found = [ids[row] if row >= 0 else None for row in self._rows.tolist()]
        texts = [None if one is None else one.decode() for one in found]
        for i in np.flatnonzero(self._rows < 0).tolist():
            event, _ = self[i]
            texts[i] = text_id(event)
        return texts

    def may_have_more(self) -> Bool:
        """Return which of them may have features that the table's layout has not, shape (n,)."""
        return (self._rows < 0) | self.table.has_more[np.maximum(self._rows, 0)]

    def table_rows(self) -> tuple[Table, Int]:
        """Return a table of the rows, and the places of those that are to be filled in."""
        alone = np.flatnonzero(self._rows < 0)
        return self.table.take(np.maximum(self._rows, 0)), alone


def joined(
    table: Table,
    records: Sequence[Record],
    named: tuple[Sequence[tuple[str, str]], Int],
    rest: DecodedBatch,
    event: Callable[[bytes], Any],
) -> DecodedBatch:
    """Return a batch of the events of a table and those that were read one by one, by offset; and what else `rest` has.

    records: of the table's events. named: models and versions, and the place of each event's among them. event: as in `TableRows`.
    """
    names, key_index = named
    offsets, times, rows = offsets_of(records), table.times_ms, np.arange(len(records))
    stamps = stamps_of(records)
    if len(rest.offsets):
        order = np.argsort(np.concatenate((offsets, rest.offsets)))
        offsets, times, stamps, rows, key_index = (
            np.concatenate(parts)[order]
            for parts in (
                (offsets, rest.offsets),
                (times, rest.times_ms),
                (stamps, rest.record_ms),
                (rows, -1 - np.arange(len(rest.offsets))),
                (key_index, len(names) + rest.key_index),
            )
        )
    keys, key_index = in_order([*names, *rest.keys], key_index)
    return replace(
        rest,
        offsets=offsets,
        times_ms=times,
        record_ms=stamps,
        keys=keys,
        key_index=key_index,
        payloads=TableRows(table, rows, rest.payloads, event),
        held_bytes=rest.held_bytes + len(table) * EVENT_BYTES + SAMPLED * sum(map(len, table.records[::SAMPLED])),
    )


def in_order(names: Sequence[tuple[str, str]], places: Int | Indices) -> tuple[list[tuple[str, str]], Int]:
    """Return the different names among some rows' in order of appearance, and the place of each row's. places: among `names`."""
    if len(names) == 1:
        return [names[0]], np.zeros(len(places), np.int64)
    found = by_first_row(places)
    appeared = list(map(names.__getitem__, found.tolist()))
    different = list(dict.fromkeys(appeared))
    of_place = np.zeros(len(names), np.int64)
    if len(different) == len(appeared):
        of_place[found] = np.arange(len(found))
    else:
        of_place[found] = Places().codes(appeared)
    return different, of_place[places]
