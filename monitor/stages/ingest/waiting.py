"""How much of what was read waits to be folded, in all source partitions of a worker together."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakSet

NO_LIMIT = 1 << 62


class Holder(Protocol):
    """One that lets rows wait."""

    @property
    def waiting_bytes(self) -> int:
        """How many bytes of rows, about."""
        ...


class Waiting:
    """Bytes of decoded rows that wait in panes. When they are beyond `limit`, the partition that is fed folds its own.

    When rows are folded changes nothing of what a pane holds in the end, so partitions may share one. Holders are known for as long as
    they live: a partition that is given away is dropped without a word.
    """

    def __init__(self, limit: int = NO_LIMIT) -> None:
        self.limit = limit
        self._holders: WeakSet[Holder] = WeakSet()

    def join(self, holder: Holder) -> None:
        """Count a holder's rows from now on."""
        self._holders.add(holder)

    @property
    def held(self) -> int:
        """Bytes that wait now, about."""
        return sum(holder.waiting_bytes for holder in self._holders)

    @property
    def is_too_much(self) -> bool:
        """Whether rows are to be folded now."""
        return self.held > self.limit
