"""Quiet model-days: how many raise any alert at all, of any check."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from benchmarks.decisions import peers
from benchmarks.decisions.models import NAMES, Live, Watched
from benchmarks.decisions.streams import HOURS, SPECS, Array, Mode, Stream

REFERENCE_WINDOWS = 168
DAYS_PER_REFERENCE = 5
PEER_DAYS = 2


class Quiet(NamedTuple):
    """A run of quiet days: 24 windows of n rows of each of 50 features."""

    mode: Mode
    n: int
    days: int


def interval(hits: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Clopper & Pearson)."""
    low = float(stats.beta.ppf(0.025, hits, of - hits + 1)) if hits else 0.0
    return low, float(stats.beta.ppf(0.975, hits + 1, of - hits)) if hits < of else 1.0


def measure(quiet: Quiet, dice: np.random.Generator, pythons: dict[str, Path]) -> dict[str, Any]:
    """Return the shares of days and feature-windows with an alarm, by rule."""
    days, by_check = 0, Counter[str]()
    psi_days = psi_windows = windows = 0
    peer_columns: list[peers.Column] = []
    for done in range(0, quiet.days, DAYS_PER_REFERENCE):
        watched = Watched.build(Stream(dice, quiet.mode), quiet.n, REFERENCE_WINDOWS)
        live, stream = Live(watched.reference), Stream(dice, quiet.mode)
        kept: list[list[Array]] = []
        for day in range(min(DAYS_PER_REFERENCE, quiet.days - done)):
            fired, over = 0, 0
            for _ in range(HOURS):
                columns = stream.window(quiet.n)
                seen = live.step(columns)
                fired += len(seen.fired)
                by_check.update(f"{alert['check']} {alert['severity']}" for alert in seen.fired)
                over += sum(value > 0.2 for value in seen.psi)
                windows += 1
                if not done and day < PEER_DAYS:
                    kept.append(columns)
            days += fired > 0
            psi_days += over > 0
            psi_windows += over
        if kept:
            peer_columns = [(watched.columns[i], np.stack([one[i] for one in kept])) for i in range(len(NAMES))]
    rules = {"PSI > 0.2": {"days": psi_days / quiet.days, "feature_windows": psi_windows / (windows * len(SPECS))}}
    for name, found in peers.flags(pythons, peer_columns).items():
        flags = np.array(found)
        by_day = flags.any(axis=0).reshape(-1, HOURS).any(axis=1)
        rules[name] = {"days": float(by_day.mean()), "feature_windows": float(flags.mean())}
    low, high = interval(days, quiet.days)
    return {
        "kind": "quiet", **quiet._asdict(), "days_with_alarm": days, "share": days / quiet.days, "interval": [low, high],
        "feature_windows": sum(by_check.values()) / (windows * len(SPECS)), "alerts": dict(by_check), "rules": rules,
    }  # fmt: skip
