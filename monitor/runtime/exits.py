"""How a worker process ends, and what its supervisor makes of it."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import structlog

EXIT_CRASH = 70
"""Something unexpected: start again; state on disk and in the changelog is what counts."""
EXIT_UNREACHABLE = 75
"""No broker answers a worker that starts: start again later. (`monitor run` says so itself, with 78, before it starts any.)"""
EXIT_CONFIG = 78
"""Configuration or environment: starting again changes nothing."""
EXIT_OWNERSHIP = 83
"""The group's coordinator has not answered for three quarters of a session: partitions may belong to somebody else."""

OUTAGES = frozenset({EXIT_UNREACHABLE, EXIT_OWNERSHIP})
"""Ends for which a broker is to blame, or a pause, and not the worker: one that starts again soon does no harm."""

log = structlog.get_logger()


def end_process(reason: str, code: int = EXIT_CRASH, **facts: Any) -> NoReturn:
    """End the process at once, without a last word to broker or disk: state in memory is not to be trusted any more."""
    log.error("worker_ends", reason=reason, code=code, **facts)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
