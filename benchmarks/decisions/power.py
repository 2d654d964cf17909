"""Power: after a quiet day one feature drifts, and how many windows pass until an alert names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats  # type: ignore[import-untyped]  # it has no stubs

from benchmarks.decisions import peers
from benchmarks.decisions.models import HOUR_MS, NAMES, Live, Seen, Watched, live_after
from benchmarks.decisions.quiet import REFERENCE_WINDOWS
from benchmarks.decisions.streams import SPECS, Array, Drift, Spec, Stream
from monitor.rules import DEFAULT_FALSE_ALARMS

LIGHT = ("normal", "bimodal", "uniform")
HEAVY = ("lognormal", "t3")
SHAPES = ("normal", "lognormal", "t3", "bimodal")
MODERATE = (5, 10, 20, 100)
POOL = 4
"""References that the trials take in turns."""


MOST = "the most that any test can find"
"""A bar, not a rule: see `ceiling`."""


class Power(NamedTuple):
    """A drift of one feature, drawn from `laws` (numbers) or `sizes` (categories), looked for in at most `horizon` windows of n rows."""

    name: str
    n: int
    drift: Drift
    trials: int
    horizon: int
    laws: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    missing: float = 0.0
    """Share of rows without a value in the reference, and in quiet windows."""

    def draw(self, dice: np.random.Generator) -> int:
        """Return the position of the feature that drifts: every law and size is as likely."""
        kinds = [*(Spec(law) for law in self.laws), *(Spec("category", k) for k in self.sizes)]
        kind = kinds[int(dice.integers(len(kinds)))]
        return int(dice.choice([i for i, spec in enumerate(SPECS) if spec == kind]))


def measure(power: Power, dice: np.random.Generator, pythons: dict[str, Path]) -> dict[str, Any]:
    """Return the delays in windows; a drift that is not found within the horizon counts as horizon + 1.

    Other tools see the first windows of the trials with the first reference.
    """
    pool = []
    for _ in range(POOL):
        watched = Watched.build(Stream(dice, missing=power.missing), power.n, REFERENCE_WINDOWS)
        live, _ = live_after(watched, power.n, dice, missing=power.missing)
        pool.append((watched, live))
    delays, psi_hits = [], 0
    first: dict[int, list[Array]] = {}
    for trial in range(power.trials):
        watched, quiet = pool[trial % POOL]
        feature = power.draw(dice)
        live, stream = quiet.copy(), Stream(dice, missing=power.missing)
        delay, columns, seen = _delay(live, stream, power, feature)
        delays.append(delay)
        psi_hits += seen.psi[feature] > 0.2
        if not trial % POOL:
            first.setdefault(feature, []).append(columns[feature])
    columns_of = [(pool[0][0].columns[feature], np.stack(windows)) for feature, windows in first.items()]
    rules = {"PSI > 0.2": psi_hits / power.trials}
    for name, found in peers.flags(pythons, columns_of).items():
        rules[name] = sum(map(sum, found)) / sum(map(len, found))
    if power.missing and power.drift.kind == "missing":
        rules[MOST] = ceiling(power, DEFAULT_FALSE_ALARMS.of(HOUR_MS))
    within = {str(k): float(np.mean(np.array(delays) <= k)) for k in (1, 2, 3, 6, 24) if k <= power.horizon}
    return {
        "kind": "power", "name": power.name, "n": power.n, "trials": power.trials, "horizon": power.horizon, "within": within,
        "median": float(np.median(delays)), "p95": float(np.quantile(delays, 0.95, method="inverted_cdf")), "rules": rules,
    }  # fmt: skip


def ceiling(power: Power, per_window: float) -> float:
    """Return the largest power that any test of one window has that spends a window's whole budget on missing rows, all features alike.

    Their number is all that a window tells of their share, and the law of the one is ordered by the other: to reject from a number on
    is the most powerful test (Neyman & Pearson). The share before is taken as known.
    """
    enough = int(stats.binom.isf(per_window / len(SPECS), power.n, power.missing)) + 1
    return float(stats.binom.sf(enough - 1, power.n, power.missing + power.drift.size))


def _delay(live: Live, stream: Stream, power: Power, feature: int) -> tuple[int, list[Array], Seen]:
    """Return the windows until an alert names the feature, and the first window."""
    first: tuple[list[Array], Seen] | None = None
    for at in range(1, power.horizon + 1):
        columns = stream.window(power.n, power.drift, frozenset([feature]))
        seen = live.step(columns)
        first = first or (columns, seen)
        if any(alert["feature"] == NAMES[feature] for alert in seen.fired):
            return at, *first
    assert first is not None
    return power.horizon + 1, *first


def small(n: int, trials: int, dice: np.random.Generator) -> dict[str, Any]:
    """Return what is said of windows with fewer rows than a single one needs, every number shifted by 1 σ; and when it is found."""
    watched = Watched.build(Stream(dice), n, REFERENCE_WINDOWS)
    said, alarms, delays = 0, 0, []
    everything = frozenset(range(len(SPECS)))
    for _ in range(trials):
        live, stream = Live(watched.reference), Stream(dice)
        seen = live.step(stream.window(n, Drift("shift", 1.0), everything))
        said += "drift.distribution" in seen.insufficient
        alarms += sum(alert["check"].startswith("drift.") for alert in seen.fired)
        for at in range(2, 8):
            seen = live.step(stream.window(n, Drift("shift", 1.0), everything))
            if any(alert["check"] == "drift.distribution" for alert in seen.fired):
                delays.append(at)
                break
    return {
        "kind": "small", "n": n, "trials": trials, "insufficient": said / trials, "alarms_of_one_window": alarms,
        "found_after_windows": float(np.median(delays)) if delays else None,
    }  # fmt: skip


def immaterial(n: int, trials: int, dice: np.random.Generator) -> dict[str, Any]:
    """Return the alerts, by severity, of windows in which every number has shifted by 0.02 σ."""
    watched = Watched.build(Stream(dice), n, 4)
    by_severity: dict[str, int] = {}
    numbers = frozenset(i for i, spec in enumerate(SPECS) if not spec.n_values)
    for _ in range(trials):
        live, stream = Live(watched.reference), Stream(dice)
        for alert in live.step(stream.window(n, Drift("shift", 0.02), numbers)).fired:
            by_severity[alert["severity"]] = by_severity.get(alert["severity"], 0) + 1
    return {"kind": "immaterial", "n": n, "trials": trials * len(numbers), "alerts": by_severity}
