"""How an alert is called by Alertmanager and by people."""

from __future__ import annotations

import pytest

from monitor.notify.labels import alertmanager_alert, labels_of, link_to, message
from monitor.notify.notice import Posted, decode_alert
from tests.unit.notify.notices import HOUR_MS, OPENED_MS, Desk, alert, encoded, notice

LINK = "https://grafana.example/d/1?model={model}&feature={feature}"


def test_labels_are_identity_and_hold_neither_values_nor_times() -> None:
    labels = labels_of(alert("f1"), "risk")
    assert labels == {
        "alertname": "drift.psi", "model": "credit", "version": "7", "segment": "all", "feature": "age", "window": "1h",
        "severity": "warning", "owner": "risk",
    }  # fmt: skip
    assert labels_of(alert("f2", value=9.0, n=5, opened_ms=OPENED_MS + HOUR_MS), "risk") == labels
    assert labels_of(alert("f3", view="length", kind="hopping"), None)["window"] == "1h hopping"


def test_an_alert_of_alertmanagers_api() -> None:
    desk = Desk()
    desk.acknowledge("f1")
    posted = Posted(notice(alert("f1")), notice(alert("f1")).labels, True, OPENED_MS + 4 * HOUR_MS, desk.ack("f1"))
    found = alertmanager_alert(posted, LINK, OPENED_MS + HOUR_MS)
    assert found["startsAt"] == "2025-01-01T00:00:00Z"
    assert found["endsAt"] == "2025-01-01T04:00:00Z"
    assert found["generatorURL"] == "https://grafana.example/d/1?model=credit&feature=age"
    annotations = found["annotations"]
    assert isinstance(annotations, dict)
    assert annotations["summary"] == "credit 7: drift.psi of age 0.31 (threshold 0.2, n=1480)"
    assert annotations["acknowledged"] == "eva, 2025-01-01T00:00:00Z: mine"


def test_it_never_ends_before_it_starts_nor_starts_in_the_future() -> None:
    posted = Posted(notice(alert("f1")), notice(alert("f1")).labels, False, OPENED_MS - 5, None)
    found = alertmanager_alert(posted, None, OPENED_MS - 1_000)
    assert (found["startsAt"], found["endsAt"]) == ("2024-12-31T23:59:59Z", "2024-12-31T23:59:59.995Z")
    assert "generatorURL" not in found


def test_names_are_escaped_in_addresses() -> None:
    assert (
        link_to(LINK, alert("f1", feature="a&b=c d/#")) == "https://grafana.example/d/1?model=credit&feature=a%26b%3Dc%20d%2F%23"
    )


def test_people_read_what_it_means_and_how_to_say_that_they_look_after_it() -> None:
    title, text = message(alert("f1" * 10, severity="critical", segment="country=DE"), "risk", LINK)
    assert title == "[critical] credit 7: drift.psi of age in country=DE 0.31 (threshold 0.2, n=1480)"
    assert "(18, 25]: 10.0% in the reference, 24.0% now." in text
    assert "monitor ack f1f1f1f1f1f1\n" in text
    assert message(alert("r", "resolved", "f1"), None, None)[0].startswith("[resolved] credit 7")


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\xff", b"[]", b'{"data": {}}'])
def test_bytes_that_are_no_alert_are_told_apart(value: bytes | None) -> None:
    assert decode_alert(value) is None


def test_fields_that_a_later_version_adds_do_not_matter() -> None:
    assert decode_alert(encoded(alert("f1"))[:-1] + b', "later": 1}') == alert("f1")
