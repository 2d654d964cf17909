"""Alerts as the topic has them, and a silence desk, for the tests of notification."""

from __future__ import annotations

import msgspec

from monitor.acks import Ack
from monitor.alerts import Alert, AlertData, AlertReference, AlertWindow, iso
from monitor.notify.labels import labels_of
from monitor.notify.notice import Notice
from monitor.reasons import Reason

HOUR_MS = 3_600_000
OPENED_MS = 1_735_689_600_000


def alert(
    name: str, status: str = "firing", incident: str | None = None, *, opened_ms: int = OPENED_MS, end_ms: int | None = None, **changes: object
) -> Alert:  # fmt: skip
    """Return an alert whose id is its name; a resolved one needs the name of its incident."""
    end_ms = end_ms if end_ms is not None else opened_ms + (0 if status == "firing" else HOUR_MS)
    kind = changes.pop("kind", "tumbling")
    window = AlertWindow(
        start=iso(end_ms - HOUR_MS), end=iso(end_ms), start_ms=end_ms - HOUR_MS, end_ms=end_ms, kind=str(kind), revision=0,
        completeness=1.0, late_dropped=0,
    )  # fmt: skip
    facts: dict[str, object] = {
        "status": status, "severity": "warning", "model": "credit", "version": "7", "segment": "all", "check": "drift.psi", "feature": "age",
        "view": None, "value": 0.31, "threshold": 0.2, "critical_value": 0.06, "p_value": 1e-9, "n": 1480, "n_ref": 10_000, "window": window,
        "reference": AlertReference(id="credit-7", sha256="ab"), "why": [Reason(bin="(18, 25]", ref=0.1, cur=0.24, contribution=0.12)],
        "evidence": {}, "incident_id": incident or name, "opened_ms": opened_ms, "windows": 1, "policy": "cd", "supersedes": None, "source_offsets": {},
    } | changes  # fmt: skip
    return Alert(
        type=f"ml.monitor.alert.{status}.v1", source="/monitor/credit/7", id=name, time=iso(end_ms), subject="feature/age",
        data=AlertData(**facts),  # type: ignore[arg-type]
    )  # fmt: skip


def encoded(found: Alert) -> bytes:
    return msgspec.json.encode(found)


def notice(found: Alert, offset: int = 0, *, partition: int = 0, at_ms: int = OPENED_MS, owner: str | None = None) -> Notice:
    return Notice(partition, offset, at_ms, b"credit|7|all|drift.psi|age", encoded(found), found, labels_of(found, owner))


class Desk:
    """Silences by model, and acknowledgements, that a test sets."""

    def __init__(self) -> None:
        self.silenced: set[str] = set()
        self.acks: dict[str, Ack] = {}

    def is_silenced(self, notice: Notice, now_ms: int) -> bool:
        return notice.labels["model"] in self.silenced

    def ack(self, incident_id: str) -> Ack | None:
        return self.acks.get(incident_id)

    def acknowledge(self, incident_id: str) -> None:
        self.acks[incident_id] = Ack(
            incident_id=incident_id, by="eva", comment="mine", at="2025-01-01T00:00:00Z", at_ms=OPENED_MS
        )
