"""How far a route has come on each partition, and which alerts it has seen: both are rebuilt by reading the topic again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from monitor.notify.notice import Notice

MAX_SEEN = 20_000
"""Ids remembered per route and partition. A repeated record comes soon after its first, long before so many others."""
MAX_WITHHELD = 250
"""Offsets that fit into what a commit can hold (4096 bytes); more are forgotten at a crash, oldest first."""
_MARK = "withheld:"


class SeenIds:
    """The ids of the last alerts, oldest forgotten first."""

    def __init__(self, limit: int = MAX_SEEN) -> None:
        self._ids: dict[str, None] = {}
        self._limit = limit

    def add(self, alert_id: str) -> bool:
        """Remember an id; return whether it is new."""
        if alert_id in self._ids:
            return False
        self._ids[alert_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]
        return True


class Progress:
    """One partition. known: records before this offset were dealt with in an earlier life; they only tell what fires.

    withheld: offsets among them of alerts that a silence held back.
    """

    def __init__(self, known: int, withheld: Iterable[int] = ()) -> None:
        self.known = known
        self.seen = SeenIds()
        self.withheld = dict.fromkeys(withheld)
        self.is_loaded = False
        """Whether everything that the partition had was read once."""
        self._next = known
        self._pending: dict[int, None] = {}
        self._releases: dict[int, int] = {}

    def take(self, offset: int) -> None:
        """A record was read that has to be dealt with."""
        self._next = max(self._next, offset + 1)
        self._pending[offset] = None

    def skip(self, offset: int) -> None:
        """A record was read that does not matter."""
        self._next = max(self._next, offset + 1)

    def finish(self, offset: int) -> None:
        """A record was dealt with."""
        self._pending.pop(offset, None)

    def withhold(self, offset: int) -> None:
        """Remember, beyond a crash, that this record waits for the end of a silence."""
        self.withheld[offset] = None

    def release(self, offset: int, by: int | None = None) -> None:
        """It does not wait any more. by: the record that says so; until that is committed, an earlier commit must know that it waits."""
        if by is None:
            self.withheld.pop(offset, None)
        elif offset in self.withheld:
            self._releases[offset] = by

    @property
    def position(self) -> tuple[int, str]:
        """What may be committed: an offset before which all is dealt with, and what is withheld before it, as text."""
        reached = next(iter(self._pending), self._next)
        for offset in [offset for offset, by in self._releases.items() if by < reached]:
            del self._releases[offset]
            self.withheld.pop(offset, None)
        return reached, packed(self.withheld)


class Partitions:
    """Where a route stands on each of its partitions; what it makes of their alerts is for those who extend this.

    counts: alerts by outcome, since the start.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._partitions: dict[int, Progress] = {}

    def assigned(self, partition: int, progress: Progress) -> None:
        """A partition will be read from its beginning."""
        self.revoked(partition)
        self._partitions[partition] = progress

    def revoked(self, partition: int) -> None:
        """A partition is somebody else's."""
        self._partitions.pop(partition, None)

    def loaded(self, partition: int) -> None:
        """A partition was read to its end."""
        if partition in self._partitions:
            self._partitions[partition].is_loaded = True

    def skip(self, partition: int, offset: int) -> None:
        """A record was read that is no alert."""
        progress = self._partitions.get(partition)
        if progress is not None:
            progress.skip(offset)
            self.counts["malformed"] += offset >= progress.known

    def _reach(self, notice: Notice) -> tuple[Progress, bool] | None:
        """Note that an alert was read; return its partition and whether an earlier life dealt with it, None if it says nothing new."""
        progress = self._partitions.get(notice.partition)
        if progress is None:
            return None
        is_known = notice.offset < progress.known
        progress.skip(notice.offset)
        if not progress.seen.add(notice.id):
            self.counts["duplicate"] += not is_known
            return None
        return progress, is_known

    @property
    def is_loaded(self) -> bool:
        """Whether every partition was read to its end once; before that, what fires is not known."""
        return all(progress.is_loaded for progress in self._partitions.values())

    def positions(self) -> dict[int, tuple[int, str]]:
        """Return what may be committed, by partition."""
        return {partition: progress.position for partition, progress in self._partitions.items()}


def packed(withheld: Iterable[int]) -> str:
    """Return the text that a commit holds.

    >>> packed([4, 17]), withheld_in("withheld:4,17"), withheld_in("")
    ('withheld:4,17', [4, 17], [])
    """
    newest = sorted(withheld)[-MAX_WITHHELD:]
    return _MARK + ",".join(map(str, newest)) if newest else ""


def withheld_in(metadata: str | None) -> list[int]:
    """Return the offsets that such a text has; none if it is another one."""
    if not metadata or not metadata.startswith(_MARK):
        return []
    words = metadata.removeprefix(_MARK).split(",")
    return [int(word) for word in words if word.isdecimal()]
