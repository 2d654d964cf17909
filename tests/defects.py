"""Planted defects: the harness must find each of them. `python -m tests.defects NAME[+NAME…] worker --config … --index …` runs a worker with one.

Nothing of this is in the program; a defect replaces one function from outside.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np

from monitor.ports import Outbox
from monitor.stages import partials, rows
from monitor.stages.ingest import admission, partition_panes, seen_ids
from monitor.stages.ingest import partition as ingest
from monitor.stages.merge import changes, closing, sealing
from monitor.stages.merge import partition as merge
from monitor.stages.merge.final_rows import Final
from monitor.stages.merge.rows import ModelRows
from monitor.windows import WindowSpec

Undo = Callable[[], None]


def _replace(place: Any, name: str, value: Any) -> Undo:
    original = getattr(place, name)
    setattr(place, name, value)
    return lambda: setattr(place, name, original)


def skip_row_offset_check() -> list[Undo]:
    """Fold an event again that the row already holds."""
    original = partition_panes.PartitionPanes._wait

    def wait(self: Any, pane: Any, *args: Any) -> None:
        pane.his = [-1] * len(pane.his)
        original(self, pane, *args)

    return [_replace(partition_panes.PartitionPanes, "_wait", wait)]


def last_writer_wins() -> list[Undo]:
    """No epoch in the keys: a paused owner writes over the new one's rows."""
    original = rows.stored_key
    return [_replace(rows, "stored_key", lambda key, epoch: original(key, 0)), *no_guard()]


def epoch_first() -> list[Undo]:
    """Prefer the younger owner's version of a row to the one with more events; meta is the one with most."""
    original = rows.Versions.__init__

    def load(self: Any, items: Any, epoch: int) -> None:
        items = list(items)
        original(self, items, epoch)
        for stored, value in items:
            key, version = rows.parse(stored, value)
            if key != rows.META and version.epoch > self.best[key].epoch:
                self.best[key] = version

    return [_replace(rows.Versions, "__init__", load), *no_guard()]


def late_by_timer() -> list[Undo]:
    """Decide lateness by the clock on the wall."""
    original = admission.Admission.admit

    def admit(self: Any, batch: Any, records: Any, now_ms: int) -> Any:
        admitted = original(self, batch, records, now_ms)
        return admitted._replace(logged_ms=np.maximum(admitted.logged_ms, now_ms))

    return [_replace(admission.Admission, "admit", admit)]


def meta_before_rows() -> list[Undo]:
    """Send meta without waiting for its rows."""
    from monitor.runtime.extensions import CheckpointTable
    from tests.simulation.owner import Owner

    original, in_order = CheckpointTable.write, Owner.order

    def order(self: Any, checkpoint: Any) -> Any:
        records = in_order(self, checkpoint)
        return [records[-1], *records[:-1]]

    async def write(self: Any, partition: int, checkpoint: Any, is_owner: Any) -> None:
        from monitor.ports import Message

        await self.app.send_all([Message(self.changelog_topic_name, *checkpoint.meta, partition)], is_owner)
        await asyncio.sleep(1.5)
        await original(self, partition, checkpoint, is_owner)

    return [_replace(CheckpointTable, "write", write), _replace(Owner, "order", order)]


def watermark_before_partials() -> list[Undo]:
    """Say that panes are closed before they are sent."""
    original = ingest.IngestPartition.outbox

    def outbox(self: Any, now_ms: int) -> Any:
        box = original(self, now_ms)
        return Outbox(box.then, box.first, box.token)

    return [_replace(ingest.IngestPartition, "outbox", outbox)]


def history_row_apart() -> list[Undo]:
    """Keep the decision state in a row of its own: it is written, or not, without the window that it is of."""
    pop_rows, load = changes.Changes.pop_rows, merge.MergePartition._load

    def pop(self: Any) -> Any:
        finals = [row for row in self._rows.values() if isinstance(row.value, Final)]
        apart = {}
        for row in sorted(finals, key=lambda row: row.hi):
            _, name, _, size, step = rows.key_parts(row.key)
            key = rows.row_key("after", name, size, step)
            apart[key] = (key, rows.CLOSED, row.hi, msgspec.msgpack.encode(row.value.after))
        return pop_rows(self) + list(apart.values())

    def take(self: Any) -> None:
        best = self._versions.best
        apart = {key: best.pop(key) for key in list(best) if key.startswith(b"after|")}
        load(self)
        for key, stored in apart.items():
            _, name, size, step = rows.key_parts(key)
            finals = self._models[name].final.get(WindowSpec(int(size), int(step))) if name in self._models else None
            if finals:
                finals[-1][1].value.after = msgspec.msgpack.decode(stored.payload)

    return [_replace(changes.Changes, "pop_rows", pop), _replace(merge.MergePartition, "_load", take)]


def tombstones_with_their_mark() -> list[Undo]:
    """Delete what is collected in the checkpoint that says so, not in the one after it."""
    of_panes, of_merge = ingest.IngestPartition.checkpoint, merge.MergePartition._collect

    def checkpoint(self: Any) -> Any:
        for key in self._panes.collect(self._durable_hi, self._now_ms):
            self._versions.drop(key)
        return of_panes(self)

    def collect(self: Any) -> Any:
        for key in of_merge(self):
            self._versions.drop(key)
        return []

    return [_replace(ingest.IngestPartition, "checkpoint", checkpoint), _replace(merge.MergePartition, "_collect", collect)]


def every_partial_counts() -> list[Undo]:
    """Add a partial that was sent again to the one that is there already."""
    original = sealing.Sealing.take

    def take(self: Any, model: Any, partial: Any, data: bytes, offset: int) -> None:
        partial = msgspec.structs.replace(partial, hi=partial.hi + (offset << 20))
        original(self, model, partial, partials.encode(partial), offset)

    def all_of(arrivals: Any) -> list[Any]:
        return [block for chunks in arrivals.values() for block in chunks.values()]

    return [_replace(sealing.Sealing, "take", take), _replace(closing, "newest", all_of)]


def offset_past_foreign_records() -> list[Undo]:
    """Move the local store's offset over records of the changelog that it does not hold."""
    from monitor.runtime import extensions
    from tests.simulation import broker

    return [_replace(module, "follows", lambda local, offsets: True) for module in (extensions, broker)]


def silence_of_another_clock() -> list[Undo]:
    """Go on measuring a silence where another process left off, whose clock is another one."""
    original = ingest.IngestPartition.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        kept = []
        resumed = ingest.IngestMeta.resumed
        resume = lambda meta, payload: kept.append(resumed(meta, payload)) or msgspec.structs.replace(kept[0])  # noqa: E731
        undo = _replace(ingest.IngestMeta, "resumed", resume)
        try:
            original(self, *args, **kwargs)
        finally:
            undo()
        if kept:
            self._meta.quiet_since, self._meta.quiet_clock = kept[0].quiet_since, kept[0].quiet_clock

    return [_replace(ingest.IngestPartition, "__init__", init)]


def late_partials_twice() -> list[Undo]:
    """Take a late partial that is part of its sealed pane for one that is still to be added, where a crash left both."""
    original = ModelRows.sort_arrived

    def sort(self: Any) -> Any:
        undo = _replace(ModelRows, "share", lambda *_: None)
        try:
            return original(self)
        finally:
            undo()

    return [_replace(ModelRows, "sort_arrived", sort)]


def ids_ahead_of_meta() -> list[Undo]:
    """Take the ids of events for seen that a crash left ahead of meta: reading on, the events themselves are duplicates."""
    original = seen_ids.SeenIds.load

    def load(self: Any, stored: Any, mark: Any) -> None:
        for place, by_row in sorted(stored.items()):
            n = sum(len(row.payload) for row in by_row.values()) // 8
            original(self, {place: by_row}, (place[0], n))

    return [_replace(seen_ids.SeenIds, "load", load)]


def no_guard() -> list[Undo]:
    """Let a paused process go on as if nothing had happened; alone it is harmless, epochs are there for it."""
    try:
        from monitor.runtime.guard import Guard
    except ImportError:
        return []
    return [_replace(Guard, "check", lambda self: None)]


def slow_meta() -> list[Undo]:
    """No defect: a broker that takes its time between the rows of a checkpoint and its meta, so that crashes fall there."""
    from monitor.runtime.extensions import MonitorApp

    original = MonitorApp.send_all

    async def send_all(self: Any, messages: Any, is_owner: Any) -> Any:
        if len(messages) == 1 and (messages[0].key or b"").startswith(b"meta"):
            await asyncio.sleep(1.5)
        return await original(self, messages, is_owner)

    return [_replace(MonitorApp, "send_all", send_all)]


BY_SIMULATION = (
    skip_row_offset_check,
    last_writer_wins,
    epoch_first,
    late_by_timer,
    meta_before_rows,
    watermark_before_partials,
    history_row_apart,
    every_partial_counts,
    offset_past_foreign_records,
    silence_of_another_clock,
    late_partials_twice,
    ids_ahead_of_meta,
)
"""Those that the simulation must find."""

DEFECTS: dict[str, Callable[[], list[Undo]]] = {
    f.__name__: f for f in (*BY_SIMULATION, tombstones_with_their_mark, no_guard, slow_meta)
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have a defect for as long as the context lasts."""
    undo = DEFECTS[name]()
    try:
        yield
    finally:
        for step in undo:
            step()


if __name__ == "__main__":
    for name in sys.argv.pop(1).split("+"):
        DEFECTS[name]()
    from monitor.cli import main

    main()
