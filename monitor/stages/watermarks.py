"""What stage 2 knows of its sources' watermarks: up to when every partition of some sources is closed."""

from __future__ import annotations

from collections.abc import Mapping

from monitor.errors import StateMismatch
from monitor.stages.partials import Partial, Watermark
from monitor.windows import NEVER_MS


class Watermarks:
    """The newest watermark of every source partition.

    topology: partitions of every source of predictions. marks: by source|partition; changed in place: it is part of the owner's meta.
    """

    def __init__(self, topology: Mapping[str, int], marks: dict[str, Watermark]) -> None:
        self._topology = topology
        self._marks = marks

    def take(self, mark: Watermark) -> bool:
        """Take a watermark: a younger owner's replaces, an older one's is ignored, the same owner's moves on. Whether it was taken.

        Raises StateMismatch when its sender sees another number of partitions of the source than this worker does.
        """
        expected = self._topology.get(mark.source)
        if expected is None:
            return False  # a source that is configured no longer
        if mark.partitions not in (0, expected):
            raise StateMismatch(
                f"topic {mark.source} has {expected} partitions for this worker and {mark.partitions} for another one: "
                "its number of partitions was changed; start all workers with another `app` name to begin anew"
            )
        place = f"{mark.source}|{mark.partition}"
        known = self._marks.get(place)
        if known is not None and mark.epoch < known.epoch:
            return False
        self._marks[place] = mark
        return True

    def is_repeat(self, partial: Partial, grace_ms: int) -> bool:
        """Whether the partial was sent before: a watermark of its source partition, as far in the log, says that what was due then was."""
        mark = self._marks.get(f"{partial.source}|{partial.partition}")
        if mark is None or partial.hi > mark.hi:
            return False
        closed_ms = mark.closed.get(grace_ms)
        if closed_ms is None:  # the model's grace was another one when the mark was sent
            closed_ms = min(mark.closed.values(), default=NEVER_MS)
        return partial.due_ms <= closed_ms

    def reached(self, sources: tuple[str, ...], grace_ms: int) -> int | None:
        """Return up to when all partitions of `sources` are closed: the least of those that are not idle, else the greatest.

        Without `sources`, those of all. None while a partition has said nothing yet.
        """
        busy: list[int] = []
        idle: list[int] = []
        for source in sources or self._topology:
            for partition in range(self._topology.get(source, 0)):
                mark = self._marks.get(f"{source}|{partition}")
                closed = mark.closed.get(grace_ms) if mark is not None else None
                if mark is not None and mark.idle:
                    idle.append(NEVER_MS if closed is None else closed)
                elif closed is None:
                    return None  # nobody has said anything of it yet
                else:
                    busy.append(closed)
        upto = min(busy) if busy else max(idle, default=NEVER_MS)
        return upto if upto > NEVER_MS else None
