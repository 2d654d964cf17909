"""What peers.py wrote for another tool's script: columns of a reference, and of windows that are as long as each other or not."""

from typing import NamedTuple

import numpy as np


class Column(NamedTuple):
    """A column of the reference, and of the windows."""

    reference: np.ndarray
    windows: list
    """of each its rows"""
    reference_rows: list
    """of each of the reference's windows how many"""


def columns(path):
    case = np.load(path)
    for i in range(sum(name.startswith("ref_") for name in case.files)):
        reference, rows = case[f"ref_{i}"], case[f"win_{i}"]
        if rows.ndim == 2:
            yield Column(reference, list(rows), [rows.shape[1]] * (len(reference) // rows.shape[1]))
        else:
            ends = np.cumsum(case["window_rows"])[:-1]
            yield Column(reference, np.split(rows, ends), case["reference_rows"].tolist())
