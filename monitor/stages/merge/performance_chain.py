"""Reports of one model version's windows in order: what a report changes of its own window, and of those that are judged after it.

Stage 2 does this with the rows that it stores, a backtest with the records that were published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

from monitor.judgement.performance import ClosedOutcomes, PerformanceJudgement
from monitor.stages.merge.final_rows import MAX_EMPTY_WINDOWS
from monitor.stages.merge.performance_rows import Reported
from monitor.windows import NEVER_MS, Window


class Case(NamedTuple):
    """A window that is to be judged. old: what was published of it. before: the decision state before it.

    is_fresh: more is known of it now; else the state before it is another one. latest: the state after the last published window.
    """

    window: Window
    old: Reported
    before: bytes
    latest: bytes
    is_fresh: bool


def restate(chain: Mapping[Window, Reported], touched: Set[Window], judged: Callable[[Case], Reported]) -> None:
    """Judge the touched windows, and those after them for as long as the state before them is another one than it was.

    chain: all of one specification and model version as it was before; one that is not in it has no report yet.
    """
    published = sorted(window for window, value in chain.items() if value.is_published)
    latest = chain[published[-1]].after if published else b""
    first = min(touched)
    before = [window for window in published if window < first]
    old = new = _Before.after(before[-1], chain[before[-1]].after) if before else _Before()
    for window in sorted({*touched, *(w for w in published if w > first)}):
        value = made = chain.get(window) or Reported()
        state = new.at(window)
        if window in touched or old.at(window) != state:
            made = judged(Case(window, value, state, latest, window in touched))
        elif window > max(touched):
            break
        if value.is_published:
            old = _Before.after(window, value.after)
        new = _Before.after(window, made.after)


def reported(closed: ClosedOutcomes, case: Case, judgement: PerformanceJudgement) -> Reported:
    """Return what is to replace what was published of a window: another revision where it, or its alerts, say something new."""
    old, is_published = case.old, case.is_fresh or judgement.is_news
    return Reported(
        revision=closed.revision if is_published else old.revision,
        as_of_ms=closed.as_of_ms,
        figures=judgement.figures,
        operation=old.operation,
        after=judgement.after,
        said=judgement.said if is_published else old.said,
    )


class _Before(NamedTuple):
    """The decision state after a window; it is forgotten when too many windows follow without a report."""

    end_ms: int = NEVER_MS
    state: bytes = b""

    @classmethod
    def after(cls, window: Window, state: bytes) -> _Before:
        return cls(window.end_ms + (MAX_EMPTY_WINDOWS + 1) * window.step_ms, state)

    def at(self, window: Window) -> bytes:
        """Return the state that a window begins with."""
        return self.state if window.end_ms <= self.end_ms else b""
