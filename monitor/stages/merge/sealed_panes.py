"""Sealed panes, and what each source partition put into them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from monitor.stages import partials
from monitor.stages.rows import row_key
from monitor.windows import NEVER_MS


class Share(msgspec.Struct, array_like=True):
    """What a partial put into a sealed pane: its last offset folded, its rows, and their first and last offset."""

    hi: int
    n: int
    first: int
    last: int


class Sealed(msgspec.Struct, array_like=True):
    """A pane of one model version, merged over source partitions: (reference sha256, profile) in the order of the references.

    shares: by place, see `place_of`.
    """

    profiles: list[tuple[str, bytes]]
    shares: dict[str, Share]
    lost: int
    cut_ms: int = NEVER_MS
    """When late rows were added last."""


def sealed_key(model: str, version: str, start_ms: int, size_ms: int, cut_ms: int = NEVER_MS) -> bytes:
    """Return the row key of a sealed pane.

    After each cut that added late rows it is another one: the row before must not be lost before meta covers what replaces it.
    """
    cut = () if cut_ms == NEVER_MS else (cut_ms,)
    return row_key("sealed", model, version, start_ms, size_ms, *cut)


def share_of(partial: partials.Partial) -> Share:
    """Return what a partial contributes."""
    return Share(partial.hi, partial.n, partial.first, partial.last)


def spans(shares: Mapping[str, Share], into: dict[str, dict[str, list[int]]]) -> None:
    """Widen topic → partition → [first, last] offset by the shares of a pane."""
    for place, share in shares.items():
        source, partition = place.split("|")[:2]
        span = into.setdefault(source, {}).setdefault(partition, [share.first, share.last])
        span[:] = [min(span[0], share.first), max(span[1], share.last)]


def count_rows(shares: Mapping[str, Share], into: dict[str, dict[str, int]]) -> None:
    """Add the rows of a pane's shares to topic → partition → rows."""
    for place, share in shares.items():
        if share.n:
            source, partition = place.split("|")[:2]
            rows = into.setdefault(source, {})
            rows[partition] = rows.get(partition, 0) + share.n
