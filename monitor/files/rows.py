"""What every kind of file turns into: columns by role and by feature, in batches of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.columns import Codes
from monitor.event_time import TimeUnit
from monitor.features import ValueType

PARTITION, RECORD_TIMESTAMP, RECORD_TIMESTAMP_TYPE = "partition", "record_timestamp", "record_timestamp_type"
PLACES = (PARTITION, RECORD_TIMESTAMP, RECORD_TIMESTAMP_TYPE)
"""Columns that say where a record lay in Kafka; never features."""

VALUE_TYPES: tuple[ValueType, ...] = ("string", "number", "boolean")
TIMESTAMP, LIST = "timestamp", "list"
"""Kinds of columns that a format itself tells from these: a timestamp or date of Parquet, an array."""
FEATURE_KINDS = (*VALUE_TYPES, TIMESTAMP, LIST)
MAX_CLASSES = 32
"""More scores by class than this are not features of their own."""
NO_VALUES = "no values"
"""The kind of a column in which every value is missing."""

Array = Any
"""A pyarrow.Array: of float64 or integers (kind number), string, bool, timestamp or list; null where there is no value."""


@dataclass(frozen=True, slots=True)
class ColumnOptions:
    """Names, given by the user, of the columns that are not features.

    class_scores: (class, column) of every column that holds the score of a class.
    time_unit: of times that are numbers; texts are ISO 8601, and texts and timestamps are UTC unless they carry an offset.
    """

    time: str | None = None
    prediction: str | None = None
    score: str | None = None
    latency: str | None = None
    label: str | None = None
    id: str | None = None
    model: str | None = None
    version: str | None = None
    class_scores: tuple[tuple[str, str], ...] = ()
    exclude: tuple[str, ...] = ()
    time_unit: TimeUnit = "ms"

    def named(self) -> dict[str, str]:
        """Return role → column, of the roles that have one."""
        roles = [f.name for f in fields(self) if f.name not in ("class_scores", "exclude", "time_unit")]
        return {role: column for role in roles if (column := getattr(self, role))}

    def taken(self) -> set[str]:
        """Return the columns that have a role or are a class's score: no features."""
        return {*self.named().values(), *(column for _, column in self.class_scores)}


class Columns(NamedTuple):
    """Some rows of some columns. specials: (n,) codes of a column where a null is absent or of a wrong type, else left out."""

    n: int
    arrays: dict[str, Array]
    specials: dict[str, Codes]

    def where(self, mask: npt.NDArray[np.bool_]) -> Columns:
        """Return the rows for which `mask`, shape (n,), is true."""
        if mask.all():
            return self
        arrays = {name: array.filter(mask) for name, array in self.arrays.items()}
        return Columns(int(mask.sum()), arrays, {name: codes[mask] for name, codes in self.specials.items()})


@dataclass(frozen=True, slots=True)
class Source:
    """A file that has been looked at. Keys name its columns; a name may belong to two (event and features of native events).

    kinds: key → one of `FEATURE_KINDS`, `NO_VALUES`, or the words for what cannot be a feature. columns: name → key, of every column;
    features: name → key, of what may be a feature. roles: role → name, as far as the format itself says.
    class_scores: class → key, and confidence: the key of the largest of all scores, where the format itself has scores by class.
    tags: tag → key, likewise.
    read: from the first row, batches of the columns with these keys.
    """

    kinds: Mapping[str, str]
    columns: Mapping[str, str]
    features: Mapping[str, str]
    read: Callable[[Sequence[str]], Iterator[Columns]]
    roles: Mapping[str, str] = field(default_factory=dict)
    class_scores: Mapping[str, str] = field(default_factory=dict)
    confidence: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def is_flat(self) -> bool:
        """Whether features stand beside everything else, and not in an object of their own."""
        return self.features is self.columns
