"""The demo, as a new user runs it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(300)]

DAY_MS = 86_400_000


def test_every_flight_is_accounted_for_and_each_fault_is_found_while_quiet_features_stay_quiet() -> None:
    command = [sys.executable, "-m", "monitor", "demo", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    summary = json.loads(done.stdout)
    assert summary["produced"] == summary["counted"] + summary["late"] + summary["rejected"]
    assert summary["late"] > 0
    assert summary["rejected"] > 0
    assert [fault["feature"] for fault in summary["faults"]] == ["distance", "dep_delay", None]
    assert all(1 <= fault["found_after_windows"] <= 2 for fault in summary["faults"])
    first = summary["faults"][0]["from_ms"]
    quiet = {"origin", "carrier", "distance", "hour"}
    early = [a for a in summary["alerts"] if a["window_end_ms"] <= first and a["feature"] in quiet]
    assert [a for a in early if a["severity"] != "notice"] == []
    assert summary["windows"] >= 275
    labels = summary["labels"]
    assert labels["sent"] == labels["joined"] + labels["orphan"]
    assert labels["orphan"] > 0
    assert [labels[name] for name in ("duplicate", "conflicting", "expired")] == [0, 0, 0]
    of_performance = [(a["segment"], a["check"]) for a in summary["alerts"] if a["check"].startswith("performance.")]
    assert of_performance == [(summary["faults"][2]["segment"], "performance.accuracy")]
    months = summary["performance"]
    assert list(months) == [f"2013-{month:02}" for month in range(4, 13)] + ["2014-01"]
    assert sum(month["n"] for month in months.values()) == summary["counted"]
    assert sum(month["labelled"] for month in months.values()) == labels["joined"]
    for month in months.values():
        assert 0.7 < month["low"] < month["accuracy"] < month["high"] < 1
        assert month["estimated"] is None or 0.8 < month["estimated"] < 1
    assert summary["metrics"] == summary["last_report"]
