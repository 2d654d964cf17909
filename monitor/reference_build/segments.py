"""Which segments a reference has rows for: the values that the configuration lists, or the most frequent ones of its data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa

from monitor.columns import Int
from monitor.errors import InputError
from monitor.features import CategoryFeature, NumberFeature, canonical
from monitor.files import Columns
from monitor.files.tables import near, role
from monitor.layout import Layout
from monitor.segments import FALSE, OTHER, TAGS, TRUE, Key, Segmentation, codes_of_numbers

MIN_ROWS = 100
"""A value that fewer rows of the reference have gets no segment of its own: nothing could be said of it."""
MAX_DISTINCT = 100_000
"""More different values of a segmentation than this are not counted."""
MAX_BYTES = 64 << 20
"""Of the counts of one profile in memory: a model's segments never take more, whatever the budget of rows."""

Values = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SegmentOptions:
    """How a user wants rows split. values: the segments that get rows of their own; None: found in the data."""

    keys: tuple[Key, ...]
    values: tuple[Values, ...] | None = None


class SegmentCounts:
    """Rows of a file by the values of each wanted segmentation; in bounded memory, the same for any order of the rows."""

    def __init__(self, wanted: Sequence[SegmentOptions]) -> None:
        self._wanted = wanted
        self._counts: list[Counter[Values]] = [Counter() for _ in wanted]
        self._rows = 0

    def add(self, batch: Columns) -> None:
        """Count rows. Raises InputError for a segmentation with too many values."""
        self._rows += batch.n
        for options, counts in zip(self._wanted, self._counts, strict=True):
            if options.values is None:
                counts.update(_combinations(options.keys, batch))
                if len(counts) > MAX_DISTINCT:
                    name = str(Segmentation(options.keys, ()))
                    raise InputError(
                        f"segments: {name} has more than {MAX_DISTINCT:,} values; list those that matter: {{by: [{name}], values: […]}}"
                    )

    def segmentations(self, layout: Layout, max_segments: int, warnings: list[str]) -> tuple[Segmentation, ...]:
        """Return the segmentations, `max_segments` rows at the most, `all` and every `(other)` among them: the most frequent first.

        What shares `(other)` is said in `warnings`. Raises InputError for a key that can split nothing, or a budget that is too small.
        """
        if not self._wanted:
            return ()
        problems = [problem for options in self._wanted for key in options.keys for problem in _problems(key, layout)]
        if problems:
            raise InputError("\n".join(dict.fromkeys(problems)))
        each = 8 * max(1, layout.n_cells)
        budget = min(max_segments, max(1, MAX_BYTES // each)) - 1 - len(self._wanted)
        chosen: list[list[Values]] = [list(_listed(options)) for options in self._wanted]
        budget -= sum(map(len, chosen))
        if budget < 0:
            raise InputError(
                f"segments: {max_segments - budget:,} rows are listed, `all` and `(other)` among them, the budget is {max_segments:,}; "
                "raise max_segments, or list fewer values"
            )
        ranked = sorted(
            (-rows, place, values)
            for place, found in enumerate(self._found(layout))
            for values, rows in found.items()
            if rows >= MIN_ROWS and values not in chosen[place]
        )
        for _, place, values in ranked[:budget]:
            chosen[place].append(values)
        for options, counts, own in zip(self._wanted, self._counts, chosen, strict=True):
            self._report(options, counts, own, warnings)
        return tuple(Segmentation(options.keys, tuple(own)) for options, own in zip(self._wanted, chosen, strict=True))

    def _found(self, layout: Layout) -> Iterable[Mapping[Values, int]]:
        """Yield, per segmentation, the values that can have rows: those of dictionaries, and none that is called `(other)`."""
        for options, counts in zip(self._wanted, self._counts, strict=True):
            known = [_dictionary(key, layout) for key in options.keys]
            yield {
                values: n
                for values, n in counts.items()
                if OTHER not in values and all(ok is None or value in ok for value, ok in zip(values, known, strict=True))
            }

    def _report(self, options: SegmentOptions, counts: Counter[Values], chosen: Sequence[Values], warnings: list[str]) -> None:
        rest = len(counts) - len(chosen)
        if options.values is None and rest > 0:
            share = (self._rows - sum(counts[values] for values in chosen)) / max(1, self._rows)
            warnings.append(
                f"segments of {Segmentation(options.keys, ())}: {len(chosen):,} of {len(counts):,} values have rows of their own, "
                f"the others share (other): {share:.1%} of the rows"
            )


def _listed(options: SegmentOptions) -> Iterable[Values]:
    """Return the segments that there are in any case: those of the user, or both outcomes of comparisons."""
    if options.values is not None:
        return options.values
    return product((TRUE, FALSE), repeat=len(options.keys)) if all(key.op for key in options.keys) else ()


def _problems(key: Key, layout: Layout) -> list[str]:
    """Return why a key can split nothing."""
    if key.tag is not None:
        return []
    position = layout.index.get(key.name)
    if position is None:
        return [f"segments: no feature {key.name!r}{near(key.name, layout.index)}; tags are written {TAGS}NAME"]
    feature = layout.features[position]
    if isinstance(feature, CategoryFeature) and (feature.is_hashed or feature.is_open):
        return [f"segments: the values of {key.name} are not kept, each of them cannot be a segment"]
    if key.op and not isinstance(feature, NumberFeature):
        return [f"segments: {key}: {key.name} is a category; name it alone, and each of its values is a segment"]
    if not key.op and isinstance(feature, NumberFeature):
        return [f"segments: {key.name} is a number; compare it ({key.name} >= {feature.maximum:g}), or set its kind to category"]
    return []


def _dictionary(key: Key, layout: Layout) -> frozenset[str] | None:
    """Return the values that can be told apart; None for any."""
    if key.op:
        return frozenset((TRUE, FALSE))
    if key.tag is not None:
        return None
    feature = layout.features[layout.index[key.name]]
    return frozenset(feature.values) if isinstance(feature, CategoryFeature) else frozenset()


def _combinations(keys: Sequence[Key], batch: Columns) -> Counter[Values]:
    """Return rows by the values of the keys; rows in which one is missing are left out."""
    texts: list[list[str]] = []
    combined, known = np.zeros(batch.n, np.int64), np.ones(batch.n, bool)
    for key in keys:
        name = key.name if key.tag is None else role(key.name)
        if name not in batch.arrays:
            return Counter()
        values, codes = _codes(key, batch.arrays[name])
        texts.append(values)
        known &= codes >= 0
        combined = combined * max(1, len(values)) + codes
    found, counts = np.unique(combined[known], return_counts=True)
    rows: Counter[Values] = Counter()
    for code, n in zip(found.tolist(), counts.tolist(), strict=True):
        parts = []
        for values in reversed(texts):
            code, place = divmod(code, max(1, len(values)))  # noqa: PLW2901
            parts.append(values[place])
        rows[tuple(reversed(parts))] += n
    return rows


def _codes(key: Key, array: Any) -> tuple[list[str], Int]:
    """Return the different values of a key in a column, and each row's place among them, -1 where there is none."""
    if key.op:
        numbers = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        codes = codes_of_numbers(key, numbers, None, (FALSE, TRUE))
        codes[~np.isfinite(numbers)] = -1
        return [FALSE, TRUE], codes
    encoded = array.dictionary_encode()
    texts = [canonical(value) for value in encoded.dictionary.to_pylist()]
    return texts, encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
