"""Reads the local stores of a state directory without changing anything, and compares them with their changelogs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rocksdict
from faust.stores.rocksdb import Store

from monitor.config.settings import Config
from monitor.errors import ConfigError
from monitor.runtime.broker import partition_counts, read_to_end
from monitor.runtime.store import IDENTITY, WRITTEN, StoreDamaged, unsealed
from monitor.stages.inspection import Partition, inspect

_STORE = re.compile(r"(?P<table>.+)-(?P<partition>\d+)\.db")


@dataclass(slots=True)
class StoreState:
    """A local store as it lies on the disk.

    offset: of the changelog, up to which it holds everything. age_s: since it was last as new as the changelog. n_bytes: on the disk.
    """

    path: Path
    worker: str
    table: str
    partition: int
    n_bytes: int = 0
    changelog: str = ""
    offset: int | None = None
    age_s: float | None = None
    rows: dict[bytes, bytes] = field(default_factory=dict)
    held: Partition = field(default_factory=Partition)
    problems: list[str] = field(default_factory=list)

    def all_problems(self) -> Iterator[str]:
        """Yield a sentence per problem."""
        yield from self.problems
        yield from self.held.all_problems()


def read_states(folder: Path) -> list[StoreState]:
    """Read every local store below a state directory. Raises ConfigError when there is no such directory."""
    if not folder.is_dir():
        raise ConfigError(f"state.dir: {folder}: no such directory")
    found = []
    for path in sorted(folder.glob("worker-*/*/tables/*.db")):
        match = _STORE.fullmatch(path.name)
        if match is not None and path.is_dir():
            worker = path.relative_to(folder).parts[0]
            found.append(_read(StoreState(path, worker, match["table"], int(match["partition"]))))
    return found


def _read(state: StoreState) -> StoreState:
    state.n_bytes = sum(file.stat().st_size for file in state.path.iterdir() if file.is_file())
    try:
        database = rocksdict.Rdict(
            str(state.path), options=rocksdict.Options(raw_mode=True), access_type=rocksdict.AccessType.read_only()
        )
        own = _read_rows(state, database)
        database.close()
    except Exception as error:  # noqa: BLE001  (RocksDB's errors have no type of their own)
        state.problems.append(f"the store cannot be read: {error}")
        return state
    identity = own.get(IDENTITY, b"").decode(errors="replace").split("|")
    if len(identity) != 4:
        state.problems.append("nothing says whose it is")
    else:
        state.changelog = identity[1]
        if not identity[1].endswith(f"-{state.table}-changelog") or identity[2] != str(state.partition):
            state.problems.append(f"it is of {identity[1]}/{identity[2]}")
    if Store.offset_key in own:
        state.offset = int(own[Store.offset_key])
    elif state.rows:
        state.problems.append("nothing says how much of the changelog it holds")
    if WRITTEN in own:
        state.age_s = round(time.time() - int(own[WRITTEN]), 1)
    state.held = inspect(state.rows.items())
    return state


def _read_rows(state: StoreState, database: Any) -> dict[bytes, bytes]:
    """Take the rows in; return what the store says of itself."""
    own: dict[bytes, bytes] = {}
    entries = database.iter()
    entries.seek_to_first()
    while entries.valid():
        key = entries.key()
        try:
            value = unsealed(key, entries.value())
        except StoreDamaged as damage:
            state.problems.append(str(damage))
        else:
            (own if key in (IDENTITY, WRITTEN, Store.offset_key) else state.rows)[key] = value
        entries.next()
    entries.status()
    return own


def compare_with_changelogs(config: Config, states: list[StoreState]) -> None:
    """Add to the stores' problems what their changelogs contradict, as far as each store has read."""
    counts = partition_counts(config.kafka)
    for changelog in sorted({state.changelog for state in states if state.changelog}):
        if changelog not in counts:
            for state in states:
                if state.changelog == changelog:
                    state.problems.append(f"topic {changelog} is missing")
            continue
        newest: dict[tuple[int, bytes], tuple[int, bytes | None]] = {}
        ends: dict[int, int] = {}
        for message in read_to_end(config.kafka, changelog, partitions=counts[changelog]):
            place, offset = message.partition() or 0, message.offset() or 0
            newest[place, message.key() or b""] = offset, message.value()
            ends[place] = offset
        for state in states:
            if state.changelog == changelog and state.offset is not None:
                state.problems += _differences(state, newest, ends.get(state.partition, -1))


def _differences(state: StoreState, newest: dict[tuple[int, bytes], tuple[int, bytes | None]], end: int) -> Iterator[str]:
    assert state.offset is not None
    if state.offset > end:
        yield f"it holds offset {state.offset} of {state.changelog}, whose last record is at {end}"
        return
    for key, value in state.rows.items():
        offset, expected = newest.get((state.partition, key), (-1, None))
        if offset <= state.offset and value != expected:
            yield f"row {key!r} is not as {state.changelog}/{state.partition} has it at offset {offset}"
    for (partition, key), (offset, expected) in newest.items():
        if partition == state.partition and expected is not None and offset <= state.offset and key not in state.rows:
            yield f"row {key!r} is missing; {state.changelog}/{state.partition} has it at offset {offset}"
