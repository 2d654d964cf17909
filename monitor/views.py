"""Values of the richer kinds → columns of numbers and categories; the reader of events and the builder of references share it.

A source's values are of its type (`wire_type`; of a list its length), None where the event has null, or `NoValue`. A column of numbers
tells by NaN, inf and −inf what is missing, absent and of a wrong type: no view of a value is one of these.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec
import numpy as np
from msgspec import structs

from monitor import event_time
from monitor.columns import Codes, Float, Int, NoValue, Special
from monitor.event_time import EARLIEST_MS, INVALID_MS
from monitor.features import (
    CategoryFeature,
    Feature,
    FeatureKind,
    NumberFeature,
    TimestampUnit,
    ValueType,
    ViewName,
    canonical,
    source_of,
    view_name,
)
from monitor.layout import Layout
from monitor.sketches import varint

MISSING, ABSENT, WRONG_TYPE = math.nan, math.inf, -math.inf

WireType = Literal["string", "number", "boolean", "list"]

HEAD_CHARS: Final = 4_096
"""Tokens and alphabet are of the first so many characters of a text, so that a long one costs no more than a page."""

TOKEN_BITS: Final = 22
"""Of a token's hash: a vocabulary of 5,000 takes 10 kB, and knows 0.12 % of the tokens that it does not have."""

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_MAX_REMEMBERED = 1 << 16

ALPHABETS: Final = ("empty", "digits", "latin", "other", "mixed", "symbols", "markup")

_LATIN_LETTERS = r"A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02b8\u1e00-\u1eff\u2c60-\u2c7f\ua722-\ua787\ua78b-\ua7ff\uff21-\uff3a\uff41-\uff5a"
_LATIN = re.compile(f"[{_LATIN_LETTERS}]")
_OTHER_LETTER = re.compile(rf"[^\W\d_{_LATIN_LETTERS}]")
_DIGIT = re.compile(r"\d")
_MARKUP = re.compile(r"<(?:[A-Za-z/!?])[^<>]*>|&(?:#\d+|#x[0-9A-Fa-f]+|[A-Za-z]+);")

_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}").match
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def wire_type(feature: Feature) -> WireType:
    """Return what the value of a feature's source must be in an event."""
    if feature.source_kind == "list":
        return "list"
    if feature.source_kind == "text":
        return "string"
    if isinstance(feature, CategoryFeature):
        return feature.value_type
    return "string" if feature.unit == "iso8601" else "number"


def primary_features(layout: Layout) -> dict[str, Feature]:
    """Return name in the event → the feature of the layout that says what the source is: its primary view."""
    found: dict[str, Feature] = {}
    for feature in layout.features:
        if not feature.is_secondary:
            found[source_of(feature)] = feature
    return {source_of(f): found.get(source_of(f), f) for f in layout.features}


def views_of(
    name: str, kind: FeatureKind, *, value_type: ValueType = "string", unit: TimestampUnit | None = None
) -> list[Feature]:
    """Return the views of a feature, its primary one first, without what its rows say.

    >>> [feature.name for feature in views_of("comment", "text")]
    ['comment#length', 'comment#alphabet', 'comment#unseen_ratio']
    """
    if kind == "identifier":
        value = CategoryFeature(name=name, values=(), value_type=value_type, is_open=True, source_kind="identifier")
        return [value, structs.replace(_number(name, kind, "length"), is_secondary=True)]
    if kind == "timestamp":
        return [structs.replace(_number(name, kind, "age_s"), unit=unit or "iso8601")]
    if kind == "list":
        return [_number(name, kind, "length")]
    alphabet = CategoryFeature(
        name=view_name(name, "alphabet"), values=(), source=name, source_kind="text", view="alphabet", is_secondary=True
    )
    return [
        _number(name, "text", "length"),
        alphabet,
        structs.replace(_number(name, "text", "unseen_ratio"), is_secondary=True),
    ]


def _number(name: str, kind: FeatureKind, view: ViewName) -> NumberFeature:
    assert kind in ("identifier", "text", "timestamp", "list")
    return NumberFeature(
        name=view_name(name, view),
        edges=(),
        reported=(),
        minimum=0.0,
        maximum=0.0,
        centre=0.0,
        exponent=0,
        source=name,
        source_kind=kind,
        view=view,
    )


def number_view(feature: NumberFeature, values: Sequence[Any], times_ms: Callable[[], Int | Float]) -> Float:
    """Return a view of every value, shape (n,) float64; `times_ms` gives the events' times, shape (n,)."""
    if feature.view == "age_s":
        unit = feature.unit or "iso8601"
        moments = _measured(values, lambda value: moment_ms(value, unit))
        return np.where(np.isfinite(moments), (times_ms() - moments) / 1_000, moments)
    if feature.view == "unseen_ratio":
        return _measured(values, _vocabulary(feature.vocabulary).unseen_ratio)
    return _measured(values, float if feature.source_kind == "list" else length)


def category_view(feature: CategoryFeature, values: Sequence[Any]) -> list[object]:
    """Return a view of every value: a text, None or `NoValue`."""
    assert feature.view == "alphabet"
    return [value if value is None or type(value) is NoValue else alphabet(value) for value in values]


def _measured(values: Sequence[Any], measure: Callable[[Any], float]) -> Float:
    return np.array([measure(v) if type(v) is not NoValue and v is not None else _mark(v) for v in values], np.float64)


def _mark(value: NoValue | None) -> float:
    return MISSING if value is None else ABSENT if value is NoValue.ABSENT else WRONG_TYPE


def specials_of(numbers: Float) -> Codes | None:
    """Return the codes of a column in which NaN, inf and −inf are marks; None when all are values.

    >>> specials_of(np.array([[1.0, MISSING, ABSENT]])).tolist()
    [[0, 1, 2]]
    """
    if np.isfinite(numbers).all():
        return None
    specials = np.zeros(numbers.shape, np.uint8)
    specials[np.isnan(numbers)] = Special.MISSING
    specials[numbers == ABSENT] = Special.ABSENT
    specials[numbers == WRONG_TYPE] = Special.WRONG_TYPE
    return specials


def length(value: Any) -> int:
    """Return the characters (code points) of a text, or of a number's text.

    >>> length("naïve"), length(4711.0)
    (5, 4)
    """
    return len(canonical(value))


def alphabet(text: str) -> str:
    """Return what the first `HEAD_CHARS` characters of a text are written in, one of `ALPHABETS`.

    `empty`: nothing but white space. `markup`: has a tag or an entity of HTML. Else by its letters: `latin`, `other` (none of them
    Latin), `mixed`; without letters `digits` if there is one, else `symbols` (punctuation, emoji).

    >>> [alphabet(text) for text in (" ", "+49 30", "Größe 3", "привет", "привет Bob", "?!", "a <b>c</b>", "1 < 2")]
    ['empty', 'digits', 'latin', 'other', 'mixed', 'symbols', 'markup', 'digits']
    """
    head = text[:HEAD_CHARS]
    if not head or head.isspace():
        return "empty"
    if ("<" in head or "&" in head) and _MARKUP.search(head):
        return "markup"
    has_latin = _LATIN.search(head) is not None
    if not head.isascii() and _OTHER_LETTER.search(head):
        return "mixed" if has_latin else "other"
    if has_latin:
        return "latin"
    return "digits" if _DIGIT.search(head) else "symbols"


def moment_ms(value: Any, unit: TimestampUnit) -> float:
    """Return a timestamp in epoch milliseconds, rounded down, or `WRONG_TYPE` for what is none of the years 1900 to 9999.

    A text is an ISO 8601 date or time that begins as 2025-01-31 does; UTC unless it carries an offset.

    >>> moment_ms("1970-01-02", "iso8601"), moment_ms("1970-01-01T01:00:00+01:00", "iso8601"), moment_ms(1.5, "s")
    (86400000, 0, 1500)
    >>> moment_ms("19700102", "iso8601")
    -inf
    """
    if unit != "iso8601":
        found = event_time.time_ms(value, unit)
        return WRONG_TYPE if found == INVALID_MS else found
    try:
        if not _ISO_DATE(value):
            return WRONG_TYPE
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        found = (moment - _EPOCH) // _MS
    except (ValueError, OverflowError):
        return WRONG_TYPE
    return found if EARLIEST_MS <= found < INVALID_MS else WRONG_TYPE


def tokens(text: str) -> list[str]:
    """Return the words of the first `HEAD_CHARS` characters, lower case: runs of letters, digits and _; every Chinese or Japanese sign.

    >>> tokens("It's 9 o'clock"), tokens("東京 Tower")
    (['it', 's', '9', 'o', 'clock'], ['東', '京', 'tower'])
    """
    return _TOKEN.findall(text[:HEAD_CHARS].lower())


def token_hash(token: str) -> int:
    """Return `TOKEN_BITS` bits of a token's CRC-32: so few that many words share them, and none can be read out of a reference."""
    return zlib.crc32(token.encode("utf-8", "surrogatepass")) & ((1 << TOKEN_BITS) - 1)


def vocabulary_bytes(hashes: Iterable[int]) -> bytes:
    """Return the bytes of a set of token hashes: varints of the differences."""
    ordered = np.array([0, *sorted(set(hashes))], np.int64)
    return varint.encode(ordered[1:] - ordered[:-1])


class _Vocabulary(dict[str, bool]):
    """Token → whether the vocabulary lacks it; remembers the last tokens that it was asked for."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        n = int((np.frombuffer(data, np.uint8) < 0x80).sum())
        self._known = frozenset(np.cumsum(varint.decode(data, n)).tolist())

    def __missing__(self, token: str) -> bool:
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        self[token] = is_unseen = token_hash(token) not in self._known
        return is_unseen

    def unseen_ratio(self, text: str) -> float:
        """Return the share of a text's tokens that are not in the vocabulary; 0 for a text without tokens."""
        found = tokens(text)
        return sum(map(self.__getitem__, found)) / len(found) if found else 0.0


@lru_cache(maxsize=256)
def _vocabulary(data: bytes) -> _Vocabulary:
    return _Vocabulary(data)


def confidence(scores: object, score: object) -> object:
    """Return the largest of the scores by class, or the score of an event without them.

    scores: class → number, None or `NoValue.WRONG_TYPE`; or what stands in its place. Null if no class has a number, of a wrong type
    if a class has something else.

    >>> confidence({"a": 0.2, "b": 0.7, "c": None}, 0.1), confidence(None, 0.1), confidence({}, 0.1)
    (0.7, 0.1, None)
    """
    if scores is None or scores is msgspec.UNSET:
        return score
    if not isinstance(scores, Mapping):
        return NoValue.WRONG_TYPE
    numbers = [value for value in scores.values() if type(value) in (float, int)]
    if numbers:
        return max(numbers)
    return NoValue.WRONG_TYPE if any(value is not None for value in scores.values()) else None


def checked(value: Any, wanted: ValueType) -> object:
    """Return a value that is of the wanted type, null or `NoValue` as it is, and else the `NoValue` that it counts as.

    >>> checked(3, "number"), checked(True, "number"), checked(msgspec.UNSET, "string")
    (3, <NoValue.WRONG_TYPE: 'wrong_type'>, <NoValue.ABSENT: 'absent'>)
    """
    if value is None or type(value) in _python_types[wanted] or isinstance(value, NoValue):
        return value
    return NoValue.ABSENT if value is msgspec.UNSET else NoValue.WRONG_TYPE


_python_types: dict[ValueType, tuple[type, ...]] = {"string": (str,), "number": (int, float), "boolean": (bool,)}
