"""How a local store stands to its changelog: it holds exactly what the changelog had up to one offset, whoever wrote that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def follows(local: int | None, offsets: Sequence[int]) -> bool:
    """Whether sorted changelog offsets continue the local one without a gap (None: the changelog was empty).

    >>> follows(4, [5, 6, 7]), follows(4, [6, 7]), follows(4, [5, 7]), follows(None, [0]), follows(None, [1])
    (True, False, False, True, False)
    """
    return offsets[0] == (-1 if local is None else local) + 1 and offsets[-1] - offsets[0] + 1 == len(offsets)


def newest_of(records: Sequence[Any]) -> list[Any]:
    """Return the last record of each key, in order: rows that were written again and again cost one write, not one each.

    >>> from monitor.ports import StoredRecord
    >>> [r.offset for r in newest_of([StoredRecord(n, 0, b"", key) for n, key in enumerate((b"a", b"b", b"a", b"c", b"b"))])]
    [2, 3, 4]
    """
    newest: dict[bytes | None, Any] = {}
    for record in records:
        newest.pop(record.key, None)
        newest[record.key] = record
    return list(newest.values())
