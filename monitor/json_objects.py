"""A record's bytes → the fields of its JSON object, values unread, or the reason why there are none.

Every check is a function of the bytes alone, so that a replay rejects what the live run rejected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np

from monitor.event_time import INVALID_MS, time_ms
from monitor.events import Rejection, RejectionReason, Tick

MAX_DEPTH: Final = 500
"""Deeper nesting is malformed. The parser's own limit is what is left of Python's stack of 1,000: no function of the bytes."""

FAILURES: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises about the bytes that it is given."""

Fields = Mapping[str, msgspec.Raw]
"""The fields of an object, each a valid JSON text."""

_MISSING = object()
_BOM = b"\xef\xbb\xbf"
_OBJECT = ord("{")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"')
_OPENING, _CLOSING = b"[{", b"]}"

_any_json = msgspec.json.Decoder(msgspec.Raw).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def parse_fields(value: bytes | None, max_event_bytes: int) -> dict[str, msgspec.Raw] | Rejection:
    """Return the fields of an object, each a valid JSON text, or the first reason that applies; of equal names the last counts."""
    reason = _unreadable(value, max_event_bytes)
    if reason is not None or value is None:
        return Rejection(reason or RejectionReason.EMPTY)
    try:
        whole = _any_json(value.removeprefix(_BOM))
    except FAILURES:
        return Rejection(RejectionReason.MALFORMED_JSON)
    if _may_be_deep(value) and _depth(value) > MAX_DEPTH:
        return Rejection(RejectionReason.MALFORMED_JSON)
    return fields_of(whole) if is_object(whole) else Rejection(RejectionReason.NOT_AN_OBJECT)


def parse_record(value: bytes | None, max_event_bytes: int) -> dict[str, msgspec.Raw] | Tick | Rejection:
    """Return the fields of a record's object, the control record that it is, or the first reason why it is neither."""
    fields = parse_fields(value, max_event_bytes)
    tick = None if isinstance(fields, Rejection) else read_tick(fields)
    return fields if tick is None else tick


def _unreadable(value: bytes | None, max_event_bytes: int) -> RejectionReason | None:
    if not value:
        return RejectionReason.EMPTY
    if len(value) > max_event_bytes:
        return RejectionReason.TOO_LARGE
    return None if is_utf8(value) else RejectionReason.BAD_ENCODING


def fields_of(whole: msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the fields of an object that was parsed before."""
    return _fields(whole)


def is_object(raw: msgspec.Raw) -> bool:
    """Whether a JSON text, parsed before, is an object."""
    return memoryview(raw)[0] == _OBJECT


def needs_care(values: Sequence[bytes], max_event_bytes: int) -> list[int]:
    """Return the places of values that a decoder must not see before `parse_fields` did; quick when there are none."""
    care = []
    if not all(map(bytes.isascii, values)):
        care += [i for i, value in enumerate(values) if not is_utf8(value)]
    if max(map(len, values), default=0) > min(2 * MAX_DEPTH, max_event_bytes):
        care += [i for i, value in enumerate(values) if len(value) > max_event_bytes or _may_be_deep(value)]
    return care


def is_utf8(value: bytes) -> bool:
    """Whether the bytes are text; JSON parsers do not look into strings that they skip."""
    if value.isascii():
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _may_be_deep(value: bytes) -> bool:
    """Whether nesting could exceed MAX_DEPTH: a quick no for all usual events."""
    return len(value) > 2 * MAX_DEPTH and value.count(b"{") + value.count(b"[") > MAX_DEPTH


def _depth(value: bytes) -> int:
    """Return how deep valid JSON is nested."""
    structure = np.frombuffer(_STRING.sub(b"", value), np.uint8)
    steps = np.isin(structure, list(_OPENING)).astype(np.int64) - np.isin(structure, list(_CLOSING))
    return int(np.cumsum(steps).max(initial=0))


def typed(fields: Fields, name: str, wanted: Any, *, null: Any = _MISSING) -> Any:
    """Return a field's value, or the Rejection that it earns; null is `null` where that is given, and missing otherwise."""
    raw = fields.get(name)
    if raw is None or bytes(raw) == b"null":
        return Rejection(RejectionReason.MISSING_FIELD, name) if raw is None or null is _MISSING else null
    try:
        return _decoder(wanted)(raw)
    except FAILURES:
        return Rejection(RejectionReason.WRONG_TYPE, name)


@lru_cache(maxsize=64)
def _decoder(wanted: Any) -> Callable[[msgspec.Raw], Any]:
    return msgspec.json.Decoder(wanted).decode


def read_tick(fields: Fields) -> Tick | Rejection | None:
    """Return the control record that an object with the only field `tick` is, or why it is none; None for another object."""
    if fields.keys() != {"tick"}:
        return None
    tick = typed(fields, "tick", int)
    if isinstance(tick, Rejection):
        return tick
    if time_ms(tick, "ms") == INVALID_MS:
        return Rejection(RejectionReason.INVALID_TIME, "tick")
    return Tick(tick=tick)
