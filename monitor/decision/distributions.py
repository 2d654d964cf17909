"""The distributions of one closed window: measured with the windows before it, and tallied for those after it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from monitor.decision import scales, shape
from monitor.decision.tails import CHECK as TAILS
from monitor.decision.tails import tails
from monitor.findings import ClosedWindow, Evidence, Measurement
from monitor.policy import RuleSet

MEASURED_FOR_RULES = (shape.CHECK, TAILS)
"""Checks that are measured only where a rule is for them."""


class Distributions:
    """Of the segments that a rule is for; of nothing where there is no reference to compare with."""

    def __init__(self, closed: ClosedWindow, rules: RuleSet) -> None:
        self._closed, self._rules = closed, rules
        self._plan = scales.plan_for(closed)
        self._tallies: dict[str, scales.Tallies] = {}
        if self._plan is not None:
            for i, name in enumerate(closed.profile.layout.segments):
                if rules.minds_with(shape.CHECK, name):
                    self._tallies[name] = self._plan.tally(closed.profile.counts_of(i))

    def measured(self, evidence: Mapping[str, Evidence], history: Sequence[bytes]) -> Iterator[Measurement]:
        """Yield `drift.distribution` and `drift.tails` per feature and segment; history: see pipeline.judge_window."""
        reference = self._closed.reference
        if self._plan is None or reference is None:
            return
        for name, of_segment in evidence.items():
            if name in self._tallies:
                earlier = scales.earlier_of(history, name, reference, self._plan)
                yield from shape.distribution(of_segment, self._plan, self._tallies[name], earlier)
            if self._rules.minds_with(TAILS, name):
                yield from tails(of_segment)

    def kept(self, alone: Collection[tuple[str, str]]) -> bytes:
        """Return what later windows are to know: nothing of the features (segment, name) that this window shows to have changed by itself.

        b"" where it has no rows; and where windows overlap, for then they are not merged.
        """
        closed = self._closed
        if self._plan is None or closed.reference is None or not closed.profile.n or closed.window.spec.kind != "tumbling":
            return b""
        names = [feature.name for feature in closed.profile.layout.features]
        kept = {}
        for segment, own in self._tallies.items():
            kept[segment] = own.without(np.array([(segment, name) in alone for name in names]), self._plan)
        return scales.to_bytes(closed.reference, kept)
