"""What the labels that have come say: each metric with its interval, how many labels there are, and whether they are of typical rows."""

from __future__ import annotations

from typing import NamedTuple

from monitor.columns import Int
from monitor.performance.cells import OutcomeCells
from monitor.performance.intervals import Estimate, wilson
from monitor.performance.lags import lag_quantile_ms


class Lag(NamedTuple):
    """How long labels took, milliseconds, by quantile; negative lags are 0."""

    p50_ms: int
    p90_ms: int
    p99_ms: int


class SelectionBias(NamedTuple):
    """Whether the rows with a label differ from those without, by score or by prediction."""

    by: str
    """`score` or `prediction`."""
    difference: float
    """Total variation of the shares of the two, in [0, 1]."""
    p_value: float
    """Of Pearson's χ²: small where chance does not explain it."""


class Realised(NamedTuple):
    """Performance of one segment on the labels that have come."""

    values: dict[str, Estimate]
    """By metric: accuracy, precision, recall, f1, auc, log_loss, brier, ece; mae, rmse, r2, bias, mape. Only what is known."""
    n_made: int
    """Predictions."""
    n_labelled: int
    """Of them, with a label."""
    n_scored: int = 0
    """With a label and a score."""
    n_unusable: int = 0
    """Labels that are none of the task's, such as a text where numbers are predicted."""
    classes: tuple[str, ...] = ()
    """Of the confusion, the last one for what the reference does not have; empty without confusion."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Rows by label (outer) and prediction (inner), in the order of `classes`."""
    lag: Lag | None = None
    selection_bias: SelectionBias | None = None
    unknown: str | None = None
    """Why nothing, or not everything, is known."""

    @property
    def coverage(self) -> float:
        """Share of the predictions that have a label; 0 without predictions."""
        return self.n_labelled / self.n_made if self.n_made else 0.0


OTHER = "(other)"


def realised(cells: OutcomeCells, segment: int = 0) -> Realised:
    """Return the performance of a segment. A function of the counts alone."""
    spec = cells.spec
    if spec.task == "unknown":
        return Realised({}, 0, 0, unknown=spec.why)
    vector = cells.vector(segment)
    blocks = spec.blocks
    n_made, n_labelled = int(vector[blocks["made"]].sum()), int(vector[blocks["lag"]].sum())
    common = {"lag": _lag(vector[blocks["lag"]]), "n_unusable": int(vector[blocks["unusable"]].sum()), "unknown": spec.why}
    if not spec.is_classes:
        return Realised({}, n_made, n_labelled, **common)  # type: ignore[arg-type]
    k = spec.n_classes
    confusion = vector[blocks["confusion"]].reshape(k + 1, k + 2)[:, : k + 1]
    n = int(confusion.sum())
    values = {"accuracy": wilson(int(confusion.diagonal()[:k].sum()), n)} if n else {}
    return Realised(
        values,
        n_made,
        n_labelled,
        classes=(*spec.classes, OTHER),
        confusion=tuple(map(tuple, confusion.tolist())),
        **common,  # type: ignore[arg-type]
    )


def _lag(counts: Int) -> Lag | None:
    found = [lag_quantile_ms(counts, share) for share in (0.5, 0.9, 0.99)]
    return None if found[0] is None or found[1] is None or found[2] is None else Lag(found[0], found[1], found[2])
