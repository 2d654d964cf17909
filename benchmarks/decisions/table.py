"""The measured table in Markdown, goals beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.decisions.power import MOST

Goal = tuple[str, Callable[[dict[str, Any]], bool]]

PEERS = ("PSI > 0.2", "Evidently 0.7.23", "NannyML 0.13.1")

GOALS: dict[str, Goal] = {
    "early iid": ("≤ 2 % of days, upper bound ≤ 3 %", lambda f: f["share"] <= 0.02 and f["interval"][1] <= 0.03),
    "early 10 σ": ("told in < 5 % of the window", lambda f: f["worst"] < 0.05),
    "early": ("≤ 10 % of days", lambda f: f["share"] <= 0.1),
    "iid": ("≤ 2 % of days, upper bound ≤ 3 %", lambda f: f["share"] <= 0.02 and f["interval"][1] <= 0.03),
    "missing": ("≤ 2 % of days", lambda f: f["share"] <= 0.02),
    "clustered": ("≤ 10 % of days", lambda f: f["share"] <= 0.1),
    "daily": ("≤ 10 % of days", lambda f: f["share"] <= 0.1),
    "small": ("no drift alarm of one window; `insufficient`", lambda f: not f["alarms_of_one_window"] and f["insufficient"] == 1),
    "0.2 σ, n=1000": ("≥ 90 % in 1, ≥ 99 % within 3", lambda f: f["within"]["1"] >= 0.9 and f["within"]["3"] >= 0.99),
    "0.2 σ, n=100": ("median ≤ 4, ≥ 95 % within 24", lambda f: f["median"] <= 4 and f["within"]["24"] >= 0.95),
    "0.1 σ": ("median ≤ 2, p95 ≤ 6", lambda f: f["median"] <= 2 and f["p95"] <= 6),
    "scale": ("≥ 90 % within 2", lambda f: f["within"]["2"] >= 0.9),
    "10 % of mass": ("≥ 90 % within 3", lambda f: f["within"]["3"] >= 0.9),
    "1 % of rows 20 σ out, light": (
        "≥ 90 % in 1, ≥ 99 % within 3",
        lambda f: f["within"]["1"] >= 0.9 and f["within"]["3"] >= 0.99,
    ),
    "1 % of rows 20 σ out, heavy": ("≥ 55 % in 1", lambda f: f["within"]["1"] >= 0.55),
    "2 %": ("≥ 95 % in 1", lambda f: f["within"]["1"] >= 0.95),
    "1 % never seen": ("≥ 95 % in 1", lambda f: f["within"]["1"] >= 0.95),
    "immaterial": ("no alert above notice", lambda f: not set(f["alerts"]) - {"notice"}),
}
"""By the beginning of a section's name."""


def table(figures: dict[str, dict[str, Any]]) -> str:
    """Return quiet days and drift as two tables, other rules on the same streams in the last columns; and which goals are missed."""
    quiet = {name: f for name, f in figures.items() if f["kind"] == "quiet"}
    drift = {name: f for name, f in figures.items() if f["kind"] == "power"}
    lines = _head("quiet rows", "n", "days", "days with any alert", "feature-windows", "goal", "met", *PEERS)
    lines += [_row(*_quiet(name, f)) for name, f in quiet.items()]
    lines += ["", *_head("one feature drifts", "n", "trials", "found in 1", "within 3", "median, p95", "goal", "met", *PEERS)]
    lines += [_row(*_power(name, f)) for name, f in drift.items()]
    lines.append("")
    lines += [f"- {f['name']}: {MOST} in 1 is {f['rules'][MOST]:.0%}" for f in drift.values() if MOST in f["rules"]]
    for name, f in figures.items():
        if f["kind"] in ("small", "immaterial", "early-quiet", "early-power"):
            facts = ", ".join(f"{key} {value}" for key, value in f.items() if key not in ("kind", "seeds"))
            lines.append(f"- {name}: {facts}; goal: {_goal(name)[0]}: {_met(name, f)}")
    return "\n".join(lines)


def is_met(name: str, f: dict[str, Any]) -> bool:
    """Whether a section's goal is."""
    return _goal(name)[1](f)


def _quiet(name: str, f: dict[str, Any]) -> list[str]:
    low, high = f["interval"]
    share = f"{f['days_with_alarm']}: {f['share']:.2%} ({low:.1%}–{high:.1%})"
    others = [_pair(f["rules"].get(rule)) for rule in PEERS]
    rows = f["mode"] + (f", {f['missing']:.0%} missing" if f["missing"] else "")
    return [rows, str(f["n"]), str(f["days"]), share, f"{f['feature_windows']:.1e}", _goal(name)[0], _met(name, f), *others]


def _pair(found: dict[str, float] | None) -> str:
    return "–" if found is None else f"{found['days']:.0%} of days, {found['feature_windows']:.2g}"


def _power(name: str, f: dict[str, Any]) -> list[str]:
    within = [f"{f['within'][k]:.1%}" if k in f["within"] else "–" for k in ("1", "3")]
    delays = ", ".join(f"> {f['horizon']}" if delay > f["horizon"] else f"{delay:g}" for delay in (f["median"], f["p95"]))
    others = [f"{f['rules'][rule]:.0%}" if rule in f["rules"] else "–" for rule in PEERS]
    return [f["name"], str(f["n"]), str(f["trials"]), *within, delays, _goal(name)[0], _met(name, f), *others]


def _goal(name: str) -> Goal:
    return next(goal for start, goal in GOALS.items() if name.startswith(start))


def _met(name: str, f: dict[str, Any]) -> str:
    return "yes" if is_met(name, f) else "**no**"


def _head(*names: str) -> list[str]:
    return [_row(*names), _row(*("---" for _ in names))]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
