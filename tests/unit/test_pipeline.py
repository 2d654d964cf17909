"""A final window, judged."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from monitor.errors import UnknownCodec
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET, DEFAULT_RULES, Rule, RuleSet
from monitor.reference import Reference
from tests.closed_windows import MISSING, closed, profile_of, reference_of

DICE = np.random.default_rng(12)
REFERENCE = reference_of({"x": DICE.normal(size=2000).tolist(), "c": ["a"] * 1200 + ["b"] * 800})
QUIET = {"x": DICE.normal(size=400).tolist(), "c": (["a"] * 3 + ["b"] * 2) * 80}
BROKEN = {"x": [MISSING] * 400, "c": QUIET["c"]}


def told(judgement: Any) -> set[tuple[str, str, str | None]]:
    events = [json.loads(value)["data"] for _, value in judgement.alerts]
    return {(data["status"], data["check"], data["feature"]) for data in events}


def test_a_quiet_window_raises_nothing_and_leaves_nothing_behind() -> None:
    judgement = judge_window(closed(REFERENCE, QUIET, inspected=6), b"", DEFAULT_RULE_SET)
    assert (judgement.alerts, judgement.after, len(judgement.results)) == ((), b"", 1)


def test_the_same_window_and_state_give_the_same_bytes() -> None:
    first = judge_window(closed(REFERENCE, BROKEN), b"", DEFAULT_RULE_SET)
    assert judge_window(closed(REFERENCE, BROKEN), b"", DEFAULT_RULE_SET) == first
    again = RuleSet(dict(reversed(DEFAULT_RULES.items())))
    assert judge_window(closed(REFERENCE, BROKEN), b"", again) == first


def test_another_process_gives_the_same_bytes() -> None:
    script = (
        "import hashlib; from tests.unit.test_pipeline import *; "
        "j = judge_window(closed(REFERENCE, BROKEN), b'', DEFAULT_RULE_SET); print(hashlib.sha256(repr(j).encode()).hexdigest())"
    )
    runs = {subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1


def test_a_feature_that_goes_null_fires_once_and_is_resolved_once() -> None:
    state, seen = b"", []
    for at, columns in enumerate([QUIET, BROKEN, BROKEN, QUIET, QUIET]):
        judgement = judge_window(closed(REFERENCE, columns, at, inspected=5), state, DEFAULT_RULE_SET)
        state = judgement.after
        seen.append(told(judgement))
    assert seen == [set(), {("firing", "health.missing", "x")}, set(), {("resolved", "health.missing", "x")}, set()]


def test_an_empty_window_raises_low_traffic_only_and_resolves_nothing() -> None:
    broken = judge_window(closed(REFERENCE, BROKEN), b"", DEFAULT_RULE_SET)
    empty = judge_window(closed(REFERENCE, {}, 1), broken.after, DEFAULT_RULE_SET)
    assert told(empty) == {("firing", "traffic.low", None)}
    after = judge_window(closed(REFERENCE, QUIET, 2), empty.after, DEFAULT_RULE_SET)
    assert told(after) == {("resolved", "traffic.low", None), ("resolved", "health.missing", "x")}


def test_an_empty_window_without_a_reference_resolves_nothing() -> None:
    broken = judge_window(closed(REFERENCE, BROKEN), b"", DEFAULT_RULE_SET)
    assert told(judge_window(closed(None, {}, 1), broken.after, DEFAULT_RULE_SET)) == {("firing", "traffic.low", None)}


def test_a_feature_without_a_value_in_the_reference_is_compared_with_nothing() -> None:
    """Whether the reference has no rows at all, or none with a value: no distance and no test, and no alert of one."""
    columns = {"@score": np.random.default_rng(1).random(500).tolist()}
    layout = reference_of(columns).layout
    for rows in ({"@score": []}, {"@score": [MISSING] * 500}):
        reference = Reference.build("credit", "7", profile_of(layout, rows))
        with np.errstate(all="raise"):
            judgement = judge_window(closed(reference, columns), b"", DEFAULT_RULE_SET)
        (_, value), *_ = judgement.results
        found = json.loads(value)
        assert not {check for check in found["measurements"] if check.startswith("drift.")}
        assert not [finding for finding in found["findings"] if finding["check"].startswith("drift.")]


def test_a_rule_that_is_switched_off_resolves_its_incident() -> None:
    broken = judge_window(closed(REFERENCE, BROKEN), b"", DEFAULT_RULE_SET)
    rules = RuleSet({**DEFAULT_RULES, "health.missing": Rule(above=0.05, enabled=False)})
    assert told(judge_window(closed(REFERENCE, BROKEN, 1), broken.after, rules)) == {("resolved", "health.missing", "x")}


@pytest.mark.parametrize("output", ["@prediction", "@score"])
def test_outputs_are_judged_like_features(output: str) -> None:
    reference = reference_of({output: [i / 1000 for i in range(1000)]})
    judgement = judge_window(closed(reference, {output: [0.9] * 300}), b"", RuleSet({"drift.distribution": Rule(above=0.2)}))
    assert told(judgement) == {("firing", "drift.distribution", output)}


def test_a_state_from_the_future_is_refused() -> None:
    with pytest.raises(UnknownCodec):
        judge_window(closed(REFERENCE, QUIET), b"\xff", DEFAULT_RULE_SET)


def test_the_page_to_read_first_imports_no_broker() -> None:
    script = "import sys, monitor.pipeline; print([m for m in ('faust', 'confluent_kafka', 'aiokafka') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout.strip() == b"[]"
