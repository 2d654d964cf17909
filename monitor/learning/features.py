"""What a discovery counts of one feature, whatever its values are: by JSON type, numbers by cell, strings by value and by length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Sized
from typing import Any, NamedTuple

import numpy as np

from monitor.columns import Float
from monitor.hash_key import HashKey
from monitor.sketches.bounded import merged, smallest
from monitor.sketches.log_cells import LogCells
from monitor.sketches.wide_sums import wide_sums
from monitor.views import WRONG_TYPE, moment_ms

MAX_TEXT_CHARS = 64
"""A longer value is known by its hash only."""

_LARGEST = int(np.finfo(np.float64).max)
NOT_FINITE = ("NaN", "Infinity", "-Infinity")
"""How producers of JSON write what is no number: strings, but of a feature that turns out to be a number not of a wrong type."""


class Budget(NamedTuple):
    """What a feature may hold. At most 3 KiB of cells, 1 KiB of cells of lengths, 256 values and 6 KiB of their texts; of wide rows less.

    >>> budget(64) == budget(1), budget(128).n_values
    (True, 128)
    """

    cell_bits: int
    length_bits: int
    n_values: int
    text_bytes: int


FULL_BUDGET = Budget(cell_bits=24_576, length_bits=8_192, n_values=256, text_bytes=6_144)
FULL_UP_TO = 64
"""Features; more of them share what these may hold, 0.9 MiB before it is packed: it travels in one message."""


def budget(n_features: int) -> Budget:
    """Return what each of so many features may hold."""
    return Budget(*(whole * FULL_UP_TO // max(FULL_UP_TO, n_features) for whole in FULL_BUDGET))


class NumberDiscovery:
    """Finite numbers by cell, and their exact sums (sketches.wide_sums)."""

    __slots__ = ("cells", "first", "second")

    def __init__(self) -> None:
        self.cells = LogCells()
        self.first = self.second = 0

    @property
    def n(self) -> int:
        """Rows."""
        return self.cells.n

    def update(self, numbers: Float, cell_bits: int) -> None:
        """Count finite numbers, shape (n,) float64."""
        self.cells.update(numbers, cell_bits)
        first, second = wide_sums(numbers)
        self.first, self.second = self.first + first, self.second + second

    def merge(self, other: NumberDiscovery, cell_bits: int) -> None:
        """Add another one's numbers."""
        self.cells.merge(other.cells, cell_bits)
        self.first, self.second = self.first + other.first, self.second + other.second


class FeatureDiscovery:
    """Rows of one feature by JSON type, numbers by cell and strings by value.

    numbers: finite ones. lengths: characters of strings. list_lengths: elements of lists. strings: rows; words: parts of all of them
    between white space. is_iso: every string is an ISO 8601 date or time (views.moment_ms).
    values: rows by hash of the string, the smallest hashes of all. texts: by hash, of strings up to `MAX_TEXT_CHARS`; None where they
    may not be kept, and where there are more values or longer texts than the budget allows.
    not_finite: those of the strings that are `NOT_FINITE`. others: rows with anything else, such as objects and numbers too large for a
    double.
    """

    __slots__ = (
        "falses", "is_iso", "lengths", "list_lengths", "not_finite", "nulls", "numbers", "others", "strings", "texts", "trues", "values",
        "words",
    )  # fmt: skip

    def __init__(self) -> None:
        self.numbers, self.lengths, self.list_lengths = NumberDiscovery(), NumberDiscovery(), NumberDiscovery()
        self.strings = self.words = self.trues = self.falses = self.nulls = self.others = 0
        self.is_iso = True
        self.values: dict[int, int] = {}
        self.texts: dict[int, str] | None = {}
        self.not_finite = (0, 0, 0)

    @property
    def n(self) -> int:
        """Rows that have the feature."""
        return self.numbers.n + self.strings + self.list_lengths.n + self.trues + self.falses + self.nulls + self.others

    @property
    def has_all_values(self) -> bool:
        """Whether `values` has every different string."""
        return sum(self.values.values()) == self.strings

    @property
    def n_distinct(self) -> float:
        """How many different strings there are: exact while all are kept, else (k−1) / the largest of k hashes taken as uniform in (0, 1).

        Relative standard error 1/√(k−2), 6 % for 256 (Beyer et al., SIGMOD 2007).
        """
        k = len(self.values)
        return float(k) if self.has_all_values else (k - 1) / (max(self.values) / 2.0**64)

    def update(self, column: Sequence[object], bound: Budget, hash_key: HashKey, *, keep_texts: bool) -> None:
        """Count a column of values, one per row that has the feature."""
        kinds = set(map(type, column))
        if kinds <= {float, int}:
            self._count_numbers(column, bound)
        elif kinds != {str}:
            self._count_numbers([value for value in column if type(value) is float or type(value) is int], bound)
            self.trues += sum(value is True for value in column)
            self.falses += sum(value is False for value in column)
            self.nulls += sum(value is None for value in column)
            self.others += sum(not isinstance(value, float | int | str | list) and value is not None for value in column)
        if list in kinds:
            self.list_lengths.update(_lengths([value for value in column if type(value) is list]), bound.length_bits)
        if not keep_texts:
            self.texts = None
        if str in kinds:
            self._count_strings([value for value in column if type(value) is str], bound, hash_key)
            self._bound_values(bound)

    def _count_numbers(self, values: Sequence[Any], bound: Budget) -> None:
        numbers = _floats(values)
        self.others += len(values) - len(numbers)
        self.numbers.update(numbers, bound.cell_bits)

    def _count_strings(self, strings: Sequence[str], bound: Budget, hash_key: HashKey) -> None:
        self.strings += len(strings)
        self.lengths.update(_lengths(strings), bound.length_bits)
        counts = Counter(strings)
        self.words += sum(len(text.split()) * n for text, n in counts.items())
        self.is_iso = self.is_iso and all(moment_ms(text, "iso8601") != WRONG_TYPE for text in counts)
        self._add_not_finite(tuple(counts[text] for text in NOT_FINITE))
        for key, (text, n) in zip(hash_key.hashes(counts).tolist(), counts.items(), strict=True):
            self.values[key] = self.values.get(key, 0) + n
            if self.texts is not None and len(text) <= MAX_TEXT_CHARS:
                self.texts[key] = text

    def _add_not_finite(self, rows: tuple[int, ...]) -> None:
        nan, high, low = (mine + more for mine, more in zip(self.not_finite, rows, strict=True))
        self.not_finite = (nan, high, low)

    def merge(self, other: FeatureDiscovery, bound: Budget) -> None:
        """Add another one's rows."""
        self.numbers.merge(other.numbers, bound.cell_bits)
        self.lengths.merge(other.lengths, bound.length_bits)
        self.list_lengths.merge(other.list_lengths, bound.length_bits)
        self.strings += other.strings
        self.words += other.words
        self.is_iso = self.is_iso and other.is_iso
        self.trues += other.trues
        self.falses += other.falses
        self.nulls += other.nulls
        self.others += other.others
        self._add_not_finite(other.not_finite)
        self.values = merged((self.values, other.values), len(self.values) + len(other.values))
        self.texts = None if self.texts is None or other.texts is None else self.texts | other.texts
        self._bound_values(bound)

    def fit(self, bound: Budget) -> None:
        """Give up what a smaller budget does not allow."""
        self.numbers.cells.fit(bound.cell_bits)
        self.lengths.cells.fit(bound.length_bits)
        self.list_lengths.cells.fit(bound.length_bits)
        self._bound_values(bound)

    def _bound_values(self, bound: Budget) -> None:
        if len(self.values) > bound.n_values:
            self.values = smallest(self.values, bound.n_values)
        if self.texts is None:
            return
        if not self.has_all_values or sum(len(text.encode()) for text in self.texts.values()) > bound.text_bytes:
            self.texts = None


def _floats(values: Sequence[Any]) -> Float:
    """Return the finite ones of ints and floats, shape (n,) float64."""
    try:
        numbers = np.array(values, np.float64)
    except OverflowError:  # some integer is too large
        numbers = np.array([float(value) for value in values if abs(value) <= _LARGEST], np.float64)
    return numbers[np.isfinite(numbers)]


def _lengths(values: Sequence[Sized]) -> Float:
    """Return the length of every value, shape (n,) float64."""
    return np.fromiter(map(len, values), np.float64, len(values))
