"""What a worker is to stay within, `state.memory`: how it is divided, what takes how much, and what is said when it is not enough.

Python's and the C library's allocators keep what was freed; glibc gives whole pages back when it is asked to. Every fold and every window
leaves free pages between those in use, half as much again as what is held within half a minute; so it is asked whenever the process has
grown by a little.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import structlog

STORES = 8
"""An eighth is RocksDB's, cache and write buffers: stores are written, and read once at a take-over."""
WAITING = 6
"""A sixth is that of decoded rows that wait in panes."""
FETCHED = 16
"""A sixteenth is that of the batches of a topic that wait in its stream; as much again is on its way from the broker."""
FETCH_BYTES = 4 << 20
"""Of a partition, in one fetch."""
GROWTH = 16
"""When the process has grown by a sixteenth, free pages are given back."""
LOOK_S, TRIM_S = 10.0, 1.0

log = structlog.get_logger()


def stores_limit(memory: int) -> int:
    """Return the budget of the local stores, bytes."""
    return memory // STORES


def waiting_limit(memory: int) -> int:
    """Return how many bytes of rows may wait in the panes of all partitions."""
    return memory // WAITING


def max_batches(memory: int) -> int:
    """Return how many batches of a topic may wait; with two, reading and folding take turns."""
    return max(2, memory // FETCHED // FETCH_BYTES)


def resident_bytes(pid: int | Literal["self"] = "self") -> int:
    """Return what a process takes of the machine's memory (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def trim() -> None:
    """Give free pages back to the machine, where the C library can: what freed arrays leave behind is not taken by others otherwise."""
    give_back: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)


class Trimmer:
    """Gives free pages back when the process has grown by a sixteenth of `limit` since it last did.

    What it takes again by the next look was in use between two fetches: as long as no more than that grows, nothing is given back.
    """

    def __init__(self, limit: int) -> None:
        self._growth = limit // GROWTH
        self._least: int | None = None

    @property
    def is_due(self) -> bool:
        """Whether there may be much to give back."""
        resident = resident_bytes()
        self._least = resident if self._least is None else min(self._least, resident)
        return resident - self._least >= self._growth

    def trim(self) -> None:
        """Give back what can be; what is left is held."""
        trim()
        self._least = None


class MemoryWatch:
    """Says once, each time that more than the limit is taken, which part takes most."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._is_beyond = False

    def look(self, resident: int, parts: Mapping[str, int]) -> dict[str, int]:
        """Return the parts and what none of them has, `other`: the program, batches on their way, and what allocators keep."""
        found = {**parts, "other": max(0, resident - sum(parts.values()))}
        if resident > self._limit and not self._is_beyond:
            largest = max(found, key=found.__getitem__)
            log.warning(
                "memory_beyond_limit", limit=self._limit, resident=resident, part=largest, part_bytes=found[largest], parts=found
            )
        self._is_beyond = resident > self._limit
        return found
