"""The sources that state is made of: they belong to it, since nothing is final before every partition of them has passed.

A source may come or go between two lives of all workers. From the offset that meta covers, state then goes on with the new set, so every
owner from there on must have it. Refused is what would not be exact: a set that changes where an owner under the former one has written
more than meta covers, a source that goes while events of it wait in open panes, and two sets at the same time.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

import msgspec

from monitor.errors import StateMismatch
from monitor.stages.outcomes import Range
from monitor.stages.partials import Watermark
from monitor.stages.rows import META, Stored

Sources = Mapping[str, int]
"""topic → partitions"""


def is_ahead(best: Mapping[bytes, Stored]) -> bool:
    """Whether a row holds more than meta covers: its owner ended between the two."""
    return META in best and max(stored.hi for stored in best.values()) > best[META].hi


def change_sources(
    topic: str, then: Sources | msgspec.UnsetType, now: Sources, marks: dict[str, Watermark], *, ahead: bool
) -> bool:
    """Let the state of a partition of `topic` go on with the sources of now; return whether they are others.

    then: what it was made of; UNSET where an earlier version wrote it, which is taken to have had the same. marks: by source|partition;
    those of sources that go are removed. ahead: see `is_ahead`. Raises StateMismatch.
    """
    if isinstance(then, msgspec.UnsetType):
        return False
    for source in then.keys() & now.keys():
        if then[source] != now[source]:
            raise StateMismatch(
                f"topic {source} has {now[source]} partitions, the state of {topic} was written for {then[source]}; "
                "start with another `app` name to begin anew"
            )
    if then.keys() == now.keys():
        return False
    if ahead:
        raise StateMismatch(
            f"the state of {topic} was written for the sources {_named(then)}, now they are {_named(now)}, and its last owner ended "
            "before a checkpoint was complete: start all workers once more with the former sources, stop them (SIGTERM), then change them"
        )
    gone = {source: [f"{source}|{partition}" for partition in range(then[source])] for source in sorted(then.keys() - now.keys())}
    for source, places in gone.items():
        if not all(place in marks and marks[place].idle for place in places):
            raise _still_open(source)
    for places in gone.values():
        for place in places:
            del marks[place]
    return True


def refuse_other_sources(told: Watermark | Range, known: Container[str], epoch: int) -> None:
    """Raise StateMismatch for what is told of a source that is not among `known`, unless it is that nothing of it is open.

    epoch: of who reads it; what was written in that epoch or a later one is of a worker that runs now.
    """
    if told.source in known:
        return
    if told.epoch >= epoch:
        raise StateMismatch(
            f"another worker that runs now reads the source {told.source}, and this one does not: stop all workers, then start them with "
            "the same sources"
        )
    if not told.idle:
        raise _still_open(told.source)


def _still_open(source: str) -> StateMismatch:
    return StateMismatch(
        f"the source {source} is not configured any more, but events of it wait in open windows: configure it until all of its partitions "
        "are idle (`monitor_idle_partitions`), or start with another `app` name to begin anew"
    )


def _named(sources: Iterable[str]) -> str:
    return ", ".join(sorted(sources)) or "none"
