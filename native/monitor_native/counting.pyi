from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

class Grid:
    def __init__(
        self,
        edges: Sequence[npt.NDArray[np.float64]],
        cells: Sequence[int],
        fractional: Sequence[int],
        centres: Sequence[float],
        scales: Sequence[float],
        n_specials: int,
        n_cells: int,
    ) -> None: ...

class Slots:
    def __len__(self) -> int: ...
    def put(self, slot: int, grid: Grid, counts: npt.NDArray[Any], delays: npt.NDArray[np.int64]) -> None: ...

def count(
    slots: Slots,
    slot_of: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.float64],
    specials: npt.NDArray[np.uint8] | None,
    cells: npt.NDArray[np.int32],
    sums: npt.NDArray[np.int64],
    extremes: npt.NDArray[np.float64],
) -> Sequence[tuple[int, int]]: ...
def count_times(
    slots: Slots,
    slot_of: npt.NDArray[np.int64],
    marks: npt.NDArray[np.int64],
    before: npt.NDArray[np.int64],
    inspected: npt.NDArray[np.uint8],
    latest_ms: int,
    timed: npt.NDArray[np.int64],
) -> None: ...
def varints(counts: npt.NDArray[np.unsignedinteger]) -> bytes: ...
def read_varints(data: bytes, found: npt.NDArray[np.uint64]) -> bool: ...
