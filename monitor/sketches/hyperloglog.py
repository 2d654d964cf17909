"""How many different values there are: HyperLogLog registers, merged by maximum, so that equal sets give equal bytes in any order.

Flajolet, Fusy, Gandouet, Meunier (2007), with Ertl's improved estimator (2017, arXiv:1702.01284, algorithm 6), which needs no bias tables
and no switch to linear counting: its error is the same from a handful of values to 2^60.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from monitor.columns import Codes

Hashes = npt.NDArray[np.uint64]

LG_K = 12
RELATIVE_STANDARD_ERROR = 1.04 / math.sqrt(1 << LG_K)
"""0.01625; of a few values much less."""

_HASH_BITS = 64
_RANK_BITS = 52  # of a hash's end: a double holds them exactly
_SPARSE_SHARE = 16
"""Up to a sixteenth of the registers are stored one by one: beyond, zstd packs the whole array into less."""
_ALPHA_INFINITY = 0.5 / math.log(2)


class HyperLogLog:
    """2^lg_k registers over 64-bit hashes; none are held while nothing was added.

    A hash's first lg_k bits name a register, which keeps the greatest position of the first one-bit among its last 52. Cost: 4 kB at
    lg_k = 12, about 25 ns per hash; stored: 3 bytes per register in use while these are few, at most about 2 kB packed.
    """

    __slots__ = ("_lg_k", "_registers")

    def __init__(self, lg_k: int = LG_K) -> None:
        self._lg_k = lg_k
        self._registers: Codes | None = None

    def add(self, hashes: Hashes) -> None:
        """Take in hashes, shape (n,) uint64; repeated ones change nothing."""
        if not len(hashes):
            return
        rest = hashes & np.uint64((1 << self._rank_bits) - 1)
        _, width = np.frexp(rest.astype(np.float64))  # in bits, 0 of 0
        ranks = (self._rank_bits + 1 - width).astype(np.uint8)
        np.maximum.at(self._own(), (hashes >> np.uint64(_HASH_BITS - self._lg_k)).astype(np.intp), ranks)

    @property
    def _rank_bits(self) -> int:
        return min(_RANK_BITS, _HASH_BITS - self._lg_k)

    def _own(self) -> Codes:
        if self._registers is None:
            self._registers = np.zeros(1 << self._lg_k, np.uint8)
        return self._registers

    def merge(self, other: HyperLogLog) -> None:
        """Add another one's values. Raises ValueError for another number of registers."""
        if other._lg_k != self._lg_k:
            raise ValueError(f"2^{other._lg_k} registers cannot be merged into 2^{self._lg_k}")
        if other._registers is not None:
            np.maximum(self._own(), other._registers, out=self._own())

    def estimate(self) -> float:
        """Return the number of different values; relative standard error `RELATIVE_STANDARD_ERROR` at lg_k = 12.

        >>> sketch = HyperLogLog()
        >>> sketch.add(np.array([1, 2 ** 63, 1], np.uint64))
        >>> round(sketch.estimate(), 2)
        2.0
        """
        if self._registers is None:
            return 0.0
        m, top = 1 << self._lg_k, self._rank_bits + 1
        counts = np.bincount(self._registers, minlength=top + 1).tolist()
        z = m * _tau(1 - counts[top] / m)
        for n in counts[top - 1 : 0 : -1]:
            z = 0.5 * (z + n)
        return _ALPHA_INFINITY * m * m / (z + m * _sigma(counts[0] / m))

    def to_wire(self) -> bytes:
        """Return b"" of nothing; (index low, index high, register) by place while few registers are in use; else all registers."""
        if self._registers is None:
            return b""
        used = np.flatnonzero(self._registers)
        if len(used) > len(self._registers) // _SPARSE_SHARE:
            return self._registers.tobytes()
        return np.concatenate(((used & 0xFF).astype(np.uint8), (used >> 8).astype(np.uint8), self._registers[used])).tobytes()

    @classmethod
    def from_wire(cls, data: bytes, lg_k: int = LG_K) -> HyperLogLog:
        """Read what `to_wire` wrote. Raises ValueError for bytes of another length than it writes."""
        sketch, k = cls(lg_k), 1 << lg_k
        if len(data) == k:
            sketch._registers = np.frombuffer(data, np.uint8).copy()
        elif len(data) % 3 == 0 and len(data) <= 3 * k // _SPARSE_SHARE:
            if data:
                low, high, values = np.frombuffer(data, np.uint8).reshape(3, -1)
                sketch._own()[low | high.astype(np.intp) << 8] = values
        else:
            raise ValueError(
                f"{len(data)} bytes are no registers: {k}, or 3 for each of at most {k // _SPARSE_SHARE}, were expected"
            )
        return sketch


def _sigma(x: float) -> float:
    """Σ of x + Σ x^(2^k)·2^(k−1), k ≥ 1; inf at 1 (Ertl, equation 13)."""
    if x == 1.0:
        return math.inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x, before = x * x, z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    """Return (1 − x − Σ (1 − x^(2^−k))²·2^(−k), k ≥ 1) / 3 (Ertl, equation 14)."""
    if x in {0.0, 1.0}:
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while z != before:
        x, before = math.sqrt(x), z
        y *= 0.5
        z -= (1 - x) ** 2 * y
    return z / 3
