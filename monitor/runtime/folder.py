"""A worker's folder of state: one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from monitor.errors import ConfigError
from monitor.runtime.store import StoreFull


def claim(folder: Path) -> int:
    """Make the folder and lock it until the process ends; return the lock's file descriptor. Raises ConfigError; StoreFull on a full disk."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise ConfigError(
            f"state.dir: {folder} is in use by another worker; give each worker an --index, or another state.dir, of its own"
        ) from error
    return lock


def unwritable(folder: Path, error: OSError) -> Exception:
    """Return what an error of writing into the folder is to a worker that starts: a full disk passes, anything else does not."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"state.dir: {folder}: {error.strerror}")
    return ConfigError(f"state.dir: {folder} cannot be written to: {error.strerror}")
