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
    """The age of the last heartbeat response, checked before it is refreshed.

    session_s: the group's session timeout. on_stale: ends the process; never returns.
    """

    def __init__(self, session_s: float, on_stale: Callable[[str], Any]) -> None:
        self._limit_s = SHARE_OF_SESSION * session_s
        self._on_stale = on_stale
        self._last: float | None = None
        self.responses = 0

    @staticmethod
    def _now() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def assigned(self) -> None:
        """Partitions have just been assigned: the coordinator has answered."""
        self._last = self._now()

    def released(self) -> None:
        """Nothing is owned: there is nothing to guard."""
        self._last = None

    def check(self) -> None:
        """End the process when the last response is too old."""
        if self._last is not None and self._now() - self._last > self._limit_s:
            self._on_stale(f"no heartbeat was answered for {self._now() - self._last:.1f} s")

    def watch(self, coordinator: Any) -> None:
        """Follow an aiokafka group coordinator's heartbeats."""
        if getattr(coordinator, "_monitor_guard", None) is self:
            return
        original = coordinator._do_heartbeat

        async def heartbeat() -> bool:
            is_answered: bool = await original()
            self.check()
            if is_answered and self._last is not None:
                self._last = self._now()
            if is_answered:
                self.responses += 1
            return is_answered

        coordinator._do_heartbeat = heartbeat
        coordinator._monitor_guard = self
