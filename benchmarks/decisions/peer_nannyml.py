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


def frame(column):
    if column.dtype.kind == "f":
        return pd.DataFrame({"x": column})
    return pd.DataFrame({"x": pd.Series([None if code == -1 else f"v{code}" for code in column.tolist()], dtype=object)})


def flags(reference, windows):
    n, is_number = windows.shape[1], reference.dtype.kind == "f"
    method = {"continuous_methods": ["jensen_shannon"], "categorical_methods": ["jensen_shannon"]}
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=["x"], treat_as_categorical=[] if is_number else ["x"], chunk_size=n, **method
    )
    calculator.fit(frame(reference))
    result = calculator.calculate(frame(windows.reshape(-1))).filter(period="analysis").to_df()
    return [bool(flag) for flag in result["x", "jensen_shannon", "alert"]]


case = np.load(sys.argv[1])
print(json.dumps([flags(case[f"ref_{i}"], case[f"win_{i}"]) for i in range(len(case.files) // 2)]))
