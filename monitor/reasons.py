"""Why a value is what it is: the cells that contribute most to a distance, the values that nobody knew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from monitor.features import OTHER, NumberFeature
from monitor.findings import Compared, Evidence, Finding
from monitor.sides import Sides

MAX_REASONS = 5
NEVER_SEEN = "never seen"


class Reason(msgspec.Struct, kw_only=True):
    """What contributes to the value: a cell's share in the reference and in the window, and its part of a distance.

    Of `health.never_seen`: a value that the reference does not have, `#` and its hash where values are not kept, and its share.
    """

    bin: str
    ref: float
    cur: float
    contribution: float
    """They add up to the distance (drift.js, drift.hellinger: to its square; drift.psi_corrected and drift.distribution: to psi, of this
    window alone); of `health.never_seen` to at most its value."""


def reasons(evidence: Evidence, finding: Finding) -> list[Reason]:
    """Return the cells that contribute most to a drift, never-seen values as one; of `health.never_seen` these values. Most first."""
    compared = evidence.features.get(finding.measurement.feature)
    if compared is not None and finding.measurement.check == "health.never_seen":
        return _new_values(compared)
    check = "drift.psi" if finding.measurement.check == "drift.distribution" else finding.measurement.check
    distance = next((d for d in evidence.registry if d.check == check), None)
    if compared is None or distance is None or distance.contributions is None or not compared.window.n:
        return []
    reference, window = compared.cells
    n, m = int(window.sum()), int(reference.sum())
    found: dict[str, list[float]] = {}
    parts = distance.contributions(Sides(reference, window)).tolist()
    for name, ref, cur, part in zip(cell_names(compared), reference.tolist(), window.tolist(), parts, strict=True):
        sums = found.setdefault(name, [0, 0, 0.0])
        sums[:] = sums[0] + ref, sums[1] + cur, sums[2] + part
    top = sorted(found, key=lambda name: (-found[name][2], name))[:MAX_REASONS]
    return [
        Reason(bin=name, ref=found[name][0] / m, cur=found[name][1] / n, contribution=found[name][2])
        for name in top
        if found[name][2] > 0
    ]


def _new_values(compared: Compared) -> list[Reason]:
    """Return the values that surely came most."""
    shares = [
        (one.text if one.text is not None else f"#{one.hash_text}", one.rows / compared.window.n)
        for one in compared.window.frequent
    ]
    return [Reason(bin=name, ref=0.0, cur=share, contribution=share) for name, share in shares[:MAX_REASONS]]


def cell_names(compared: Compared) -> Sequence[str]:
    """Return a name per reported cell: intervals, values, `other`, `never seen`."""
    feature, k = compared.feature, len(compared.cells[0])
    if isinstance(feature, NumberFeature):
        edges = ["-inf", *(f"{edge:.12g}" for edge in feature.reported)]
        return [f"({low}, {high}]" for low, high in pairwise(edges)] + [f"({edges[-1]}, inf)"]
    has_other = compared.reference.values[-1] or compared.window.values[-1]
    names = [*feature.values, f"({OTHER})"] if has_other else list(feature.values)
    return names + [f"({NEVER_SEEN})"] * (k - len(names))
