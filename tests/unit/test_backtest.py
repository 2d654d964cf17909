"""A backtest judges published results by the code that judged them live: the same policy gives the same alerts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from monitor.backtest import Backtest, KnownIncident, backtest, differences, read_results, score
from monitor.bootstrap import build_pipeline, build_policies
from monitor.config.settings import Config
from monitor.errors import InputError
from monitor.findings import Judgement
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET, DEFAULT_RULES, Policies, Policy, Rule, RuleSet
from monitor.ports import StoredRecord
from monitor.reference import Reference
from monitor.replay import Replay
from monitor.rules import FalseAlarms
from monitor.segments import Key, Segmentation
from tests.closed_windows import HOUR_MS, MISSING, closed, reference_of
from tests.unit.decision import observed
from tests.unit.test_replay_windows import reference as reference_x

DICE = np.random.default_rng(21)
BY_COUNTRY = Segmentation((Key(name="country"),), (("DE",), ("FR",)))
REFERENCE = reference_of(
    {"age": DICE.normal(40, 10, 4000).tolist(), "income": DICE.normal(2, 1, 4000).tolist(), "country": ["DE", "FR"] * 2000},
    segmentations=[BY_COUNTRY],
)


def columns(kind: str, seed: int) -> dict[str, list[Any]]:
    """q quiet, a age is shifted, n all of it is null, f only few rows, e none."""
    n = {"f": 40, "e": 0}.get(kind, 400)
    dice = np.random.default_rng(seed)
    age: list[Any] = dice.normal(60 if kind == "a" else 40, 10, n).tolist()
    income: list[Any] = dice.normal(2, 1, n).tolist()
    if kind == "n":
        age, income = [MISSING] * n, [MISSING] * n
    return {"age": age, "income": income, "country": (["DE", "FR"] * n)[:n]} if n else {}


def live(kinds: str, policies: Policies, versions: str = "7") -> tuple[list[bytes], list[dict[str, Any]]]:
    """Judge windows one after the other as stage 2 does; return result lines and alerts."""
    states: dict[str, bytes] = {}
    lines: list[bytes] = []
    alerts: list[dict[str, Any]] = []
    for at, kind in enumerate(kinds):
        for version in versions:
            window = closed(REFERENCE, columns(kind, 100 * at + ord(version)), at, version=version, inspected=3)
            judged: Judgement = judge_window(window, states.get(version, b""), policies.at(window.window.start_ms))
            states[version] = judged.after
            lines += [value for _, value in judged.results]
            alerts += [json.loads(value) for _, value in judged.alerts]
    return lines, alerts


def told(outcome: Backtest) -> list[dict[str, Any]]:
    return [json.loads(msgspec.json.encode(alert)) for alert in outcome.alerts]


def without_what_results_do_not_keep(alerts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        alert | {"data": {name: value for name, value in alert["data"].items() if name not in ("why", "evidence")}}
        for alert in alerts
    ]


def policies(*given: Policy, default: RuleSet = DEFAULT_RULE_SET) -> Policies:
    found = Policies(default)
    for policy in given:
        found.add(policy)
    return found


MANY = Policy(
    name="many",
    rules=(
        ("drift.psi", Rule(above=0.1, over=3, severity="critical", routes=("page",), owner="risk", policy="many")),
        ("drift.js", Rule(above=0.1, windows=2, of=4, close_after=2, features=("a*",), segments=("*",), policy="many")),
        ("health.missing", Rule(above=0.2, cooldown_ms=5 * HOUR_MS, policy="many")),
    ),
)
LATER = Policy(name="many", effective_from_ms=9 * HOUR_MS, rules=(("drift.psi", Rule(above=3.0, policy="many")),))
KINDS = "qaaqnqqfaaanqqeeaqanqaqaqaqqqqqqqqq"


@pytest.mark.parametrize("given", [(), (MANY,), (MANY, LATER)], ids=["default", "many rules", "a change"])
def test_the_live_policy_on_the_live_results_gives_exactly_the_live_alerts(given: tuple[Policy, ...]) -> None:
    lines, alerts = live(KINDS, policies(*given), versions="78")
    assert len(alerts) > 10
    for order in (lines, lines[::-1]):
        outcome = backtest(read_results(order), policies(*given))
        assert (outcome.windows, outcome.changed, outcome.unmeasured) == (2 * len(KINDS), 0, set())
        key = lambda alert: (alert["time"], alert["id"])  # noqa: E731
        assert sorted(without_what_results_do_not_keep(told(outcome)), key=key) == sorted(
            without_what_results_do_not_keep(alerts), key=key
        )


@pytest.mark.parametrize("cluster", [1, 4])
def test_decisions_over_several_windows_are_made_anew_as_they_were_made_live(cluster: int) -> None:
    """A calibrated reference, a small drift that only several windows show, then one that opens wider, and another budget."""
    of, dice = observed.reference(cluster=cluster), np.random.default_rng(4)
    strict = Policy(name="own", rules=(("drift.distribution", DEFAULT_RULES["drift.distribution"]),), false_alarms=None)
    loose = msgspec.structs.replace(
        strict,
        rules=(
            (
                "drift.distribution",
                Rule(above=0.005, severity="warning", false_alarms=FalseAlarms(3, 24 * HOUR_MS), policy="own"),
            ),
        ),
    )
    told_by: dict[str, list[dict[str, Any]]] = {}
    lines: list[bytes] = []
    for name, given in (("strict", policies(strict)), ("loose", policies(loose))):
        state, history, lines, told_by[name] = b"", (), [], []
        dice = np.random.default_rng(4)
        for at, shift in enumerate([0.0] * 6 + [0.22] * 16 + [0.8] * 2 + [0.0] * 4):
            window = observed.closed(of, observed.rows(dice, 200, shift, cluster), at)
            judged = judge_window(window, state, given.at(0), history)
            state, history = judged.after, (judged.tallies, *history)
            lines += [value for _, value in judged.results]
            told_by[name] += [json.loads(value) for _, value in judged.alerts]
        again = told(backtest(read_results(lines), given))
        assert without_what_results_do_not_keep(again) == without_what_results_do_not_keep(told_by[name])
    scales = {alert["data"]["decision"]["scale"] for alert in told_by["strict"] if alert["data"]["decision"]}
    assert scales - {1}
    assert len(told_by["loose"]) > len(told_by["strict"]) > 0
    windows = read_results(lines)
    assert {d.change for d in differences(backtest(windows, policies(loose)), backtest(windows, policies(strict)))} != {"kept"}


def test_checks_that_are_measured_only_for_a_rule_are_named_where_there_was_none() -> None:
    lines, _ = live("qa", policies(default=RuleSet({"drift.psi": Rule(above=0.2)})))
    new = Policy(name="new", rules=(("drift.distribution", Rule(above=0.1)),))
    assert backtest(read_results(lines), policies(new, default=RuleSet({}))).unmeasured == {"all"}
    assert backtest(read_results(lines), policies(default=RuleSet({"drift.psi": Rule(above=0.2)}))).unmeasured == set()


def test_measurements_that_nobody_minds_live_are_there_for_another_policy() -> None:
    lines, alerts = live("qaq", policies(default=RuleSet({})))
    assert alerts == []
    new = Policy(name="new", rules=(("drift.ks", Rule(above=0.2)),))
    outcome = backtest(read_results(lines), policies(new, default=RuleSet({})))
    assert [(a.data.status, a.data.check, a.data.feature) for a in outcome.alerts] == [
        ("firing", "drift.ks", "age"),
        ("resolved", "drift.ks", "age"),
    ]
    assert outcome.changed == 3


def test_segments_that_nobody_minded_live_are_named() -> None:
    lines, _ = live("qa", policies())
    new = Policy(name="new", rules=(("drift.psi", Rule(above=0.2, segments=("country=*",))),))
    assert backtest(read_results(lines), policies(new)).unmeasured == {"country=DE", "country=FR", "country=(other)"}


def test_a_repeated_record_counts_once_and_the_newest_revision_counts() -> None:
    lines, alerts = live("qaq", policies())
    outcome = backtest(read_results([*lines, b"", *lines]), policies())
    assert [alert.id for alert in outcome.alerts] == [alert["id"] for alert in alerts]


def test_a_line_that_is_no_result_is_told() -> None:
    with pytest.raises(InputError, match="line 2 is no result record"):
        read_results([live("q", policies())[0][0], b'{"model": 1}'])


THRESHOLDS = RuleSet({"drift.psi": Rule(above=0.2), "health.missing": Rule(above=0.05)})


def test_what_differs_is_told_by_alert() -> None:
    lines, _ = live("qanq", policies(default=THRESHOLDS))
    old = backtest(read_results(lines), policies(default=THRESHOLDS))
    louder = Policy(name="louder", rules=(("health.missing", Rule(above=0.05, severity="critical")),))
    deaf = Policy(name="deaf", rules=(("drift.psi", Rule(enabled=False)),))
    changes = differences(old, backtest(read_results(lines), policies(louder, default=THRESHOLDS)))
    assert sorted(
        (d.alert.data.window.end_ms // HOUR_MS, d.change, d.alert.data.status, d.alert.data.check) for d in changes
    ) == [
        (2, "kept", "firing", "drift.psi"),
        (3, "added", "firing", "drift.psi"),  # its feature's nulls are worse than what was told
        (3, "changed", "firing", "health.missing"),
        (4, "changed", "resolved", "drift.psi"),
        (4, "changed", "resolved", "health.missing"),
    ]
    gone = [
        d.change
        for d in differences(old, backtest(read_results(lines), policies(deaf, default=THRESHOLDS)))
        if d.alert.data.check == "drift.psi"
    ]
    assert set(gone) == {"removed"}
    assert {d.change for d in differences(old, old)} == {"kept"}


def test_precision_and_recall_are_of_fired_alerts_and_known_incidents() -> None:
    lines, _ = live("qqaqqnqq", policies())
    outcome = backtest(read_results(lines), policies())
    assert len(outcome.fired) == 2
    age = KnownIncident("credit", 2 * HOUR_MS, 3 * HOUR_MS, feature="age", name="units")
    never = KnownIncident("credit", 6 * HOUR_MS, 7 * HOUR_MS, name="nobody saw it")
    other = [
        age._replace(model="fraud"),
        age._replace(version="8"),
        age._replace(feature="country"),
        age._replace(from_ms=3 * HOUR_MS),
    ]
    assert all(score(outcome, [one]).found == 0 for one in other)
    found = score(outcome, [age, never])
    assert (found.precision, found.recall, found.missed, found.delays_ms) == (0.5, 0.5, [never], [HOUR_MS])
    nothing = score(backtest([], policies()), [])
    assert (nothing.precision, nothing.recall) == (None, None)


def stream(kinds: dict[str, str], start_ms: int) -> list[tuple[int, StoredRecord]]:
    """Events of hourly stretches, by version: q quiet, s shifted, n null, - none."""
    dice = np.random.default_rng(5)
    records = []
    for version, stretch in kinds.items():
        for at, kind in enumerate(stretch):
            for i in range(0 if kind == "-" else 150):
                x = None if kind == "n" else float(dice.normal() + 2 * (kind == "s"))
                t = start_ms + at * HOUR_MS + i * 20_000
                body = {"model": "m", "version": version, "time": t, "features": {"x": x, "c": str(dice.choice(["a", "b"]))}}
                records.append((t, json.dumps(body).encode()))
    records.sort()
    return [(0, StoredRecord(i, t, body)) for i, (t, body) in enumerate(records)]


@pytest.mark.parametrize("has_policy", [False, True])
def test_the_results_of_a_replay_give_the_alerts_of_the_replay(has_policy: bool, tmp_path: Path) -> None:
    """Through both stages; a version that is away for long is judged anew when it comes back, and the policy changes on the way."""
    start_ms = 1_735_689_600_000
    text = "rules:\n  - {when: psi > 0.1, breaches: 2 of 3, cooldown: 3h}\n  - {when: 'mean(psi, 4) > 0.2', window: 1h, severity: critical}\n"
    (tmp_path / "p.yaml").write_text(f"name: p\nmute: [{{from: 03:00, to: 05:00}}]\n{text}")
    (tmp_path / "later.yaml").write_text(f"name: p\neffective_from: 2025-01-01T20:00:00Z\n{text}  - missing > 10 %\n")
    found = Config.model_validate(
        {"models": {"m": {"windows": [{"size": "1h"}, {"size": "4h", "step": "1h"}], "grace": "0s"}}}
        | ({"policies": str(tmp_path)} if has_policy else {})
    )
    dice = np.random.default_rng(2)
    references = [
        Reference.build("m", version, reference_x(dice.normal(size=3_000), ["a", "b"] * 1_500).profile) for version in ("1", "2")
    ]
    pipeline = build_pipeline(found, references)
    engine = Replay(
        pipeline.settings, "predictions", wire=pipeline.formats["predictions"], judge=pipeline.judge, references=references
    )
    kinds = {"1": "qsssqqnqsqqss" + "-" * 32 + "sqqnnqq", "2": "q" * 15 + "ssqqnn" + "-" * 8 + "qqsqsqsqsqsqssqqqqqqqqqq"}
    outcome = engine.run(stream(kinds, start_ms), end_of_input=True)
    alerts = [json.loads(value) for _, value in outcome.alerts]
    assert len(alerts) > 15
    assert len({alert["data"]["policy"] for alert in alerts}) == (2 if has_policy else 1)
    judged = backtest(read_results(value for _, value in outcome.results), build_policies(found))
    assert (judged.windows, judged.changed) == (len(outcome.results), 0)
    key = lambda alert: (alert["time"], alert["id"])  # noqa: E731
    assert sorted(without_what_results_do_not_keep(told(judged)), key=key) == sorted(
        without_what_results_do_not_keep(alerts), key=key
    )
