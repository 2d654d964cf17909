"""docs/policies.md: its examples are read, and every key of a policy file stands in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monitor.config.policy_file import MuteFile, PolicyFile, RuleFile, read_policy
from monitor.config.rule_text import parse_breaches, parse_false_alarms, parse_rule, parse_window

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
PROSE = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
BLOCKS = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "incidents:" not in block]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_its_examples_are_policies(block: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(block if "rules:" in block else f"{block}rules: [psi > 0.2]\n")
    assert read_policy(path).policy.rules


def test_its_short_rules_are_understood() -> None:
    words = re.findall(r"`([^`]+)`", PROSE)
    rules = [word for word in words if re.search(r"[<>] [\d.]", word) and "{" not in word]
    assert len({parse_rule(rule) for rule in rules}) >= 6
    assert parse_false_alarms("2 per week").per_month > 8
    assert (parse_breaches("3 of 5"), parse_window("24h/1h")) == ((3, 5), (86_400_000, 3_600_000))


def test_every_key_is_told() -> None:
    told = {key for block in BLOCKS for key in re.findall(r"(\w+):", block)} | set(re.findall(r"`(\w+)(?::[^`]*)?`", PROSE))
    for node in (PolicyFile, RuleFile, MuteFile):
        for name, field in node.model_fields.items():
            assert (field.alias or name) in told | {"description", "over"}, name
