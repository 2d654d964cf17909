"""Synthetic streams with a known truth: 50 features, of which any may drift, in rows that are independent, clustered or follow the day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from monitor.columns import Float, Int

Mode = Literal["iid", "clustered", "daily"]
Array = Float | Int

HOURS = 24
CLUSTER = 5
"""Rows of one entity, one after another."""
SWING = 0.3
"""Of the daily cycle, in standard deviations."""
OUTLIERS_AT = 20
"""Standard deviations."""


class Spec(NamedTuple):
    """A feature: a law of numbers, or how many values a category has (Zipf, exponent 1.1)."""

    law: str
    n_values: int = 0


class Drift(NamedTuple):
    """A change of one feature, and its size.

    shift: in standard deviations. scale: factor around the median. outliers: share of rows moved far out. moved: share of rows moved
    from the commonest value to all others. missing, unseen: share of rows.
    """

    kind: Literal["shift", "scale", "outliers", "moved", "missing", "unseen"]
    size: float


LAWS = ["normal"] * 10 + ["lognormal"] * 8 + ["t3"] * 4 + ["bimodal"] * 4 + ["uniform"] * 2 + ["poisson"] * 2
SPECS = [Spec(law) for law in LAWS] + [Spec("category", k) for k in (3, 5, 10, 20, 100) for _ in range(4)]
SD = {
    "normal": 1.0,
    "lognormal": float(np.sqrt((np.e - 1) * np.e)),
    "t3": float(np.sqrt(3)),
    "bimodal": float(np.sqrt(9 + 1.25 / 2)),
    "uniform": 1 / float(np.sqrt(12)),
    "poisson": float(np.sqrt(6)),
}
MEDIAN = {"normal": 0.0, "lognormal": 1.0, "t3": 0.0, "bimodal": -1.5, "uniform": 0.5, "poisson": 6.0}
MISSING, UNSEEN = -1, -2
"""Codes of a category's rows that are missing, or hold a value that the reference does not have; a number's missing rows are NaN."""


def shares(n_values: int) -> Float:
    weights = 1 / np.arange(1, n_values + 1) ** 1.1
    return np.asarray(weights / weights.sum())


@dataclass
class Stream:
    """Rows of all features, window after window. missing: share of rows without a value, in quiet times too."""

    dice: np.random.Generator
    mode: Mode = "iid"
    missing: float = 0.0
    hour: int = 0

    def window(self, n: int, drift: Drift | None = None, of: frozenset[int] = frozenset()) -> list[Array]:
        """Return the columns of the next window; only the features `of` drift."""
        columns = [self._column(spec, n, drift if i in of else None) for i, spec in enumerate(SPECS)]
        self.hour += 1
        return columns

    def _column(self, spec: Spec, n: int, drift: Drift | None) -> Array:
        rows = -(-n // CLUSTER) if self.mode == "clustered" else n
        values = self._numbers(spec, rows, drift) if not spec.n_values else self._codes(spec, rows, drift)
        share = self.missing + (drift.size if drift and drift.kind == "missing" else 0.0)
        if share:
            values = np.where(self.dice.random(rows) < share, MISSING if spec.n_values else np.nan, values)
        return np.repeat(values, CLUSTER)[:n] if self.mode == "clustered" else values

    def _cycle(self) -> float:
        return SWING * float(np.sin(2 * np.pi * (self.hour % HOURS) / HOURS)) if self.mode == "daily" else 0.0

    def _numbers(self, spec: Spec, n: int, drift: Drift | None) -> Float:
        law, dice = spec.law, self.dice
        if law == "bimodal":
            x = np.where(dice.random(n) < 0.5, dice.normal(-3, 0.5, n), dice.normal(3, 1, n))
        elif law == "t3":
            x = dice.standard_t(3, n)
        elif law == "uniform":
            x = dice.random(n)
        else:
            x = {"normal": dice.normal, "lognormal": dice.lognormal}.get(law, lambda *_: dice.poisson(6, n).astype(float))(
                0, 1, n
            )
        by = self._cycle() + (drift.size if drift and drift.kind == "shift" else 0.0)
        if by:
            x = x + (np.round(by * SD[law] + dice.random(n) - 0.5) if law == "poisson" else by * SD[law])
        if drift and drift.kind == "scale":
            x = MEDIAN[law] + drift.size * (x - MEDIAN[law])
            x = np.round(x) if law == "poisson" else x
        if drift and drift.kind == "outliers":
            x = np.where(dice.random(n) < drift.size, x + OUTLIERS_AT * SD[law], x)
        return np.asarray(x)

    def _codes(self, spec: Spec, n: int, drift: Drift | None) -> Int:
        p = shares(spec.n_values)
        if drift and drift.kind == "moved":
            moved = min(drift.size, 0.9 * p[0])
            p = p + moved / (spec.n_values - 1)
            p[0] -= moved * spec.n_values / (spec.n_values - 1)
        codes = self.dice.choice(spec.n_values, n, p=p)
        cycle = self._cycle()
        if cycle:
            codes = np.where(self.dice.random(n) < abs(cycle) * SWING, 0 if cycle > 0 else spec.n_values - 1, codes)
        if drift and drift.kind == "unseen":
            codes = np.where(self.dice.random(n) < drift.size, UNSEEN, codes)
        return np.asarray(codes)
