"""How long labels take: cells of milliseconds that depend on nothing, sixteen to each doubling."""

from __future__ import annotations

import numpy as np

from monitor.columns import Int

_STEPS = 16
_OCTAVES = 34
N_LAG_CELLS = 1 + _OCTAVES * _STEPS
"""The first holds labels that were known no later than the prediction, the last what takes more than about 190 days."""


CURVE_MS = (60_000, 600_000, 3_600_000, 21_600_000, 86_400_000, 259_200_000, 604_800_000, 2_592_000_000)
"""After which a curve says how many had come: 1 and 10 minutes, 1 and 6 hours, 1, 3, 7 and 30 days."""


def lag_cells(lag_ms: Int) -> Int:
    """Return the cell of each lag; (n,) int64. An octave is cut into equal parts: a cell is at most 1/16 as wide as its lags are long.

    >>> lag_cells(np.array([-5, 0, 1, 2, 3, 1 << 50])).tolist()
    [0, 0, 1, 17, 25, 544]
    """
    lag = np.clip(lag_ms, 1, (1 << _OCTAVES) - 1)
    fraction, exponent = np.frexp(lag.astype(np.float64))
    cell = 1 + (exponent.astype(np.int64) - 1) * _STEPS + ((fraction - 0.5) * (2 * _STEPS)).astype(np.int64)
    return np.where(np.asarray(lag_ms) > 0, cell, 0)


def lag_quantile_ms(counts: Int, share: float) -> int | None:
    """Return the smallest lag at which this share of the labels had come, milliseconds: the upper end of its cell; None without labels.

    counts: (N_LAG_CELLS,).

    >>> counts = np.bincount(lag_cells(np.array([0, 60_000, 61_000, 3_600_000])), minlength=N_LAG_CELLS)
    >>> lag_quantile_ms(counts, 0.5), lag_quantile_ms(counts, 0.25)
    (61439, 0)
    """
    total = int(counts.sum())
    if total <= 0:
        return None
    cell = int(np.searchsorted(np.cumsum(counts), share * total, side="left"))
    octave, step = divmod(cell - 1, _STEPS)
    return 0 if not cell else ((_STEPS + step + 1) << octave) // _STEPS - (1 if octave >= 4 else 0)


def lag_curve(counts: Int) -> list[float]:
    """Return, for each of `CURVE_MS`, the share of the labels that had come by then, or within the cell that it lies in; rising, (8,).

    counts: (N_LAG_CELLS,), with at least one label.

    >>> counts = np.bincount(lag_cells(np.array([0, 60_000, 61_000, 3_600_000])), minlength=N_LAG_CELLS)
    >>> lag_curve(counts)[:4]
    [0.75, 0.75, 1.0, 1.0]
    """
    upto = np.cumsum(counts)[lag_cells(np.array(CURVE_MS))]
    return [int(n) / int(counts.sum()) for n in upto]
