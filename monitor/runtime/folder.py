"""A worker's folder of state: one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from monitor.errors import ConfigError


def claim(folder: Path) -> int:
    """Make the folder and lock it until the process ends; return the lock's file descriptor. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"state.dir: {folder} cannot be written to: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise ConfigError(
            f"state.dir: {folder} is in use by another worker; give each worker an --index, or another state.dir, of its own"
        ) from error
    return lock
