"""Planted defects: the harness must find each of them. `python -m tests.defects NAME[+NAME…] worker --config … --index …` runs a worker with one.

Nothing of this is in the program; a defect replaces one function from outside.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from monitor.stages import admission, partition_panes, rows

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
    """Prefer the younger owner's version to the one with more events."""
    return [_replace(rows, "rank", lambda version: (version.epoch, version.hi)), *no_guard()]


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

    original = CheckpointTable.write

    async def write(self: Any, partition: int, checkpoint: Any, is_owner: Any) -> None:
        from monitor.ports import Message

        await self.app.send_all([Message(self.changelog_topic_name, *checkpoint.meta, partition)], is_owner)
        await asyncio.sleep(1.5)
        await original(self, partition, checkpoint, is_owner)

    return [_replace(CheckpointTable, "write", write)]


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


DEFECTS: dict[str, Callable[[], list[Undo]]] = {
    f.__name__: f
    for f in (skip_row_offset_check, last_writer_wins, epoch_first, late_by_timer, meta_before_rows, no_guard, slow_meta)
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
