"""What a window leaves for later ones, and how several in a row are looked at as one: a small drift that no window shows alone.

Kept are counts by reported cell and sums of rank scores: integers, so that windows merge by addition, in any order, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np

from monitor.chance.calibration import MAX_CATEGORY_CELLS, SCALES, quantised_scores
from monitor.columns import Bool, Float, Int
from monitor.errors import UnknownCodec
from monitor.features import NumberFeature
from monitor.findings import ClosedWindow
from monitor.layout import N_SPECIAL
from monitor.profiles import Profile
from monitor.reference import Reference

MAX_EARLIER = SCALES[-1] - 1
"""Windows before one that are looked at with it."""
MIN_MERGED_SHARE = 2 / 3
"""A scale with fewer of its windows than this is not judged: see `Tallies.without`."""
CODEC_VERSION = 1

Int32 = np.ndarray[tuple[int, ...], np.dtype[np.int32]]


class Tallies(NamedTuple):
    """What is counted of a segment's rows, by feature in the layout's order."""

    cells: Int
    """(g,) rows by reported cell, feature after feature; never-seen values are left out"""
    scores: Int
    """(n_numbers, 2) sums of location and dispersion scores (calibration.quantised_scores)"""

    def without(self, features: Bool, plan: Plan) -> Tallies:
        """Return it without the rows of some features: a window that drifts for all to see must not speak again with later ones."""
        scores = self.scores.copy()
        scores[features[plan.numbers]] = 0
        return Tallies(np.where(features[plan.feature_of_cell], 0, self.cells), scores)


class Plan(NamedTuple):
    """Where tallies come from: for one layout, with the scores of one set of reference rows."""

    group_of: Int32
    """(n_cells,) of a profile's flat vector: the tallied cell; the number of those where none"""
    n_groups: int
    starts: Int
    """(n_features,) first tallied cell of each"""
    feature_of_cell: Int32
    """(g,)"""
    numbers: Int
    """(n_numbers,) positions of the numbers"""
    fine: Int32
    """(c,) places of the numbers' value cells in the flat vector, number after number"""
    fine_starts: Int
    """(n_numbers,) first of each"""
    scores: Int32
    """(2, c) location and dispersion score of each; in 4 bytes, of which `SCORE_BITS` leave room: a plan is kept for every reference"""

    def tally(self, counts: Int) -> Tallies:
        """Return the tallies of a segment's flat counts, (n_cells,)."""
        cells = np.zeros(self.n_groups + 1, np.int64)
        np.add.at(cells, self.group_of, counts)
        sums = (
            np.add.reduceat(counts[self.fine] * self.scores, self.fine_starts, axis=1) if len(self.numbers) else np.zeros((2, 0))
        )
        return Tallies(cells[:-1], np.ascontiguousarray(sums.T, np.int64))

    def rows(self, cells: Int) -> Int:
        """Return the rows with a value of each feature; (…, g) → (…, n_features)."""
        return np.asarray(np.add.reduceat(cells, self.starts, axis=-1))


@lru_cache(maxsize=256)
def plan_of(ranked: Profile) -> Plan:
    """Return the plan of the layout of the rows whose ranks the scores are. Cached by identity of the rows."""
    layout = ranked.layout
    group_of = np.full(layout.n_cells, -1, np.int64)
    starts: list[int] = []
    n_groups = 0
    for position, feature in enumerate(layout.features):
        groups = feature.reported_groups()
        if not isinstance(feature, NumberFeature):
            groups = np.minimum(groups, MAX_CATEGORY_CELLS - 1)
        at = layout.offsets[position] + N_SPECIAL
        group_of[at : at + len(groups)] = n_groups + groups
        starts.append(n_groups)
        n_groups += int(groups.max()) + 1
    group_of[group_of < 0] = n_groups
    sizes = np.diff([*starts, n_groups])
    positions = [position for position, _ in layout.numbers]
    slices = [layout.value_slice(position) for position in positions]
    fine = [np.arange(at.start, at.stop, dtype=np.int32) for at in slices]
    counts = ranked.counts_of(0)
    scores = [np.stack(quantised_scores(counts[at])).astype(np.int32) for at in slices]
    return Plan(
        group_of=group_of.astype(np.int32),
        n_groups=n_groups,
        starts=np.array(starts, np.int64),
        feature_of_cell=np.repeat(np.arange(len(starts), dtype=np.int32), sizes),
        numbers=np.array(positions, np.int64),
        fine=np.concatenate(fine, dtype=np.int32) if fine else np.zeros(0, np.int32),
        fine_starts=np.cumsum([0, *map(len, fine)])[:-1],
        scores=np.concatenate(scores, axis=1) if scores else np.zeros((2, 0), np.int32),
    )


def plan_for(closed: ClosedWindow) -> Plan | None:
    """Return the plan of a window; None without a reference, or where that has no features."""
    if closed.reference is None or not closed.profile.layout.features:
        return None
    return plan_of(closed.reference.ranked)


class Merged(NamedTuple):
    """The newest windows taken as one, at every scale that there are windows enough for; s scales."""

    scales: tuple[int, ...]
    """So many windows each."""
    cells: Int
    """(s, g), as `Tallies.cells`"""
    scores: Int
    """(s, n_numbers, 2), as `Tallies.scores`"""
    rows: Int
    """(s, n_features) rows with a value"""
    windows: Int
    """(s, n_features) windows that have such rows"""


def merged(own: Tallies, earlier: Sequence[Tallies], plan: Plan) -> Merged:
    """Return the sums over the newest windows. earlier: newest first."""
    scales = tuple(scale for scale in SCALES if scale <= len(earlier) + 1)
    each = [own, *earlier[: scales[-1] - 1]]
    cells = np.stack([one.cells for one in each])
    scores, rows = np.stack([one.scores for one in each]), plan.rows(cells)
    sums = (np.stack([part[:scale].sum(axis=0) for scale in scales]) for part in (cells, scores, rows, rows > 0))
    return Merged(scales, *sums)


class _Wire(msgspec.Struct, array_like=True):
    """What stage 2 keeps of a window: by segment (cells, scores), of features of the layout that `reference` has."""

    version: int
    reference: str
    segments: dict[str, tuple[bytes, bytes]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Wire).decode


def to_bytes(reference: Reference, tallies: Mapping[str, Tallies]) -> bytes:
    """Return what a row of the window's end keeps: 1 to 2 bytes a cell once it is packed."""
    segments = {name: (_counts(one.cells), one.scores.tobytes()) for name, one in tallies.items()}
    return _encode(_Wire(CODEC_VERSION, reference.sha256, segments))


def _counts(cells: Int) -> bytes:
    """Return counts in the narrowest width that holds them; 4 bytes, or 8."""
    return cells.astype("<u4").tobytes() if int(cells.max(initial=0)) < 1 << 32 else cells.astype("<i8").tobytes()


def earlier_of(history: Sequence[bytes], segment: str, reference: Reference, plan: Plan) -> list[Tallies]:
    """Return a segment's tallies, newest first, back to where it was not tallied or the reference was another one.

    history: what `to_bytes` wrote for the windows before, newest first; b"" for one without rows, which counts for none.
    """
    found: list[Tallies] = []
    for data in history:
        if not data:
            continue
        wire = _load(data)
        packed = wire.segments.get(segment)
        if wire.reference != reference.sha256 or packed is None or len(found) == MAX_EARLIER:
            break
        found.append(_tallies(*packed, plan.n_groups))
    return found


@lru_cache(maxsize=2 * MAX_EARLIER)  # of one model: each of its segments asks for the same windows
def _load(data: bytes) -> _Wire:
    """Raise UnknownCodec when a later version of this program wrote it."""
    wire = _decode(data)
    if wire.version != CODEC_VERSION:
        raise UnknownCodec("a window's tallies", wire.version, (CODEC_VERSION,))
    return wire


def _tallies(cells: bytes, scores: bytes, n_groups: int) -> Tallies:
    width = "<u4" if len(cells) == 4 * n_groups else "<i8"
    return Tallies(np.frombuffer(cells, width).astype(np.int64), np.frombuffer(scores, "<i8").astype(np.int64).reshape(-1, 2))


class Sampled(NamedTuple):
    """What the scores of rows drawn from the compared reference rows are: by number; (n_numbers, 2) each."""

    mean: Float
    deviation: Float
    skewness: Float


def sampled(plan: Plan, reference: Int) -> Sampled:
    """Return the moments of the scores over a segment of a reference, (n_cells,) counts; zeros where it has no row."""
    each = zip(*(np.split(part, plan.fine_starts[1:], axis=-1) for part in (reference[plan.fine], plan.scores)), strict=True)
    moments = [[_moments(rows, score) for score in scores] for rows, scores in each] if len(plan.numbers) else []
    of = np.array(moments, np.float64).reshape(-1, 2, 3)
    return Sampled(of[..., 0], of[..., 1], of[..., 2])


def _moments(rows: Int, narrow: Int32) -> tuple[float, float, float]:
    m, scores = int(rows.sum()), narrow.astype(np.int64)
    if not m:
        return 0.0, 0.0, 0.0
    mean = int(rows @ scores) / m
    centred = scores - mean
    variance = float(rows @ centred**2) / m
    deviation = float(np.sqrt(variance))
    return mean, deviation, float(rows @ centred**3) / m / deviation**3 if deviation else 0.0
