"""Shares of bad rows as measurements, next to what chance alone explains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitor.chance.counts import ALPHA, critical_excess, critical_extremes
from monitor.findings import CountTest, Measurement

MIN_ROWS = 30
"""Below, a ratio says nothing."""


def ratio(check: str, feature: str, bad: int, n: int, n_ref: int = 0) -> Measurement:
    """Return the share of bad rows."""
    return Measurement(check, feature, bad / n if n else 0.0, n, n_ref, min_n=MIN_ROWS, evidence={"rows": bad})


def excess(
    check: str, feature: str, test: CountTest, less: float | None = None, evidence: Mapping[str, Any] | None = None
) -> Measurement:
    """Return by how much the share of bad rows exceeds `less`, the reference's share where None.

    With the largest value that chance still explains, and beyond it the exact p (Fisher's test, one-sided).
    """
    k, n, k_ref, m = test.bad, test.n, test.bad_ref, test.m
    share, share_ref = k / n if n else 0.0, k_ref / m if m else 0.0
    facts = {"rows": k, "share": share, "share_ref": share_ref} if evidence is None else evidence
    less = share_ref if less is None else less
    if not (n and m):
        return Measurement(check, feature, share - less, n, m, min_n=MIN_ROWS, evidence=facts)
    enough = critical_excess(n, k_ref, m, ALPHA / test.parts)
    p_value, limit = test.p_value() if k >= enough else None, (enough - 1) / n - less
    return Measurement(check, feature, share - less, n, m, limit, p_value, MIN_ROWS, evidence=facts, counted=test)


def extremes(check: str, feature: str, test: CountTest, evidence: Mapping[str, Any] | None = None) -> Measurement:
    """Return the share of values outside the reference's range, with what chance alone puts there, whatever the distribution."""
    k, n, m = test.bad, test.n, test.m
    facts = {"rows": k} if evidence is None else evidence
    if not (n and m):
        return Measurement(check, feature, k / n if n else 0.0, n, m, min_n=MIN_ROWS, evidence=facts)
    p_value, limit = test.p_value() if k else None, (critical_extremes(n, m, test.parts) - 1) / n
    return Measurement(check, feature, k / n, n, m, limit, p_value, MIN_ROWS, evidence=facts, counted=test)
