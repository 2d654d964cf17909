"""What an ingest partition knows beside its panes: where its log has been read to, its clock, its counts."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from monitor.errors import StateMismatch
from monitor.stages.cursor import Position
from monitor.stages.graces import Graces
from monitor.stages.rows import same_topic_id
from monitor.windows import NEVER_MS

OUTCOMES = COUNTED, LATE, REVISED, DUPLICATE = 0, 1, 2, 3
"""Places in `IngestMeta.models`."""
OUTCOME_NAMES = ("counted", "late", "revised", "duplicate")


class IngestMeta(msgspec.Struct, kw_only=True):
    """Stored as the row META; every field is a function of the log up to the row's `hi`, but for the four of silence.

    partitions, partials_partitions: of the topic and of `partials`: a row stands in a place that these numbers decide.
    models: model → version → rows by outcome. lost_pending: offsets lost since the last pane was opened, told by the next one.
    gc_upto: by `model|version`, up to which due time panes were collected.
    """

    topic: str
    partition: int
    partitions: int
    topic_id: str | None = None
    partials_partitions: int | None = None
    position: Position = msgspec.field(default_factory=Position)
    max_ts: int = NEVER_MS
    models: dict[str, dict[str, list[int]]] = {}
    rejected: dict[str, int] = {}
    dropped: int = 0
    without_id: dict[str, int] = {}
    """model → rows without an id, where ids are remembered"""
    ids: dict[int, tuple[int, int]] = {}
    """how long ids are remembered → start of the newest bucket, and how many ids it has"""
    labels: int = 0
    ticks: int = 0
    lost_pending: int = 0
    gc_upto: dict[str, int] = {}
    idle_clock: int = NEVER_MS
    quiet_since: int | None = None
    quiet_clock: int = NEVER_MS
    idle: bool = False
    outcomes_partitions: int | msgspec.UnsetType = msgspec.UNSET
    """of `outcomes`, where outcomes are told"""
    unjoined: dict[str, dict[str, int]] | msgspec.UnsetType = msgspec.UNSET
    """model → reason → rows that no label can find, and labels that find none, where outcomes are told"""
    source: str | msgspec.UnsetType = msgspec.UNSET
    """sha256 of how its records are read"""
    graces: Graces = msgspec.field(default_factory=Graces)

    @property
    def clock_ms(self) -> int:
        """The partition's running maximum of event time; its watermark before grace."""
        return max(self.max_ts, self.idle_clock)

    def resumed(self, payload: bytes, *, ahead: bool) -> IngestMeta:
        """Return what an earlier owner stored of the same topology. Raises StateMismatch when it is another one now.

        ahead: rows hold more than meta covers. What comes after meta is then skipped in some panes and must not go to others.
        """
        stored = _decode(payload)
        if ahead and stored.source not in (msgspec.UNSET, self.source):
            raise StateMismatch(
                f"how records of {self.topic} are read was changed, and the last owner of its state ended before a checkpoint was complete: "
                "start all workers once more with the former `sources`, stop them (SIGTERM), then change them"
            )
        stored.source = self.source
        counts = [(f"topic {self.topic} has", self.partitions, stored.partitions)]
        if stored.partials_partitions is not None and self.partials_partitions is not None:
            counts.append(("partials has", self.partials_partitions, stored.partials_partitions))
        if self.outcomes_partitions is not msgspec.UNSET:
            if stored.outcomes_partitions is not msgspec.UNSET:
                counts.append(("outcomes has", self.outcomes_partitions, stored.outcomes_partitions))
            stored.outcomes_partitions, stored.unjoined = self.outcomes_partitions, stored.unjoined or {}
        elif stored.outcomes_partitions is not msgspec.UNSET:
            raise StateMismatch(
                f"labels were joined when the state of {self.topic} was written, and no source of labels is configured now: configure one, "
                "or start with another `app` name to begin anew"
            )
        _refuse_changes(counts)
        clock_ms = stored.clock_ms
        stored.graces = self.graces.after(
            stored.graces, self.topic, stored.models.keys(), lambda grace_ms: clock_ms - grace_ms, ahead=ahead
        )
        stored.partials_partitions = self.partials_partitions or stored.partials_partitions
        stored.topic_id = same_topic_id(self.topic, stored.topic_id, self.topic_id)
        for rows in (rows for versions in stored.models.values() for rows in versions.values()):
            rows.extend([0] * (len(OUTCOMES) - len(rows)))  # a version that told fewer of them apart
        return stored

    def knows(self, model: str, version: str) -> bool:
        """Whether a model version has counts, if only of zero."""
        return version in self.models.get(model, ())

    def outcomes(self, model: str, version: str) -> list[int]:
        """Return the counts of a model version, to be added to."""
        return self.models.setdefault(model, {}).setdefault(version, [0] * len(OUTCOMES))

    def to_bytes(self) -> bytes:
        """Return the row's payload."""
        return _encode(self)

    @classmethod
    def from_bytes(cls, payload: bytes) -> IngestMeta:
        """Read what `to_bytes` wrote."""
        return _decode(payload)


def _refuse_changes(counts: Iterable[tuple[str, int, int]]) -> None:
    """Raise StateMismatch where a number of partitions is not what it was."""
    for what, now, then in counts:
        if now != then:
            raise StateMismatch(
                f"{what} {now} partitions, its state was written for {then}; start with another `app` name to begin anew"
            )


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(IngestMeta).decode
