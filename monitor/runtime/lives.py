"""How the earlier lives of a worker ended, so that the present one can tell Prometheus: a file beside its state.

A process that is killed can say nothing, and one that ends itself has no time to be scraped. So each life notes at its beginning that
it was killed, and corrects that when it ends in any other way; the next one counts what it finds. Whoever starts it again, the
supervisor, systemd or Kubernetes, the counts go on for as long as the folder lives.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from monitor.runtime.exits import KILLED, REASONS

FILE = "lives.json"
SIZE = 1_024
"""The file keeps this size, so that a disk without room takes the last word too."""


class Lives:
    """The file of one worker. Raises OSError when it cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        last, counts = self._read()
        if last is not None and last != REASONS[0]:
            counts[last] = counts.get(last, 0) + 1
        self._restarts = counts
        self._write(KILLED)

    @property
    def restarts(self) -> Mapping[str, int]:
        """Lives that did not end by a clean stop, by reason."""
        return dict(self._restarts)

    def ended(self, code: int) -> None:
        """Note how this life ends."""
        self._write(REASONS.get(code, "crash"))

    def _read(self) -> tuple[str | None, dict[str, int]]:
        """Return how the last life ended and the counts before it; nothing of a file that is new or damaged."""
        try:
            found = json.loads(os.pread(self._file, SIZE, 0))
            return str(found["last"]), {str(reason): int(n) for reason, n in found["restarts"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            return None, {}

    def _write(self, last: str) -> None:
        os.pwrite(self._file, json.dumps({"last": last, "restarts": self._restarts}).encode().ljust(SIZE), 0)
