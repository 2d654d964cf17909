"""How long a worker lets pass between checkpoints: longer where they cost much, as they do with thousands of panes open.

A pane is written whole, whatever came in between, and folding few rows into it costs as much as many. What is at stake is how much is read
again after a crash, never what is in a window; what is to be sent does not wait, nor does a stage that holds much until its checkpoint.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

SHARE = 0.03
"""Of a processor, that making all checkpoints of a worker may take before they become rarer; to send and store them takes half as much again …"""
LONGEST = 10.0
"""… and how many times as rare they become at most."""


class Pace:
    """What the last checkpoint of each partition cost, CPU seconds, and what follows from that. least_s: at least so long between two."""

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._costs: WeakKeyDictionary[object, float] = WeakKeyDictionary()

    def spent(self, owner: object, cpu_s: float) -> None:
        """Note what a checkpoint of a partition cost; forgotten with its owner."""
        self._costs[owner] = cpu_s

    @property
    def interval_s(self) -> float:
        """Time between two checkpoints of a partition.

        >>> class Driver: ...
        >>> one, other, pace = Driver(), Driver(), Pace(2.0)
        >>> pace.spent(one, 0.03), pace.interval_s
        (None, 2.0)
        >>> pace.spent(other, 0.09), pace.interval_s
        (None, 4.0)
        >>> pace.spent(other, 3.0), pace.interval_s
        (None, 20.0)
        """
        return min(max(self._least_s, sum(self._costs.values()) / SHARE), LONGEST * self._least_s)
