"""NannyML's Jensen–Shannon alert, thresholds from the reference's chunks of the windows' length: a flag per column and window.

`python peer_nannyml.py CASE.npz` runs with NannyML's interpreter, not ours; see peers.py.
"""

import json
import sys
import warnings

import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")
import nannyml  # noqa: E402
from peer_case import columns  # noqa: E402


def frame(column, rows):
    """Each window is a day: chunks are what lies in one."""
    values = column if column.dtype.kind == "f" else [None if code == -1 else f"v{code}" for code in column.tolist()]
    day = np.repeat(np.arange(len(rows)), rows)
    x = pd.Series(values[: len(day)], dtype=None if column.dtype.kind == "f" else object)
    return pd.DataFrame({"x": x, "at": pd.Timestamp("2000-01-01") + pd.to_timedelta(day, unit="D")})


def flags(column):
    is_number = column.reference.dtype.kind == "f"
    method = {"continuous_methods": ["jensen_shannon"], "categorical_methods": ["jensen_shannon"]}
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=["x"],
        treat_as_categorical=[] if is_number else ["x"],
        timestamp_column_name="at",
        chunk_period="D",
        **method,
    )
    calculator.fit(frame(column.reference, column.reference_rows))
    made = calculator.calculate(frame(np.concatenate(column.windows), [len(rows) for rows in column.windows]))
    return [bool(flag) for flag in made.filter(period="analysis").to_df()["x", "jensen_shannon", "alert"]]


print(json.dumps([flags(column) for column in columns(sys.argv[1])]))
