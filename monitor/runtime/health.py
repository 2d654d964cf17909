"""What the probes, the scrapes and the watchdog of one worker are told: where everything stands, asked from their own threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

from monitor.config.settings import Watchdog as Limits
from monitor.runtime.compacted import LEAD_S
from monitor.runtime.exits import EXIT_CRASH, EXIT_LOOP, EXIT_PROGRESS, EXIT_RECOVERY, end_process
from monitor.runtime.extensions import MonitorApp
from monitor.runtime.owners import Owners
from monitor.runtime.readiness import CONDITIONS
from monitor.runtime.telemetry import Telemetry
from monitor.runtime.topic_watch import TopicWatch
from monitor.runtime.watchdog import Places, Rule, Watchdog

LATE_S = 4.0
"""An event loop that has not turned for so long is not alive, say the probes; the watchdog ends it later."""


class Health:
    """Answers for one worker. reference_age_s: since the references topic was known to be read to its end.

    n_turns: counted up by the event loop. Reading a row of state counts as a turn: the loop is busy with it, and gets on.
    """

    def __init__(self, app: MonitorApp, owners: Owners, topics: TopicWatch, reference_age_s: Callable[[], float]) -> None:
        self.n_turns = 0
        self._app = app
        self._owners = owners
        self._reference_age_s = reference_age_s
        self._seen: tuple[object, float] = (None, time.monotonic())
        ask = app.readiness.ask
        ask("loop", self._loop)
        ask("broker", lambda: topics.unreachable)
        ask("topics", lambda: topics.changed)
        ask("assignment", lambda: "no partitions are assigned yet" if app.owned_generation is None else None)
        ask("recovery", self._recovery)
        ask("references", self._references)

    def livez(self) -> tuple[bool, str]:
        """Whether the event loop turns."""
        age_s = self.loop_age_s()
        return age_s < LATE_S, f"event loop turned {age_s:.1f} s ago"

    def readyz(self) -> tuple[bool, str]:
        """Whether this worker is a member whose partitions, none perhaps, are loaded and read; one line per reason why not."""
        reasons = self._app.readiness.reasons()
        if not reasons:
            return True, f"{len(self._owners)} partitions"
        return False, "\n".join(f"{condition}: {reason}" for condition, reason in reasons.items())

    def tell(self, telemetry: Telemetry, restarts: Mapping[str, int]) -> None:
        """Let every scrape ask. restarts: how earlier lives ended."""
        for condition in CONDITIONS:
            telemetry.ask("monitor_not_ready", partial(self._is_not_ready, condition), (condition,))
        telemetry.ask("monitor_loop_age_seconds", self.loop_age_s)
        telemetry.ask("monitor_recovery_remaining_records", self._n_remaining)
        telemetry.restarted(restarts)

    def watchdog(self, limits: Limits) -> Watchdog:
        """Return the thread that ends a worker that stands still."""
        rules = (
            Rule("event loop", self._loop_place, limits.loop / 1000, EXIT_LOOP),
            Rule("recovery", self._recovery_place, limits.recovery / 1000, EXIT_RECOVERY, can_wait=True),
            Rule("progress", self._owners.standing, limits.progress / 1000, EXIT_PROGRESS, can_wait=True),
        )
        return Watchdog(rules, self._end, lambda: self._app.readiness.is_waiting, held_s=2 * limits.loop / 1000)

    def loop_age_s(self) -> float:
        """Return seconds since the event loop was first seen where it is now; the watchdog looks every second."""
        place, since_s = self._seen
        now = (self.n_turns, self._owners.n_loaded)
        if place != now:
            since_s = time.monotonic()
            self._seen = now, since_s
        return time.monotonic() - since_s

    def _loop(self) -> str | None:
        is_well, text = self.livez()
        return None if is_well else text

    def _recovery(self) -> str | None:
        recovery = self._app.tables.begun_recovery
        if recovery is not None and recovery.completed.is_set() and not self._app.rebalancing:
            return None
        return f"state is being recovered: {self._n_remaining()} changelog records to go"

    def _n_remaining(self) -> int:
        recovery = self._app.tables.begun_recovery
        return 0 if recovery is None else recovery.n_remaining()

    def _references(self) -> str | None:
        age_s = self._reference_age_s()
        return f"not known to be read to their end for {age_s:.0f} s" if age_s > LEAD_S / 2 else None

    def _is_not_ready(self, condition: str) -> bool:
        return self._app.readiness.reason(condition) is not None

    def _loop_place(self) -> Places:
        self.loop_age_s()
        return {"its turns": (self.n_turns, self._owners.n_loaded)}

    def _recovery_place(self) -> Places:
        if self._app.owned_generation is not None and self._recovery() is None:
            return {}
        recovery = self._app.tables.begun_recovery
        place = (self._app.owned_generation, recovery and recovery.n_taken, self._owners.n_loaded)
        return {"assignment and recovery of state": place}

    def _end(self, reason: str, code: int = EXIT_CRASH, **facts: Any) -> NoReturn:
        end_process(reason, code, not_ready=self._app.readiness.reasons(), **facts)
