"""How the service did in a window, beside what its model predicted: traffic, latency, errors; and whether that contradicts its performance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from monitor.chance.counts import normal_quantile
from monitor.columns import Int
from monitor.features import NumberFeature
from monitor.findings import ClosedWindow
from monitor.reference import LATENCY, PREDICTION

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
CONFIDENCE = 0.999
"""Two-sided, of a statement that latency is better or worse."""
MIN_CHANGE = 0.05
"""A latency is better or worse where the share of rows above a quantile of the reference differs by so much of itself, at least."""

Direction = Literal["better", "worse", "same", "unknown"]


class LatencyResult(msgspec.Struct, kw_only=True):
    """A quantile of latency, milliseconds: the upper end of its cell of the reference's layout, at most the window's maximum."""

    value: float
    reference: float | None
    change: Direction
    """Whether chance explains the difference from the reference's quantile, once in 1000, and how it is meant else."""


class OperationResult(msgspec.Struct, kw_only=True):
    """The window's events, whatever became of their labels."""

    rows: int
    latency_ms: dict[str, LatencyResult]
    """p50, p95, p99; empty without latencies."""
    error_ratio: float | None
    """Share of rows with a status that is not `ok`, of those with one."""
    statuses: int
    """Rows with a status."""
    errors: int | None = None
    """Rows with a status that is not `ok`; null where it was not kept."""
    unanswered: int | None = None
    """Rows without a prediction: requests that got no answer, as far as producers log these; null where the reference has no predictions."""


class Conflict(msgspec.Struct, kw_only=True):
    """What is better than in the reference while something else is worse; whether that is worth it, somebody has to decide."""

    better: list[str]
    worse: list[str]
    text: str


def operation_of(closed: ClosedWindow, design_effects: Mapping[str, float]) -> bytes:
    """Return what is kept of a window for the reports of its performance: msgpack of an OperationResult.

    design_effects: by feature, how many rows count as one.
    """
    facts = closed.profile.stream
    n = facts.count("with_status")
    errors = n - facts.count("ok")
    has_predictions = PREDICTION in closed.profile.layout.index
    return _encode(
        OperationResult(
            rows=facts.count("rows"),
            latency_ms=_latency(closed, max(1.0, design_effects.get(LATENCY, 1.0))),
            error_ratio=errors / n if n else None,
            statuses=n,
            errors=errors,
            unanswered=closed.profile.summary(PREDICTION).missing if has_predictions else None,
        )
    )


def load_operation(data: bytes) -> OperationResult | None:
    """Read what `operation_of` wrote; None of nothing."""
    return _decode(data) if data else None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(OperationResult).decode


def _latency(closed: ClosedWindow, phi: float) -> dict[str, LatencyResult]:
    layout = closed.profile.layout
    if LATENCY not in layout.index:
        return {}
    window = closed.profile.summary(LATENCY)
    feature = layout.features[layout.index[LATENCY]]
    if not window.n or not isinstance(feature, NumberFeature):
        return {}
    edges = np.array([*feature.edges, np.inf])
    reference = closed.reference.profile.summary(LATENCY) if closed.reference is not None else None
    found = {}
    for name, share in QUANTILES.items():
        cell = _cell(window.values, share)
        value = min(float(edges[cell]), window.maximum if window.maximum is not None else np.inf)
        known: float | None = None
        change: Direction = "unknown"
        if reference is not None and reference.n:
            at = _cell(reference.values, share)
            known = min(float(edges[at]), reference.maximum if reference.maximum is not None else np.inf)
            change = _change(window.values, reference.values, at, phi)
        found[name] = LatencyResult(value=value, reference=known, change=change)
    return found


def _cell(counts: Int, share: float) -> int:
    return int(np.searchsorted(np.cumsum(counts), share * counts.sum(), side="left"))


def _change(window: Int, reference: Int, cell: int, phi: float) -> Direction:
    """Compare the shares of rows above a cell: two proportions, pooled (normal law). phi: so many rows count as one."""
    n, m = int(window.sum()), int(reference.sum())
    above, above_ref = int(window[cell + 1 :].sum()), int(reference[cell + 1 :].sum())
    share, share_ref, pooled = above / n, above_ref / m, (above + above_ref) / (n + m)
    error = float(np.sqrt(phi * pooled * (1 - pooled) * (1 / n + 1 / m)))
    far = abs(share - share_ref)
    if far <= normal_quantile((1 - CONFIDENCE) / 2) * error or far < MIN_CHANGE * max(share_ref, 1 - share_ref):
        return "same"
    return "worse" if share > share_ref else "better"


def conflict_of(operation: OperationResult | None, metrics: Mapping[str, Direction]) -> Conflict | None:
    """Return what is better while something else is worse, of the service and of the model; None where they agree. metrics: by name."""
    of_latency = {name: one.change for name, one in operation.latency_ms.items()} if operation is not None else {}
    better, worse = (_with(of_latency, metrics, direction) for direction in ("better", "worse"))
    if not better or not worse:
        return None
    return Conflict(better=better, worse=worse, text=f"{', '.join(better)} better, {', '.join(worse)} worse")


def _with(latency: Mapping[str, Direction], metrics: Mapping[str, Direction], wanted: str) -> list[str]:
    return [f"latency {name}" for name in _named(latency, wanted)] + list(_named(metrics, wanted))


def _named(changes: Mapping[str, Direction], wanted: str) -> Sequence[str]:
    return [name for name, change in sorted(changes.items()) if change == wanted]
