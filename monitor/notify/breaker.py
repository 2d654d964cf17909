"""When a receiver that failed is tried again: longer and longer waits, with jitter; after some failures in a row it counts as dead."""

from __future__ import annotations

from collections.abc import Callable

FIRST_WAIT_MS = 1_000
LONGEST_WAIT_MS = 60_000
OPEN_AFTER = 5


class Breaker:
    """Waits double from 1 s to 60 s, each shortened by up to half. dice: uniform in [0, 1)."""

    def __init__(self, dice: Callable[[], float]) -> None:
        self._dice = dice
        self._failures = 0
        self.due_ms = 0
        """Nothing is tried before that."""

    @property
    def is_open(self) -> bool:
        """Whether the receiver counts as dead: single tries, to see whether it is back."""
        return self._failures >= OPEN_AFTER

    def failed(self, now_ms: int) -> None:
        """Take a failure in."""
        longest = min(LONGEST_WAIT_MS, FIRST_WAIT_MS << min(self._failures, 16))
        self._failures += 1
        self.due_ms = now_ms + int(longest * (1 - self._dice() / 2))

    def succeeded(self) -> None:
        """The receiver answers."""
        self._failures = 0
        self.due_ms = 0
