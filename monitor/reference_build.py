"""A reference from a file: kinds, edges and dictionaries in a first pass, counts in a second; memory bounded, no raw rows kept."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitor.columns import ColumnBatch, Float, Special, specials_of
from monitor.errors import InputError
from monitor.files import ColumnOptions, read_batches, times_ms
from monitor.layout import CategoryFeature, Feature, Layout, NumberFeature, ValueType, canonical, layout_of
from monitor.profiles import Profile
from monitor.reference import PREDICTION, SCORE, Reference
from monitor.sketches.bounded import key_hash
from monitor.sketches.moments import exact_sums, mean_std, scale_of

FINE_CELLS = 128
ATOM_SHARE = 0.02
"""A value that so many rows have gets a cell of its own."""
TAIL_POWERS = range(-6, 10)
"""Tail cells end at max + IQR·2^k, and at the mirror image below the minimum."""
MAX_DISTINCT = 1_000_000
MAX_OTHER = 10_000
MAX_LABELS = 1_000
SORT_BYTES = 256 << 20
"""A numeric column up to this size is sorted at once; a larger one is searched in several passes."""


@dataclass(frozen=True, slots=True)
class FeatureOptions:
    """What the user says of a feature, over what is inferred."""

    kind: Literal["number", "category"] | None = None
    max_categories: int = 200
    pii: Literal["none", "drop"] = "none"


@dataclass
class _Column:
    """What the first pass keeps of a column: a spool of its numbers, or the counts of its values."""

    name: str
    feature: str
    value_type: ValueType | None
    spool: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)
    overflowed: bool = False


def build_reference(
    path: Path,
    model: str,
    version: str,
    columns: ColumnOptions,
    feature_options: Mapping[str, FeatureOptions] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Reference:
    """Return the reference of a file's rows; the same for any order of the rows.

    Numbers are numbers unless `kind: category` says otherwise; texts and booleans are categories. Raises InputError.
    """
    options = feature_options or {}
    warnings: list[str] = []
    labels: Counter[str] = Counter()
    span: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        plan = _plan(path, columns, options, Path(folder), warnings)
        for batch in read_batches(path, columns):
            _first_pass(batch, plan)
            if columns.label:
                labels.update(canonical(v) for v in batch.column(columns.label).to_pylist() if v is not None)
            if columns.time:
                times = times_ms(batch.column(columns.time), columns.time_unit)
                span += [int(times.min()), int(times.max())]
            if progress:
                progress(batch.num_rows)
        features = {c.name: f for c in plan if (f := _feature(c, options.get(c.name), warnings)) is not None}
    if not features:
        raise InputError(f"{path}: no column is left to be a feature")
    if len(labels) > MAX_LABELS:
        warnings.append(f"label column {columns.label}: more than {MAX_LABELS} values, distribution left out")
        labels.clear()
    layout = layout_of(features.values())
    profile = Profile(layout)
    by_feature = {f.name: name for name, f in features.items()}
    for batch in read_batches(path, columns):
        profile.update(_columns(batch, layout, by_feature))
        if progress:
            progress(batch.num_rows)
    time_range = (min(span), max(span)) if span else None
    return Reference.build(
        model, version, profile, labels=dict(sorted(labels.items())), time_range_ms=time_range, warnings=sorted(warnings)
    )


def _plan(
    path: Path, columns: ColumnOptions, options: Mapping[str, FeatureOptions], folder: Path, warnings: list[str]
) -> list[_Column]:
    """Decide from the schema what each column is."""
    schema = next(read_batches(path, columns)).schema
    outputs = {columns.prediction: PREDICTION, columns.score: SCORE}
    left_out = {columns.time, columns.label, columns.id, columns.model, columns.version, *columns.exclude}
    left_out |= {"partition", "record_timestamp"} | {n for n, o in options.items() if o.pii == "drop"}
    plan = []
    for number, item in enumerate(schema):
        if item.name in left_out:
            continue
        if item.name.startswith("@"):
            raise InputError(f"{path}: column {item.name!r}: names that begin with @ are taken")
        kind = options[item.name].kind if item.name in options else None
        value_type = _value_type(item.type)
        if value_type is None:
            warnings.append(f"column {item.name}: {item.type} is not a kind of feature, left out")
            continue
        if value_type == "number" and kind != "category":
            value_type = None
        elif value_type != "number" and kind == "number":
            raise InputError(f"{path}: column {item.name!r} has {item.type} values, it cannot be `kind: number`")
        plan.append(
            _Column(
                item.name,
                outputs.get(item.name) or item.name,
                value_type,
                spool=folder / str(number) if value_type is None else None,
            )
        )
    return plan


def _value_type(kind: pa.DataType) -> ValueType | None:
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_dictionary(kind):
        return _value_type(kind.value_type)
    return "string" if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind) else None


def _first_pass(batch: pa.RecordBatch, plan: list[_Column]) -> None:
    for column in plan:
        data = batch.column(column.name)
        if column.spool is not None:
            values = _floats(data)
            with column.spool.open("ab") as file:
                values[np.isfinite(values)].tofile(file)
        elif not column.overflowed:
            for item in pc.value_counts(_plain(data)).to_pylist():
                if item["values"] is not None:
                    column.counts[canonical(item["values"])] += item["counts"]
            column.overflowed = len(column.counts) > MAX_DISTINCT


def _plain(data: pa.Array) -> pa.Array:
    return data.dictionary_decode() if pa.types.is_dictionary(data.type) else data


def _floats(data: pa.Array) -> Float:
    return np.asarray(_plain(data).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)


def _feature(column: _Column, options: FeatureOptions | None, warnings: list[str]) -> Feature | None:
    if column.spool is not None:
        if not column.spool.exists() or not column.spool.stat().st_size:
            warnings.append(f"column {column.name}: no values, left out")
            return None
        return number_feature(column.feature, column.spool)
    if column.overflowed:
        warnings.append(f"column {column.name}: more than {MAX_DISTINCT} values, an identifier, left out")
        return None
    if not column.counts:
        warnings.append(f"column {column.name}: no values, left out")
        return None
    bound = (options or FeatureOptions()).max_categories
    ranked = sorted(column.counts, key=lambda value: (-column.counts[value], value))
    others = sorted(key_hash(value) for value in ranked[bound:])
    if len(others) > MAX_OTHER:
        warnings.append(f"column {column.name}: {len(others)} values beyond the dictionary, {MAX_OTHER} of them are known")
    assert column.value_type is not None
    return CategoryFeature(
        name=column.feature, values=tuple(ranked[:bound]), value_type=column.value_type, other=tuple(others[:MAX_OTHER])
    )


def number_feature(name: str, spool: Path) -> NumberFeature:
    """Return the layout of a numeric feature from its finite values, a file of float64 in any order.

    Edges: inverted-CDF quantiles at i/128 and the deciles, singleton cells for atoms, both ends of the range, 16 tail cells a side.
    """
    n = spool.stat().st_size // 8
    ranks = sorted({max(0, -(-i * n // FINE_CELLS) - 1) for i in range(1, FINE_CELLS)} | _decile_ranks(n) | {0, n - 1})
    ranks += [max(0, -(-n // 4) - 1), max(0, -(-3 * n // 4) - 1)]
    at = dict(zip(ranks, order_statistics(spool, ranks), strict=True))
    low, high = at[0], at[n - 1]
    deciles = sorted({at[r] for r in _decile_ranks(n)} - {high})
    first = second = 0
    centre, exponent = scale_of((low + high) / 2 if math.isfinite(high - low) else 0.0, high - low)
    for chunk in _chunks(spool):
        part = exact_sums(chunk, centre, exponent)
        first, second = first + part[0], second + part[1]
    mean, std = mean_std(n, first, second, centre, exponent)
    spread = at[ranks[-1]] - at[ranks[-2]] or std or abs(high) or 1.0
    edges = set(at.values())
    for atom in _atoms(spool, n, sorted(at.values())):
        edges |= {atom, math.nextafter(atom, -math.inf)}
    edges |= {math.nextafter(low, -math.inf), high}
    edges |= {high + spread * 2.0**k for k in TAIL_POWERS} | {low - spread * 2.0**k for k in TAIL_POWERS}
    centre, exponent = scale_of(mean, std)
    return NumberFeature(
        name=name,
        edges=tuple(sorted(e + 0.0 for e in edges if math.isfinite(e))),
        reported=tuple(d + 0.0 for d in deciles),
        minimum=low,
        maximum=high,
        centre=centre,
        exponent=exponent,
    )


def _decile_ranks(n: int) -> set[int]:
    return {max(0, -(-i * n // 10) - 1) for i in range(1, 10)}


def _chunks(spool: Path) -> Iterator[Float]:
    with spool.open("rb") as file:
        while len(chunk := np.fromfile(file, np.float64, 1 << 20)):
            yield chunk


def order_statistics(spool: Path, ranks: list[int]) -> list[float]:
    """Return the exact values at the given 0-based ranks of a file of finite float64.

    Sorted at once up to `SORT_BYTES`; beyond, a radix search over the order-preserving integers, four passes of 16 bits.
    """
    if spool.stat().st_size <= SORT_BYTES:
        values = np.fromfile(spool, np.float64) + 0.0
        values.partition(sorted(set(ranks)))
        return [float(values[r]) for r in ranks]
    prefixes = {rank: (0, rank) for rank in ranks}
    for depth in range(4):
        shift = np.uint64(48 - 16 * depth)
        histograms = {prefix: np.zeros(1 << 16, np.int64) for prefix, _ in prefixes.values()}
        for chunk in _chunks(spool):
            keys = _ordered(chunk)
            heads = keys >> np.uint64(64 - 16 * depth) if depth else np.zeros(len(keys), np.uint64)
            digits = (keys >> shift).astype(np.int64) & 0xFFFF
            for prefix in histograms:
                histograms[prefix] += np.bincount(digits[heads == prefix] if depth else digits, minlength=1 << 16)
        for rank, (prefix, rest) in prefixes.items():
            upto = np.cumsum(histograms[prefix])
            digit = int(np.searchsorted(upto, rest, side="right"))
            prefixes[rank] = ((prefix << 16) | digit, rest - (int(upto[digit - 1]) if digit else 0))
    found = np.array([prefixes[rank][0] for rank in ranks], np.uint64)
    sign = np.uint64(1 << 63)
    return np.where(found & sign, found ^ sign, ~found).view(np.float64).tolist()  # type: ignore[no-any-return]


def _ordered(values: Float) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Map float64 to uint64 so that the order is kept; −0.0 becomes 0.0."""
    bits = (values + 0.0).view(np.uint64)
    sign = np.uint64(1 << 63)
    return np.where(bits & sign, ~bits, bits | sign)


def _atoms(spool: Path, n: int, candidates: list[float]) -> list[float]:
    """Return the values that at least `ATOM_SHARE` of the rows have. Such a value spans two quantiles, so it is among them."""
    values = np.unique(np.array(candidates))
    counts = np.zeros(len(values), np.int64)
    for chunk in _chunks(spool):
        position = np.searchsorted(values, chunk)
        position[position == len(values)] = 0
        counts += np.bincount(position[values[position] == chunk], minlength=len(values))
    return [float(v) for v, c in zip(values, counts, strict=True) if c >= ATOM_SHARE * n]


def _columns(batch: pa.RecordBatch, layout: Layout, by_feature: Mapping[str, str]) -> ColumnBatch:
    """Turn a table's rows into columns: null is missing, NaN is NaN."""
    n = batch.num_rows
    numbers = np.empty((len(layout.numbers), n))
    nulls = np.zeros(numbers.shape, bool)
    for row, (_, feature) in enumerate(layout.numbers):
        data = batch.column(by_feature[feature.name])
        numbers[row] = _floats(data)
        nulls[row] = np.asarray(data.is_null())
    specials = specials_of(numbers)
    if specials is not None:
        specials[nulls] = Special.MISSING
    categories = [_plain(batch.column(by_feature[f.name])).to_pylist() for _, f in layout.categories]
    return ColumnBatch(n, numbers, specials, categories)
