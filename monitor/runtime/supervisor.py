"""Starts worker processes and starts a dead one again, with back-off. systemd or Kubernetes can do the same with one worker each."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

import structlog

from monitor.runtime.exits import EXIT_CONFIG, OUTAGES, reason_of

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
OUTAGE_BACKOFF_S = 5.0
"""After an outage of the brokers work goes on within half a minute: a start that finds none has waited for one already."""
HEALTHY_S = 60.0
STOP_S = 30.0
_PR_SET_PDEATHSIG = 1

log = structlog.get_logger()


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Backoff:
    """How long to wait before a process that has ended is started again.

    >>> backoff = Backoff()
    >>> [backoff.after(70, lived_s=1) for _ in range(4)], backoff.after(70, lived_s=100)
    ([0.5, 1.0, 2.0, 4.0], 0.5)
    """

    def __init__(self) -> None:
        self._next_s = FIRST_BACKOFF_S

    def after(self, code: int, lived_s: float) -> float:
        """Return the seconds to wait; they double each time, until one has lived for a minute. code: the exit code."""
        if lived_s > HEALTHY_S:
            self._next_s = FIRST_BACKOFF_S
        longest = OUTAGE_BACKOFF_S if code in OUTAGES else LONGEST_BACKOFF_S
        waits = min(self._next_s, longest)
        self._next_s = min(2 * waits, LONGEST_BACKOFF_S)
        return waits


class Supervisor:
    """Keeps one process per command running."""

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        self._commands = commands
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * len(commands)
        self._started = [0.0] * len(commands)
        self._backoff = [Backoff() for _ in commands]
        self._next = [0.0] * len(commands)
        self._is_stopping = False

    def run(self) -> int:
        """Run until a signal; return the exit code: 0, or 78 when a worker says that its configuration is unusable."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self._is_stopping:
            for i in range(len(self._commands)):
                if self._look(i) == EXIT_CONFIG:
                    self._end_all()
                    return EXIT_CONFIG
            time.sleep(0.1)
        self._end_all()
        return 0

    def _look(self, i: int) -> int | None:
        """Start a worker that does not run; return the exit code of one that has just ended."""
        process, now = self._processes[i], time.monotonic()
        if process is None:
            if now >= self._next[i]:
                self._processes[i] = subprocess.Popen(self._commands[i], preexec_fn=die_with_parent)
                self._started[i] = now
            return None
        code = process.poll()
        if code is None:
            return None
        self._processes[i] = None
        waits = self._backoff[i].after(code, now - self._started[i])
        self._next[i] = now + waits
        log.warning("worker_ended", index=i, code=code, reason=reason_of(code), again_in_s=waits)
        return code

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._is_stopping = True

    def _end_all(self) -> None:
        running = [process for process in self._processes if process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_S
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
