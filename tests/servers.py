"""Servers that tests start: there when the context begins, ended with it and with this process."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from monitor.runtime.supervisor import die_with_parent

READY_S = 20


@contextmanager
def serving(command: Sequence[str], log: Path, ask: Callable[[], object]) -> Iterator[None]:
    """Run a server. ask: raises OSError as long as it does not answer. Raises AssertionError with its log when it never does."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=die_with_parent)
    try:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                ask()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(20)
