"""Who looks after which incident, as records of a compacted topic say."""

from __future__ import annotations

import pytest

from monitor.acks import Ack
from monitor.cli.notify import line
from monitor.notify.acknowledged import Acks

MINE = Ack(incident_id="f1", by="eva", comment="mine", at="2025-01-01T00:00:00Z", at_ms=1_735_689_600_000)


def test_the_last_record_of_an_incident_holds_and_one_without_a_value_takes_it_back() -> None:
    acks = Acks()
    acks.take(b"f1", MINE.to_bytes())
    acks.take(b"f1", Ack(incident_id="f1", by="kim", comment="", at=MINE.at, at_ms=MINE.at_ms).to_bytes())
    found = acks.get("f1")
    assert found is not None and found.by == "kim"
    acks.take(b"f1", None)
    assert acks.get("f1") is None


@pytest.mark.parametrize(
    ("key", "value"), [(b"f1", b"{}"), (b"f1", b"\xff"), (b"other", MINE.to_bytes()), (None, MINE.to_bytes())]
)
def test_a_record_that_is_none_is_left_out(key: bytes | None, value: bytes) -> None:
    acks = Acks()
    acks.take(key, value)
    assert acks.get("f1") is acks.get("other") is acks.get("") is None


def test_the_status_of_an_incident_and_of_a_route_are_lines_for_people() -> None:
    labels = {
        "model": "credit",
        "version": "7",
        "alertname": "drift.psi",
        "feature": "age",
        "segment": "all",
        "severity": "warning",
    }
    incident = {
        "incident_id": "f" * 64, "since": "2025-01-01T00:00:00Z", "labels": labels,
        "acknowledged": {"by": "eva", "at": "2025-01-01T01:00:00Z", "comment": ""}, "silenced": {"id": "6f", "by": "kim", "comment": "moving"},
    }  # fmt: skip
    assert line(incident) == (
        "ffffffffffff 2025-01-01T00:00:00Z warning  credit 7 drift.psi age all; eva looks after it since 2025-01-01T01:00:00Z; "
        "silenced by kim: moving"
    )
    route = {"route": "hook", "receiver": "webhook", "enabled": False, "started": True, "behind": 3, "withheld": 1}
    assert line(route) == "route hook (webhook): 3 to deliver, 1 held back by silences, switched off"
    assert line(route | {"started": False, "enabled": True}) == "route hook (webhook): never ran"
