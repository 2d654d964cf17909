"""What the first pass keeps of a column: its numbers in a temporary file, or the counts of its values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import UNSET, structs

from monitor.cells import FEW_VALUES, IDENTIFIER_ROWS, IDENTIFIER_SHARE, MAX_CATEGORIES, ROWS_PER_VALUE
from monitor.columns import Float
from monitor.errors import InputError
from monitor.hash_key import HashKey
from monitor.layout import CategoryFeature, Feature, ValueType, canonical
from monitor.reference_build.numbers import number_feature

MAX_DISTINCT = 1_000_000
MAX_TEXT = 64 << 20
"""More different values, or characters in them, than this: an identifier or free text."""
MAX_OTHER = 10_000


@dataclass(frozen=True, slots=True)
class FeatureOptions:
    """What the user says of a feature, over what is inferred."""

    kind: Literal["number", "category"] | None = None
    max_categories: int = MAX_CATEGORIES
    pii: Literal["none", "drop"] = "none"
    keep_values: bool = False


class LeftOut(Exception):
    """A column cannot be a feature; the message says why."""


class Categories:
    """Counts by canonical text. At most `MAX_DISTINCT` values or `MAX_TEXT` characters are held; beyond, none."""

    def __init__(self, value_type: ValueType) -> None:
        self._value_type = value_type
        self._counts: Counter[str] = Counter()
        self._characters = 0
        self.overflowed = False

    def add(self, column: Any) -> None:
        """Count a column's values; null, NaN and infinity are none."""
        if self.overflowed:
            return
        counted = pc.value_counts(column)
        counts = self._counts
        for value, n in zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True):
            if value is None or (isinstance(value, float) and not np.isfinite(value)):
                continue
            text = canonical(value)
            if text not in counts:
                self._characters += len(text)
            counts[text] += n
        if len(counts) > MAX_DISTINCT or self._characters > MAX_TEXT:
            self.overflowed = True
            counts.clear()

    def feature(self, name: str, options: FeatureOptions, hash_key: HashKey, warnings: list[str]) -> Feature:
        """Return the dictionary of the values. Raises LeftOut."""
        counts = self._counts
        if self.overflowed:
            raise LeftOut("too many different values, an identifier or free text")
        if not counts:
            raise LeftOut("no values")
        n = counts.total()
        if options.kind is None and n > IDENTIFIER_ROWS and len(counts) > IDENTIFIER_SHARE * n:
            raise LeftOut(f"{len(counts):,} different values in {n:,} rows, an identifier; `kind: category` keeps it")
        return _dictionary(_empty(name, self._value_type, options, hash_key), counts, options, hash_key, warnings)


def _empty(name: str, value_type: ValueType, options: FeatureOptions, hash_key: HashKey) -> CategoryFeature:
    return CategoryFeature(
        name=name, values=(), value_type=value_type, hash_key=hash_key.id or UNSET, keep_values=options.keep_values or UNSET
    )


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
    return structs.replace(feature, values=tuple(ranked[: options.max_categories]), other=tuple(others[:MAX_OTHER]))


class Numbers:
    """Finite values in a temporary file; and the counts of whole numbers for as long as there are few."""

    def __init__(self, spool: Path, *, may_be_codes: bool) -> None:
        self._spool = spool
        self._codes: Counter[float] | None = Counter() if may_be_codes else None
        self._n = 0

    def add(self, column: Any) -> None:
        """Keep a column's values. Raises InputError when the temporary folder is full."""
        values = floats(column)
        values = values[np.isfinite(values)]
        self._n += len(values)
        try:
            with self._spool.open("ab") as file:
                file.write(values.data)
        except OSError as error:
            raise InputError(f"{self._spool.parent}: {error.strerror}; set TMPDIR to a folder with more room") from error
        if self._codes is not None and not self._count_codes(values):
            self._codes = None

    def _count_codes(self, values: Float) -> bool:
        assert self._codes is not None
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) > FEW_VALUES or (distinct != np.floor(distinct)).any():
            return False
        for value, n in zip(distinct.tolist(), counts.tolist(), strict=True):
            self._codes[value] += n
        return len(self._codes) <= FEW_VALUES

    def feature(self, name: str, options: FeatureOptions, hash_key: HashKey, warnings: list[str]) -> Feature:
        """Return a category where the numbers are few codes, else a numeric feature. Raises LeftOut."""
        if not self._n:
            raise LeftOut("no values")
        if self._codes is not None and ROWS_PER_VALUE * len(self._codes) <= self._n:
            counts = Counter({canonical(value): n for value, n in self._codes.items()})
            return _dictionary(_empty(name, "number", options, hash_key), counts, options, hash_key, warnings)
        return number_feature(name, self._spool)


def floats(column: Any) -> Float:
    """Return a column of numbers as float64, shape (n,); null is NaN."""
    return np.ascontiguousarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
