"""Entries of a join in memory, for a replay: what it needs is over with it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence


class MemoryPending:
    """A store of entries (ports.Pending). is_last: the next scan is to look at everything, so that what is over is counted."""

    def __init__(self) -> None:
        self.is_last = False
        self._entries: dict[bytes, bytes] = {}
        self._state: bytes | None = None
        self._keys: list[bytes] = []

    @property
    def state(self) -> bytes | None:
        """What was written beside the entries last."""
        return self._state

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the entry of each key."""
        return [self._entries.get(key) for key in keys]

    def write(self, entries: Mapping[bytes, bytes | None], state: bytes) -> None:
        """Write entries and `state`."""
        for key, value in entries.items():
            if value is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = value
        self._state = state

    def scan(self, after: bytes, n: int) -> list[tuple[bytes, bytes]]:
        """Return entries behind `after`, by key: of those that were there when a scan began from the first key last."""
        if self.is_last:
            return sorted(self._entries.items())
        if not after:
            self._keys = sorted(self._entries)
        found: list[tuple[bytes, bytes]] = []
        for i in range(bisect_right(self._keys, after), len(self._keys)):
            value = self._entries.get(self._keys[i])
            if value is not None:
                found.append((self._keys[i], value))
                if len(found) == n:
                    break
        return found

    def clear(self) -> None:
        """Remove everything."""
        self._entries, self._state, self._keys = {}, None, []
