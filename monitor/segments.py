"""Segments: parts of a model's rows that are profiled apart, by the values of features or tags.

A segmentation splits all rows by one key or a cross of several; each of its listed values has a row of its own in every profile, and
what has none falls into its `(other)` row. Which values are listed is fixed by the reference: nothing is first come, first served.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Literal, get_args

import msgspec
import numpy as np

from monitor.columns import Codes, Float, Int, Special
from monitor.errors import InputError

ALL: Final = "all"
"""The segment of every row; the first one of every profile."""

OTHER: Final = "(other)"
"""The value of rows that a segmentation lists no value for: rare ones, new ones, missing ones."""

TAGS: Final = "tags."
"""A key that begins so is of an event's `tags`."""

TRUE, FALSE = "true", "false"

Operator = Literal["", ">=", "<=", "==", "!=", ">", "<"]
_COMPARISON: Final = re.compile(
    r"\s*(?P<name>.+?)\s*(?P<op>" + "|".join(filter(None, get_args(Operator))) + r")\s*(?P<operand>.+?)\s*"
)
_COMPARE: Final[Mapping[str, np.ufunc]] = {
    ">=": np.greater_equal, "<=": np.less_equal, "==": np.equal, "!=": np.not_equal, ">": np.greater, "<": np.less,
}  # fmt: skip


class Key(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, repr_omit_defaults=True):
    """What rows are split by: a feature's or a tag's value, or whether a number compares with `operand`.

    name: of a feature, or `tags.` and the name of a tag.
    """

    name: str
    op: Operator = ""
    operand: float | None = None

    @property
    def tag(self) -> str | None:
        """The tag's name; None for a feature."""
        return self.name.removeprefix(TAGS) if self.name.startswith(TAGS) else None

    def __str__(self) -> str:
        return f"{self.name} {self.op} {self.operand:g}" if self.op else self.name


class Segmentation(msgspec.Struct, frozen=True, dict=True):
    """One way to split all rows. values: a row each, one text per key; all other rows are `(other)`."""

    keys: tuple[Key, ...]
    values: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        return " × ".join(map(str, self.keys))

    @property
    def segments(self) -> tuple[tuple[str, ...], ...]:
        """The values of its rows in order, `(other)` last."""
        return (*self.values, (OTHER,) * len(self.keys))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name per row.

        >>> Segmentation((Key(name="country"), Key(name="age", op=">=", operand=60.0)), (("DE", "true"),)).names
        ('country=DE, age >= 60', 'country=(other), age >= 60=(other)')
        """
        return tuple(", ".join(map(_name, self.keys, values)) for values in self.segments)

    @cached_property
    def listed(self) -> tuple[tuple[str, ...], ...]:
        """Per key its values that are listed, sorted; their places are the key's codes, one more stands for all others."""
        return tuple(tuple(sorted({values[i] for values in self.values})) for i in range(len(self.keys)))

    @cached_property
    def _rows(self) -> Int:
        """Row by mixed-radix code of the keys' codes; `(other)` where there is none of its own."""
        sizes = [len(values) + 1 for values in self.listed]
        rows = np.full(sizes, len(self.values), np.int64)
        for row, values in enumerate(self.values):
            rows[tuple(listed.index(value) for listed, value in zip(self.listed, values, strict=True))] = row
        return rows

    def rows(self, codes: Sequence[Int]) -> Int:
        """Return the row within this segmentation of each event from the codes of its keys, shape (n,)."""
        found: Int = self._rows[tuple(codes)]
        return found


def _name(key: Key, value: str) -> str:
    if not key.op or value == OTHER:
        return f"{key}={value}"
    return str(key) if value == TRUE else f"not {key}"


def parse_key(text: str) -> Key:
    """Read a key as it is written in a configuration. Raises InputError.

    >>> parse_key("country"), parse_key("age>=60")
    (Key(name='country'), Key(name='age', op='>=', operand=60.0))
    """
    found = _COMPARISON.fullmatch(text)
    if found is None:
        name = text.strip()
        if not name.removeprefix(TAGS):
            raise InputError(f"{text!r} names no feature; write a name, tags.NAME, or a comparison such as age >= 60")
        return Key(name=name)
    try:
        operand = float(found["operand"])
    except ValueError:
        raise InputError(
            f"{text!r} compares with {found['operand']!r}, which is no number; for a category name it alone: {found['name']}"
        ) from None
    if not np.isfinite(operand) or found["name"].startswith(TAGS):
        raise InputError(f"{text!r}: only a feature is compared, and only with a finite number")
    return Key(name=found["name"], op=found["op"], operand=operand)  # type: ignore[arg-type]


def codes_of_values(values: Sequence[Any], listed: Sequence[str]) -> Int:
    """Return the place of each value's text among `listed`, `len(listed)` where it is not; shape (n,)."""
    places = {value: i for i, value in enumerate(listed)}
    return np.fromiter((places.get(value, len(places)) for value in values), np.int64, len(values))


def codes_of_numbers(key: Key, numbers: Float, specials: Codes | None, listed: Sequence[str]) -> Int:
    """Return the place of each comparison's outcome among `listed`, `len(listed)` where there is no finite number; shape (n,)."""
    is_true = _COMPARE[key.op](numbers, key.operand)
    place = {value: listed.index(value) if value in listed else len(listed) for value in (TRUE, FALSE)}
    codes = np.where(is_true, place[TRUE], place[FALSE]).astype(np.int64)
    if specials is not None:
        codes[specials != Special.VALUE] = len(listed)
    return codes
