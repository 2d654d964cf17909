"""What published records have in common: their window, the id that makes a repeated record the same one, and their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import orjson

from monitor.windows import Window


class ResultWindow(msgspec.Struct, kw_only=True):
    """Event time, epoch milliseconds, half-open [start_ms, end_ms)."""

    start_ms: int
    end_ms: int
    size_ms: int
    step_ms: int

    @property
    def window(self) -> Window:
        """What it is the wire form of."""
        return Window(self.end_ms, self.size_ms, self.step_ms)


def result_window(window: Window) -> ResultWindow:
    """Return the wire form of a window."""
    return ResultWindow(start_ms=window.start_ms, end_ms=window.end_ms, size_ms=window.size_ms, step_ms=window.step_ms)


def record_id(*identity: str | int) -> str:
    """Return the id of what `identity` names, a revision's number last where there are any."""
    return hashlib.sha256(orjson.dumps(identity)).hexdigest()


def keyed(identity: Sequence[str | int], record: msgspec.Struct) -> tuple[bytes, bytes]:
    """Return (key, value) of a record: the same bytes for the same content."""
    return "|".join(map(str, identity)).encode(), _encode(record)


_encode = msgspec.json.Encoder(order="sorted").encode
