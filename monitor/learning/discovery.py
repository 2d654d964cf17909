"""A discovery: what is counted of rows whose features are not known beforehand; a layout can be chosen from it afterwards.

Merging is exact, associative and commutative, and equal rows give equal bytes in any order, batching and partitioning: names and values
are kept by their hashes, never first come, and every bound depends only on how many different ones there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import cramjam
import msgspec
import numpy as np

from monitor.errors import UnknownCodec
from monitor.hash_key import NO_KEY, HashKey
from monitor.learning.features import FeatureDiscovery, NumberDiscovery, budget
from monitor.reference import LATENCY, PREDICTION, SCORE
from monitor.sketches import varint
from monitor.sketches.bounded import key_hash

CODEC_VERSION = 1

MAX_NAMES = 512
"""Features beside the outputs; of more, those whose names have the smallest hashes."""
MAX_NAME_CHARS = 128
"""A longer name is not kept."""
OUTPUTS = (PREDICTION, SCORE, LATENCY)


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
        self,
        rows: Sequence[Mapping[str, object]],
        *,
        keep_texts: bool = True,
        left_out: frozenset[str] = frozenset(),
        hashed: frozenset[str] = frozenset(),
    ) -> None:
        """Count rows of values by name, as JSON has them; features that are left out leave no trace, hashed ones no texts.

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
                feature.update(column, self._budget, self.hash_key, keep_texts=keep_texts and name not in hashed)

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
        """Return version byte + zstd of msgpack; equal content gives equal bytes. Less than 1 MiB; 0.5–3 kB a feature."""
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


class _WireNumbers(msgspec.Struct, array_like=True):
    """keys: of the cells below and above zero, each as differences outwards. sums: (zero bits at the end, the bits before them)."""

    shift: int
    below: bytes
    above: bytes
    counts: bytes
    zeros: int
    minimum: float
    maximum: float
    is_whole: bool
    sums: list[tuple[int, bytes]]


class _WireFeature(msgspec.Struct, array_like=True):
    """numbers, lengths, list_lengths: None where there are none."""

    name: str
    numbers: _WireNumbers | None
    lengths: _WireNumbers | None
    list_lengths: _WireNumbers | None
    strings: int
    words: int
    is_iso: bool
    hashes: bytes
    value_counts: bytes
    texts: list[str | None] | None
    rest: tuple[int, int, int, int]
    not_finite: tuple[int, int, int]


class _Wire(msgspec.Struct, array_like=True):
    rows: int
    has_more_names: bool
    features: list[_WireFeature]
    hash_key: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Wire).decode


def _to_wire(name: str, feature: FeatureDiscovery) -> _WireFeature:
    keys = sorted(feature.values)
    texts = feature.texts
    return _WireFeature(
        name=name,
        numbers=_numbers_to_wire(feature.numbers),
        lengths=_numbers_to_wire(feature.lengths),
        list_lengths=_numbers_to_wire(feature.list_lengths),
        strings=feature.strings,
        words=feature.words,
        is_iso=feature.is_iso,
        hashes=np.array(keys, ">u8").tobytes(),
        value_counts=varint.encode(np.array([feature.values[key] for key in keys], np.int64)),
        texts=None if texts is None else [texts.get(key) for key in keys],
        rest=(feature.trues, feature.falses, feature.nulls, feature.others),
        not_finite=feature.not_finite,
    )


def _numbers_to_wire(numbers: NumberDiscovery) -> _WireNumbers | None:
    cells = numbers.cells
    if not cells.n:
        return None
    n_below = int(np.searchsorted(cells.keys, 0))
    below, above = -1 - cells.keys[:n_below][::-1], cells.keys[n_below:]
    return _WireNumbers(
        shift=cells.shift,
        below=varint.encode(np.diff(below, prepend=0)),
        above=varint.encode(np.diff(above, prepend=0)),
        counts=varint.encode(cells.counts),
        zeros=cells.zeros,
        minimum=cells.minimum,
        maximum=cells.maximum,
        is_whole=cells.is_whole,
        sums=[_int_bytes(numbers.first), _int_bytes(numbers.second)],
    )


def _from_wire(wire: _WireFeature) -> FeatureDiscovery:
    feature = FeatureDiscovery()
    feature.numbers = _numbers_from_wire(wire.numbers)
    feature.lengths = _numbers_from_wire(wire.lengths)
    feature.list_lengths = _numbers_from_wire(wire.list_lengths)
    feature.strings, feature.words, feature.is_iso = wire.strings, wire.words, wire.is_iso
    keys = np.frombuffer(wire.hashes, ">u8").tolist()
    feature.values = dict(zip(keys, varint.decode(wire.value_counts, len(keys)).tolist(), strict=True))
    if wire.texts is None:
        feature.texts = None
    else:
        feature.texts = {key: text for key, text in zip(keys, wire.texts, strict=True) if text is not None}
    feature.trues, feature.falses, feature.nulls, feature.others = wire.rest
    feature.not_finite = wire.not_finite
    return feature


def _numbers_from_wire(wire: _WireNumbers | None) -> NumberDiscovery:
    numbers = NumberDiscovery()
    if wire is None:
        return numbers
    cells = numbers.cells
    below, above = (np.cumsum(varint.decode(part, _length(part))) for part in (wire.below, wire.above))
    cells.shift = wire.shift
    cells.keys = np.concatenate((-1 - below[::-1], above))
    cells.counts = varint.decode(wire.counts, len(cells.keys))
    cells.zeros, cells.minimum, cells.maximum, cells.is_whole = wire.zeros, wire.minimum, wire.maximum, wire.is_whole
    numbers.first, numbers.second = (int.from_bytes(bits, "little", signed=True) << zeros for zeros, bits in wire.sums)
    return numbers


def _length(data: bytes) -> int:
    """Return how many varints some bytes hold."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) < 0x80))


def _int_bytes(value: int) -> tuple[int, bytes]:
    zeros = (value & -value).bit_length() - 1 if value else 0
    value >>= zeros
    return zeros, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
