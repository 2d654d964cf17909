from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

SKIPPED: Final[int]
NUMBER: Final[int]
TOKEN: Final[int]
INTEGER: Final[int]
TEXT: Final[int]
RAW: Final[int]
FEATURES: Final[int]

ODD: Final[int]
MORE: Final[int]
NOT_ASCII: Final[int]

Field = tuple[str, int, int]

class Parser:
    tokens: list[list[bytes]]

    def __init__(self, event: Sequence[Field], features: Sequence[Field]) -> None: ...
    def parse(
        self,
        values: list[bytes | None],
        max_bytes: int,
        numbers: npt.NDArray[np.float64],
        codes: npt.NDArray[np.int32],
        integers: npt.NDArray[np.int64],
        outcomes: npt.NDArray[np.uint8],
    ) -> list[list[bytes | None]]: ...
    def forget(self, column: int) -> None: ...
