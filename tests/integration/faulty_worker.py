"""`python -m tests.integration.faulty_worker CONFIG FAULT`: a worker with one fault built in, which no outside force can cause.

wedge: its event loop stops turning at the first record whose features have `wedge`. deaf: no changelog record is ever taken in.
slow: it takes in 20 changelog records in half a second. unread: records of sources are never handed to a stage.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from monitor.cli.console import log_json
from monitor.config.file import load_config
from monitor.runtime.driver import PartitionDriver
from monitor.runtime.extensions import CheckpointTable
from monitor.runtime.recovery import SafeRecovery
from monitor.runtime.worker import Worker


def wedge() -> None:
    original = PartitionDriver.feed

    async def feed(self: PartitionDriver, event: Any) -> None:
        if any(b"wedge" in (record.value or b"") for record in event.value):
            time.sleep(600)
        await original(self, event)

    PartitionDriver.feed = feed  # type: ignore[method-assign]


def deaf() -> None:
    async def nothing(self: SafeRecovery, *args: Any) -> None:
        """Neither take a record nor look at how far the consumer is."""

    SafeRecovery._take = SafeRecovery._look_for_the_rest = nothing  # type: ignore[method-assign]


def slow() -> None:
    original = CheckpointTable.take_changelog

    async def take_changelog(self: CheckpointTable, *args: Any) -> None:
        time.sleep(0.5)
        await original(self, *args)

    CheckpointTable.take_changelog = take_changelog  # type: ignore[method-assign]


def unread() -> None:
    async def feed(self: PartitionDriver, event: Any) -> None:
        await asyncio.sleep(600)

    PartitionDriver.feed = feed  # type: ignore[method-assign]


if __name__ == "__main__":
    path, fault = sys.argv[1:]
    {"wedge": wedge, "deaf": deaf, "slow": slow, "unread": unread}[fault]()
    log_json()
    worker = Worker(load_config(Path(path)), 0)
    if fault == "slow":
        worker.app.conf.broker_max_poll_records = 20
    worker.run()
