"""A discovery: what is counted of rows whose features are not known beforehand; a layout can be chosen from it afterwards.

Merging is exact, associative and commutative, and equal rows give equal bytes in any order, batching and partitioning: names and values
are kept by their hashes, never first come, and every bound depends only on how many different ones there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import cramjam
import msgspec
import numpy as np

from monitor.columns import Float
from monitor.errors import UnknownCodec
from monitor.hash_key import NO_KEY, HashKey
from monitor.reference import LATENCY, PREDICTION, SCORE
from monitor.sketches import varint
from monitor.sketches.bounded import key_hash, merged, smallest
from monitor.sketches.log_cells import LogCells
from monitor.sketches.wide_sums import wide_sums

CODEC_VERSION = 1

MAX_NAMES = 512
"""Features beside the outputs; of more, those whose names have the smallest hashes."""
MAX_NAME_CHARS = 128
"""A longer name is not kept."""
MAX_TEXT_CHARS = 64
"""A longer value is known by its hash only."""

_LARGEST = int(np.finfo(np.float64).max)
OUTPUTS = (PREDICTION, SCORE, LATENCY)
NOT_FINITE = ("NaN", "Infinity", "-Infinity")
"""How producers of JSON write what is no number: strings, but of a feature that turns out to be a number not of a wrong type."""


class Budget(NamedTuple):
    """What a feature may hold. At most 3 KiB of cells, 256 values and 6 KiB of their texts; of wide rows each feature has less.

    >>> budget(96) == budget(1), budget(192).n_values
    (True, 128)
    """

    cell_bits: int
    n_values: int
    text_bytes: int


FULL_BUDGET = Budget(cell_bits=24_576, n_values=256, text_bytes=6_144)
FULL_UP_TO = 96
"""Features; more of them share what these may hold, 1.1 MiB before it is packed."""


def budget(n_features: int) -> Budget:
    """Return what each of so many features may hold."""
    return Budget(*(whole * FULL_UP_TO // max(FULL_UP_TO, n_features) for whole in FULL_BUDGET))


class FeatureDiscovery:
    """Rows of one feature by JSON type, numbers by cell and strings by value.

    numbers: finite ones; first, second: their exact sums (sketches.wide_sums). strings: rows.
    values: rows by hash of the string, the smallest hashes of all. texts: by hash, of strings up to `MAX_TEXT_CHARS`; None where they
    may not be kept, and where there are more values or longer texts than the budget allows.
    not_finite: those of the strings that are `NOT_FINITE`. others: rows with anything else, such as lists, objects and numbers too large
    for a double.
    """

    __slots__ = ("falses", "first", "not_finite", "nulls", "numbers", "others", "second", "strings", "texts", "trues", "values")

    def __init__(self) -> None:
        self.numbers = LogCells()
        self.first = self.second = 0
        self.strings = self.trues = self.falses = self.nulls = self.others = 0
        self.values: dict[int, int] = {}
        self.texts: dict[int, str] | None = {}
        self.not_finite = (0, 0, 0)

    @property
    def n(self) -> int:
        """Rows that have the feature."""
        return self.numbers.n + self.strings + self.trues + self.falses + self.nulls + self.others

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
            self.others += sum(not isinstance(value, float | int | str) and value is not None for value in column)
        if not keep_texts:
            self.texts = None
        if str in kinds:
            self._count_strings([value for value in column if type(value) is str], hash_key)
            self._bound_values(bound)

    def _count_numbers(self, values: Sequence[Any], bound: Budget) -> None:
        numbers = _floats(values)
        self.others += len(values) - len(numbers)
        self.numbers.update(numbers, bound.cell_bits)
        first, second = wide_sums(numbers)
        self.first, self.second = self.first + first, self.second + second

    def _count_strings(self, strings: Sequence[str], hash_key: HashKey) -> None:
        self.strings += len(strings)
        counts = Counter(strings)
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
        self.first, self.second = self.first + other.first, self.second + other.second
        self.strings += other.strings
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
        self.numbers.fit(bound.cell_bits)
        self._bound_values(bound)

    def _bound_values(self, bound: Budget) -> None:
        if len(self.values) > bound.n_values:
            self.values = smallest(self.values, bound.n_values)
        if self.texts is None:
            return
        if not self.has_all_values or sum(len(text.encode()) for text in self.texts.values()) > bound.text_bytes:
            self.texts = None


class Discovery:
    """Counts of rows by feature name; outputs stand under the names that a layout has for them.

    rows: all of them; a feature is absent in the rest of them. has_more_names: there were more or longer names than are kept.
    hash_key: what values are hashed with; only discoveries of one key merge.
    """

    __slots__ = ("_budget", "features", "has_more_names", "hash_key", "rows")

    def __init__(self, hash_key: HashKey = NO_KEY) -> None:
        self.hash_key = hash_key
        self.rows = 0
        self.features: dict[str, FeatureDiscovery] = {}
        self.has_more_names = False
        self._budget = budget(0)

    def update(
        self, rows: Sequence[Mapping[str, object]], *, keep_texts: bool = True, left_out: frozenset[str] = frozenset()
    ) -> None:
        """Count rows of values by name, as JSON has them; features that are left out leave no trace.

        Cost: about 0.35 µs per value.
        """
        self.rows += len(rows)
        columns: dict[str, list[object]] = {}
        for row in rows:
            for name, value in row.items():
                column = columns.get(name)
                if column is None:
                    column = columns[name] = []
                column.append(value)
        self._admit(columns.keys() - left_out)
        for name, column in columns.items():
            feature = self.features.get(name)
            if feature is not None and name not in left_out:
                feature.update(column, self._budget, self.hash_key, keep_texts=keep_texts)

    def merge(self, other: Discovery) -> None:
        """Add another one's rows."""
        self.rows += other.rows
        self.has_more_names = self.has_more_names or other.has_more_names
        self._admit(other.features)
        for name, theirs in other.features.items():
            mine = self.features.get(name)
            if mine is not None:
                mine.merge(theirs, self._budget)

    def to_bytes(self) -> bytes:
        """Return version byte + zstd of msgpack; equal content gives equal bytes. At most 1.5 MiB; 0.5–3 kB a feature."""
        features = [_to_wire(name, feature) for name, feature in sorted(self.features.items())]
        wire = _Wire(self.rows, self.has_more_names, features, self.hash_key.id)
        return bytes([CODEC_VERSION]) + bytes(cramjam.zstd.compress(_encode(wire), level=3))

    @classmethod
    def from_bytes(cls, data: bytes, hash_key: HashKey = NO_KEY) -> Discovery:
        """Read what `to_bytes` wrote: nothing where its values were hashed with another key. Raises UnknownCodec for another version."""
        if data[0] != CODEC_VERSION:
            raise UnknownCodec("a discovery", data[0], [CODEC_VERSION])
        wire = _decode(bytes(cramjam.zstd.decompress(data[1:])))
        discovery = cls(hash_key)
        if wire.hash_key != hash_key.id:
            return discovery
        discovery.rows, discovery.has_more_names = wire.rows, wire.has_more_names
        discovery.features = {each.name: _from_wire(each) for each in wire.features}
        discovery._budget = budget(sum(name not in OUTPUTS for name in discovery.features))
        return discovery

    def _admit(self, names: Iterable[str]) -> None:
        """Take in new names, keep those with the smallest hashes, and fit all features to what each may then hold."""
        new = [name for name in names if name not in self.features]
        if not new:
            return
        for name in new:
            if len(name) <= MAX_NAME_CHARS:
                self.features[name] = FeatureDiscovery()
            else:
                self.has_more_names = True
        inputs = [name for name in self.features if name not in OUTPUTS]
        if len(inputs) > MAX_NAMES:
            self.has_more_names = True
            for name in sorted(inputs, key=key_hash)[MAX_NAMES:]:
                del self.features[name]
        bound = budget(min(len(inputs), MAX_NAMES))
        if bound != self._budget:
            self._budget = bound
            for feature in self.features.values():
                feature.fit(bound)


def _floats(values: Sequence[Any]) -> Float:
    """Return the finite ones of ints and floats, shape (n,) float64."""
    try:
        numbers = np.array(values, np.float64)
    except OverflowError:  # some integer is too large
        numbers = np.array([float(value) for value in values if abs(value) <= _LARGEST], np.float64)
    return numbers[np.isfinite(numbers)]


class _WireFeature(msgspec.Struct, array_like=True):
    """keys: of the cells below and above zero, each as differences outwards. sums: (zero bits at the end, the bits before them)."""

    name: str
    shift: int
    below: bytes
    above: bytes
    counts: bytes
    zeros: int
    minimum: float
    maximum: float
    is_whole: bool
    sums: list[tuple[int, bytes]]
    strings: int
    hashes: bytes
    value_counts: bytes
    texts: list[str | None] | None
    rest: tuple[int, int, int, int]
    not_finite: tuple[int, int, int] = (0, 0, 0)


class _Wire(msgspec.Struct, array_like=True):
    rows: int
    has_more_names: bool
    features: list[_WireFeature]
    hash_key: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Wire).decode


def _to_wire(name: str, feature: FeatureDiscovery) -> _WireFeature:
    cells = feature.numbers
    n_below = int(np.searchsorted(cells.keys, 0))
    below, above = -1 - cells.keys[:n_below][::-1], cells.keys[n_below:]
    keys = sorted(feature.values)
    texts = feature.texts
    return _WireFeature(
        name=name,
        shift=cells.shift,
        below=varint.encode(np.diff(below, prepend=0)),
        above=varint.encode(np.diff(above, prepend=0)),
        counts=varint.encode(cells.counts),
        zeros=cells.zeros,
        minimum=cells.minimum,
        maximum=cells.maximum,
        is_whole=cells.is_whole,
        sums=[_int_bytes(feature.first), _int_bytes(feature.second)],
        strings=feature.strings,
        hashes=np.array(keys, ">u8").tobytes(),
        value_counts=varint.encode(np.array([feature.values[key] for key in keys], np.int64)),
        texts=None if texts is None else [texts.get(key) for key in keys],
        rest=(feature.trues, feature.falses, feature.nulls, feature.others),
        not_finite=feature.not_finite,
    )


def _from_wire(wire: _WireFeature) -> FeatureDiscovery:
    feature = FeatureDiscovery()
    cells = feature.numbers
    below, above = (np.cumsum(varint.decode(part, _length(part))) for part in (wire.below, wire.above))
    cells.shift = wire.shift
    cells.keys = np.concatenate((-1 - below[::-1], above))
    cells.counts = varint.decode(wire.counts, len(cells.keys))
    cells.zeros, cells.minimum, cells.maximum, cells.is_whole = wire.zeros, wire.minimum, wire.maximum, wire.is_whole
    feature.first, feature.second = (int.from_bytes(bits, "little", signed=True) << zeros for zeros, bits in wire.sums)
    feature.strings = wire.strings
    keys = np.frombuffer(wire.hashes, ">u8").tolist()
    feature.values = dict(zip(keys, varint.decode(wire.value_counts, len(keys)).tolist(), strict=True))
    if wire.texts is None:
        feature.texts = None
    else:
        feature.texts = {key: text for key, text in zip(keys, wire.texts, strict=True) if text is not None}
    feature.trues, feature.falses, feature.nulls, feature.others = wire.rest
    feature.not_finite = wire.not_finite
    return feature


def _length(data: bytes) -> int:
    """Return how many varints some bytes hold."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) < 0x80))


def _int_bytes(value: int) -> tuple[int, bytes]:
    zeros = (value & -value).bit_length() - 1 if value else 0
    value >>= zeros
    return zeros, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
