"""What ingest and join tell merge, on the `partials` topic: a pane's profile so far, what is known of its outcomes, and how far each has come."""

from __future__ import annotations

import msgspec

from monitor.errors import UnknownCodec
from monitor.stages.rows import row_key

CODEC_VERSION = 1


class Partial(msgspec.Struct, array_like=True, tag="p", frozen=True):
    """All rows of one pane that one source partition holds: cumulative, so the one with the greatest `hi` replaces the others.

    hi: last source offset folded in. first, last: offsets of the first and the last row.
    clock_before_ms: the partition's running maximum of event time before `first`. n: rows. lost: offsets that retention took.
    reference: sha256 of the reference whose layout the profile has, "" without one. chunk, chunks: which segment range this is.
    discovery: of a pane without a reference, what its rows look like. cut_ms: the rows are those that came late and before the watermark
    passed this time, nothing of it is in other partials; None for those that were on time.
    """

    source: str
    partition: int
    epoch: int
    hi: int
    model: str
    version: str
    start_ms: int
    size_ms: int
    first: int
    last: int
    clock_before_ms: int
    n: int
    lost: int
    reference: str
    settings: str
    chunk: int
    chunks: int
    profile: bytes
    discovery: bytes = b""
    cut_ms: int | None = None

    @property
    def end_ms(self) -> int:
        """Exclusive end of the pane."""
        return self.start_ms + self.size_ms

    @property
    def due_ms(self) -> int:
        """Which watermark says that it is complete."""
        return self.end_ms if self.cut_ms is None else self.cut_ms


class OutcomePartial(msgspec.Struct, array_like=True, tag="o", frozen=True):
    """What one partition of the join learnt of a pane's outcomes between two cuts: a difference, to be added to those of other cuts.

    partition: of the outcomes topic. hi: its last offset folded in. start_ms, size_ms: the pane in which the predictions were made.
    cut_ms: what is added was known when the join's clock passed this time, and not at the cut before it. reference: sha256 of the
    reference that fixes the cells. chunk, chunks: which part of the cells this is; they
    add up. cells: bytes of performance.OutcomeCells.
    """

    partition: int
    epoch: int
    hi: int
    model: str
    version: str
    start_ms: int
    size_ms: int
    cut_ms: int
    reference: str
    settings: str
    chunk: int
    chunks: int
    cells: bytes

    @property
    def end_ms(self) -> int:
        """Exclusive end of the pane."""
        return self.start_ms + self.size_ms


class Watermark(msgspec.Struct, array_like=True, tag="w", frozen=True):
    """Every partial of this source partition that is due at or before `closed[grace_ms]` has been sent.

    idle: nothing is open and nothing comes; the partition holds nobody back. partitions: how many the source has, 0 where that is not known.
    """

    source: str
    partition: int
    epoch: int
    hi: int
    closed: dict[int, int]
    idle: bool
    partitions: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Partial | OutcomePartial | Watermark)


def encode(item: Partial | OutcomePartial | Watermark) -> bytes:
    """Return version byte + msgpack."""
    return bytes([CODEC_VERSION]) + _encoder.encode(item)


def decode(data: bytes) -> Partial | OutcomePartial | Watermark:
    """Read what `encode` wrote. Raises UnknownCodec for another version."""
    if data[0] != CODEC_VERSION:
        raise UnknownCodec("a partial", data[0], [CODEC_VERSION])
    item: Partial | OutcomePartial | Watermark = _decoder.decode(memoryview(data)[1:])
    return item


def partial_key(partial: Partial) -> bytes:
    """Return the row key of a block of a partial."""
    pane = (partial.model, partial.version, partial.start_ms, partial.size_ms)
    cut = () if partial.cut_ms is None else (partial.cut_ms,)
    return row_key("partial", *pane, partial.source, partial.partition, partial.chunk, partial.hi, *cut)


def place_of(partial: Partial) -> str:
    """Return whose rows a partial has, of which the newest counts: a source partition's, or those that came late to it before a cut."""
    place = f"{partial.source}|{partial.partition}"
    return place if partial.cut_ms is None else f"{place}|{partial.cut_ms}"
