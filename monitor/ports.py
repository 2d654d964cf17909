"""What the pure core asks of the world, as protocols: a record, a checkpoint, a message, a partition stage.

The runtime drives any `PartitionStage` the same way; the core never knows which broker is under it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

LOG_APPEND_TIME = 1
"""`Record.timestamp_type` of a topic whose broker stamps records itself (Kafka message format)."""


class Record(Protocol):
    """One record of a topic partition, as a Kafka client delivers it."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Record timestamp, epoch milliseconds."""
        ...

    @property
    def timestamp_type(self) -> int | None:
        """0 create time, 1 log-append time."""
        ...

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record held in memory: replay, tests and the embedded simulation use it."""

    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None = None
    timestamp_type: int | None = 0


@dataclass(frozen=True, slots=True)
class Message:
    """One record to publish. `partition` None leaves the choice to the producer's murmur2 of the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Mapping[str, bytes] = field(default_factory=dict)
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What one checkpoint of a partition writes, in this order: `rows`, then `meta` once all rows are acknowledged.

    `rows` are (key, value) pairs, value None is a tombstone. Order inside `rows` is free.
    `hi` is the source offset that `meta` covers.
    `dead_letters` and `outcomes` must be acknowledged by the broker before `meta` is sent.
    """

    rows: tuple[tuple[bytes, bytes | None], ...]
    meta: tuple[bytes, bytes]
    hi: int
    dead_letters: tuple[Message, ...] = ()
    outcomes: tuple[Message, ...] = ()

    @property
    def before_meta(self) -> tuple[Message, ...]:
        """What must be acknowledged first."""
        return self.dead_letters + self.outcomes


@dataclass(frozen=True, slots=True)
class Outbox:
    """Messages that a durable checkpoint allows to be sent.

    All of `first` must be acknowledged before any of `then` is sent (partials before their watermark).
    """

    first: tuple[Message, ...] = ()
    then: tuple[Message, ...] = ()
    token: object = None

    def __bool__(self) -> bool:
        return bool(self.first or self.then)


class PartitionStage(Protocol):
    """Pure state machine of one partition of one topic, owned in one consumer-group generation.

    The driver calls, always under the partition's lock:
    `feed` for every batch; then every tick: `advance`, `checkpoint` → make it durable → `committed`,
    `outbox` → send and await → `emitted` while there is something. Any exception out of these ends the process.
    """

    @property
    def next_offset(self) -> int:
        """Offset to read next (`meta.hi + 1`); -1 when nothing was ever read: the driver then calls `skip_to` with the start."""
        ...

    def feed(self, records: Sequence[Record], now_ms: int) -> None:
        """Fold a batch in offset order; records below `next_offset` are skipped.

        Raises `OffsetGap` (before any effect) when the batch leaves offsets out: the driver asks the broker whether the gap
        is real, and then calls `skip_to`, or ends the process.
        """
        ...

    def skip_to(self, offset: int, *, lost: bool = False) -> None:
        """Declare offsets `next_offset … offset - 1` as holding no record (`lost=True`: retention took them)."""
        ...

    def is_quiet(self, now_ms: int) -> bool:
        """Whether no data came for `idle_after`, so that the driver should ask the broker for the end offset."""
        ...

    def advance(self, now_ms: int, *, at_end: bool, end: int | None = None) -> None:
        """Let time pass; `at_end`: a read from `next_offset` to the broker's end, asked after `is_quiet`, found nothing.

        end: offset at which the log ended not long ago; None: not known.
        """
        ...

    @property
    def wants_checkpoint(self) -> bool:
        """Whether something could be sent once what is in memory is durable."""
        ...

    def checkpoint(self) -> Checkpoint | None:
        """Snapshot what changed since the last one; None when nothing did."""
        ...

    def committed(self, checkpoint: Checkpoint) -> None:
        """The checkpoint is durable in changelog and local store."""
        ...

    def outbox(self, now_ms: int) -> Outbox:
        """What may be sent now; only durable content. Empty when there is nothing; asked again after `emitted`, it says what is next."""
        ...

    def emitted(self, outbox: Outbox, now_ms: int) -> None:
        """All of the outbox was acknowledged."""
        ...

    def counters(self) -> Mapping[tuple[str, ...], int]:
        """Monotone counts for telemetry, such as ("events", model, outcome) → n."""
        ...

    def gauges(self) -> Mapping[tuple[str, ...], float]:
        """Current values for telemetry, such as ("watermark_ms",)."""
        ...

    def memory(self) -> Mapping[str, int]:
        """Bytes by what takes them, such as "panes", about."""
        ...


class Pending(Protocol):
    """What a join keeps by prediction id: entries under keys of 16 bytes, and beside them how far they go.

    It is no source of truth: it is a function of the log up to what `state` says, and is made anew from there when it is lost.
    """

    @property
    def state(self) -> bytes | None:
        """What was written beside the entries last; None when there is nothing."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the entry of each key, None where there is none."""
        ...

    def write(self, entries: Mapping[bytes, bytes | None], state: bytes) -> None:
        """Write entries (None: delete) and `state`, at once or not at all."""
        ...

    def scan(self, after: bytes, n: int) -> list[tuple[bytes, bytes]]:
        """Return the first `n` entries whose keys are greater than `after`, by key."""
        ...

    def clear(self) -> None:
        """Remove everything."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """A stage of which a batch may take long: a watermark that ends the windows of a hundred models."""

    def steps(self, records: Sequence[Record], now_ms: int) -> Iterator[None]:
        """Do what `feed` does, a part with each step. To be gone through to its end before anything else is asked of the stage."""
        ...


class RowScan(Protocol):
    """A local store's rows of one partition: (key, value), any order, every epoch."""

    def __call__(self) -> Iterator[tuple[bytes, bytes]] | Iterable[tuple[bytes, bytes]]: ...
