"""What a partition of stage 2 knows beside its rows: watermarks, what was late, counts, and how far its rows have been collected."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from monitor.stages.cursor import Position
from monitor.stages.merge.performance_rows import OutcomeMeta
from monitor.stages.merge.sealed_panes import Share
from monitor.stages.merge.windows_of import WindowsOf
from monitor.stages.partials import Partial, Watermark, place_of
from monitor.stages.rows import META, Stored, same_topic_id


class Meta(msgspec.Struct, kw_only=True):
    """A function of the log up to `hi`, which stands in the row's header."""

    partition: int
    topic_id: str | None = None
    position: Position = msgspec.field(default_factory=Position)
    marks: dict[str, Watermark] = {}
    late: dict[str, int] = {}
    late_shares: dict[str, tuple[int, int]] = {}
    """pane and source partition → (hi, rows) of the newest partial that came too late"""
    duplicates: int = 0
    windows: dict[str, int] = {}
    alerts: dict[str, dict[str, int]] = {}
    gc_panes: dict[str, int] = {}
    gc_windows: dict[str, int] = {}
    finished: dict[str, int] = {}
    """model → up to when everything is final; of those that revise"""
    revisions: dict[str, int] = {}
    serials: dict[str, int] = {}
    """model → decisions so far; of those that revise"""
    outcomes: OutcomeMeta | msgspec.UnsetType = msgspec.UNSET
    """Of labels that are joined; absent where none ever were."""
    sources: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    """Sources of predictions and their partitions; absent where an earlier version wrote it."""
    windows_of: WindowsOf | msgspec.UnsetType = msgspec.UNSET
    """Which windows models have; absent where an earlier version wrote it."""

    @classmethod
    def load(cls, best: Mapping[bytes, Stored], partition: int, topic: str, topic_id: str | None) -> tuple[Meta, int]:
        """Return what the store holds, or a new one, and the offset that it stands at.

        Raises StateMismatch when it was made of a topic with another id.
        """
        if META not in best:
            return cls(partition=partition, topic_id=topic_id), -1
        stored = cls.from_bytes(best[META].payload)
        stored.topic_id = same_topic_id(topic, stored.topic_id, topic_id)
        return stored, best[META].hi

    def to_bytes(self) -> bytes:
        """Return the payload of the row that `load` reads."""
        return _encode(self)

    @classmethod
    def from_bytes(cls, payload: bytes) -> Meta:
        """Read what `to_bytes` wrote."""
        return _decode(payload)

    def count_late(self, partial: Partial, share: Share | None) -> None:
        """Count the rows by which a partial exceeds what its pane was sealed with."""
        if partial.chunk:
            return  # the first block says how many rows the others are of
        place = f"{partial.model}|{partial.version}|{partial.start_ms}|{place_of(partial)}"
        hi, n = self.late_shares.get(place, (share.hi, share.n) if share else (-1, 0))
        if partial.hi <= hi:
            self.duplicates += 1
            return
        self.late_shares[place] = (partial.hi, partial.n)
        self.late[partial.model] = self.late.get(partial.model, 0) + partial.n - n

    def count_alert(self, model: str, severity: str) -> None:
        """Count an alert of a final window."""
        per_model = self.alerts.setdefault(model, {})
        per_model[severity] = per_model.get(severity, 0) + 1

    def count_window(self, model: str) -> None:
        """Count a final window."""
        self.windows[model] = self.windows.get(model, 0) + 1

    def next_serial(self, model: str) -> int:
        """Return the place of one more decision."""
        self.serials[model] = self.serials.get(model, 0) + 1
        return self.serials[model]

    def count_revision(self, model: str) -> None:
        """Count a final window that was published anew."""
        self.revisions[model] = self.revisions.get(model, 0) + 1

    def counters(self) -> dict[tuple[str, ...], int]:
        """Return monotone counts; functions of the log up to `hi`."""
        counts: dict[tuple[str, ...], int] = {
            ("duplicates",): self.duplicates,
            ("gaps",): self.position.gaps,
            ("lost",): self.position.lost,
        }
        counts |= {("events", name, "late_after_final"): n for name, n in self.late.items()}
        counts |= {("windows", name): n for name, n in self.windows.items()}
        counts |= {("revisions", name): n for name, n in self.revisions.items()}
        counts |= {("alerts", m, severity): n for m, by in self.alerts.items() for severity, n in by.items()}
        if not isinstance(self.outcomes, msgspec.UnsetType):
            counts |= self.outcomes.counters()
        return counts


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Meta).decode
