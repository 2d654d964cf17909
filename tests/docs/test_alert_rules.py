"""deploy/alerts.yml: what Prometheus says of the monitor itself. Each rule where it fires and where it does not, by promtool."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from monitor.notify import telemetry as of_notifier
from monitor.runtime import telemetry as of_workers

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).with_name("alerts_test.yml")
OPERATIONS = (ROOT / "docs/operations.md").read_text()
ALWAYS = "MonitorDeadMansSwitch"

read = YAML(typ="safe").load
RULES: list[dict[str, Any]] = [
    rule for group in read((ROOT / "deploy/alerts.yml").read_text())["groups"] for rule in group["rules"]
]


def test_every_rule_fires_and_keeps_silent_as_its_cases_say() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(["promtool", "test", "rules", str(CASES)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    asked = [case for test in read(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in RULES}
    assert {case["alertname"] for case in asked if case["exp_alerts"]} == names
    assert {case["alertname"] for case in asked if not case["exp_alerts"]} == names - {ALWAYS}


def test_rules_ask_for_metrics_that_there_are() -> None:
    known = {metric.name for metric in (*of_workers.METRICS, *of_notifier.METRICS)}
    asked = {name for rule in RULES for name in re.findall(r"\bmonitor_\w+", rule["expr"])}
    assert asked
    assert asked <= known


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_rule_says_how_bad_it_is_and_the_documentation_what_it_means(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "none"}
    assert rule["annotations"]["summary"]
    assert f"| `{rule['alert']}` |" in OPERATIONS
