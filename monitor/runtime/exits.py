"""How a worker process ends, and what its supervisor, and Prometheus, make of it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import structlog

EXIT_CRASH = 70
"""Something unexpected: start again; state on disk and in the changelog is what counts."""
EXIT_UNREACHABLE = 75
"""No broker answers a worker that starts: start again later. (`monitor run` says so itself, with 78, before it starts any.)"""
EXIT_CONFIG = 78
"""Configuration or environment: starting again changes nothing."""
EXIT_LOOP = 80
"""The event loop did not turn for `watchdog.loop`."""
EXIT_RECOVERY = 81
"""An assignment or a recovery did not get on for `watchdog.recovery`."""
EXIT_PROGRESS = 82
"""Records waited on a partition, or a checkpoint for its end, for `watchdog.progress`, and nothing moved."""
EXIT_OWNERSHIP = 83
"""The group's coordinator has not answered for three quarters of a session: partitions may belong to somebody else."""
EXIT_SLOW_STOP = 84
"""A stop took too long and was ended by force; the state allows it."""

OUTAGES = frozenset({EXIT_UNREACHABLE, EXIT_OWNERSHIP})
"""Ends for which a broker is to blame, or a pause, and not the worker: one that starts again soon does no harm."""

REASONS: Mapping[int, str] = {
    0: "stopped",
    EXIT_CRASH: "crash",
    EXIT_UNREACHABLE: "unreachable",
    EXIT_CONFIG: "configuration",
    EXIT_LOOP: "loop",
    EXIT_RECOVERY: "recovery",
    EXIT_PROGRESS: "progress",
    EXIT_OWNERSHIP: "ownership",
    EXIT_SLOW_STOP: "slow_stop",
}
"""A word for each exit code; labels of metrics come from here."""
KILLED = "killed"
"""The word for an end by a signal, of which the process itself can say nothing."""

log = structlog.get_logger()
_last_words: list[Callable[[int], None]] = []


def reason_of(code: int) -> str:
    """Return the word for an exit code, as `subprocess` gives it: a signal's number is negative.

    >>> reason_of(80), reason_of(-9), reason_of(1)
    ('loop', 'killed by SIGKILL', 'crash')
    """
    return f"{KILLED} by {signal.Signals(-code).name}" if code < 0 else REASONS.get(code, "crash")


def before_end(say: Callable[[int], None]) -> None:
    """Call `say` with the exit code when the process ends by `end_process`, or says that it will with `ending`."""
    _last_words.append(say)


def ending(code: int) -> None:
    """Say that the process is about to end with `code`."""
    for say in _last_words:
        with suppress(OSError):
            say(code)


def end_process(reason: str, code: int = EXIT_CRASH, **facts: Any) -> NoReturn:
    """End the process at once, without a last word to broker or state: what is in memory is not to be trusted any more."""
    (log.error if code else log.info)("worker_ends", reason=reason, code=code, **facts)
    ending(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
