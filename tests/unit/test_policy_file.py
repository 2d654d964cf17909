"""Policy files: every mistake is told with its line, its path and what is allowed, all at once; and what a good one means."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from monitor.config.policy_file import from_record, read_policies, read_policy, to_record
from monitor.config.rule_text import RULE_CHECKS
from monitor.errors import ConfigError, InputError
from monitor.policy import DEFAULT_RULES, PERFORMANCE_CHECKS, Policy
from monitor.rules import FalseAlarms, Mute, Rule

HOUR_MS = 3_600_000
SCHEMA = Path(__file__).parents[2] / "schemas" / "policy.schema.json"

BROKEN = json.loads((Path(__file__).parents[1] / "fixtures" / "broken_policies.json").read_text(encoding="utf-8"))


def problems(text: str, folder: Path) -> list[str]:
    path = folder / "policy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_policies([path])
    shown = [problem.replace(str(path), "policy.yaml") for problem in caught.value.problems]
    lists = ((RULE_CHECKS, "<checks>"), (PERFORMANCE_CHECKS, "<performance>"))
    for names, word in lists:
        shown = [problem.replace(", ".join(names), word) for problem in shown]
    return shown


@pytest.mark.parametrize("case", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_told_where_and_what_is_allowed(case: dict[str, Any], tmp_path: Path) -> None:
    assert problems(case["file"], tmp_path) == case["messages"]
    assert all(re.match(r"policy\.yaml:\d+: ", message) for message in case["messages"])


def test_there_are_at_least_thirty_of_them() -> None:
    assert len({case["file"] for case in BROKEN}) == len(BROKEN) >= 30


def policy(text: str, tmp_path: Path, name: str = "p") -> Policy:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    return read_policy(path).policy


WHOLE = """
name: credit
description: what the risk team wants to know
effective_from: 2026-01-01T00:00:00+01:00
model: [credit, "fraud_*"]
window: [1h, 24h/1h]
owner: team-risk
routes: [risk-chat]
false_alarms: 1 per 30d
mute:
  - {from: 2026-12-24T18:00:00+01:00, to: 2026-12-27, reason: holidays}
  - {days: [sun, sat], from: 22:00, to: 06:00, timezone: Europe/Berlin}
rules:
  - psi > 0.2
  - {when: "mean(psi, 6) > 0.1", feature: "*_amount", severity: critical, breaches: 3 of 5, close_after: 2, cooldown: 6h, floor: 0.05}
  - {check: health.missing, segment: DE, window: 1h, false_alarms: 2 per week, owner: team-data, routes: [], mute: [{dates: [12-25]}]}
  - accuracy drop > 5 %
  - {check: traffic.low, enabled: false}
"""


def test_every_word_of_a_whole_file_is_understood(tmp_path: Path) -> None:
    made = policy(WHOLE, tmp_path)
    month = FalseAlarms(1, 30 * 24 * HOUR_MS)
    mutes = (
        Mute(from_ms=1_798_131_600_000, to_ms=1_798_329_600_000, reason="holidays"),
        Mute(days=(5, 6), start=22 * 60, end=6 * 60, zone="Europe/Berlin"),
    )
    of_policy = {"models": ("credit", "fraud_*"), "mutes": mutes, "policy": "credit"}
    told = {
        "owner": "team-risk",
        "routes": ("risk-chat",),
        "specs": ((HOUR_MS, 0), (24 * HOUR_MS, HOUR_MS)),
        "false_alarms": month,
    }
    assert (made.name, made.effective_from_ms, made.false_alarms) == ("credit", 1_767_222_000_000, month)
    assert [check for check, _ in made.rules] == [
        "drift.psi", "drift.psi", "health.missing", "performance.accuracy", "traffic.low",
    ]  # fmt: skip
    assert [rule for _, rule in made.rules] == [
        Rule(above=0.2, **told, **of_policy),  # type: ignore[arg-type]
        Rule(above=0.1, over=6, features=("*_amount",), severity="critical", windows=3, of=5, close_after=2, cooldown_ms=6 * HOUR_MS,
             floor=0.05, **told, **of_policy),  # type: ignore[arg-type]
        Rule(above=0.01, severity="notice", levels={"warning": 0.05}, segments=("DE",), specs=((HOUR_MS, 0),),
             false_alarms=FalseAlarms(2, 7 * 24 * HOUR_MS), owner="team-data",
             models=("credit", "fraud_*"), mutes=(*mutes, Mute(dates=((12, 25),))), policy="credit"),
        Rule(drop=0.05, **told, **of_policy),  # type: ignore[arg-type]
        Rule(below=1.0, enabled=False, **told, **of_policy),  # type: ignore[arg-type]
    ]  # fmt: skip


def test_what_a_rule_leaves_out_is_as_the_default_rule_has_it(tmp_path: Path) -> None:
    [(check, rule)] = policy("rules: [{check: schema.missing_feature}]", tmp_path).rules
    assert (rule.above, rule.severity) == (DEFAULT_RULES[check].above, DEFAULT_RULES[check].severity) == (0.99, "critical")


@pytest.mark.parametrize(
    ("text", "severity", "levels"),
    [
        ("drift.distribution > 0.05", "notice", {"warning": 0.1, "critical": 0.25}),
        ("{when: drift.distribution > 0.05, severity: critical}", "critical", {}),
        ("{when: psi > 0.1, severity: notice, levels: {critical: 0.3}}", "notice", {"critical": 0.3}),
        ("{when: missing > 2 %, levels: {}}", "notice", {}),
    ],
)
def test_levels_are_the_rules_own_or_the_default_ones(text: str, severity: str, levels: dict[str, float], tmp_path: Path) -> None:
    [(_, rule)] = policy(f"rules: [{text}]" if text.startswith("{") else f"rules: ['{text}']", tmp_path).rules
    assert (rule.severity, rule.levels) == (severity, levels)


def test_a_policy_without_a_name_has_its_files(tmp_path: Path) -> None:
    assert policy("rules: [psi > 0.2]", tmp_path, "credit-prod").name == "credit-prod"
    path = tmp_path / "credit prod.yaml"
    path.write_text("rules: [psi > 0.2]")
    with pytest.raises(ConfigError, match="credit prod"):
        read_policy(path)


def test_two_files_of_one_name_need_event_times(tmp_path: Path) -> None:
    for name, extra in (("a", ""), ("b", "")):
        (tmp_path / f"{name}.yaml").write_text(f"name: credit\n{extra}rules: [psi > 0.2]\n")
    with pytest.raises(
        ConfigError, match=r"b\.yaml:1: name: credit is the name of .*a\.yaml too; give another name, or effective_from"
    ):
        read_policies([tmp_path])
    (tmp_path / "b.yaml").write_text("name: credit\neffective_from: 2026-01-01\nrules: [psi > 0.3]\n")
    assert len(read_policies([tmp_path])) == 2


def test_problems_of_all_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rules: [psy > 0.2]")
    (tmp_path / "b.yml").write_text("rules: []")
    with pytest.raises(ConfigError) as caught:
        read_policies([tmp_path])
    assert [Path(problem.partition(":")[0]).name for problem in caught.value.problems] == ["a.yaml", "b.yml"]
    with pytest.raises(ConfigError, match="no such file or folder"):
        read_policies([tmp_path / "nowhere"])


def test_a_record_says_what_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(WHOLE)
    key, value, made = to_record(read_policy(path), None)
    assert (key, from_record(value)) == (b"credit|1767222000000", made)
    key, value, later = to_record(read_policy(path), "2026-06-01")
    assert (key, from_record(value), later.sha256) != (made.key, made, made.sha256)
    assert later.effective_from_ms == 1_780_272_000_000


@pytest.mark.parametrize(
    "value", [b"", b"[]", b"{}", b'{"rules": ["psi > 0.2"]}', b'{"name": "a", "rules": ["psy > 1"]}', b"\xff"]
)
def test_a_record_that_is_no_policy_is_refused(value: bytes) -> None:
    with pytest.raises(InputError, match="not a policy"):
        from_record(value)


def test_the_schema_takes_what_the_reader_takes(tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    path = tmp_path / "p.yaml"
    for text in (WHOLE, "rules: [psi > 0.2]", "rules: [{check: drift.tails, feature: [a, b]}]\nmodel: credit"):
        path.write_text(text)
        validator.validate(json.loads(to_record(read_policy(path), None)[1]))
    for wrong in ({"rules": []}, {"ruls": ["psi > 0.2"]}, {"rules": [{"severity": "bad"}]}, {"rules": [7]}, {}):
        assert not validator.is_valid(wrong)
