"""NannyML's univariate drift of a window, fitted before: `close_nannyml.py CASE.npz`; runs with NannyML's interpreter.

Prints CPU ms of each repeat.
"""

import json
import sys
import time
import warnings

import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")
import nannyml  # noqa: E402

REPEATS = 4


def frame(case, kind):
    return pd.DataFrame({name.removeprefix(kind): case[name] for name in case.files if name.startswith(kind)})


case = np.load(sys.argv[1])
reference, window = frame(case, "ref_"), frame(case, "win_")
calculator = nannyml.UnivariateDriftCalculator(column_names=list(reference.columns), chunk_size=len(window))
calculator.fit(reference)
spent = []
for _ in range(REPEATS):
    start = time.process_time()
    calculator.calculate(window).filter(period="analysis").to_df()
    spent.append(1e3 * (time.process_time() - start))
print(json.dumps(spent))
