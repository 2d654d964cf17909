"""Evidently's drift report of a window: `close_evidently.py CASE.npz`; runs with Evidently's interpreter. Prints CPU ms of each repeat."""

import json
import sys
import time
import warnings

import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")
from evidently import Dataset, Report  # noqa: E402
from evidently.presets import DataDriftPreset  # noqa: E402

REPEATS = 4


def frame(case, kind):
    return pd.DataFrame({name.removeprefix(kind): case[name] for name in case.files if name.startswith(kind)})


case = np.load(sys.argv[1])
reference, window = Dataset.from_pandas(frame(case, "ref_")), frame(case, "win_")
spent = []
for _ in range(REPEATS):
    start = time.process_time()
    Report([DataDriftPreset()]).run(Dataset.from_pandas(window), reference).dict()
    spent.append(1e3 * (time.process_time() - start))
print(json.dumps(spent))
