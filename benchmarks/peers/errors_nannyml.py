"""NannyML's own car prices, and its estimates of the errors of regressions; runs with NannyML's interpreter.

`errors_nannyml.py cars FOLDER` writes `reference.csv` and `analysis.csv`; `errors_nannyml.py estimates FOLDER CHUNK FEATURE…` prints what
DLE says of each chunk of such a folder, as JSON: `[[mae, rmse], …]`.
"""

import json
import sys
import warnings
from pathlib import Path

import pandas as pd

warnings.filterwarnings("ignore")
pd.options.future.infer_string = False  # NannyML 0.13 knows texts as objects only
import nannyml  # noqa: E402

FEATURES = ["car_age", "km_driven", "price_new", "accident_count", "door_count", "fuel", "transmission"]


def cars(folder):
    reference, analysis, targets = nannyml.load_synthetic_car_price_dataset()
    analysis = analysis.merge(targets, on="id") if "id" in targets else analysis.join(targets)
    for name, part in (("reference", reference), ("analysis", analysis)):
        part[[*FEATURES, "y_pred", "y_true"]].to_csv(folder / f"{name}.csv", index=False)


def estimates(folder, size, features):
    reference, analysis = (pd.read_csv(folder / f"{name}.csv") for name in ("reference", "analysis"))
    estimator = nannyml.DLE(
        feature_column_names=features, y_pred="y_pred", y_true="y_true", metrics=["mae", "rmse"], chunk_number=1
    )
    estimator.fit(reference)
    found = []
    for start in range(0, len(analysis), size):
        chunk = analysis.iloc[start : start + size].reset_index(drop=True).drop(columns="y_true")
        made = estimator.estimate(chunk).filter(period="analysis").to_df()
        found.append([float(made[(metric, "value")].iloc[0]) for metric in ("mae", "rmse")])
    print(json.dumps(found))


if sys.argv[1] == "cars":
    cars(Path(sys.argv[2]))
else:
    estimates(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
