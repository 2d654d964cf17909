"""The page `docs/checks.md`, made from the table of checks and the default rules: `python -m monitor.cli.checks [folder]` writes it."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from monitor.checks import TABLE
from monitor.decision import shape, tails
from monitor.findings import CheckInfo
from monitor.policy import DEFAULT_RULES

PAGE = "checks.md"

_HEAD = """# Checks of drift, data health and segments

Made from the table in `monitor/checks` and the rules in `monitor/policy.py` by `python -m monitor.cli.checks`; do not edit.

A check measures; a rule says from which value on somebody is told. `by default` is the rule that is in force unless `rules:` of the
configuration says otherwise; *silent* checks are measured and judged where you write a rule with `above` or `below`. A value breaches
when it lies beyond the rule's threshold and beyond what chance alone explains at this number of rows. For drift, and where counts have an
exact law, that is what the budget `false_alarms` allows, over all features and segments of a window (decisions.md); elsewhere one false
alarm in 1000 per measurement. Fewer rows than *at least* give `insufficient`. Checks of a feature need a reference, those of the stream
do not; an optional field that no event has is not measured. n and m are the rows of window and reference. The distances of numbers.md
are checks too, `drift.psi` and its kin, all silent.
"""

_THEMES = {
    "drift": "Drift",
    "health": "Values of features",
    "schema": "Schema",
    "traffic": "Traffic",
    "telemetry": "What was not read",
    "stream": "The stream itself",
    "segments": "Segments",
}


def generate() -> str:
    """Return the text of the page."""
    by_theme = sorted((shape.INFO, tails.INFO, *TABLE), key=_theme_place)
    parts = [_HEAD]
    for theme, checks in groupby(by_theme, key=_theme):
        parts.append(f"## {_THEMES[theme]}\n")
        parts += [_entry(check) for check in checks]
    return "\n".join(parts)


def _theme(check: CheckInfo) -> str:
    return check.id.partition(".")[0]


def _theme_place(check: CheckInfo) -> int:
    return list(_THEMES).index(_theme(check))


def _entry(check: CheckInfo) -> str:
    lines = [f"### `{check.id}`", f"{check.value[0].upper()}{check.value[1:]}.", "", f"- by default: {_default(check.id)}"]
    lines.append(f"- chance: {check.chance or 'no law; the threshold alone decides'}")
    if check.min_n:
        lines.append(f"- at least {check.min_n} {'row' if check.min_n == 1 else 'rows'}")
    if check.known_as:
        lines.append(f"- known as: {check.known_as}")
    return "\n".join(lines) + "\n"


def _default(check: str) -> str:
    rule = DEFAULT_RULES.get(check)
    if rule is None:
        return "silent"
    side = "above" if rule.above is not None else "below"
    levels = "".join(f"; {severity}, {side} {value:,g}" for severity, value in rule.levels.items())
    return f"{rule.severity}, {side} {rule.threshold:,g}{levels}"


def main(folder: str = "docs") -> None:
    """Write the page."""
    (Path(folder) / PAGE).write_text(generate(), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
