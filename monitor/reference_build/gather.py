"""What the first pass keeps of a column: its numbers in a temporary file, the counts of its values, or only that it has some."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import structs

from monitor.cells import FEW_VALUES, ROWS_PER_VALUE, FeatureOptions
from monitor.columns import Float
from monitor.errors import InputError
from monitor.event_time import INVALID_MS, time_ms
from monitor.features import CategoryFeature, Feature, FeatureKind, TimestampUnit, ValueType, canonical, hashed_texts
from monitor.hash_key import HashKey
from monitor.reference_build.kinds import Inferred, LeftOut, TextFacts
from monitor.reference_build.numbers import number_feature
from monitor.reference_build.spool import Spool

MAX_DISTINCT = 1_000_000
MAX_TEXT = 64 << 20
"""More different values, or characters in them, than this are not held: a text or an identifier."""
MAX_OTHER = 10_000

_YEAR_2000_MS, _YEAR_2100_MS = 946_684_800_000, 4_102_444_800_000


class Gathered(Protocol):
    """What is kept of one column, batch by batch."""

    def add(self, column: Any) -> None:
        """Take a column's values in; null, NaN and infinity are none."""

    def inferred(self, options: FeatureOptions) -> Inferred:
        """Return what the column is. Raises LeftOut."""

    def feature(self, name: str, options: FeatureOptions, hash_key: HashKey, warnings: list[str]) -> Feature:
        """Return the feature of a number, category or boolean. Raises LeftOut."""


class Given:
    """A column whose kind is known from the start."""

    def __init__(self, kind: FeatureKind, why: str) -> None:
        self._inferred = Inferred(kind, why)
        self._n = 0

    def add(self, column: Any) -> None:
        """See Gathered."""
        self._n += len(column) - column.null_count

    def inferred(self, _: FeatureOptions) -> Inferred:
        """See Gathered."""
        if not self._n:
            raise LeftOut("no values")
        return self._inferred

    def feature(self, name: str, options: FeatureOptions, hash_key: HashKey, warnings: list[str]) -> Feature:
        """Only views are made of these kinds."""
        raise NotImplementedError


class Categories:
    """Counts by canonical text. At most `MAX_DISTINCT` values or `MAX_TEXT` characters are held; beyond, none."""

    def __init__(self, value_type: ValueType, *, is_text: bool, has_time: bool) -> None:
        self._value_type = value_type
        self._facts = TextFacts() if is_text else None
        self._has_time = has_time
        self._counts: Counter[str] = Counter()
        self._characters = 0
        self._n = 0
        self.overflowed = False

    def add(self, column: Any) -> None:
        """See Gathered."""
        counted = pc.value_counts(column)
        values, numbers = counted.field("values"), counted.field("counts")
        if values.null_count:
            valid = values.is_valid()
            values, numbers = values.filter(valid), numbers.filter(valid)
        if self._facts is not None and len(values):
            self._facts.add(values, numbers)
        self._n += pc.sum(numbers).as_py() or 0
        if not self.overflowed:
            self._count(values.to_pylist(), numbers.to_pylist())

    def _count(self, values: list[Any], numbers: list[int]) -> None:
        counts = self._counts
        for value, n in zip(values, numbers, strict=True):
            if isinstance(value, float) and not np.isfinite(value):
                continue
            text = canonical(value)
            if text not in counts:
                self._characters += len(text)
            counts[text] += n
        if len(counts) > MAX_DISTINCT or self._characters > MAX_TEXT:
            self.overflowed = True
            counts.clear()

    def inferred(self, options: FeatureOptions) -> Inferred:
        """See Gathered."""
        if not (self._counts or self.overflowed):
            raise LeftOut("no values")
        if self._value_type == "boolean":
            return Inferred("boolean", "true and false")
        distinct = None if self.overflowed else len(self._counts)
        if self._facts is not None:
            known = sum(n for _, n in self._counts.most_common(options.max_categories + MAX_OTHER))
            return self._facts.kind(distinct, known, has_time=self._has_time)
        return Inferred(
            "category", "too many different values to count" if distinct is None else f"{distinct:,} different values"
        )

    def feature(self, name: str, options: FeatureOptions, hash_key: HashKey, warnings: list[str]) -> Feature:
        """Return the dictionary of the values. Raises LeftOut."""
        if self.overflowed:
            raise LeftOut("too many different values for a category; `kind: identifier` keeps it")
        feature = CategoryFeature(name=name, values=(), value_type=self._value_type)
        return _dictionary(feature, self._counts, options, hash_key, warnings)


def _dictionary(
    feature: CategoryFeature, counts: Counter[str], options: FeatureOptions, hash_key: HashKey, warnings: list[str]
) -> CategoryFeature:
    """Fill a feature with the most frequent values, ties by text; of the others with their hashes."""
    ranked = sorted(counts, key=lambda value: (-counts[value], value))
    others = sorted(hash_key.hashes(ranked[options.max_categories :]).tolist())
    if len(others) > MAX_OTHER:
        warnings.append(
            f"column {feature.name}: {len(others):,} values beyond the dictionary; {MAX_OTHER:,} of them are known, "
            "the rest count as never seen"
        )
    kept = ranked[: options.max_categories]
    is_hashed = options.pii == "hash"
    values = hashed_texts(kept, hash_key) if is_hashed else tuple(kept)
    known = {"values": values, "other": tuple(others[:MAX_OTHER]), "is_hashed": is_hashed, "keep_values": options.keep_values}
    return structs.replace(feature, **known)


class NumberFacts(NamedTuple):
    """Of the finite values of a column."""

    n: int
    is_whole: bool
    low: float
    high: float


class Numbers:
    """Finite values in a temporary file; and the counts of whole numbers for as long as there are few.

    asked: what the column is said to be, and said: by whom; None where it may be codes.
    """

    def __init__(self, spool: Path, asked: str | None, said: str = "as configured") -> None:
        self._spool = spool
        self._said = said
        self._asked = asked
        self._codes: Counter[float] | None = Counter() if asked is None else None
        self.facts = NumberFacts(0, True, np.inf, -np.inf)

    def add(self, column: Any) -> None:
        """See Gathered. Raises InputError when the temporary folder is full."""
        values = floats(column)
        values = values[np.isfinite(values)]
        if not len(values):
            return
        n, is_whole, low, high = self.facts
        is_whole = is_whole and bool((values == np.floor(values)).all())
        self.facts = NumberFacts(n + len(values), is_whole, min(low, values.min()), max(high, values.max()))
        append(self._spool, values)
        if self._codes is not None and not self._count_codes(values):
            self._codes = None

    def _count_codes(self, values: Float) -> bool:
        assert self._codes is not None
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) > FEW_VALUES or not self.facts.is_whole:
            return False
        for value, n in zip(distinct.tolist(), counts.tolist(), strict=True):
            self._codes[value] += n
        return len(self._codes) <= FEW_VALUES

    def inferred(self, _: FeatureOptions) -> Inferred:
        """See Gathered."""
        n, is_whole = self.facts.n, self.facts.is_whole
        if not n:
            raise LeftOut("no values")
        if self._asked == "timestamp":
            return Inferred("timestamp", self._said)
        if self._asked in ("integer", "real"):
            return Inferred("integer" if self._asked == "integer" else "real", self._said)
        if self._codes is not None and ROWS_PER_VALUE * len(self._codes) <= n:
            return Inferred("category", f"{len(self._codes)} different whole numbers in {n:,} rows")
        return Inferred("integer", f"all {n:,} values are whole") if is_whole else Inferred("real", "not all values are whole")

    def feature(self, name: str, options: FeatureOptions, hash_key: HashKey, warnings: list[str]) -> Feature:
        """Return a category where the numbers are few codes, else a numeric feature. Raises LeftOut."""
        kind = self.inferred(options).kind
        if kind == "category":
            assert self._codes is not None
            counts = Counter({canonical(value): n for value, n in self._codes.items()})
            return _dictionary(CategoryFeature(name=name, values=(), value_type="number"), counts, options, hash_key, warnings)
        low, high = self.facts.low, self.facts.high
        if (options.minimum is not None and low < options.minimum) or (options.maximum is not None and high > options.maximum):
            warnings.append(f"column {name}: values from {low:.6g} to {high:.6g}, beyond the configured range; it is extended")
        made = number_feature(name, self._spool, options=options)
        return structs.replace(made, is_integral=kind == "integer")

    def range(self, options: FeatureOptions) -> tuple[float, float]:
        """Return the range of the values, and of what is configured."""
        low, high = float(self.facts.low), float(self.facts.high)
        return (
            low if options.minimum is None else min(low, options.minimum),
            high if options.maximum is None else max(high, options.maximum),
        )

    def unit(self, place: str) -> TimestampUnit:
        """Return in which unit the median is a time of the years 2000 to 2100. Raises InputError, naming the place, where it is in none."""
        median = Spool(self._spool).at([self.facts.n // 2]).tolist()[0]
        units: tuple[TimestampUnit, ...] = ("s", "ms", "us", "ns")
        for unit in units:
            found = INVALID_MS if unit == "iso8601" else time_ms(median, unit)
            if _YEAR_2000_MS <= found < _YEAR_2100_MS:
                return unit
        raise InputError(f"{place}: {median:.6g} is no time of the years 2000 to 2100 in s, ms, us or ns; say which: `unit: s`")


def append(spool: Path, values: Float) -> None:
    """Add values to a temporary file. Raises InputError when the folder is full."""
    try:
        with spool.open("ab") as file:
            file.write(np.ascontiguousarray(values).data)
    except OSError as error:
        raise InputError(f"{spool.parent}: {error.strerror}; set TMPDIR to a folder with more room") from error


def floats(column: Any) -> Float:
    """Return a column of numbers as float64, shape (n,); null is NaN."""
    return np.ascontiguousarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
