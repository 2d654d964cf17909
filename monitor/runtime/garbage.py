"""Python's cyclic garbage collector, off the path of events.

A fetch is thousands of records, each an object that the collector follows until it is decoded. By default it looks at the young ones
after every 700 that are made, and at all objects of the process again and again; nothing of an event is ever part of a cycle. It stays
on, since libraries leave cycles behind, but runs as seldom as their number asks for.
"""

from __future__ import annotations

import gc

THRESHOLDS = 50_000, 20, 100
"""More objects made than freed before the young ones are looked at (a few MiB); how many of these looks before older ones are."""


def spare_events() -> None:
    """Leave what the program consists of out of all collections, and make these seldom; called once all is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
