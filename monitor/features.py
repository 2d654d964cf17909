"""What is counted of a model's events: numbers and categories, each a value itself or a view of a richer one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args, overload

import msgspec
import numpy as np

from monitor.columns import Float, Int
from monitor.hash_key import HashKey

OTHER = "other"
"""The reference's values beyond the dictionary."""

ValueType = Literal["string", "number", "boolean"]

FeatureKind = Literal["integer", "real", "boolean", "category", "identifier", "text", "timestamp", "list"]
"""What a feature is to its user."""

AskedKind = Literal[FeatureKind, "number"]
"""What a user may call a feature; `number`: integer or real, as its values are."""

ViewName = Literal["length", "alphabet", "unseen_ratio", "age_s"]
"""What is counted of a value of a richer kind (views.py)."""

TimestampUnit = Literal["iso8601", "s", "ms", "us", "ns"]

VIEW_SEPARATOR = "#"


def view_name(source: str, view: ViewName) -> str:
    """Return the name of a view in a layout.

    >>> view_name("comment", "length")
    'comment#length'
    """
    return f"{source}{VIEW_SEPARATOR}{view}"


def without_view(name: str) -> str:
    """Return a feature's name in an event, of its name in a layout.

    >>> without_view("comment#length"), without_view("a#b"), without_view("age")
    ('comment', 'a#b', 'age')
    """
    source, separator, view = name.rpartition(VIEW_SEPARATOR)
    return source if separator and view in get_args(ViewName) else name


class SourceView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which feature of an event a feature of the layout is a view of. All defaults: the value itself; they are never written.

    source: the name in the event; None is the feature's own. source_kind: what the source is, where it is more than a number or category.
    view: what is taken of the value; None is the value itself.
    is_secondary: a value that is missing, absent or of a wrong type is another view's to report; each view counts it all the same.
    max_missing_ratio: the largest share of missing values that is still like the reference's, in [0, 1]; None is not known.
    """

    source: str | None = None
    source_kind: Literal["identifier", "text", "timestamp", "list"] | None = None
    view: ViewName | None = None
    is_secondary: bool = False
    max_missing_ratio: float | None = None


def _string() -> ValueType:
    return "string"


def _no_hashes() -> tuple[int, ...]:
    return ()


class Edges(Sequence[float]):
    """Numbers in 8 bytes each, of which a tuple takes 32: fine edges are most of what references take of a worker's memory.

    Equal to a tuple of the same numbers, and hashed as it is.
    """

    __slots__ = ("_hash", "array")

    def __init__(self, numbers: Sequence[float]) -> None:
        self.array: Float = np.array(numbers, np.float64)
        self.array.flags.writeable = False
        self._hash: int | None = None

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, at: int) -> float: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[float, ...]: ...
    def __getitem__(self, at: int | slice) -> float | tuple[float, ...]:
        found: Any = self.array[at].tolist()
        return tuple(found) if isinstance(at, slice) else found

    def __iter__(self) -> Iterator[float]:
        return iter(self.array.tolist())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Edges):
            return np.array_equal(self.array, other.array)
        return tuple(self) == other

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(tuple(self))
        return self._hash

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Float:
        return np.array(self.array, dtype) if copy else np.asarray(self.array, dtype)


def builtin(value: object) -> list[float]:
    """Return what msgspec's encoders write for `Edges`: their `enc_hook`. Raises NotImplementedError for anything else."""
    if isinstance(value, Edges):
        return list(value)
    raise NotImplementedError(f"objects of type {type(value).__name__} are not encoded")


encode_json = msgspec.json.Encoder(enc_hook=builtin).encode
"""Return the JSON of features, or of what holds some."""


class NumberFeature(SourceView, frozen=True, kw_only=True, omit_defaults=True, tag="number", tag_field="kind"):
    """A numeric feature. Cell i holds (edges[i−1], edges[i]]; the last one is open to the right.

    edges: increasing finite float64, the fine cells; `reported` ⊂ edges are the decile edges of the reference (inverted CDF).
    minimum, maximum: the reference's range; `below_min` and `above_max` are exact because both ends are cell borders.
    centre, exponent: the grid of the exact sums (sketches/moments.py).
    is_integral: every value of the reference is whole; a fractional one counts in its value cell and in `never seen` too.
    unit: of a timestamp's values. vocabulary: the reference's most frequent tokens (views.py).
    """

    name: str
    edges: Sequence[float]
    reported: tuple[float, ...]
    minimum: float
    maximum: float
    centre: float
    exponent: int
    is_integral: bool = False
    unit: TimestampUnit | None = None
    vocabulary: bytes = b""

    def __post_init__(self) -> None:
        if not isinstance(self.edges, Edges):
            msgspec.structs.force_setattr(self, "edges", Edges(self.edges))

    @property
    def n_values(self) -> int:
        """Number of value cells."""
        return len(self.edges) + 1

    def reported_groups(self) -> Int:
        """Return, per value cell, the index of the reported cell that holds it; shape (n_values,)."""
        upper = np.append(np.asarray(self.edges, np.float64), np.inf)
        return np.searchsorted(np.array(self.reported), upper, side="left").astype(np.int64)


class CategoryFeature(SourceView, frozen=True, kw_only=True, omit_defaults=True, tag="category", tag_field="kind"):
    """A feature with a dictionary. One cell per value, then `other`.

    values: canonical texts, most frequent first. value_type: what the wire must carry, else the value is of a wrong type.
    other: hashes (hash_key.HashKey) of the reference's values beyond the dictionary. hash_key: id of the key they were made with.
    keep_values: new values that come often are kept as texts, not only as hashes.
    is_open: new values are the rule (an identifier); what is not in the dictionary counts in `other`, nothing is never seen.
    is_hashed: `values` are not the texts but their hashes, 16 hexadecimal digits each.
    """

    name: str
    values: tuple[str, ...]
    # Made by functions, so that they are written even where they are the default: older layouts have them, and keep their sha256.
    value_type: ValueType = msgspec.field(default_factory=_string)
    other: tuple[int, ...] = msgspec.field(default_factory=_no_hashes)
    hash_key: str = ""
    keep_values: bool = False
    is_open: bool = False
    is_hashed: bool = False

    @property
    def n_values(self) -> int:
        """Number of value cells."""
        return len(self.values) + 1

    def reported_groups(self) -> Int:
        """Return, per value cell, the index of its reported cell: every cell is reported; shape (n_values,)."""
        return np.arange(self.n_values, dtype=np.int64)


Feature = NumberFeature | CategoryFeature


def source_of(feature: Feature) -> str:
    """Return the name that a feature has in an event."""
    return feature.name if feature.source is None else feature.source


def kind_of(feature: Feature) -> FeatureKind:
    """Return what the feature of the event is to its user."""
    if feature.source_kind is not None:
        return feature.source_kind
    if isinstance(feature, NumberFeature):
        return "integer" if feature.is_integral else "real"
    return "boolean" if feature.value_type == "boolean" else "category"


def hashed_texts(texts: Iterable[str], key: HashKey) -> tuple[str, ...]:
    """Return what a hashed dictionary holds in place of texts.

    >>> hashed_texts(["ada@example.org"], HashKey(""))
    ('94c98cf6f23eed72',)
    """
    return tuple(f"{one:016x}" for one in key.hashes(texts).tolist())


def canonical(value: object) -> str:
    """Return the text that a category is known by: true/false, integers without a point, other numbers as Python writes them.

    >>> canonical(True), canonical(3.0), canonical(2.5), canonical("3")
    ('true', '3', '2.5', '3')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
