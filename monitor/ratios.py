"""Shares of bad rows as measurements, next to what chance alone explains."""

from __future__ import annotations

from monitor.chance.counts import ALPHA, critical_excess, critical_extremes, excess_p, extremes_p
from monitor.findings import CountTest, Measurement

MIN_ROWS = 30
"""Below, a ratio says nothing."""


def ratio(check: str, feature: str, bad: int, n: int, n_ref: int = 0) -> Measurement:
    """Return the share of bad rows."""
    return Measurement(check, feature, bad / n if n else 0.0, n, n_ref, min_n=MIN_ROWS, evidence={"rows": bad})


def with_excess(measured: Measurement, bad: int, bad_ref: int, less: float = 0.0, tests: int = 1) -> Measurement:
    """Add the largest value that chance still explains, and beyond it the exact p (Fisher's test, one-sided).

    less: what the value is lower than the share by. tests: so many cells were looked at for the largest excess (Bonferroni).
    """
    n, m = measured.n, measured.n_ref
    if not (n and m):
        return measured
    enough = critical_excess(n, bad_ref, m, ALPHA / tests)
    p_value = min(1.0, tests * excess_p(bad, n, bad_ref, m)) if bad >= enough else None
    test = CountTest(bad, n, bad_ref, m, "excess", tests)
    return measured._replace(critical_value=(enough - 1) / n - less, p_value=p_value, counted=test)


def excess(check: str, feature: str, bad: tuple[int, int], rows: tuple[int, int], tests: int = 1) -> Measurement:
    """Return by how much the share of bad rows exceeds the reference's; both pairs are (window, reference)."""
    share, share_ref = (count / of if of else 0.0 for count, of in zip(bad, rows, strict=True))
    facts = {"rows": bad[0], "share": share, "share_ref": share_ref}
    measured = Measurement(check, feature, share - share_ref, *rows, min_n=MIN_ROWS, evidence=facts)
    return with_excess(measured, *bad, share_ref, tests)


def with_extremes(measured: Measurement, k: int, sides: int) -> Measurement:
    """Add what chance alone puts outside the reference's range, at both ends or at a given one; holds for any distribution."""
    n, m = measured.n, measured.n_ref
    if not (n and m):
        return measured
    enough = critical_extremes(n, m, sides)
    p_value = extremes_p(k, n, m, sides) if k else None
    return measured._replace(critical_value=(enough - 1) / n, p_value=p_value, counted=CountTest(k, n, 0, m, "extremes", sides))
