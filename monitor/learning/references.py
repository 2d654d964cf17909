"""A reference learnt from a discovery: kinds, cells and dictionaries chosen from what was counted, and exact counts on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from msgspec import structs

from monitor.cells import (
    FEW_VALUES,
    IDENTIFIER_ROWS,
    IDENTIFIER_SHARE,
    NOTHING_SAID,
    NUMBERS,
    ROWS_PER_VALUE,
    TEXT_SHARE,
    TEXT_WORDS,
    Ends,
    FeatureOptions,
    Shape,
    atom_rows,
    fine_ranks,
    number_layout,
    rank,
    with_cells_of,
)
from monitor.chance.bounds import most_missing
from monitor.columns import Float, Int, Special
from monitor.features import AskedKind, CategoryFeature, Feature, NumberFeature, ValueType, canonical, hashed_texts, source_of
from monitor.hash_key import HashKey
from monitor.layout import layout_of
from monitor.learning.discovery import Discovery
from monitor.learning.features import FeatureDiscovery, NumberDiscovery
from monitor.profiles import Profile
from monitor.reference import LATENCY, SCORE, Reference
from monitor.sketches.log_cells import MANTISSA_BITS, relative_width
from monitor.sketches.moments import mean_std
from monitor.sketches.wide_sums import UNIT_EXPONENT
from monitor.views import views_of

ALWAYS_REAL = (SCORE, LATENCY)

_Found = Literal["string", "number", "boolean", "list"]
_NEEDED: dict[AskedKind, _Found] = {
    **dict.fromkeys(NUMBERS, "number"),
    "boolean": "boolean",
    "text": "string",
    "identifier": "string",
    "list": "list",
}
"""What most rows must hold for a feature to be learnt as a kind."""


class Learnt(NamedTuple):
    """Which traffic a discovery is of: windows with rows, from the first one's start to the last one's end (exclusive)."""

    windows: int
    start_ms: int
    end_ms: int


class _LeftOut(Exception):
    """A feature cannot be learnt; the message says why."""


def learn(
    discovery: Discovery, model: str, version: str, learnt: Learnt, options: Mapping[str, FeatureOptions] | None = None
) -> Reference | None:
    """Return a provisional reference of the rows of a discovery; None when no feature is left, or there are no rows.

    A feature is of the type that most of its rows have, the others count as of a wrong type. Numbers become numeric features, but codes
    as in a file (cells.FEW_VALUES) categories. Of lists, texts and identifiers the length is counted, and of identifiers whether there
    is one; a string feature with more different values than a discovery keeps is taken for one of these. A dictionary is hashed where
    the discovery keeps no texts; a single string that it holds no text of is in `other`. Left out, named in the record and warned of:
    timestamps, features of another type than the kind that is asked for, and those without a value.

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
        of_name = (options or {}).get(name, NOTHING_SAID)
        try:
            primary, *others = _features(name, found, of_name, discovery.hash_key, warnings)
        except _LeftOut as why:
            warnings.append(f"feature {name}: {why}, left out")
            left_out.append(name)
            continue
        features += [structs.replace(primary, max_missing_ratio=_max_missing_ratio(found, discovery.rows, of_name)), *others]
    if not features or not discovery.rows:
        return None
    features = [structs.replace(f, hash_key=discovery.hash_key.id) if isinstance(f, CategoryFeature) else f for f in features]
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


def _features(
    name: str, found: FeatureDiscovery, options: FeatureOptions, hash_key: HashKey, warnings: list[str]
) -> list[Feature]:
    """Return the feature, or its views, the primary one first. Raises _LeftOut."""
    kind = _found_type(found)
    asked: AskedKind | None = "real" if name in ALWAYS_REAL else options.kind
    if kind is None:
        raise _LeftOut("no values")
    if asked == "timestamp" or (asked is None and kind == "string" and found.is_iso):
        raise _LeftOut("a timestamp is counted by its age, which a reference from a file knows and a learnt one does not")
    needed = kind if asked is None or (asked == "category" and kind != "list") else _NEEDED.get(asked)
    if kind != needed:
        raise _LeftOut(f"{kind} values, which are not of `kind: {asked}`")
    if kind == "list":
        return _lengths(name, "list", found.list_lengths, warnings)
    if kind == "number" and (asked in NUMBERS or (asked is None and not _is_codes(found.numbers))):
        return [_plain_number(name, found, asked, options, warnings)]
    if kind == "string":
        return _string_features(name, found, options, hash_key, warnings)
    counts = _texts_of_numbers(found.numbers) if kind == "number" else {"true": found.trues, "false": found.falses}
    return [_dictionary(name, kind, {text: n for text, n in counts.items() if n}, options, hash_key)]


def _found_type(found: FeatureDiscovery) -> _Found | None:
    """Return the type that most rows with a value have; of equally many the first one here."""
    rows: dict[_Found, int] = {
        "number": found.numbers.n,
        "string": found.strings,
        "boolean": found.trues + found.falses,
        "list": found.list_lengths.n,
    }
    most = max(rows, key=lambda kind: rows[kind])
    return most if rows[most] else None


def _max_missing_ratio(found: FeatureDiscovery, rows: int, options: FeatureOptions) -> float:
    missing = found.nulls + rows - found.n
    return most_missing(missing, rows) if options.max_missing_ratio is None else options.max_missing_ratio


# --- categories, texts


def _dictionary(
    name: str, kind: ValueType, counts: Mapping[str, int], options: FeatureOptions, hash_key: HashKey
) -> CategoryFeature:
    """Return a category of the most frequent values, ties by text; of the others with their hashes."""
    ranked = sorted(counts, key=lambda text: (-counts[text], text))
    kept, others = ranked[: options.max_categories], ranked[options.max_categories :]
    is_hashed = options.pii == "hash"
    return CategoryFeature(
        name=name,
        values=hashed_texts(kept, hash_key) if is_hashed else tuple(kept),
        value_type=kind,
        other=tuple(sorted(hash_key.hashes(others).tolist())),
        keep_values=options.keep_values,
        is_hashed=is_hashed,
    )


def _hashed_dictionary(name: str, found: FeatureDiscovery, options: FeatureOptions) -> CategoryFeature:
    """Return a category of strings of which only hashes are known, the most frequent ones, ties by hash."""
    ranked = sorted(found.values, key=lambda key: (-found.values[key], key))
    return CategoryFeature(
        name=name,
        values=tuple(map(_digits, ranked[: options.max_categories])),
        other=tuple(sorted(ranked[options.max_categories :])),
        keep_values=options.keep_values,
        is_hashed=True,
    )


def _digits(key: int) -> str:
    return f"{key:016x}"


def _string_features(
    name: str, found: FeatureDiscovery, options: FeatureOptions, hash_key: HashKey, warnings: list[str]
) -> list[Feature]:
    kind = options.kind or _string_kind(found)
    about = f"{'' if found.has_all_values else 'about '}{found.n_distinct:,.0f} different values in {found.strings:,} rows"
    if kind == "text":
        warnings.append(f"feature {name}: a text ({about}); a learnt reference knows its length, not its words")
        return _lengths(name, "text", found.lengths, warnings)
    if kind == "identifier":
        warnings.append(f"feature {name}: an identifier ({about}); its values are not told apart")
        value, _ = views_of(name, "identifier")
        return [value, structs.replace(_lengths(name, "identifier", found.lengths, warnings)[0], is_secondary=True)]
    if not found.has_all_values:
        raise _LeftOut(f"{about}, too many for a category; `kind: identifier` keeps it")
    if found.texts is None:
        return [_hashed_dictionary(name, found, options)]
    feature = _dictionary(name, "string", {text: found.values[key] for key, text in found.texts.items()}, options, hash_key)
    unnamed = found.values.keys() - found.texts.keys()
    return [structs.replace(feature, other=tuple(sorted(unnamed.union(feature.other))))]


def _string_kind(found: FeatureDiscovery) -> Literal["text", "identifier", "category"]:
    """Return what strings are by the rules for a file; with more different values than a discovery keeps, they are no category."""
    rows, distinct = found.strings, found.n_distinct
    if found.words >= TEXT_WORDS * rows and distinct > max(FEW_VALUES, TEXT_SHARE * rows):
        return "text"
    is_identifier = rows > IDENTIFIER_ROWS and distinct > IDENTIFIER_SHARE * rows
    return "category" if found.has_all_values and not is_identifier else "identifier"


# --- numbers


def _cells(numbers: NumberDiscovery) -> tuple[Float, Int]:
    """Return the upper ends of the cells and their rows; where all values are known, the values themselves."""
    ends, counts = numbers.cells.cells()
    return (np.floor(ends) if numbers.cells.is_whole else ends), counts


def _is_known(numbers: NumberDiscovery) -> bool:
    """Whether every cell holds one value only: one double, or one integer where all are integers."""
    cells = numbers.cells
    if cells.is_exact:
        return True
    ends, _ = cells.cells()
    # Between two integers up to 1/width, further apart than a cell is wide, an end is passed.
    is_narrow = cells.shift <= MANTISSA_BITS
    return cells.is_whole and is_narrow and bool(np.abs(ends).max(initial=0.0) * relative_width(cells.shift) <= 1.0)


def _is_codes(numbers: NumberDiscovery) -> bool:
    if not (numbers.cells.is_whole and _is_known(numbers)):
        return False
    distinct = len(numbers.cells.keys) + (numbers.cells.zeros > 0)
    return distinct <= FEW_VALUES and distinct * ROWS_PER_VALUE <= numbers.n


def _texts_of_numbers(numbers: NumberDiscovery) -> dict[str, int]:
    """Return rows by canonical text. Raises _LeftOut where not all values are known."""
    if not _is_known(numbers):
        raise _LeftOut("too many different numbers for a category")
    values, counts = _cells(numbers)
    return {canonical(value): n for value, n in zip(values.tolist(), counts.tolist(), strict=True)}


def _plain_number(
    name: str, found: FeatureDiscovery, asked: AskedKind | None, options: FeatureOptions, warnings: list[str]
) -> NumberFeature:
    """Return an integer or a real; a real where an integer was asked for and not all values are whole."""
    if options.pii == "hash":
        raise _LeftOut("`pii: hash` is for texts and categories")
    is_whole = found.numbers.cells.is_whole
    if asked == "integer" and not is_whole:
        warnings.append(f"feature {name}: not all values are whole, although it is configured as an integer")
    feature = _number_feature(name, found.numbers, options, warnings)
    return structs.replace(feature, is_integral=is_whole and asked != "real")


def _lengths(
    name: str, kind: Literal["list", "text", "identifier"], lengths: NumberDiscovery, warnings: list[str]
) -> list[Feature]:
    view = next(view for view in views_of(name, kind) if isinstance(view, NumberFeature) and view.view == "length")
    return [with_cells_of(view, _number_feature(view.name, lengths, NOTHING_SAID, warnings))]


def _number_feature(name: str, numbers: NumberDiscovery, options: FeatureOptions, warnings: list[str]) -> NumberFeature:
    ends, counts = _cells(numbers)
    upto = np.cumsum(counts)
    is_known, n, cells = _is_known(numbers), numbers.n, numbers.cells
    if not is_known:
        warnings.append(f"feature {name}: cells are {relative_width(cells.shift):.2g} of a value wide")
    fine = _quantiles(ends, upto, fine_ranks(n), is_exact=is_known)
    deciles = _quantiles(ends, upto, [rank(n, i, 10) for i in range(1, 10)], is_exact=is_known).tolist()
    first_quartile, third_quartile = _quantiles(ends, upto, [rank(n, 1, 4), rank(n, 3, 4)], is_exact=is_known).tolist()
    candidates = {cells.minimum, cells.maximum, *fine.tolist(), *deciles} if is_known else {0.0}
    singles = [e for e, rows in zip(ends.tolist(), counts.tolist(), strict=True) if rows >= atom_rows(n) and e in candidates]
    mean, std = mean_std(n, numbers.first, numbers.second, 0.0, UNIT_EXPONENT)
    mean = min(max(mean, cells.minimum), cells.maximum)
    shape = Shape(cells.minimum, cells.maximum, third_quartile - first_quartile, mean, std).widened(options)
    exact = [cells.minimum] if is_known else []

    def successors(values: Float) -> Float:
        if not is_known:
            return values
        above: Float = np.append(ends, np.inf)[np.searchsorted(ends, values, "right")]
        return above

    return number_layout(name, shape, Ends(fine, deciles, exact, singles), successors)


def _quantiles(ends: Float, upto: Int, ranks: Sequence[int], *, is_exact: bool) -> Float:
    """Return the cell ends at some ranks: of the cells that hold them, or where ends stand for ranges the nearest ones."""
    places = np.searchsorted(upto, ranks, side="right")
    if not is_exact:
        wanted = np.array(ranks) + 1
        before = np.maximum(places - 1, 0)
        places = np.where(np.abs(upto[before] - wanted) <= np.abs(upto[places] - wanted), before, places)
    found: Float = ends[places]
    return found


# --- counts


def _count(profile: Profile, position: int, feature: Feature, discovery: Discovery) -> None:
    """Put the rows of a feature into its cells."""
    layout, counts = profile.layout, profile.counts[0]
    found = discovery.features[source_of(feature)]
    values = counts[layout.value_slice(position)]
    not_finite = found.not_finite if isinstance(feature, NumberFeature) and feature.view is None else (0, 0, 0)
    if isinstance(feature, NumberFeature):
        numbers = _numbers_of(found, feature)
        ends, rows = _cells(numbers)
        np.add.at(values, np.searchsorted(np.array(feature.edges), ends, side="left"), rows)
        row = layout.rows[position]
        profile.minimum[0, row], profile.maximum[0, row] = numbers.cells.minimum, numbers.cells.maximum
        profile.sums[0, row] = _sums(numbers, feature)
        for special, n in zip((Special.NAN, Special.POS_INF, Special.NEG_INF), not_finite, strict=True):
            counts[layout.special_cell(position, special)] = n
    else:
        outside = profile.outside[layout.rows[position]]
        if feature.is_open:
            values[-1] = found.strings
            outside.registers = None  # how many different values there are is not known exactly enough
        else:
            known = _category_counts(found, feature, discovery.hash_key)
            values[:-1] = [known.pop(value) for value in feature.values]
            values[-1] = sum(known.values())
            outside.know(feature.other)
    counts[layout.special_cell(position, Special.MISSING)] = found.nulls
    counts[layout.special_cell(position, Special.ABSENT)] = discovery.rows - found.n
    counts[layout.special_cell(position, Special.WRONG_TYPE)] = found.n - found.nulls - int(values.sum()) - sum(not_finite)


def _numbers_of(found: FeatureDiscovery, feature: NumberFeature) -> NumberDiscovery:
    if feature.view is None:
        return found.numbers
    return found.list_lengths if feature.source_kind == "list" else found.lengths


def _category_counts(found: FeatureDiscovery, feature: CategoryFeature, hash_key: HashKey) -> dict[str | int, int]:
    """Return rows by what the dictionary holds of a value, or by hash where there is no text."""
    if feature.value_type == "string":
        if feature.is_hashed:
            return {_digits(key): n for key, n in found.values.items()}
        texts = found.texts or {}
        return {texts.get(key, key): n for key, n in found.values.items()}
    if feature.value_type == "number":
        counts = _texts_of_numbers(found.numbers)
    else:
        counts = {text: n for text, n in (("true", found.trues), ("false", found.falses)) if n}
    names = hashed_texts(counts, hash_key) if feature.is_hashed else counts
    return dict(zip(names, counts.values(), strict=True))


def _sums(numbers: NumberDiscovery, feature: NumberFeature) -> tuple[int, int]:
    """Return (Σq, Σq²), q = (x − centre) / 2^exponent, from the exact sums; a profile rounds each q, this one the sums."""
    centre, quantum = Fraction(feature.centre), Fraction(2) ** feature.exponent
    first = Fraction(numbers.first) * Fraction(2) ** UNIT_EXPONENT
    second = Fraction(numbers.second) * Fraction(2) ** (2 * UNIT_EXPONENT)
    n = numbers.n
    return round((first - n * centre) / quantum), round((second - 2 * centre * first + n * centre * centre) / quantum**2)
