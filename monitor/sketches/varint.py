"""LEB128 for arrays of counts: one byte for a count below 128, two below 16,384; vectorised both ways."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monitor.columns import Int

FEW_WIDE = 64
"""Counts above 127, so many or fewer, are put in one by one."""


def encode(counts: npt.NDArray[np.integer]) -> bytes:
    r"""Return the bytes of non-negative counts, of any type of integers, shape (n,).

    >>> encode(np.array([1, 300]))
    b'\x01\xac\x02'
    """
    if not len(counts):
        return b""
    values = counts if counts.dtype.kind == "u" else np.ascontiguousarray(counts, np.int64).view(np.uint64)
    most = int(values.max())
    if most < 1 << 7:
        return values.astype(np.uint8).tobytes()
    if most < 1 << 14:
        wide = np.flatnonzero(values > 0x7F)
        if len(wide) <= FEW_WIDE:
            return _mostly_narrow(values, wide)
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


def _mostly_narrow(values: npt.NDArray[np.integer], wide: Int) -> bytes:
    """Return the bytes of counts below 2^14, of which those at some places need two."""
    low = values.astype(np.uint8)
    low[wide] |= 0x80
    high = (values[wide] >> values.dtype.type(7)).astype(np.uint8).tobytes()
    narrow, parts, begin = low.tobytes(), list[bytes](), 0
    for i, end in enumerate((wide + 1).tolist()):
        parts += (narrow[begin:end], high[i : i + 1])
        begin = end
    return b"".join((*parts, narrow[begin:]))


def decode(data: bytes, n: int) -> Int:
    """Return n counts, shape (n,) int64. Raises ValueError when `data` does not hold exactly n."""
    raw = np.frombuffer(data, np.uint8)
    last = raw < 0x80
    if int(last.sum()) != n or (n and not last[-1]) or (not n and len(raw)):
        raise ValueError(f"{int(last.sum())} counts where {n} were expected")
    if not n:
        return np.zeros(0, np.int64)
    starts = np.concatenate(([0], np.flatnonzero(last)[:-1] + 1))
    position = np.arange(len(raw)) - np.repeat(starts, np.diff(np.append(starts, len(raw))))
    return np.add.reduceat((raw & 0x7F).astype(np.int64) << (7 * position), starts)
