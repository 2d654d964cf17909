"""Laws of judging a window."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET
from tests.closed_windows import ABSENT, MISSING, WRONG_TYPE, closed, reference_of

NUMBERS = st.one_of(st.floats(-1e9, 1e9, width=32), st.sampled_from([0.0, 1.0]), st.just(MISSING))
TEXTS = st.one_of(st.sampled_from("abcd"), st.text(max_size=3), st.just(MISSING))


@st.composite
def tables(draw: st.DrawFn, extra: tuple[Any, ...] = ()) -> dict[str, list[Any]]:
    n = draw(st.integers(1, 60)) * draw(st.sampled_from([1, 5]))
    more = st.sampled_from(extra) if extra else st.nothing()

    def column(values: st.SearchStrategy[Any], present: Any) -> list[Any]:
        rows = draw(st.lists(st.one_of(values, more), min_size=n, max_size=n))
        return [present, *rows]

    return {"x": column(NUMBERS, 1.5), "c": column(TEXTS, "a")}


@settings(max_examples=60, deadline=None)
@given(tables())
def test_a_window_equal_to_its_reference_never_breaches(rows: dict[str, list[Any]]) -> None:
    judgement = judge_window(closed(reference_of(rows, max_categories=5), rows), b"", DEFAULT_RULE_SET)
    assert json.loads(judgement.results[0][1])["findings"] == []
    assert (judgement.alerts, judgement.after) == ((), b"")


@settings(max_examples=60, deadline=None)
@given(tables(), tables(extra=(ABSENT, WRONG_TYPE)), st.integers(0, 2**32))
def test_the_order_of_rows_does_not_change_a_byte(before: dict[str, list[Any]], after: dict[str, list[Any]], seed: int) -> None:
    reference = reference_of(before)
    order = sorted(range(len(after["x"])), key=lambda i: (i * 2654435761 + seed) % 1_000_003)
    turned = {name: [column[i] for i in order] for name, column in after.items()}
    assert judge_window(closed(reference, after), b"", DEFAULT_RULE_SET) == judge_window(
        closed(reference, turned), b"", DEFAULT_RULE_SET
    )


@settings(max_examples=60, deadline=None)
@given(tables(), st.lists(tables(extra=(ABSENT, WRONG_TYPE)), min_size=1, max_size=4))
def test_every_resolved_alert_names_an_alert_that_fired_before(
    before: dict[str, list[Any]], windows: list[dict[str, list[Any]]]
) -> None:
    reference, state = reference_of(before), b""
    opened: dict[str, bytes] = {}
    for at, rows in enumerate([*windows, before]):
        judgement = judge_window(closed(reference, rows, at), state, DEFAULT_RULE_SET)
        state = judgement.after
        for key, value in judgement.alerts:
            event = json.loads(value)
            incident, data = event["data"]["incident_id"], event["data"]
            if data["status"] == "firing" and not data["escalations"]:
                assert incident == event["id"]
                assert incident not in opened
                opened[incident] = key
            elif data["status"] == "firing":
                assert opened[incident] == key
            else:
                assert opened.pop(incident) == key
