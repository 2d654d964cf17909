"""Evidently's default test of each column, by its own code: `python peer_evidently.py CASE.npz` prints a flag per column and window.

Runs with Evidently's interpreter, not ours; see peers.py.
"""

import json
import sys
import warnings

import pandas as pd
from evidently.legacy.calculations.stattests import get_stattest
from evidently.legacy.core import ColumnType
from peer_case import columns

warnings.filterwarnings("ignore")


def series(column):
    if column.dtype.kind == "f":
        return pd.Series(column)
    return pd.Series([None if code == -1 else f"v{code}" for code in column.tolist()], dtype=object)


def flags(reference, windows):
    kind = ColumnType.Numerical if reference.dtype.kind == "f" else ColumnType.Categorical
    ref = series(reference).dropna()
    found = []
    for window in windows:
        cur = series(window).dropna()
        found.append(bool(get_stattest(ref, cur, kind, None)(ref, cur, kind, None).drifted))
    return found


print(json.dumps([flags(column.reference, column.windows) for column in columns(sys.argv[1])]))
