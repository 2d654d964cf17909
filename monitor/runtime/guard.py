"""Whether this process may still act as the owner of its partitions.

A process that was paused for longer than the session does not know that its partitions were given away. What it knows is when the
coordinator last answered a heartbeat, on a clock that runs while the machine sleeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SHARE_OF_SESSION = 0.75


class Guard:
    """The age of the last answered heartbeat, checked before it is refreshed.

    The age counts from when the heartbeat was sent: the coordinator's own count begins later than that, never earlier.
    Heartbeats run in the consumer's thread, questions come from the event loop's: every field is written by one plain assignment.

    session_s: the group's session timeout. on_stale: ends the process; never returns.
    """

    def __init__(self, session_s: float, on_stale: Callable[[str], Any]) -> None:
        self.session_s = session_s
        self._limit_s = SHARE_OF_SESSION * session_s
        self._on_stale = on_stale
        self._last: float | None = None
        self._confirmed: tuple[int, float] | None = None

    @staticmethod
    def now() -> float:
        """Return seconds on a clock that goes on while the process, or the machine, is paused."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def assigned(self) -> None:
        """Partitions are being assigned: the coordinator has just answered."""
        self._last = self.now()

    def released(self) -> None:
        """Nothing is owned: there is nothing to guard."""
        self._last = None

    def check(self) -> None:
        """End the process when the last answer is too old."""
        last = self._last
        if last is not None and self.now() - last > self._limit_s:
            self._on_stale(f"no heartbeat was answered for {self.now() - last:.1f} s")

    def is_confirmed_since(self, moment: float, generation: int) -> bool:
        """Whether the coordinator accepted a heartbeat for `generation` that was sent after `moment`."""
        confirmed = self._confirmed
        return confirmed is not None and confirmed[0] == generation and confirmed[1] > moment

    def watch(self, coordinator: Any) -> None:
        """Follow an aiokafka group coordinator's heartbeats; doing it again changes nothing."""
        if getattr(coordinator, "_monitor_guard", None) is self:
            return
        original = coordinator._do_heartbeat

        async def heartbeat() -> bool:
            sent, generation = self.now(), coordinator.generation
            is_answered: bool = await original()
            self.check()
            if is_answered:
                self._confirmed = (generation, sent)
                if self._last is not None:
                    self._last = max(self._last, sent)
            return is_answered

        coordinator._do_heartbeat = heartbeat
        coordinator._monitor_guard = self
