"""A reference learnt from a discovery: kinds, cells and dictionaries chosen from what was counted, and exact counts on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from msgspec import UNSET, structs

from monitor.cells import (
    ATOM_SHARE,
    FEW_VALUES,
    IDENTIFIER_ROWS,
    IDENTIFIER_SHARE,
    MAX_CATEGORIES,
    ROWS_PER_VALUE,
    Shape,
    fine_ranks,
    number_layout,
    rank,
)
from monitor.columns import Float, Int, Special
from monitor.discovery import Discovery, FeatureDiscovery
from monitor.hash_key import HashKey
from monitor.layout import CategoryFeature, Feature, NumberFeature, ValueType, canonical, layout_of
from monitor.profiles import Profile
from monitor.reference import LATENCY, SCORE, Reference
from monitor.sketches.log_cells import MANTISSA_BITS, relative_width
from monitor.sketches.moments import mean_std
from monitor.sketches.wide_sums import UNIT_EXPONENT

ALWAYS_NUMBERS = (SCORE, LATENCY)


class Choice(NamedTuple):
    """What the user says of a feature, over what is inferred."""

    kind: Literal["number", "category"] | None = None
    max_categories: int = MAX_CATEGORIES
    keep_values: bool = False


class Learnt(NamedTuple):
    """Which traffic a discovery is of: windows with rows, from the first one's start to the last one's end (exclusive)."""

    windows: int
    start_ms: int
    end_ms: int


class _LeftOut(Exception):
    """A feature cannot be learnt; the message says why."""


def learn(
    discovery: Discovery, model: str, version: str, learnt: Learnt, choices: Mapping[str, Choice] | None = None
) -> Reference | None:
    """Return a provisional reference of the rows of a discovery; None when no feature is left, or there are no rows.

    A feature is of the type that most of its rows have, the others count as of a wrong type. Numbers become numeric features, but codes
    as in a file (cells.FEW_VALUES) categories. A string that the discovery holds no text of is in `other`. Left out, named in
    the record and warned of: more different strings than a discovery keeps, identifiers, and features without a value.

    Counts, minimum, maximum, and missing, absent and wrong-typed rows are exact on the learnt layout. With few enough different values
    the layout is the one that a file of the same rows would get. Otherwise an edge stands for a quantile at the nearest end of a cell,
    at most half the rows of a cell away from it; the warnings say how wide a cell is. Mean and standard deviation are right to 2^−36 of
    the latter.
    """
    features: list[Feature] = []
    left_out: list[str] = []
    warnings = (
        ["more features came than are kept; those with the smallest hashes were learnt"] if discovery.has_more_names else []
    )
    for name, found in sorted(discovery.features.items()):
        try:
            features.append(_feature(name, found, (choices or {}).get(name, Choice()), discovery.hash_key))
        except _LeftOut as why:
            warnings.append(f"feature {name}: {why}, left out")
            left_out.append(name)
            continue
        if isinstance(features[-1], NumberFeature) and not _is_known(found):
            warnings.append(f"feature {name}: cells are {relative_width(found.numbers.shift):.2g} of a value wide")
    if not features or not discovery.rows:
        return None
    layout = layout_of(features, discovery.hash_key)
    profile = Profile(layout)
    profile.rows[0] = discovery.rows
    for position, feature in enumerate(layout.features):
        _count(profile, position, feature, discovery)
    return Reference.build(
        model,
        version,
        profile,
        time_range_ms=(learnt.start_ms, learnt.end_ms - 1),
        warnings=sorted(warnings),
        provisional_windows=learnt.windows,
        left_out=left_out,
    )


def _feature(name: str, found: FeatureDiscovery, choice: Choice, hash_key: HashKey) -> Feature:
    kind = _value_type(found)
    if kind is None:
        raise _LeftOut("no values")
    asked = "number" if name in ALWAYS_NUMBERS else choice.kind
    if asked == "number" and kind != "number":
        raise _LeftOut(f"{kind} values where numbers are wanted")
    if kind == "number" and (asked == "number" or (asked is None and not _is_codes(found))):
        return _number_feature(name, found)
    if kind == "string":
        return _string_feature(name, found, choice, hash_key)
    counts = _texts_of_numbers(found) if kind == "number" else {"true": found.trues, "false": found.falses}
    return _dictionary(name, kind, {text: n for text, n in counts.items() if n}, choice, hash_key)


def _value_type(found: FeatureDiscovery) -> ValueType | None:
    """Return the type that most rows with a value have; numbers before strings before booleans."""
    rows: dict[ValueType, int] = {"number": found.numbers.n, "string": found.strings, "boolean": found.trues + found.falses}
    most = max(rows, key=lambda kind: rows[kind])
    return most if rows[most] else None


def _dictionary(name: str, kind: ValueType, counts: Mapping[str, int], choice: Choice, hash_key: HashKey) -> CategoryFeature:
    """Return a category of the most frequent values, ties by text; of the others with their hashes."""
    ranked = sorted(counts, key=lambda text: (-counts[text], text))
    return CategoryFeature(
        name=name,
        values=tuple(ranked[: choice.max_categories]),
        value_type=kind,
        other=tuple(sorted(hash_key.hashes(ranked[choice.max_categories :]).tolist())),
        hash_key=hash_key.id or UNSET,
        keep_values=choice.keep_values or UNSET,
    )


def _string_feature(name: str, found: FeatureDiscovery, choice: Choice, hash_key: HashKey) -> CategoryFeature:
    if not found.has_all_values:
        raise _LeftOut(f"about {found.n_distinct:,.0f} different values, an identifier or free text")
    distinct = len(found.values)
    if choice.kind is None and found.strings > IDENTIFIER_ROWS and distinct > IDENTIFIER_SHARE * found.strings:
        raise _LeftOut(f"{distinct:,} different values in {found.strings:,} rows, an identifier")
    texts = found.texts or {}
    feature = _dictionary(name, "string", {text: found.values[key] for key, text in texts.items()}, choice, hash_key)
    unnamed = found.values.keys() - texts.keys()
    return structs.replace(feature, other=tuple(sorted(unnamed.union(feature.other))))


# --- numbers


def _number_cells(found: FeatureDiscovery) -> tuple[Float, Int]:
    """Return the upper ends of the cells and their rows; where all values are known, the values themselves."""
    ends, counts = found.numbers.cells()
    return (np.floor(ends) if found.numbers.is_whole else ends), counts


def _is_known(found: FeatureDiscovery) -> bool:
    """Whether every cell holds one value only: one double, or one integer where all are integers."""
    numbers = found.numbers
    if numbers.is_exact:
        return True
    ends, _ = numbers.cells()
    # Between two integers up to 1/width, further apart than a cell is wide, an end is passed.
    is_narrow = numbers.shift <= MANTISSA_BITS
    return numbers.is_whole and is_narrow and bool(np.abs(ends).max(initial=0.0) * relative_width(numbers.shift) <= 1.0)


def _is_codes(found: FeatureDiscovery) -> bool:
    numbers = found.numbers
    if not (numbers.is_whole and _is_known(found)):
        return False
    distinct = len(numbers.keys) + (numbers.zeros > 0)
    return distinct <= FEW_VALUES and distinct * ROWS_PER_VALUE <= numbers.n


def _texts_of_numbers(found: FeatureDiscovery) -> dict[str, int]:
    """Return rows by canonical text. Raises _LeftOut where not all values are known."""
    if not _is_known(found):
        raise _LeftOut("too many different numbers for a category")
    values, counts = _number_cells(found)
    return {canonical(value): n for value, n in zip(values.tolist(), counts.tolist(), strict=True)}


def _number_feature(name: str, found: FeatureDiscovery) -> NumberFeature:
    numbers = found.numbers
    ends, counts = _number_cells(found)
    upto = np.cumsum(counts)
    is_known = _is_known(found)
    n = numbers.n
    fine = _quantiles(ends, upto, fine_ranks(n), is_exact=is_known)
    deciles = _quantiles(ends, upto, [rank(n, i, 10) for i in range(1, 10)], is_exact=is_known)
    first_quartile, third_quartile = _quantiles(ends, upto, [rank(n, 1, 4), rank(n, 3, 4)], is_exact=is_known)
    chosen = {*fine, *deciles, first_quartile, third_quartile}
    if is_known:
        chosen.add(numbers.minimum)
    singles = [end for end, n in zip(ends.tolist(), counts.tolist(), strict=True) if n >= ATOM_SHARE * numbers.n]
    singles = [end for end in singles if (end in chosen if is_known else end == 0)]
    mean, std = mean_std(numbers.n, found.first, found.second, 0.0, UNIT_EXPONENT)
    mean = min(max(mean, numbers.minimum), numbers.maximum)
    shape = Shape(numbers.minimum, numbers.maximum, third_quartile - first_quartile, mean, std)
    return number_layout(name, shape, chosen, deciles, singles)


def _quantiles(ends: Float, upto: Int, ranks: Sequence[int], *, is_exact: bool) -> list[float]:
    """Return the cell ends at some ranks: of the cells that hold them, or where ends stand for ranges the nearest ones."""
    places = np.searchsorted(upto, ranks, side="right")
    if not is_exact:
        wanted = np.array(ranks) + 1
        before = np.maximum(places - 1, 0)
        places = np.where(np.abs(upto[before] - wanted) <= np.abs(upto[places] - wanted), before, places)
    found: list[float] = ends[places].tolist()
    return found


# --- counts


def _count(profile: Profile, position: int, feature: Feature, discovery: Discovery) -> None:
    """Put the rows of a feature into its cells."""
    layout, counts = profile.layout, profile.counts[0]
    found = discovery.features[feature.name]
    values = counts[layout.value_slice(position)]
    not_finite = 0
    if isinstance(feature, NumberFeature):
        ends, rows = _number_cells(found)
        np.add.at(values, np.searchsorted(np.array(feature.edges), ends, side="left"), rows)
        row = next(r for r, (p, _) in enumerate(layout.numbers) if p == position)
        profile.minimum[0, row], profile.maximum[0, row] = found.numbers.minimum, found.numbers.maximum
        profile.sums[0, row] = _sums(found, feature)
        for special, n in zip((Special.NAN, Special.POS_INF, Special.NEG_INF), found.not_finite, strict=True):
            counts[layout.special_cell(position, special)] = n
        not_finite = sum(found.not_finite)
    else:
        known = _category_counts(found, feature)
        values[:-1] = [known.pop(value) for value in feature.values]
        values[-1] = sum(known.values())
        outside = profile.outside[next(r for r, (p, _) in enumerate(layout.categories) if p == position)]
        outside.know(feature.other)
    counts[layout.special_cell(position, Special.MISSING)] = found.nulls
    counts[layout.special_cell(position, Special.ABSENT)] = discovery.rows - found.n
    counts[layout.special_cell(position, Special.WRONG_TYPE)] = found.n - found.nulls - int(values.sum()) - not_finite


def _category_counts(found: FeatureDiscovery, feature: CategoryFeature) -> dict[str | int, int]:
    """Return rows by text, or by hash where there is no text."""
    if feature.value_type == "number":
        return dict[str | int, int](_texts_of_numbers(found).items())
    if feature.value_type == "boolean":
        return {text: n for text, n in (("true", found.trues), ("false", found.falses)) if n}
    texts = found.texts or {}
    return {texts.get(key, key): n for key, n in found.values.items()}


def _sums(found: FeatureDiscovery, feature: NumberFeature) -> tuple[int, int]:
    """Return (Σq, Σq²), q = (x − centre) / 2^exponent, from the exact sums; a profile rounds each q, this one the sums."""
    n = found.numbers.n
    centre, quantum = Fraction(feature.centre), Fraction(2) ** feature.exponent
    first = Fraction(found.first) * Fraction(2) ** UNIT_EXPONENT
    second = Fraction(found.second) * Fraction(2) ** (2 * UNIT_EXPONENT)
    return round((first - n * centre) / quantum), round((second - 2 * centre * first + n * centre * centre) / quantum**2)
