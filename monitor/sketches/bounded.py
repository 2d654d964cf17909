"""Counts by key that keep the k keys with the smallest hashes: bounded, mergeable, and never first come, first served.

The kept set is a function of the set of keys alone. A key among the k smallest of all is among the k smallest of every part that has
it, so its count after merging is complete whatever the order and the partitioning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b

DEFAULT_BOUND = 64


def key_hash(text: str) -> int:
    """Return a 64-bit hash of a key, the same on every machine."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def smallest(counts: Mapping[int, int], bound: int = DEFAULT_BOUND) -> dict[int, int]:
    """Return the `bound` smallest keys with their counts, sorted by key.

    >>> smallest({5: 1, 3: 2, 9: 4}, bound=2)
    {3: 2, 5: 1}
    """
    return {key: counts[key] for key in sorted(counts)[:bound]}


def merged(parts: Iterable[Mapping[int, int]], bound: int = DEFAULT_BOUND) -> dict[int, int]:
    """Add counts by key and keep the `bound` smallest keys."""
    total: dict[int, int] = {}
    for part in parts:
        for key, count in part.items():
            total[key] = total.get(key, 0) + count
    return smallest(total, bound)
