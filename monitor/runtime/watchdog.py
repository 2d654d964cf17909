"""Ends a worker that does not get on: a stalled event loop, a stuck recovery, records that wait and are not read.

It looks from a thread of its own, because a loop that is stalled cannot end itself. What counts is standing still, never slowness: each
rule names what is being waited for and how far it is, and its time runs only while that stays the same.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

LOOK_S = 1.0
"""How often it looks; a look after a longer time, the process having been paused, counts as two of them."""
STACK_LINES = 12

Places = Mapping[str, Hashable]
"""What is being waited for → how far it is; empty when nothing is."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What must not stand still.

    places: asked at every look. limit_s: of standing still. code: of the exit. can_wait: whether a worker that waits on purpose, for
    room on a disk or for an output, is left alone.
    """

    what: str
    places: Callable[[], Places]
    limit_s: float
    code: int
    can_wait: bool = False


class Watchdog(threading.Thread):
    """Looks at its rules for ever.

    end: ends the process, given a sentence, the exit code and facts. is_waiting: whether the worker waits on purpose.
    held_s: for how long native code may hold the interpreter, so that not even this thread gets a turn.
    """

    def __init__(
        self, rules: tuple[Rule, ...], end: Callable[..., Any], is_waiting: Callable[[], bool], *, held_s: float
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._rules = rules
        self._end = end
        self._held_s = held_s
        self._is_waiting = is_waiting
        self._still: dict[str, dict[str, tuple[Hashable, float]]] = {rule.what: {} for rule in rules}

    def run(self) -> None:
        """Look every second; a timer that needs no interpreter ends the process, with 1, when that does not happen."""
        before_s = time.monotonic()
        while True:
            faulthandler.dump_traceback_later(self._held_s, exit=True)
            time.sleep(LOOK_S)
            now_s = time.monotonic()
            try:
                self.look(now_s - before_s)
            except Exception as error:  # noqa: BLE001  (unseen, it would leave the worker unwatched)
                self._end(f"the watchdog failed: {error!r}")
            before_s = now_s

    def look(self, elapsed_s: float) -> None:
        """Compare with the last look; end the process when something has stood still for too long."""
        elapsed_s = min(elapsed_s, 2 * LOOK_S)
        for rule in self._rules:
            before, now = self._still[rule.what], rule.places()
            is_excused = rule.can_wait and self._is_waiting()
            found: dict[str, tuple[Hashable, float]] = {}
            for what, place in now.items():
                stood_at, seconds = before.get(what, (None, 0.0))
                seconds = seconds + elapsed_s if stood_at == place and not is_excused else 0.0
                found[what] = (place, seconds)
                if seconds > rule.limit_s:
                    self._end(f"{rule.what}: {what} stood still for {seconds:.0f} s", rule.code, stack=stack_of_main_thread())
            self._still[rule.what] = found


def stack_of_main_thread() -> list[str]:
    """Return where the thread of the event loop is, innermost call last: files, lines and names, no values."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    lines = traceback.extract_stack(frame)[-STACK_LINES:] if frame is not None else []
    return [f"{line.filename}:{line.lineno} {line.name}" for line in lines]
