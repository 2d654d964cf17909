"""Silences, read from Alertmanager again and again. While it does not answer, the last ones that it told hold, until they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import msgspec
import structlog

from monitor.config.notify import Alertmanager
from monitor.notify.matching import ActiveSilence, Silence, understood
from monitor.notify.notice import Notice
from monitor.notify.outbound import Undelivered
from monitor.notify.receivers import AlertmanagerApi

MAX_BYTES = 4 << 20

log = structlog.get_logger()


class Silences:
    """The silences that were read last. read_s: when, on the monotonic clock; None before the first time."""

    def __init__(self) -> None:
        self._active: list[ActiveSilence] = []
        self._problems: list[str] = []
        self.read_s: float | None = None

    def take(self, body: bytes, now_s: float) -> None:
        """Take an answer of `/api/v2/silences` in. Raises Undelivered for one that is none."""
        try:
            silences = msgspec.json.decode(body, type=list[Silence])
        except msgspec.DecodeError as error:
            raise Undelivered(f"silences are not as expected: {error}") from error
        self._active, problems = understood(silences)
        for problem in set(problems) - set(self._problems):
            log.warning("silence_ignored", reason=problem)
        self._problems = problems
        self.read_s = now_s

    def of(self, notice: Notice, now_ms: int) -> Silence | None:
        """Return a silence that is in force for an alert."""
        return next((one.silence for one in self._active if one.silences(notice.labels, now_ms)), None)

    def in_force(self, now_ms: int) -> int:
        """Return how many there are."""
        return sum(one.starts_ms <= now_ms < one.ends_ms for one in self._active)


class SilenceReader(threading.Thread):
    """Reads them every so often. was_asked: set after the first try, whatever came of it. failed: told what ended it."""

    def __init__(self, config: Alertmanager, silences: Silences, failed: Callable[[BaseException], None]) -> None:
        super().__init__(name="silences", daemon=True)
        self._api = AlertmanagerApi(config)
        self._every_s = config.silences / 1_000
        self._silences = silences
        self._failed = failed
        self.was_asked = threading.Event()

    def run(self) -> None:
        """Read for ever."""
        try:
            was_well = True
            while True:
                was_well = self._read(was_well=was_well)
                self.was_asked.set()
                time.sleep(self._every_s)
        except Exception as error:  # noqa: BLE001  (a thread that ends unseen would keep silences that are over)
            self._failed(error)

    def _read(self, *, was_well: bool) -> bool:
        try:
            read_silences(self._api, self._silences)
        except Undelivered as error:
            if was_well:
                log.warning("silences_unknown", reason=str(error))
            return False
        return True


def read_silences(api: AlertmanagerApi, silences: Silences) -> None:
    """Read them once. Raises Undelivered."""
    silences.take(api.silences(MAX_BYTES), time.monotonic())
