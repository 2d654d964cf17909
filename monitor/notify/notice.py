"""An alert as it was read from the topic, and what is to be done with it next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import msgspec

from monitor.acks import Ack
from monitor.alerts import Alert

Outcome = Literal["delivered", "failed", "refused"]
"""failed: the receiver, or the way to it; try again. refused: this alert; trying again changes nothing."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert record. timestamp_ms: of the record; labels: as Alertmanager and silences know it; value: its bytes."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    alert: Alert
    labels: dict[str, str]

    @property
    def id(self) -> str:
        """Id of the alert: a repeated record has the same."""
        return self.alert.id

    @property
    def incident_id(self) -> str:
        """Id of the alert with which its incident fired."""
        return self.alert.data.incident_id

    @property
    def is_firing(self) -> bool:
        """Whether it opens its incident."""
        return self.alert.data.status == "firing"


def decode_alert(value: bytes | None) -> Alert | None:
    """Return the alert, None of bytes that are none."""
    try:
        return _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


_decode = msgspec.json.Decoder(Alert).decode


class Posted(NamedTuple):
    """An incident as Alertmanager is to see it now."""

    notice: Notice
    """Whose annotations it has."""
    labels: dict[str, str]
    is_firing: bool
    ends_ms: int
    """When it ended, or ends if it is not sent again."""
    ack: Ack | None


@dataclass(frozen=True, slots=True)
class Send:
    """Hand these to the receiver: one alert, or a state of several for Alertmanager."""

    notices: tuple[Notice, ...]
    posted: tuple[Posted, ...] = ()


@dataclass(frozen=True, slots=True)
class Bury:
    """Put this alert on the dead-letter topic."""

    notice: Notice
    reason: str


Step = Send | Bury


class Verdict(NamedTuple):
    """What became of a step. refused: which of its alerts, where not all were."""

    outcome: Outcome
    detail: str = ""
    refused: frozenset[int] = frozenset()


class Mutes(Protocol):
    """What is known of silences and acknowledgements."""

    def is_silenced(self, notice: Notice, now_ms: int) -> bool:
        """Whether a silence of Alertmanager is in force for it."""

    def ack(self, incident_id: str) -> Ack | None:
        """Return who looks after an incident."""
