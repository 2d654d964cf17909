"""What ingest tells the join, on the `outcomes` topic: the predictions and labels of a range of a source partition's log, packed.

One partition of `outcomes` has the ids whose hash falls there, and from every source partition every range, with or without rows: what
was taken is known by the offset up to which a source partition was told, so that a range that comes twice is taken once.
"""

from __future__ import annotations

import msgspec
import numpy as np

from monitor.columns import Codes, Float, Int
from monitor.errors import UnknownCodec
from monitor.events import Outcome
from monitor.hash_key import DIGEST_BYTES

CODEC_VERSION = 1


class Predictions(msgspec.Struct, array_like=True, frozen=True):
    """Rows of one pane of a model version that a label may find, by rising offset. Arrays are little-endian.

    ids: (n, 16) bytes. offsets, times: (n,) int64. predicted: (n,) int32 codes of classes, or float64 numbers. scores: (n, k) float64.
    segments: (n, s) uint16, a segment for each segmentation. All are as the `PerformanceSpec` of the reference has them.
    """

    model: str
    version: str
    start_ms: int
    reference: str
    ids: bytes
    offsets: bytes
    times: bytes
    predicted: bytes
    scores: bytes
    segments: bytes

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.ids) // DIGEST_BYTES

    def columns(self) -> tuple[Int, Int, Int | Float, Float, Codes]:
        """Return offsets, times, predicted, scores and segments as arrays."""
        n = self.n
        kind = "<i4" if len(self.predicted) == 4 * n else "<f8"
        return (
            np.frombuffer(self.offsets, "<i8"),
            np.frombuffer(self.times, "<i8"),
            np.frombuffer(self.predicted, kind),
            np.frombuffer(self.scores, "<f8").reshape(n, -1),
            np.frombuffer(self.segments, "<u2").reshape(n, -1),
        )


class Labels(msgspec.Struct, array_like=True, frozen=True):
    """Labels of one model, by rising offset; arrays as of `Predictions`."""

    model: str
    ids: bytes
    offsets: bytes
    times: bytes
    values: list[Outcome]

    @property
    def n(self) -> int:
        """Labels."""
        return len(self.values)


class Range(msgspec.Struct, array_like=True, frozen=True):
    """What a source partition has after `from_offset` and up to `to_offset`, of those ids that belong here.

    epoch: of its owner. closed, idle: as a `partials.Watermark` says them, once this range is taken; closed is None where the rest of the
    range follows. partitions: how many the source has.
    """

    source: str
    partition: int
    epoch: int
    from_offset: int
    to_offset: int
    closed: dict[int, int] | None
    idle: bool
    partitions: int
    predictions: list[Predictions] = []
    labels: list[Labels] = []

    @property
    def place(self) -> str:
        """Name of the source partition."""
        return f"{self.source}|{self.partition}"


def partition_of(ids: Codes, partitions: int) -> Int:
    """Return the partition of `outcomes` for each hash of an id, shape (n, 16); shape (n,)."""
    first = np.ascontiguousarray(ids[:, :8]).view(">u8").ravel()
    found: Int = (first % np.uint64(partitions)).astype(np.int64)
    return found


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Range)


def encode(item: Range) -> bytes:
    """Return version byte + msgpack."""
    return bytes([CODEC_VERSION]) + _encoder.encode(item)


def decode(data: bytes) -> Range:
    """Read what `encode` wrote. Raises UnknownCodec for another version."""
    if data[0] != CODEC_VERSION:
        raise UnknownCodec("a range of outcomes", data[0], [CODEC_VERSION])
    return _decoder.decode(memoryview(data)[1:])
