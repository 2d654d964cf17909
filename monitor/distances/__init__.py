"""Distances between a reference and a window. One function in a file of its own, one line in `DISTANCES`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal

from monitor.chance.laws import ChiSquareLaw, ExponentialBound, Law
from monitor.columns import Float
from monitor.distances import chebyshev, hellinger, jensen_shannon, pearson, psi, total_variation
from monitor.distances import kullback_leibler as kl
from monitor.distances.kolmogorov_smirnov import ks
from monitor.distances.wasserstein import w1, w1_sigma
from monitor.sides import Sides

Kind = Literal["number", "category"]
Direction = Literal["higher is worse", "lower is worse"]
CellChoice = Literal["reported", "fine"]

REPORTED: CellChoice = "reported"
FINE: CellChoice = "fine"
UP: Direction = "higher is worse"
DOWN: Direction = "lower is worse"
BOTH: tuple[Kind, ...] = ("number", "category")
NUMBER: tuple[Kind, ...] = ("number",)
INF = math.inf


@dataclass(frozen=True, slots=True)
class Distance:
    """A pure function of both sides' counts, (..., k) of the same cells → (...); NaN where it is not defined.

    kinds: of features that it is defined for. cells: `reported`, the deciles or the categories; or `fine` (then of `FineSides`).
    bounds: of its values. is_symmetric: the same with both sides exchanged. direction: which values are worse.
    law: what it does by chance; a distance without one has no check. contributions: each cell's part of it (or of its square).
    """

    name: str
    function: Callable[[Any], Float]
    kinds: tuple[Kind, ...]
    cells: CellChoice
    bounds: tuple[float, float]
    is_symmetric: bool
    direction: Direction
    law: Law | None = None
    contributions: Callable[[Sides], Float] | None = None

    @property
    def check(self) -> str:
        """Id of its check."""
        return f"drift.{self.name}"


PSI_LAW = ChiSquareLaw(1.0, is_smoothed=True, doubles_rare=False)
"""Yurdakul 2018; right from n ≈ 300."""

# JSD ≈ psi/8, KL ≈ psi/2 and H² ≈ psi/8 for small differences; TV² ≤ ¼ χ² (1/n + 1/m) by the Cauchy–Schwarz inequality.
# fmt: off
DISTANCES: tuple[Distance, ...] = (
    Distance("psi", psi.psi, BOTH, REPORTED, (0.0, INF), True, UP, PSI_LAW, psi.contributions),
    Distance("psi_eps", psi.psi_eps, BOTH, REPORTED, (0.0, INF), True, UP, ChiSquareLaw(1.0), psi.psi_eps_contributions),
    Distance("psi_corrected", psi.psi_corrected, BOTH, REPORTED, (-INF, INF), True, UP, replace(PSI_LAW, is_centred=True), psi.contributions),
    Distance("kl", kl.kl, BOTH, REPORTED, (0.0, INF), False, UP, ChiSquareLaw(2.0, is_smoothed=True), kl.contributions),
    Distance("js", jensen_shannon.js, BOTH, REPORTED, (0.0, 1.0), True, UP, ChiSquareLaw(8 * math.log(2), 2), jensen_shannon.contributions),
    Distance("hellinger", hellinger.hellinger, BOTH, REPORTED, (0.0, 1.0), True, UP, ChiSquareLaw(8.0, 2), hellinger.contributions),
    Distance("tv", total_variation.tv, BOTH, REPORTED, (0.0, 1.0), True, UP, ChiSquareLaw(4.0, 2, doubles_rare=False), total_variation.contributions),
    Distance("linf", chebyshev.linf, BOTH, REPORTED, (0.0, 1.0), True, UP, ExponentialBound(is_per_cell=True), chebyshev.contributions),
    Distance("chi2", pearson.chi2, BOTH, REPORTED, (0.0, INF), True, UP, ChiSquareLaw(1.0, is_statistic=True), pearson.contributions),
    Distance("chi2_p", pearson.chi2_p, BOTH, REPORTED, (0.0, 1.0), True, DOWN),
    Distance("ks", ks, NUMBER, FINE, (0.0, 1.0), True, UP, ExponentialBound()),
    Distance("w1", w1, NUMBER, FINE, (0.0, INF), True, UP),
    Distance("w1_sigma", w1_sigma, NUMBER, FINE, (0.0, INF), False, UP),
)
# fmt: on

CHECKS: tuple[str, ...] = tuple(distance.check for distance in DISTANCES if distance.law is not None)
"""Ids of the checks that distances have."""


@lru_cache(maxsize=16)
def with_eps(eps: float) -> tuple[Distance, ...]:
    """Return `DISTANCES` with another share in the place of empty cells' in psi_eps."""
    changed = {"function": partial(psi.psi_eps, eps=eps), "contributions": partial(psi.psi_eps_contributions, eps=eps)}
    return tuple(replace(d, **changed) if d.name == "psi_eps" else d for d in DISTANCES)  # type: ignore[arg-type]
