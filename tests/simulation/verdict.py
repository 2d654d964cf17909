"""What was published and counted, held against the oracle; what differs is told in the words of the chaos harness."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from tests.simulation.broker import Log
from tests.simulation.oracle import Expected, expect
from tests.simulation.scenario import ALERT_ROWS, RESTATED, Scenario

Published = Mapping[str, Sequence[tuple[bytes, bytes]]]


class Outcome(NamedTuple):
    """What was published, by topic, and the last owners' counters."""

    published: Published
    counters: Sequence[Mapping[tuple[str, ...], int]]


def anomalies_of(scenario: Scenario, logs: Sequence[Log], outcome: Outcome) -> list[str]:
    """Return everything that is not as it must be."""
    expected = expect(scenario, logs)
    results, alerts = (_by_key(outcome.published.get(topic, ())) for topic in ("results", "alerts"))
    letters = {value for _, value in outcome.published.get("dead-letter", ())}
    found = [f"CHANGED {key}" for key, values in results.items() if len(values) > 1]
    found += [f"ALERT_CHANGED {key}" for key, values in alerts.items() if len(values) > 1]
    early = {key: msgspec.json.decode(min(alerts.pop(key))) for key in [key for key in alerts if "|early|" in key]}
    found += [f"DLQ_MISSING {value!r}" for value in expected.refused if value not in letters]
    first = {key: min(values) for key, values in results.items()}
    seen = {key: msgspec.json.decode(value) for key, value in first.items()}
    looked = {key: seen.pop(key) for key in [key for key in seen if "|early|" in key]}
    fired = {key: msgspec.json.decode(min(values)) for key, values in alerts.items()}
    if scenario.has_late:
        found += _wrong_restated(expected, _without_restated(seen), _without_restated(fired))
    counted, late = _counted(outcome.counters)
    if +counted != +expected.outcomes:
        found.append(f"MISCOUNTED {dict(+counted)} for {dict(+expected.outcomes)}")
    found += _wrong_early(scenario, expected, seen, early)
    found += _wrong_looks(scenario, expected, early, looked)
    if scenario.is_live:
        return found + _wrong_live(scenario, expected, seen, fired, late)
    if +late:
        found.append(f"EARLY_CLOSE partials came after their windows were final: {dict(+late)}")
    return found + _wrong(expected, seen, fired)


def _without_restated(facts: dict[str, Any]) -> dict[str, dict[int, Any]]:
    """Remove what is published of windows that late rows restate; return it, key without the revision → revision → facts."""
    found: dict[str, dict[int, Any]] = defaultdict(dict)
    for key in [key for key in facts if key.startswith(f"{RESTATED}|")]:
        window, _, revision = key.rpartition("|")
        found[window][int(revision)] = facts.pop(key)
    return found


def _wrong_restated(expected: Expected, seen: dict[str, dict[int, Any]], fired: dict[str, dict[int, Any]]) -> list[str]:
    """The last revision has every row that came in time, those before it fewer, and there is none in between that is not published."""
    found = [f"NEVER_CLOSED {key}" for key in sorted(expected.restated.keys() - seen.keys())]
    for key, revisions in sorted(seen.items()):
        last = max(revisions)
        if sorted(revisions) != list(range(last + 1)):
            found.append(f"REVISION_MISSING {key} of {sorted(revisions)}")
        rows = [revisions[revision]["n"] for revision in sorted(revisions)]
        if rows != sorted(rows):
            found.append(f"LOST {key} rows by revision {rows}")
        facts, wanted = revisions[last], expected.restated.get(key, {"n": 0})
        if facts["n"] != wanted["n"] or (wanted["n"] and facts | {"window": 0} != wanted | {"window": 0}):
            found.append(f"{_word(facts['n'], wanted['n'])} {key} revision {last} {facts} for {wanted}")
        for revision, of in sorted(revisions.items()):
            is_due, alert = of["n"] >= ALERT_ROWS, fired.get(key, {}).get(revision)
            if is_due and alert is None:
                found.append(f"ALERT_MISSING {key} revision {revision}")
            elif alert is not None and (not is_due or alert["n"] != of["n"]):
                found.append(f"DUP_ALERT {key} revision {revision} {alert}")
    return found


def _wrong_early(scenario: Scenario, expected: Expected, seen: dict[str, Any], early: dict[str, Any]) -> list[str]:
    """Looks tell what they must, after the windows before; and the close of a window knows what they told."""
    told: Counter[str] = Counter()
    found = []
    for key, facts in early.items():
        window = key.rpartition("|early|")[0] + "|0"
        told[window] = max(told[window], facts["level"])
        if window in seen and facts["windows"] != seen[window]["window"] - 1:
            found.append(f"EARLY_WRONG {key} {facts} before {seen[window]}")
    found += [f"EARLY_FORGOTTEN {key}" for key, facts in seen.items() if facts.get("told", 0) != told[key]]
    if not scenario.is_live:
        wanted = {key.decode(): facts for key, facts in expected.early.items()}
        found += [f"EARLY_MISSING {key}" for key in sorted(wanted.keys() - early.keys())]
        found += [
            f"EARLY_UNEXPECTED {key} {facts} for {wanted.get(key)}"
            for key, facts in early.items()
            if {name: facts[name] for name in ("n", "level")} != wanted.get(key)
        ]
    return found


def _wrong_looks(scenario: Scenario, expected: Expected, early: dict[str, Any], looked: dict[str, Any]) -> list[str]:
    """Each look publishes what it saw, told or not."""
    found = [f"LOOK_MISSING {key}" for key in sorted(early.keys() - looked.keys())]
    found += [
        f"LOOK_WRONG {key} {looked[key]} for {early[key]}"
        for key in early.keys() & looked.keys()
        if looked[key]["n"] != early[key]["n"]
    ]
    if not scenario.is_live:
        wanted = {key.decode(): facts for key, facts in expected.looked.items()}
        found += [f"LOOK_MISSING {key}" for key in sorted(wanted.keys() - looked.keys())]
        found += [f"LOOK_UNEXPECTED {key} {facts}" for key, facts in looked.items() if facts != wanted.get(key)]
    return found


def _by_key(records: Sequence[tuple[bytes, bytes]]) -> dict[str, set[bytes]]:
    found: dict[str, set[bytes]] = defaultdict(set)
    for key, value in records:
        found[key.decode()].add(value)
    return dict(sorted(found.items()))


def _counted(counters: Sequence[Mapping[tuple[str, ...], int]]) -> tuple[Counter[str], Counter[str]]:
    """Return how many records became what, and how many rows by model came after their window was final."""
    counted: Counter[str] = Counter()
    late: Counter[str] = Counter()
    for of_place in counters:
        for (kind, *names), n in of_place.items():
            if names[-1:] == ["late_after_final"]:
                late[names[0]] += n
            elif kind in ("events", "rejections"):
                counted[names[-1]] += n
            elif kind in ("ticks", "lost"):
                counted[kind] += n
    return counted, late


def _word(n: int, wanted: int) -> str:
    return "LOST" if n < wanted else "OVERCOUNTED" if n > wanted else "WRONG"


def _wrong(expected: Expected, seen: dict[str, Any], fired: dict[str, Any]) -> list[str]:
    """Every window is published as it must be, and no other one."""
    results = {key.decode(): facts for key, facts in expected.results.items()}
    alerts = {key.decode(): facts for key, facts in expected.alerts.items()}
    found = [f"NEVER_CLOSED {key}" for key in sorted(results.keys() - seen.keys())]
    found += [f"UNEXPECTED {key} {seen[key]}" for key in sorted(seen.keys() - results.keys())]
    for key in sorted(seen.keys() & results.keys()):
        facts, wanted = seen[key], results[key]
        if facts != wanted:
            found.append(f"{_word(facts['n'], wanted['n'])} {key} {facts} for {wanted}")
    found += [f"ALERT_MISSING {key}" for key in sorted(alerts.keys() - fired.keys())]
    found += [f"DUP_ALERT {key} {facts}" for key, facts in fired.items() if facts != alerts.get(key)]
    return found


def _wrong_live(
    scenario: Scenario, expected: Expected, seen: dict[str, Any], fired: dict[str, Any], late: Counter[str]
) -> list[str]:
    """Silence moves clocks: which windows are published empty depends on when, and what stood unread in a silent partition is late.

    Every row is in each of its windows, or counted as late after the end.
    """
    found: list[str] = []
    missing: Counter[tuple[str, int]] = Counter()
    for key, wanted in ((key.decode(), facts) for key, facts in expected.results.items() if facts["n"]):
        model, _, _, size, _ = key.split("|")
        facts = seen.get(key)
        if facts is None and not late[model]:
            found.append(f"NEVER_CLOSED {key}")
        elif facts is not None and (
            facts["n"] > wanted["n"] or (facts["n"] == wanted["n"] and facts["segments"] != wanted["segments"])
        ):
            found.append(f"{_word(facts['n'], wanted['n'])} {key} {facts} for {wanted}")
        missing[model, int(size)] += wanted["n"] - (facts["n"] if facts else 0)
    for key, facts in seen.items():
        if facts["n"] and key.encode() not in expected.results:
            found.append(f"OVERCOUNTED {key} {facts}")
    for (model, size), n in missing.items():
        spec = next(spec for spec in scenario.settings.model(model).specs if spec.size_ms == size)
        if n * spec.step_ms != late[model] * size:
            found.append(f"LOST {n} rows of the windows of {size} ms of {model}, {late[model]} rows are counted as late")
    due = {key for key, facts in seen.items() if facts["n"] >= ALERT_ROWS}
    found += [f"ALERT_MISSING {key}" for key in sorted(due - fired.keys())]
    found += [f"DUP_ALERT {key}" for key, facts in fired.items() if key not in due or facts["n"] != seen[key]["n"]]
    return found
