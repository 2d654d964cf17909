"""Two references side by side: what the second one has more, less or otherwise, and how far its distributions are from the first's.

The second reference's counts lie on its own cells. They are regrouped onto the first one's, so that its rows are judged as a window's
would be; where an edge of the first one cuts a cell of the second, the rows of that cell are divided by interpolation, and it is said how many
of them may be on the wrong side, and what the distances would be if all were on one side.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from monitor.columns import Float, Int, Special
from monitor.features import CategoryFeature, FeatureKind, NumberFeature, kind_of
from monitor.findings import ClosedWindow, gather
from monitor.hash_key import HashKey
from monitor.layout import N_SPECIAL
from monitor.profiles import FeatureSummary, Profile
from monitor.reference import Reference
from monitor.windows import Window

MAX_VALUES = 20
"""Values that only one dictionary has are named up to this many, the most frequent first."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """Which reference it is."""

    model: str
    version: str
    sha256: str
    rows: int
    time_range_ms: tuple[int, int] | None
    performance: dict[str, float]
    labels: dict[str, int]


class FeatureDiff(msgspec.Struct, frozen=True, kw_only=True):
    """A feature that both have, of the same kind; pairs are (first reference, second reference)."""

    kind: FeatureKind
    n: tuple[int, int]
    """Rows with a value."""
    missing_ratio: tuple[float, float]
    mean: tuple[float | None, float | None]
    std: tuple[float | None, float | None]
    minimum: tuple[float | None, float | None]
    maximum: tuple[float | None, float | None]
    values_added: list[str]
    """In the second dictionary only, at most `MAX_VALUES`."""
    values_removed: list[str]
    """In the first dictionary only, at most `MAX_VALUES`."""
    n_values_added: int
    n_values_removed: int
    uncertain_ratio: float
    """Of the second reference's rows, how many at most lie beyond an edge, or in another cell, than they were counted; 0: exact."""
    distances: dict[str, float]
    """By name; empty where one of both has no value."""
    distances_between: dict[str, tuple[float, float]]
    """Smallest and largest value with all rows in doubt on the one or on the other side: how much the doubt matters, no bounds. Empty
    where the counts are exact."""


class ReferenceDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What `monitor reference diff` writes."""

    a: Side
    b: Side
    added: list[str]
    """Features that only the second one has."""
    removed: list[str]
    changed_kind: dict[str, tuple[str, str]]
    features: dict[str, FeatureDiff]


class Regrouped(NamedTuple):
    """Counts on another layout's cells of the feature, special ones first."""

    counts: Int
    uncertain: int = 0
    """The most rows that may lie beyond an edge, or in other cells."""
    extremes: tuple[Int, ...] = ()
    """Counts with all rows in doubt on the one side, and on the other."""


_NUMBERS: set[FeatureKind] = {"integer", "real"}


def difference(a: Reference, b: Reference) -> ReferenceDiff:
    """Return what is different in b, seen from a; both with the hash key that they were built with."""
    kinds_a, kinds_b = ({f.name: kind_of(f) for f in side.layout.features} for side in (a, b))
    both = [name for name in kinds_a if name in kinds_b]
    same = [name for name in both if kinds_a[name] == kinds_b[name] or {kinds_a[name], kinds_b[name]} == _NUMBERS]
    regrouped = {name: regroup(a, b, name) for name in same}
    distances = _distances(a, b, {name: found.counts for name, found in regrouped.items()})
    in_doubt = {name: found.extremes for name, found in regrouped.items() if found.extremes}
    extremes = [_distances(a, b, {name: counts[i] for name, counts in in_doubt.items()}) for i in range(2)]
    return ReferenceDiff(
        a=_side(a),
        b=_side(b),
        added=[name for name in kinds_b if name not in kinds_a],
        removed=[name for name in kinds_a if name not in kinds_b],
        changed_kind={name: (kinds_a[name], kinds_b[name]) for name in both if name not in same},
        features={
            name: _feature(a, b, name, regrouped[name].uncertain, [distances[name], *(e[name] for e in extremes if name in e)])
            for name in same
        },
    )


def _side(reference: Reference) -> Side:
    record = reference.record
    return Side(
        model=record.model,
        version=record.version,
        sha256=record.sha256,
        rows=record.rows,
        time_range_ms=record.time_range_ms,
        performance=reference.performance.values,
        labels=record.labels,
    )


def regroup(a: Reference, b: Reference, name: str) -> Regrouped:
    """Return b's rows by a's cells of a feature that both have, of the same kind."""
    to, of = a.layout.features[a.layout.index[name]], b.layout.features[b.layout.index[name]]
    position = b.layout.index[name]
    counts = b.profile.counts[0, b.layout.offsets[position] : b.layout.offsets[position + 1]]
    if to == of:
        return Regrouped(counts)
    if isinstance(to, NumberFeature) and isinstance(of, NumberFeature):
        return _regroup_number(to, of, counts)
    assert isinstance(to, CategoryFeature)
    assert isinstance(of, CategoryFeature)
    return _regroup_category(to, of, counts, a.layout.hash_key)


def _regroup_number(to: NumberFeature, of: NumberFeature, counts: Int) -> Regrouped:
    """Interpolate in value between b's edges; beyond its range there is no row. Uncertain: the largest cell that an edge cuts."""
    values = counts[N_SPECIAL:]
    edges, upto = np.array(of.edges), np.cumsum(values)[:-1]
    wanted = np.array(to.edges)
    cell = np.searchsorted(edges, wanted, side="left")  # the cell of b that holds the edge
    is_inside = (cell > 0) & (cell < len(edges))
    inner = np.clip(cell, 1, len(edges) - 1)
    low, high = edges[inner - 1], edges[inner]
    with np.errstate(over="ignore", invalid="ignore"):
        share = np.nan_to_num(np.clip((wanted - low) / (high - low), 0.0, 1.0), nan=0.5)
    below = np.where(cell > 0, upto[np.maximum(cell, 1) - 1], 0)
    inside = np.where(is_inside, values[inner], 0)
    is_cut = is_inside & (wanted < high)

    def with_share(part: Float) -> Int:
        cumulative = below + np.floor(part * inside).astype(np.int64)
        cumulative = np.where(cell == len(edges), values.sum(), cumulative)
        return np.concatenate((counts[:N_SPECIAL], np.diff(np.concatenate(([0], cumulative, [values.sum()])))))

    uncertain = int(inside[is_cut].max(initial=0))
    extremes = tuple(with_share(np.where(is_cut, all_or_none, share)) for all_or_none in (0.0, 1.0)) if uncertain else ()
    return Regrouped(with_share(share), uncertain, extremes)


def _regroup_category(to: CategoryFeature, of: CategoryFeature, counts: Int, key: HashKey) -> Regrouped:
    """Move rows by value; b's `other` values are known by hash only, and their rows are taken to be spread evenly over them."""
    cells = np.zeros(N_SPECIAL + to.n_values, np.int64)
    cells[:N_SPECIAL] = counts[:N_SPECIAL]
    other, never_seen = N_SPECIAL + len(to.values), Special.NEVER_SEEN - 1
    unknown = other if to.is_open else never_seen
    by_hash = dict.fromkeys(to.other, other) | {value_hash: N_SPECIAL + i for i, value_hash in enumerate(_hashes(to, key))}
    for value_hash, n in zip(_hashes(of, key), counts[N_SPECIAL:-1].tolist(), strict=True):
        cells[by_hash.get(value_hash, unknown)] += n
    rows = int(counts[-1])
    targets = [by_hash.get(value_hash, unknown) for value_hash in of.other] or [unknown]
    for target, n in zip(targets, _spread_evenly(rows, len(targets)), strict=True):
        cells[target] += n
    if len(set(targets)) == 1 and not (of.other and counts[never_seen]):
        return Regrouped(cells)
    extremes = []
    for target in (unknown, other):
        moved = cells.copy()
        for place_of, n in zip(targets, _spread_evenly(rows, len(targets)), strict=True):
            moved[place_of] -= n
            moved[target] += n
        extremes.append(moved)
    return Regrouped(cells, rows + int(counts[never_seen]), tuple(extremes))


def _hashes(feature: CategoryFeature, key: HashKey) -> list[int]:
    """Return the hash of each value of the dictionary."""
    return [int(value, 16) for value in feature.values] if feature.is_hashed else key.hashes(feature.values).tolist()


def _spread_evenly(rows: int, parts: int) -> list[int]:
    return [rows * (i + 1) // parts - rows * i // parts for i in range(parts)]


def _distances(a: Reference, b: Reference, counts: dict[str, Int]) -> dict[str, dict[str, float]]:
    """Return all distances of the registry, as of a window that holds b's rows."""
    profile = Profile(a.layout)
    profile.rows[0] = b.profile.n
    for name, cells in counts.items():
        position = a.layout.index[name]
        profile.counts[0, a.layout.offsets[position] : a.layout.offsets[position + 1]] = cells
    for row, (_, feature) in enumerate(a.layout.numbers):
        if feature.name in counts:
            summary = b.profile.summary(feature.name)
            if summary.n:
                profile.sums[0, row] = _sums(summary, feature)
                profile.minimum[0, row], profile.maximum[0, row] = summary.minimum, summary.maximum
    closed = ClosedWindow(
        model=a.model,
        version=a.version,
        window=Window(1, 1, 1),
        profile=profile,
        reference=a,
        revision=0,
        rows_other_layout=0,
        lost_offsets=0,
        source_offsets={},
    )
    found = gather(closed).distances
    return {name: dict(found.get(name, {})) for name in counts}


def _sums(summary: FeatureSummary, feature: NumberFeature) -> tuple[int, int]:
    """Return b's sums on a's grid, to the precision of its mean and standard deviation."""
    assert summary.mean is not None
    assert summary.std is not None
    with np.errstate(over="ignore"):
        mean = np.ldexp(summary.mean - feature.centre, -feature.exponent)
        square = np.ldexp(summary.std, -feature.exponent) ** 2 + mean**2
    if not np.isfinite(square):
        return 0, 0
    return round(summary.n * float(mean)), round(summary.n * float(square))


def _feature(a: Reference, b: Reference, name: str, uncertain: int, found: list[dict[str, float]]) -> FeatureDiff:
    """found: distances; where rows are in doubt, those of both extremes too."""
    first, second = a.profile.summary(name), b.profile.summary(name)
    of_a, of_b = a.layout.features[a.layout.index[name]], b.layout.features[b.layout.index[name]]
    added: list[str] = []
    removed: list[str] = []
    if isinstance(of_a, CategoryFeature) and isinstance(of_b, CategoryFeature):
        added = [value for value in of_b.values if value not in set(of_a.values)]
        removed = [value for value in of_a.values if value not in set(of_b.values)]
    return FeatureDiff(
        kind=kind_of(of_b),
        n=(first.n, second.n),
        missing_ratio=(first.missing / max(a.profile.n, 1), second.missing / max(b.profile.n, 1)),
        mean=(first.mean, second.mean),
        std=(first.std, second.std),
        minimum=(first.minimum, second.minimum),
        maximum=(first.maximum, second.maximum),
        values_added=added[:MAX_VALUES],
        values_removed=removed[:MAX_VALUES],
        n_values_added=len(added),
        n_values_removed=len(removed),
        uncertain_ratio=uncertain / second.n if second.n else 0.0,
        distances=found[0],
        distances_between={
            d: (min(values), max(values)) for d in found[0] if len(values := [each[d] for each in found if d in each]) > 1
        },
    )
