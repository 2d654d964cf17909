"""Which route, owner and silence an alert is for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from monitor.config.notify import Match, Owner
from monitor.notify.matching import matches, owner_of
from monitor.notify.outbound import Undelivered
from monitor.notify.silences import Silences
from tests.unit.notify.notices import OPENED_MS, alert, notice

MINUTE_MS = 60_000


@pytest.mark.parametrize(
    ("match", "is_matched"),
    [
        ({}, True),
        ({"models": ["credit"]}, True),
        ({"models": ["cre*", "x"]}, True),
        ({"models": ["Credit"]}, False),
        ({"versions": ["7", "8"]}, True),
        ({"segments": ["country=*"]}, False),
        ({"segments": ["all"]}, True),
        ({"checks": ["drift.*"]}, True),
        ({"checks": ["schema.*"]}, False),
        ({"features": ["*ge"]}, True),
        ({"features": ["income"]}, False),
        ({"severities": ["critical"]}, False),
        ({"severities": ["critical", "warning"]}, True),
        ({"owners": ["risk"]}, True),
        ({"owners": ["ads"]}, False),
        ({"models": ["credit"], "severities": ["critical"]}, False),
    ],
)
def test_every_key_must_match_and_any_of_its_words_suffices(match: dict[str, Any], *, is_matched: bool) -> None:
    assert matches(Match(**match), alert("f1").data, "risk") == is_matched


def test_a_name_with_brackets_is_a_name_and_an_alert_of_no_feature_is_of_no_named_one() -> None:
    assert matches(Match(features=("amount[usd]",)), alert("f", feature="amount[usd]").data, None)
    assert matches(Match(), alert("f", feature=None).data, None)
    assert not matches(Match(features=("*",)), alert("f", feature=None).data, None)


def test_the_first_owner_that_matches_is_named() -> None:
    owners = {"a": Owner(models=("credit",), checks=("schema.*",)), "b": Owner(models=("c*",)), "c": Owner()}
    assert owner_of(owners, alert("f").data) == "b"
    assert owner_of(owners, alert("f", model="ads").data) == "c"
    assert owner_of({}, alert("f").data) is None


def silence(
    *matchers: tuple[str, str, bool, bool], starts: str = "2025-01-01T00:00:00.123456789Z", state: str = "active"
) -> dict[str, Any]:
    """Return a silence as Alertmanager 0.25 tells it."""
    return {
        "id": "6f9c", "status": {"state": state}, "updatedAt": "2025-01-01T00:00:00.000Z", "comment": "maintenance", "createdBy": "eva",
        "startsAt": starts, "endsAt": "2025-01-01T01:00:00.000Z",
        "matchers": [{"name": n, "value": v, "isRegex": r, "isEqual": e} for n, v, r, e in matchers],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("matchers", "is_silenced"),
    [
        ([("model", "credit", False, True)], True),
        ([("model", "credi", False, True)], False),
        ([("model", "credi", True, True)], False),
        ([("model", "credi.|ads", True, True)], True),
        ([("model", "c.edit", False, True)], False),
        ([("model", "credit", False, False)], False),
        ([("model", "ads", False, False), ("alertname", "drift.+", True, True)], True),
        ([("model", "credit", False, True), ("severity", "critical", False, True)], False),
        ([("owner", "", False, True)], True),
        ([("nothing", ".+", True, False)], True),
        ([("nothing", "x", False, True)], False),
    ],
)
def test_a_silence_matches_as_in_alertmanager(matchers: list[tuple[str, str, bool, bool]], *, is_silenced: bool) -> None:
    silences = Silences()
    silences.take(json.dumps([silence(*matchers)]).encode(), 0.0)
    assert (silences.of(notice(alert("f1")), OPENED_MS + MINUTE_MS) is not None) == is_silenced


def test_it_is_in_force_from_its_start_to_before_its_end() -> None:
    silences = Silences()
    everything = ("alertname", ".*", True, True)
    silences.take(json.dumps([silence(everything), silence(everything, state="expired")]).encode(), 0.0)
    one = notice(alert("f1"))
    found = [silences.of(one, OPENED_MS + ms) is not None for ms in (0, 122, 123, 60 * MINUTE_MS - 1, 60 * MINUTE_MS)]
    assert found == [False, False, True, True, False]
    assert silences.in_force(OPENED_MS + MINUTE_MS) == 1


def test_one_that_cannot_be_understood_silences_nothing_and_the_others_hold() -> None:
    silences = Silences()
    silences.take(
        json.dumps([silence(("model", r"\p{L}+", True, True)), silence(("model", "credit", False, True))]).encode(), 0.0
    )
    assert silences.of(notice(alert("f1")), OPENED_MS + MINUTE_MS) is not None
    assert silences.of(notice(alert("f2", model="ads")), OPENED_MS + MINUTE_MS) is None


def test_an_answer_that_is_none_leaves_the_last_ones_in_force() -> None:
    silences = Silences()
    silences.take(json.dumps([silence(("model", "credit", False, True))]).encode(), 0.0)
    for answer in (b"<html>", b'{"a": 1}', b'[{"id": 1}]'):
        with pytest.raises(Undelivered, match="silences are not as expected"):
            silences.take(answer, 1.0)
    assert (silences.in_force(OPENED_MS + MINUTE_MS), silences.read_s) == (1, 0.0)
