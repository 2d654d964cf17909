"""What a column is: rules on measured facts, none of which depends on the order of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow.compute as pc

from monitor.cells import FEW_VALUES, IDENTIFIER_ROWS, IDENTIFIER_SHARE, NUMBERS, TEXT_SHARE, TEXT_WORDS
from monitor.errors import InputError
from monitor.features import AskedKind, FeatureKind

KNOWN_SHARE = 0.5
"""It is an identifier, too, where the values that a dictionary and its hashes can know are less than this share of the rows."""

_WORD = r"\p{Han}|\p{Hiragana}|\p{Katakana}|[^\s\p{Han}\p{Hiragana}\p{Katakana}]+"
_ISO = (
    r"^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
    r"(?:[T ](?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d{2}(?::?\d{2})?)?)?$"
)

_SOURCES: dict[AskedKind, tuple[str, ...]] = {
    **dict.fromkeys(NUMBERS, ("number",)),
    "boolean": ("boolean",),
    "category": ("string", "number", "boolean"),
    "identifier": ("string", "number"),
    "text": ("string",),
    "timestamp": ("timestamp", "string", "number"),
    "list": ("list",),
}
"""What a column must hold to be of a kind."""

_NAMES = {"string": "texts", "number": "numbers", "boolean": "booleans", "timestamp": "timestamps", "list": "lists"}


class Inferred(NamedTuple):
    """What a column is, and why."""

    kind: FeatureKind
    why: str


class LeftOut(Exception):
    """A column cannot be a feature; the message says why."""


@dataclass(slots=True)
class TextFacts:
    """What the values of a column of texts look like, over all rows."""

    rows: int = 0
    words: int = 0
    is_iso: bool = True
    """Every value is an ISO 8601 date or time."""

    def add(self, values: Any, counts: Any) -> None:
        """Take different texts in, with the rows of each; pyarrow arrays without nulls."""
        self.rows += pc.sum(counts).as_py() or 0
        self.words += pc.sum(pc.multiply(pc.count_substring_regex(values, _WORD), counts)).as_py() or 0
        self.is_iso = self.is_iso and bool(pc.all(pc.match_substring_regex(values, _ISO)).as_py())

    def kind(self, distinct: int | None, known_rows: int, *, has_time: bool) -> Inferred:
        """Return what the column is. distinct: different values, None where there are more than can be counted.

        known_rows: rows whose value a dictionary, or the hashes beside it, would know. has_time: whether events have a time here.
        """
        words = self.words / self.rows
        many = (
            "too many different values to count" if distinct is None else f"{distinct:,} different values in {self.rows:,} rows"
        )
        if self.is_iso and has_time:
            return Inferred("timestamp", "every value is an ISO 8601 date or time")
        if words >= TEXT_WORDS and (distinct is None or distinct > max(FEW_VALUES, TEXT_SHARE * self.rows)):
            return Inferred("text", f"{many}, {words:.1f} words each")
        if distinct is None or (self.rows > IDENTIFIER_ROWS and distinct > IDENTIFIER_SHARE * self.rows):
            return Inferred("identifier", many)
        if known_rows < KNOWN_SHARE * self.rows:
            return Inferred("identifier", f"{many}, a dictionary would know {known_rows / self.rows:.0%} of the rows")
        return Inferred("category", f"{distinct:,} different values")


def check_kind(place: str, asked: AskedKind, found: str) -> None:
    """Raise InputError where a column of some source kind cannot be what is asked for; `place` names file and column."""
    allowed = _SOURCES[asked]
    if found not in allowed:
        wanted = " or ".join(_NAMES[kind] for kind in allowed)
        raise InputError(f"{place} holds {found} values; it must hold {wanted} to be `kind: {asked}`")
