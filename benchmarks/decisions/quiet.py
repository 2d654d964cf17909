"""Quiet model-days: how many raise any alert at all, of any check."""

from __future__ import annotations

import math
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from benchmarks.decisions import peers
from benchmarks.decisions.models import NAMES, Live, Watched
from benchmarks.decisions.streams import HOURS, SPECS, Array, Mode, Stream
from monitor.decision.effects import PSI_RULE

REFERENCE_WINDOWS = 168
DAYS_PER_REFERENCE = 5
PEER_DAYS = 2


class Quiet(NamedTuple):
    """A run of quiet days: 24 windows of n rows of each of 50 features. missing: share of rows without a value."""

    mode: Mode
    n: int
    days: int
    missing: float = 0.0


def interval(hits: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Clopper & Pearson)."""
    low = float(stats.beta.ppf(0.025, hits, of - hits + 1)) if hits else 0.0
    return low, float(stats.beta.ppf(0.975, hits + 1, of - hits)) if hits < of else 1.0


def measure(quiet: Quiet, dice: np.random.Generator, pythons: dict[str, Path], stop_at: float = math.inf) -> dict[str, Any]:
    """Return the shares of days and feature-windows with an alarm, by rule; of fewer days where `process_time` reaches `stop_at`."""
    counts, by_check = Counter[str](), Counter[str]()
    peer_columns: list[peers.Column] = []
    while counts["days"] < quiet.days and (not counts["days"] or time.process_time() < stop_at):
        watched = Watched.build(Stream(dice, quiet.mode, quiet.missing), quiet.n, REFERENCE_WINDOWS)
        live, stream = Live(watched.reference), Stream(dice, quiet.mode, quiet.missing)
        kept: list[list[Array]] = []
        is_first = not counts["days"]
        for day in range(min(DAYS_PER_REFERENCE, quiet.days - counts["days"])):
            fired, over = 0, 0
            for _ in range(HOURS):
                columns = stream.window(quiet.n)
                seen = live.step(columns)
                fired += len(seen.fired)
                by_check.update(f"{alert['check']} {alert['severity']}" for alert in seen.fired)
                over += sum(value > PSI_RULE for value in seen.psi)
                if is_first and day < PEER_DAYS:
                    kept.append(columns)
            counts.update(days=1, alarm_days=int(fired > 0), psi_days=int(over > 0), psi=over)
        if kept:
            peer_columns = [(watched.columns[i], np.stack([one[i] for one in kept])) for i in range(len(NAMES))]
    rules = {}
    for name, found in peers.flags(pythons, peer_columns).items():
        flags = np.array(found)
        by_day = flags.any(axis=0).reshape(-1, HOURS).any(axis=1)
        rules[name] = {"days": float(by_day.mean()), "feature_windows": float(flags.mean())}
    return _figures(quiet, counts, by_check, rules)


def added(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of two runs as those of one; other tools' of either."""
    counts = Counter(old["counts"]) + Counter(new["counts"])
    by_check = Counter(old["alerts"]) + Counter(new["alerts"])
    return _figures(Quiet(new["mode"], new["n"], 0, new["missing"]), counts, by_check, old["rules"] | new["rules"])


def _figures(quiet: Quiet, counts: Counter[str], by_check: Counter[str], rules: dict[str, Any]) -> dict[str, Any]:
    days, alarms = counts["days"], counts["alarm_days"]
    feature_windows = days * HOURS * len(SPECS)
    psi = {"days": counts["psi_days"] / days, "feature_windows": counts["psi"] / feature_windows}
    return {
        "kind": "quiet", "mode": quiet.mode, "n": quiet.n, "missing": quiet.missing,
        "days": days, "days_with_alarm": alarms, "share": alarms / days,
        "interval": list(interval(alarms, days)), "feature_windows": sum(by_check.values()) / feature_windows,
        "alerts": dict(by_check), "counts": dict(counts), "rules": rules | {"PSI > 0.2": psi},
    }  # fmt: skip
