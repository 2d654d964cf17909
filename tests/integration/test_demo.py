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
    assert [fault["feature"] for fault in summary["faults"]] == ["distance", "dep_delay"]
    assert all(1 <= fault["found_after_windows"] <= 2 for fault in summary["faults"])
    first = summary["faults"][0]["from_ms"]
    quiet = {"origin", "carrier", "distance", "hour"}
    early = [a for a in summary["alerts"] if a["window_end_ms"] <= first and a["feature"] in quiet]
    assert [a for a in early if a["severity"] != "notice"] == []
    assert summary["windows"] >= 275
