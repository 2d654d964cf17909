"""LEB128 for arrays of counts: one byte for a count below 128, two below 16,384; by the compiled part, or vectorised, both ways."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.columns import Int
from monitor.compiled import counting as native

_UNSIGNED = frozenset(map(np.dtype, (np.uint16, np.uint32, np.uint64)))


def encode(counts: npt.NDArray[np.integer]) -> bytes:
    r"""Return the bytes of non-negative counts, of any type of integers, shape (n,).

    >>> encode(np.array([1, 300]))
    b'\x01\xac\x02'
    """
    if not len(counts):
        return b""
    values = counts if counts.dtype in _UNSIGNED else np.asarray(counts, np.int64).view(np.uint64)
    if native is not None:
        return native.varints(np.ascontiguousarray(values))
    most = int(values.max())
    if most < 1 << 7:
        return values.astype(np.uint8).tobytes()
    if most < 1 << 14:
        values = values.astype("<u2")
        is_wide = values > 0x7F
        pairs = ((values & 0x7F) | (values >> 7 << 8) | is_wide.astype("<u2") << 7).view(np.uint8).reshape(len(values), 2)
        keep = np.ones(pairs.shape, bool)
        keep[:, 1] = is_wide
        return pairs[keep].tobytes()
    values = values.astype(np.uint64)
    width = -(-most.bit_length() // 7)
    planes = np.empty((len(values), width), np.uint8)
    keep = np.empty((len(values), width), bool)
    for i in range(width):
        planes[:, i] = (values >> np.uint64(7 * i)).astype(np.uint8) & 0x7F
        keep[:, i] = values >= np.uint64(1 << (7 * i)) if i else True
    planes[:, :-1] |= keep[:, 1:].astype(np.uint8) << 7
    return planes[keep].tobytes()


def decode(data: bytes, n: int) -> Int:
    """Return n counts, shape (n,) int64. Raises ValueError when `data` does not hold exactly n."""
    if native is not None:
        counts = np.empty(n, np.int64)
        if not native.read_varints(data, counts.view(np.uint64)):
            raise ValueError(f"{len(data)} bytes do not hold {n} counts")
        return counts
    raw = np.frombuffer(data, np.uint8)
    last = raw < 0x80
    if int(last.sum()) != n or (n and not last[-1]) or (not n and len(raw)):
        raise ValueError(f"{len(data)} bytes do not hold {n} counts")
    if not n:
        return np.zeros(0, np.int64)
    starts = np.concatenate(([0], np.flatnonzero(last)[:-1] + 1))
    position = np.arange(len(raw)) - np.repeat(starts, np.diff(np.append(starts, len(raw))))
    return np.add.reduceat((raw & 0x7F).astype(np.int64) << (7 * position), starts)
