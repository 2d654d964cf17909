"""Closing a window of 50 features: our judgement with all distances, checks and decision, beside the reports of other tools, CPU time each."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.close import N_CATEGORIES, N_NUMBERS, ROWS, ROWS_REFERENCE, closed_window, columns, timed
from benchmarks.decisions import peers
from benchmarks.environments import SILENT
from benchmarks.readers import PEERS
from monitor.pipeline import judge_window
from monitor.policy import DEFAULT_RULE_SET
from monitor.runtime.garbage import spare_events

WHAT = {"evidently": "report of its drift preset", "nannyml": "Jensen–Shannon of each column, thresholds fitted before"}


def measure() -> dict[str, Any]:
    """Return CPU ms, median of repeats: a quiet window, one whose numbers are all shifted by 1 σ, and others on the latter."""
    rows: dict[str, dict[str, float]] = {}
    spare_events()  # as a worker does
    for name, shift in (("this worker, a quiet window", 0.0), ("this worker, every number shifted by 1 σ", 1.0)):
        closed, history = closed_window(shift)
        (found,) = timed(lambda closed=closed, history=history: judge_window(closed, b"", DEFAULT_RULE_SET, history))
        rows[name] = {"cpu_ms": round(found.median, 1), "p95_ms": round(found.high, 1)}
    dice = np.random.default_rng(5)
    arrays: dict[str, np.ndarray] = {}
    for kind, n, shift in (("ref", ROWS_REFERENCE, 0.0), ("win", ROWS, 1.0)):
        numbers, texts = columns(dice, n, shift)
        arrays |= {f"{kind}_n{i:02d}": values for i, values in enumerate(numbers)}
        arrays |= {f"{kind}_c{i:02d}": np.array(values) for i, values in enumerate(texts)}
    pythons, left_out = peers.install(), {}
    with tempfile.TemporaryDirectory() as folder:
        case = Path(folder) / "case.npz"
        np.savez(case, **arrays)
        for name, (module, _) in peers.PEERS.items():
            if name not in pythons:
                left_out[name] = "pip could not install it"
                continue
            command = [pythons[name], PEERS / f"close_{module}.py", case]
            done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=True, env=os.environ | SILENT)
            spent = json.loads(done.stdout.splitlines()[-1])
            rows[f"{name}, {WHAT[module]}"] = {"cpu_ms": round(statistics.median(spent), 1), "p95_ms": round(max(spent), 1)}
    ours = list(rows.values())[1]["cpu_ms"]
    for row in rows.values():
        row["cpu_ratio"] = round(row["cpu_ms"] / ours, 2)
    about = {"features": N_NUMBERS + N_CATEGORIES, "window_rows": ROWS, "reference_rows": ROWS_REFERENCE}
    return about | {"rows": rows, "left_out": left_out}
